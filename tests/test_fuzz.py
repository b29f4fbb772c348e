"""Thousands of broken files, one for each kind of file that is read.

Every case must end in success, in what is listed, or in one of the exceptions that the command line
turns into a message (`MISTAKES` there), with a text that names the file; within seconds, and
without filling the memory. What is let through must be what the file says. The seed is fixed: the
same cases every time. The default suite runs a tenth of them.
"""

import contextlib
import csv
import functools
import io
import json
import math
import resource
import shutil
import signal
import sys
import zipfile

import corruption
import cv2
import hypothesis
import lively
import numpy as np
import pytest
import safetensors.numpy
import tiny_ap10k
from hypothesis import strategies as st
from ml_collections import ConfigDict
from PIL import Image

from ap10k_jax import box_files as box_readers
from ap10k_jax import (
    checkpoint,
    images,
    initial_weights,
    keypoints,
    models,
    run_directory,
    run_log,
    settings,
)
from ap10k_jax.augmentation import Augmentation, sample
from ap10k_jax.configs import base
from ap10k_jax.convert import __main__ as convert_command
from ap10k_jax.convert import torch_names
from ap10k_jax.predict import __main__ as predict_command
from ap10k_jax.predict import job, predictor
from ap10k_jax.runtime import errors
from tfds_ap10k import annotations, dedup, oddities, photographs, sources, taxonomy
from tfds_ap10k.exchange import __main__ as exchange
from tfds_ap10k.exchange import cvat, label_studio

SECONDS = 60  # of a case: what takes longer hangs
GROWTH = 1 << 30  # bytes that the whole of the cases may add to the process
BUILD_MISTAKES = (annotations.AnnotationError, OSError)  # see tfds_ap10k.build.main
DECLARED = {
    "categories": {species.id: (species.name, species.family) for species in taxonomy.SPECIES},
    "keypoint_names": keypoints.AP10K.names,
}


def fuzz(cases: int, *strategies: st.SearchStrategy):
    """Runs a function on so many cases, the same ones every time: `cases` in the slow suite, a
    tenth of them in the default one.
    """

    def decorate(function):
        def run(number: int, *args) -> None:
            @hypothesis.settings(
                max_examples=number,
                derandomize=True,
                deadline=None,  # a case has SECONDS
                database=None,
                phases=(hypothesis.Phase.generate,),
                suppress_health_check=list(hypothesis.HealthCheck),
            )
            @hypothesis.given(st.tuples(*strategies))
            def one(drawn) -> None:
                with in_time():
                    function(*args, *drawn)

            before = peak_memory()
            one()
            assert peak_memory() - before < GROWTH

        function.run, function.cases = run, cases
        TARGETS.append(function)
        return function

    return decorate


TARGETS = []


@contextlib.contextmanager
def in_time():
    def late(*_):
        raise TimeoutError(f"took longer than {SECONDS} s")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)


def peak_memory() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def said(error: Exception, *words: str) -> None:
    """The message is one for people: it names these, lists no more than a screen, and prints."""
    text = str(error)
    assert not isinstance(error, TimeoutError), text
    assert all(word in text for word in words), text
    assert len(text.splitlines()) <= 60, text
    assert len(text) < 20_000


def same(a: object, b: object) -> bool:
    """Equal as JSON has them: 1 is not True, NaN is NaN."""
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


@pytest.fixture(scope="module", autouse=True)
def shapes_once():
    """The shapes of the tiny network's variables are worked out once, and not for every case."""
    shapes, init = models.shapes, models.init

    def init_with_shapes(*args, **options):  # it watches the modules while shapes are worked out
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(models, "shapes", shapes)
            return init(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "shapes", functools.cache(shapes))
        patch.setattr(models, "init", init_with_shapes)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


# Annotation files, as the builder of AP-10K reads them.

VAL = tiny_ap10k.contents()["val"]
VAL["categories"] = [c for c in VAL["categories"] if c["id"] in (8, 24)]
VAL["annotations"].append(tiny_ap10k.animal(51, VAL["images"][0]["id"], 24))


@fuzz(500, corruption.json_bytes_like(VAL))
def annotation_files(folder, data):
    path = folder / "val.json"
    path.write_bytes(data)
    try:
        read, _ = annotations.read({"validation": path}, **DECLARED)
    except BUILD_MISTAKES as error:
        said(error, "val.json")
        return
    content = json.loads(data)
    for table, fields in (
        ("images", annotations.IMAGE_FIELDS),
        ("annotations", annotations.ANNOTATION_FIELDS),
        ("categories", annotations.CATEGORY_FIELDS),
    ):
        kept = [{k: v for k, v in record.items() if k in fields} for record in content[table]]
        assert same(read["validation"][table], kept)
    values = [
        value
        for animal in read["validation"]["annotations"]
        for value in (*animal["bbox"], *animal["keypoints"], animal["area"])
    ]
    assert all(math.isfinite(value) for value in values)
    oddities.describe(oddities.count(read)).encode()


# Photographs: what the builder lets pass must decode, to the very size.


def photograph(kind: str) -> bytes:
    pixels = cv2.imdecode(np.frombuffer(tiny_ap10k.jpeg(3), np.uint8), cv2.IMREAD_COLOR)
    image = Image.fromarray(np.ascontiguousarray(pixels[..., ::-1]))
    options = {"progressive": True} if kind == "progressive" else {}
    if kind == "exif":
        exif = Image.Exif()
        exif[0x0112] = 6
        options["exif"] = exif
    image = image.convert({"cmyk": "CMYK", "grey": "L"}.get(kind, "RGB"))
    file = io.BytesIO()
    format = kind.upper() if kind in ("png", "bmp", "webp", "tiff") else "JPEG"
    image.save(file, format, **options)
    return file.getvalue()


KINDS = ("jpeg", "progressive", "cmyk", "grey", "exif", "png", "bmp", "webp", "tiff")
PHOTOGRAPHS = {kind: photograph(kind) for kind in KINDS}


@fuzz(
    700,
    st.sampled_from(KINDS).flatmap(
        lambda kind: st.one_of(
            corruption.bytes_like(PHOTOGRAPHS[kind]),
            corruption.header_like(PHOTOGRAPHS[kind], 40 if kind in ("png", "bmp") else 700),
        )
    ),
)
def photographs_(folder, data):
    path = folder / "fox.jpg"
    path.write_bytes(data)
    try:
        found = photographs.find(folder, "fox.jpg")
    except ValueError as error:
        said(error)
        found = None
    try:
        pixels = predictor.rgb(path)
    except ValueError as error:
        said(error, "fox.jpg")
        assert found is None, "the builder would have let it pass"
        return
    assert pixels.dtype == np.uint8
    assert pixels.shape[:2] == images.header(data)[:0:-1]
    if found:
        assert pixels.shape[:2] == (found.height, found.width)


# Zips.


@functools.cache
def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for part in tiny_ap10k.SIZES:
            name = f"ap-10k/annotations/ap10k-{part}-split1.json"
            archive.writestr(name, json.dumps(VAL if part == "val" else {}))
        archive.writestr("ap-10k/data/000000000005.jpg", tiny_ap10k.jpeg(5))
    return file.getvalue()


@fuzz(200, st.deferred(lambda: corruption.bytes_like(zipped())))
def zips(folder, data):
    home = folder / "zips"
    home.mkdir(exist_ok=True)
    (home / "ap-10k.zip").write_bytes(data)
    try:
        root = sources.find(home)
        files = {"validation": root / "annotations" / "ap10k-val-split1.json"}
        read, _ = annotations.read(files, folder=root / "data", **DECLARED)
    except BUILD_MISTAKES as error:
        said(error)
        return
    for table in ("images", "annotations", "categories"):
        assert same(read["validation"][table], VAL[table])  # zips carry checksums


# Files of boxes, to the crops.

MEGADETECTOR = {
    "detection_categories": {"1": "animal", "2": "person"},
    "images": [
        {"file": "a/fox.jpg", "detections": [{"category": "1", "conf": 0.9, "bbox": [0.1] * 4}]},
        {
            "file": "film.mp4",
            "frames_processed": [0, 20, 40],
            "detections": [
                {"category": "1", "conf": 0.8, "bbox": [0.1, 0.2, 0.5, 0.5], "frame_number": 20}
            ],
        },
        {"file": "b.jpg", "failure": "Failure image access", "detections": None},
    ],
}
COCO_BOXES = {
    "images": [{"id": 7, "file_name": "a/fox.jpg"}, {"id": 9, "file_name": "y.jpg"}],
    "annotations": [
        {"image_id": 7, "category_id": 16, "bbox": [1, 2, 20, 20], "score": 0.9, "track_id": 3}
    ],
    "categories": [{"id": 16, "name": "cat"}],
}
RESULTS = [{"image_id": "a/fox.jpg", "category_id": 1, "bbox": [1, 2, 20.5, 9], "score": 0.7}]
TABLE = b"file,x,y,width,height,score,frame,track\na/fox.jpg,1,2,20,20,0.9,0,Anna\nb.jpg,,,,,,,\n"
CELLS = ("", "nan", "inf", "1e999", "-5", "9" * 400, "1_0", "\xb2", "a\0b", "x" * 140_000, '"')


@st.composite
def table_like(draw, table: bytes) -> bytes:
    """A CSV file with a cell or bytes that do not belong there."""
    if draw(st.booleans()):
        return draw(corruption.bytes_like(table))
    rows = [line.split(",") for line in table.decode().splitlines()]
    for _ in range(draw(st.integers(1, 3))):
        row = draw(st.sampled_from(rows))
        row[draw(st.integers(0, len(row) - 1))] = draw(st.sampled_from(CELLS))
    return "\n".join(",".join(row) for row in rows).encode()


@fuzz(
    500,
    st.one_of(
        st.sampled_from((MEGADETECTOR, COCO_BOXES, RESULTS)).flatmap(
            lambda content: st.tuples(st.just("b.json"), corruption.json_bytes_like(content))
        ),
        st.tuples(st.just("b.csv"), table_like(TABLE)),
    ),
)
def box_files(folder, predictor, named):
    name, data = named
    path = folder / name
    path.write_bytes(data)
    try:
        found = box_readers.read(path)
        chosen = [found.boxes(file) for file in ("a/fox.jpg", "film.mp4", "b.jpg", "y.jpg")]
    except predict_command.MISTAKES as error:
        said(error, name)
        return
    pixels = np.zeros((40, 60, 3), np.uint8)
    for box in [box for boxes_ in chosen for box in boxes_ or ()]:
        assert np.isfinite(box.pixels(60, 40, 6)).all()
        assert box.score is None or math.isfinite(box.score)
        record, crops = job._piece({"file": "a/fox.jpg"}, pixels, [box], predictor)
        assert len(crops) + len(record.get("problems", ())) == 1
        job._line(record)
        assert all(np.isfinite(crop["scale"]).all() and crop["scale"].min() > 0 for crop in crops)
    for frame in (0, 20, 10**6):
        box_readers.in_frame(chosen[1] or [], frame)


# Configs: command-line overrides.

FIELDS = sorted(settings.flatten(base.get_config().to_dict()))
TEXTS = (
    *("", "0", "-1", "1", "3", "1.5", "nan", "-inf", "1e999", "1e-400", "True", "None", "9" * 400),
    *("9" * 5000, "()", "(1,)", "('a',)", "(0.5, nan)", "{[]: 1}", "[" * 10_000, "1" + "+1" * 9999),
    *("hrnet_w32", "../x", "own/", "own/a b", "a\0b", "\ud800", "split1", "__import__('os')", "64"),
)


@fuzz(400, st.lists(st.tuples(st.sampled_from(FIELDS), st.sampled_from(TEXTS)), max_size=3))
def configs(_, overrides):
    config = base.get_config()
    try:
        for field, text in overrides:
            settings.override(config, field, text)
        settings.check(config, device_count=1)
    except (errors.UserError, OSError) as error:
        named = [field for field, _ in overrides if field in str(error)]
        said(error, named[0] if named else "the name of a field")
        return
    # What is let through can be drawn from, scheduled and stored.
    Augmentation(**config.augment)
    sample(
        {"image": np.zeros((40, 60, 3), np.uint8), "box": np.array([5, 5, 30, 30.0])}
        | {"keypoints": np.ones((17, 3), np.float32), "index": 0},
        np.random.default_rng(config.seed),
        augmentation=Augmentation(**config.augment),
    )
    flat = settings.flatten(config.to_dict())
    numbers = [value for value in flat.values() if isinstance(value, float)]
    assert all(math.isfinite(value) for value in numbers)
    assert isinstance(config, ConfigDict)
    assert settings.differences(json.loads(config.to_json()), config) == []


# Weight files.


@functools.cache
def nano_state() -> dict[str, np.ndarray]:
    return torch_names.to_torch(lively.variables(), "nano")


@functools.cache
def weight_file(suffix: str) -> bytes:
    state = nano_state()
    if suffix == "safetensors":
        return safetensors.numpy.save(state)
    torch = pytest.importorskip("torch")
    file = io.BytesIO()
    tensors = {name: torch.from_numpy(array) for name, array in state.items()}
    torch.save({"state_dict": tensors}, file, _use_new_zipfile_serialization=suffix == "pth")
    return file.getvalue()


@st.composite
def safetensors_like(draw) -> bytes:
    """A file whose JSON header lies, with its length put right."""
    data = weight_file("safetensors")
    length = int.from_bytes(data[:8], "little")
    header = corruption.dumped(draw(corruption.json_like(json.loads(data[8 : 8 + length]))))
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


@fuzz(
    300,
    st.one_of(
        st.tuples(st.just("net.safetensors"), safetensors_like()),
        st.sampled_from(("safetensors", "pth", "old")).flatmap(
            lambda suffix: st.tuples(
                st.just(f"net.{suffix}".replace("old", "pt")),
                st.one_of(
                    st.deferred(lambda: corruption.bytes_like(weight_file(suffix))),
                    st.deferred(lambda: corruption.header_like(weight_file(suffix), 3000)),
                ),
            )
        ),
    ),
)
def weight_files(folder, named):
    name, data = named
    if not name.endswith("safetensors"):
        pytest.importorskip("torch")
    path = folder / name
    path.write_bytes(data)
    try:
        variables, _ = initial_weights.load(path, "nano")
    except convert_command.MISTAKES as error:
        text = str(error).partition("these weights do not fit")  # which lists a hundred names
        said(ValueError(text[0] or text[1]), "these weights" if text[1] else name)
        return
    for array in nano_leaves(variables):
        assert np.isfinite(array).all()


@functools.cache
def nano_originals() -> list[np.ndarray]:
    return nano_leaves(lively.variables())


def nano_leaves(variables) -> list[np.ndarray]:
    return [np.asarray(leaf) for part in variables.values() for leaf in _leaves(part)]


def _leaves(tree):
    for value in tree.values():
        yield from _leaves(value) if isinstance(value, dict) else (value,)


# Checkpoints.


@pytest.fixture(scope="module")
def exported(folder, nano):
    path = lively.export(folder / "exported")
    joints = keypoints.as_category(keypoints.AP10K)
    (path / "keypoints.json").write_text(json.dumps(joints))
    return path


def checkpoint_parts(path) -> list[str]:
    files = [file for file in path.rglob("*") if file.is_file()]
    return sorted(str(file.relative_to(path)) for file in files)


@fuzz(150, st.data())
def checkpoints(folder, exported, data):
    path = folder / "broken"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(exported, path)
    name = data.draw(st.sampled_from(checkpoint_parts(exported)))
    content = (exported / name).read_bytes()
    is_json = content[:1] == b"{"
    kinds = [corruption.bytes_like(content)]
    if is_json:
        kinds.append(corruption.json_bytes_like(json.loads(content)))
    broken = data.draw(st.one_of(*kinds, st.none()))
    (path / name).unlink()
    if broken is not None:
        (path / name).write_bytes(broken)
    try:
        loaded, variables, config = checkpoint.load(path)
        joints = predictor.keypoint_set(config)
        evaluation = config.get("eval", {})
        predictor.Predictor(
            loaded, variables, image_size=config["data"]["image_size"], keypoint_set=joints
        )
    except predict_command.MISTAKES as error:
        said(error)
        return
    assert isinstance(evaluation, dict)
    for array, original in zip(nano_leaves(variables), nano_originals(), strict=True):
        np.testing.assert_array_equal(array, original, err_msg=name)


# What the directory of a run holds.

LINES = b'{"step": 1, "kind": "train", "loss": 0.1}\n{"step": 2, "kind": "train", "loss": null}\n'


@fuzz(100, corruption.json_bytes_like(json.loads(base.get_config().to_json())), st.binary())
def run_directories(folder, data, noise):
    run = folder / "run"
    run.mkdir(exist_ok=True)
    (run / "config.json").write_bytes(data)
    (run / "metrics.jsonl").write_bytes(LINES + noise + LINES)
    config = base.get_config()
    try:
        run_directory.check(run, config)
        assert same(json.loads(data), json.loads(config.to_json())) or "dir" in str(data)
    except (errors.UserError, OSError) as error:
        said(error, str(run))
    try:
        lines = run_log.read(run / "metrics.jsonl")
    except (errors.UserError, OSError) as error:
        said(error, "metrics.jsonl")
    else:
        assert len(lines) >= 4, "lines got lost"


# What people and tools bring back.

REFERENCE = {name: VAL[name] for name in ("images", "annotations", "categories")}
DECISIONS = b"group,file,decision,reason\n1,a/x.jpg,keep,the largest\n1,b/y.jpg,drop,a copy\n"


@fuzz(150, st.deferred(lambda: corruption.json_bytes_like(label_studio.export(REFERENCE))))
def label_studio_files(folder, data):
    brought_back(folder / "tasks.json", data, "label_studio")


@fuzz(150, corruption.json_bytes_like(REFERENCE))
def coco_files(folder, data):
    brought_back(folder / "coco.json", data, "coco")


@fuzz(150, st.deferred(lambda: xml_like(cvat.export(REFERENCE))))
def cvat_files(folder, data):
    brought_back(folder / "task.xml", data, "cvat")


@st.composite
def xml_like(draw, text: str) -> bytes:
    """A file with an attribute, or bytes, that do not belong there."""
    if draw(st.booleans()):
        return draw(corruption.bytes_like(text.encode()))
    parts = text.split('"')
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.sampled_from(range(1, len(parts) - 1, 2)))
        parts[at] = draw(st.sampled_from((*CELLS[:8], "1,2,3", "1e308,1e308", "nan,nan", "box")))
    return '"'.join(parts).encode()


def brought_back(path, data, tool):
    path.write_bytes(data)
    try:
        new = exchange.fetch(path, REFERENCE, tool)
    except exchange.MISTAKES as error:
        said(error, path.name)
        return
    _, problems = annotations.check(new, file="new.json", **DECLARED)
    assert not problems


@fuzz(100, table_like(DECISIONS))
def decision_files(folder, data):
    path = folder / "decisions.csv"
    path.write_bytes(data)
    try:
        decisions = dedup.read(path)
    except (dedup.DecisionError, OSError, sources.DataNotFound) as error:  # as dedup.main
        said(error, "decisions.csv")
        return
    assert all(decision.decision in (dedup.KEEP, dedup.DROP) for decision in decisions)
    rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    assert len(decisions) <= len(rows)


def run(target, request, cases: int) -> None:
    names = target.__code__.co_varnames[: target.__code__.co_argcount]
    fixtures = [name for name in names if name in ("folder", "exported", "predictor")]
    values = [request.getfixturevalue(name) for name in fixtures]
    if names[0] == "_":
        values = [None]
    target.run(cases, *values)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.__name__)
def test_some_broken_files(target, request):
    run(target, request, target.cases // 10)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.__name__)
def test_thousands_of_broken_files(target, request):
    run(target, request, target.cases)


def test_there_are_more_than_two_thousand_cases():
    assert sum(target.cases for target in TARGETS) >= 2000
