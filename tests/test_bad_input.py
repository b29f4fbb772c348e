"""One case for every way in which data from elsewhere is known to go wrong.

Annotation files, zips and boxes have cases of their own in test_annotations.py, test_box_files.py
and test_job.py; thousands of random ones are in test_fuzz.py. Here are photographs of every kind,
what claims to be enormous, names that are no text, and the command lines from outside.
"""

import io
import json
import os
import struct
import subprocess
import sys
import zipfile
import zlib

import corruption
import cv2
import numpy as np
import pytest
import safetensors.numpy
import tiny_ap10k
from PIL import Image

from ap10k_jax import augmentation, box_files, checkpoint, images, initial_weights, transforms
from ap10k_jax.convert import torch_names, weight_files
from ap10k_jax.predict import job, predictor, video
from tfds_ap10k import photographs, sources

SCENE = cv2.resize(
    np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8),
    (80, 60),
    interpolation=cv2.INTER_CUBIC,
)


def stored(image: Image.Image, format: str = "JPEG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def png_claiming(width: int, height: int, rows: int = 0) -> bytes:
    """A small PNG that says it is this large, and holds so many black rows of it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        sum_ = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + sum_

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = corruption.deflated(rows * (3 * width + 1)) if rows else b""
    parts = [chunk(b"IHDR", head), chunk(b"IDAT", data), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def jpeg_claiming(width: int, height: int) -> bytes:
    """A small JPEG whose frame header says it is this large."""
    data = bytearray(tiny_ap10k.jpeg(1))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


GREY = np.repeat(SCENE[..., :1], 3, axis=2)
KINDS = {
    # the file, the pixels that it should give, by how many grey levels they may differ (mean)
    "progressive": (stored(Image.fromarray(SCENE), progressive=True, quality=95), SCENE, 3),
    "greyscale": (stored(Image.fromarray(SCENE[..., 0]), quality=95), GREY, 3),
    "CMYK": (stored(Image.fromarray(SCENE).convert("CMYK"), quality=95), SCENE, 5),
    "16-bit PNG": (
        cv2.imencode(".png", SCENE[..., ::-1].astype(np.uint16) * 257)[1].tobytes(),
        SCENE,
        0,
    ),
    "16-bit grey PNG": (
        cv2.imencode(".png", SCENE[..., 0].astype(np.uint16) * 257)[1].tobytes(),
        GREY,
        0,
    ),
    "PNG with a palette": (stored(Image.fromarray(SCENE).quantize(64), "PNG"), SCENE, 20),
    "PNG with transparency": (stored(Image.fromarray(SCENE).convert("RGBA"), "PNG"), SCENE, 0),
    "WebP": (stored(Image.fromarray(SCENE), "WEBP", lossless=True), SCENE, 0),
    "BMP": (stored(Image.fromarray(SCENE), "BMP"), SCENE, 0),
}


@pytest.mark.parametrize("kind", KINDS)
def test_photographs_of_every_kind_give_their_pixels(tmp_path, kind):
    data, pixels, tolerance = KINDS[kind]
    (tmp_path / "fox.jpg").write_bytes(data)
    found = photographs.find(tmp_path, "fox.jpg")
    assert (found.width, found.height) == (80, 60)
    assert found.is_jpeg == (data[:2] == b"\xff\xd8")
    read = predictor.rgb(tmp_path / "fox.jpg")
    assert read.shape == pixels.shape
    assert np.abs(read.astype(int) - pixels).mean() <= tolerance


def test_exif_rotation_is_ignored_by_builder_and_prediction_alike(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees to show"
    plain, turned = (stored(Image.fromarray(SCENE), exif=e) for e in (Image.Exif(), exif))
    (tmp_path / "fox.jpg").write_bytes(turned)
    assert photographs.find(tmp_path, "fox.jpg")[:2] == (80, 60)
    np.testing.assert_array_equal(images.decode(turned), images.decode(plain))


TRUNCATED = {kind: data[: len(data) * 2 // 3] for kind, (data, *_) in KINDS.items()}


@pytest.mark.parametrize("kind", [*KINDS, "0 bytes"])
def test_a_photograph_cut_short_is_refused_by_the_builder(tmp_path, kind):
    (tmp_path / "fox.jpg").write_bytes(TRUNCATED.get(kind, b""))
    with pytest.raises(ValueError, match=r"cut short|cannot be decoded|not a readable|empty"):
        photographs.find(tmp_path, "fox.jpg")


ENORMOUS = {
    "a JPEG of 40,000 pixels": stored(Image.new("RGB", (40_000, 10))),
    "a PNG of 40,000 pixels": stored(Image.new("RGB", (40_000, 10)), "PNG"),
    "a JPEG that claims 65,500 x 65,500": jpeg_claiming(65_500, 65_500),
    "a PNG that claims 30,000 x 30,000": png_claiming(30_000, 30_000),
    "a PNG that claims 2^31 pixels a side": png_claiming(2**31 - 1, 2**31 - 1),
    "a JPEG of no height": jpeg_claiming(40, 0),
}


@pytest.mark.parametrize("kind", ENORMOUS)
def test_enormous_photographs_are_refused_by_their_header(tmp_path, kind, monkeypatch):
    def decode(*_):
        raise AssertionError("decoded")

    path = tmp_path / "fox.jpg"
    path.write_bytes(ENORMOUS[kind])
    monkeypatch.setattr(images.cv2, "imdecode", decode)
    monkeypatch.setattr(images.simplejpeg, "decode_jpeg", decode)
    for read in (lambda: photographs.find(tmp_path, "fox.jpg"), lambda: predictor.rgb(path)):
        with pytest.raises(ValueError, match=r"pixels|not a readable") as error:
            read()
        assert len(str(error.value).splitlines()) == 1


def test_the_largest_photograph_is_cropped_where_it_ends():
    width = images.MAX_SIDE
    pixels = np.zeros((10, width, 3), np.uint8)
    pixels[:, -40:] = 200
    data = cv2.imencode(".png", pixels)[1].tobytes()
    read = images.decode(data)
    sample = augmentation.sample(
        {"image": read, "box": [width - 50, 0, 50, 10], "keypoints": np.ones((17, 3))}
    )
    assert sample["image"].max() == 200
    with pytest.raises(ValueError, match="32,766"):
        images.decode(cv2.imencode(".png", np.zeros((1, width + 1, 3)))[1].tobytes())


def test_a_file_that_never_ends_is_not_read_to_its_end(tmp_path):
    if not os.path.exists("/dev/zero"):
        pytest.skip("no /dev/zero on this system")
    with pytest.raises(ValueError, match="not a file"):
        predictor.rgb("/dev/zero")
    path = tmp_path / "fox.jpg"
    with path.open("wb") as file:
        file.truncate(images.MAX_BYTES + 1)  # a sparse file
    with pytest.raises(ValueError, match="100 MiB"):
        predictor.rgb(path)


# Memory: in a process of its own, whose peak is compared with that of one that reads nothing.

PEAK = """
import resource, sys
{imports}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    {call}
except (ValueError, OSError) as error:
    text = str(error)
    print(text if len(text.splitlines()) < 3 else repr(text))
print("grew by", (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


def growth(imports: str, call: str) -> tuple[str, int]:
    """What the call says, and by how many MiB it made the process grow."""
    code = PEAK.format(imports=imports, call=call)
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    text, _, grown = done.stdout.rpartition("grew by")
    return text, int(grown)


@pytest.mark.slow
def test_a_zip_that_unpacks_to_a_gigabyte_is_not_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "ap-10k.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("annotations/ap10k-val-split1.json", json.dumps(tiny_ap10k.contents()))
        with archive.open("data/000000000005.jpg", "w") as file:
            for _ in range(300):
                file.write(bytes(1 << 20))
    assert (tmp_path / "ap-10k.zip").stat().st_size < 1 << 20
    text, grown = growth(
        "from tfds_ap10k import photographs, sources",
        f"photographs.find(sources.find({str(tmp_path)!r}) / 'data', '000000000005.jpg')",
    )
    assert "larger than 100 MiB" in text
    assert grown < 300


@pytest.mark.slow
def test_a_zipped_annotation_file_of_endless_lists_is_not_parsed(tmp_path):
    with (
        zipfile.ZipFile(tmp_path / "ap-10k.zip", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("annotations/ap10k-val-split1.json", "w") as file,
    ):
        file.write(b'{"images": [')
        for _ in range(100):
            file.write(b"[]," * (1 << 18))
        file.write(b"[]]}")
    text, grown = growth(
        "from tfds_ap10k import annotations, sources",
        f"root = sources.find({str(tmp_path)!r}); "
        "print(annotations.parse(root / 'annotations/ap10k-val-split1.json')[1][0])",
    )
    assert "lists and objects" in text
    assert grown < 400


def test_entries_of_a_zip_that_climb_out_are_not_there(tmp_path):
    (tmp_path / "secret.jpg").write_bytes(tiny_ap10k.jpeg(5))
    files = tiny_ap10k.contents()
    (tmp_path / "in").mkdir()
    with zipfile.ZipFile(tmp_path / "in/ap-10k.zip", "w") as archive:
        for part, content in files.items():
            archive.writestr(f"annotations/ap10k-{part}-split1.json", json.dumps(content))
        for name in ("../../secret.jpg", "/secret.jpg", "data/../../secret.jpg"):
            archive.writestr(name, tiny_ap10k.jpeg(5))
    root = sources.find(tmp_path / "in")
    before = sorted(tmp_path.rglob("*"))
    for name in ("../secret.jpg", str(tmp_path / "secret.jpg")):
        with pytest.raises(ValueError, match="missing"):
            photographs.find(root / "data", name)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_a_safetensors_header_that_claims_ten_terabytes(tmp_path):
    header = {"a": {"dtype": "F32", "shape": [2_500_000_000_000], "data_offsets": [0, 10**13]}}
    text = json.dumps(header).encode()
    path = tmp_path / "net.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(64))
    said, grown = growth(
        "from ap10k_jax.convert import weight_files", f"weight_files.read({str(path)!r})"
    )
    assert "net.safetensors is truncated" in said
    assert grown < 100
    path.write_bytes((10**13).to_bytes(8, "little") + text)
    with pytest.raises(ValueError, match=r"net\.safetensors"):
        weight_files.read(path)


@pytest.mark.slow
def test_a_compressed_pytorch_file_is_not_unpacked(tmp_path):
    torch = pytest.importorskip("torch")
    plain, path = tmp_path / "plain.pth", tmp_path / "net.pth"
    torch.save({"a": torch.zeros(1 << 28)}, plain)  # a gigabyte
    with (
        zipfile.ZipFile(plain) as there,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for entry in there.infolist():
            with there.open(entry) as source, archive.open(entry.filename, "w") as dest:
                while piece := source.read(1 << 24):
                    dest.write(piece)
    plain.unlink()
    assert path.stat().st_size < 4 << 20
    said, grown = growth(
        "import torch\nfrom ap10k_jax.convert import weight_files",
        f"weight_files.read({str(path)!r})",
    )
    assert "net.pth is no PyTorch file: it would unpack to" in said
    assert grown < 200


@pytest.mark.slow
@pytest.mark.parametrize("old", [False, True])
def test_tensors_that_repeat_a_number_without_end_are_refused(tmp_path, old):
    torch = pytest.importorskip("torch")
    path = tmp_path / "net.pth"
    endless = torch.zeros(1, dtype=torch.float16).expand(10**13)
    many = {f"t{i}": torch.zeros(1000, dtype=torch.float16) for i in range(3)}
    torch.save({"a": endless}, path, _use_new_zipfile_serialization=not old)
    said, grown = growth(
        "import torch\nfrom ap10k_jax.convert import weight_files",
        f"weight_files.read({str(path)!r})",
    )
    assert "net.pth is damaged: its tensors claim 20,000,000,000,000 bytes" in said
    assert grown < 200
    torch.save(many, path, _use_new_zipfile_serialization=not old)
    assert set(weight_files.read(path)) == set(many)


@pytest.mark.parametrize("kind", ["sparse", "meta", "complex", "quantized", "a number for a name"])
def test_tensors_of_other_kinds_are_refused(tmp_path, kind):
    torch = pytest.importorskip("torch")
    tensor = {
        "sparse": lambda: torch.eye(3).to_sparse(),
        "meta": lambda: torch.empty(10**9, device="meta"),
        "complex": lambda: torch.zeros(3, dtype=torch.complex64),
        "quantized": lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        "a number for a name": lambda: torch.zeros(3),
    }[kind]()
    path = tmp_path / "net.pth"
    torch.save({7 if "name" in kind else "a": tensor}, path)
    with pytest.raises(ValueError, match=r"net\.pth"):
        weight_files.read(path)


def test_parameters_that_would_be_trained_are_read_as_they_are(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.nn.Parameter(torch.ones(3))}, tmp_path / "net.pth")
    np.testing.assert_array_equal(
        weight_files.read(tmp_path / "net.pth")["a"], np.ones(3, np.float32)
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_weights_that_are_no_weights_are_refused_by_name(nano, tmp_path, value):
    import lively

    state = torch_names.to_torch(lively.variables(), nano)
    state["backbone.bn1.running_var"][0] = value
    safetensors.numpy.save_file(state, tmp_path / "net.safetensors")
    with pytest.raises(
        ValueError, match=r"(not finite|negative variance): backbone\.bn1\.running_"
    ):
        initial_weights.load(tmp_path / "net.safetensors", nano)


CONFIGS = {
    # what config.json says, and what is said of it
    "a crop of 64 terabytes": ({"data": {"image_size": 1 << 22}}, "data.image_size"),
    "10^12 keypoints": ({"model": {"num_keypoints": 10**12}}, "model.num_keypoints"),
    "a text for a number": ({"data": {"image_size": "64"}}, "data.image_size"),
    "no model": ({"model": None}, "model.name is missing"),
    "another model": ({"model": {"name": "hrnet_tiny"}}, "does not fit"),
    "a model of larger images": ({"model": {"name": "hourglass52"}}, "multiples of 128"),
    "a model of nobody's": ({"model": {"name": "../x"}}, "model.name"),
    "numbers of another kind": ({"model": {"dtype": "object"}}, "model.dtype"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_the_config_of_a_checkpoint_is_not_trusted(checkpoint_dir, tmp_path, case):
    change, said = CONFIGS[case]
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "variables").symlink_to(checkpoint_dir / "variables")
    for name in ("_CHECKPOINT_METADATA",):
        if (checkpoint_dir / name).exists():
            (broken / name).symlink_to(checkpoint_dir / name)
    config = json.loads((checkpoint_dir / "config.json").read_text())
    for section, fields in change.items():
        config[section] = fields if fields is None else config[section] | fields
    (broken / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"config\.json|does not fit") as error:
        checkpoint.load(broken)
    assert said in str(error.value)


# Names.


def test_names_that_are_no_text_are_a_listed_problem(predictor, tmp_path):
    name = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    try:
        with open(name, "wb") as file:
            file.write(tiny_ap10k.jpeg(1))
    except OSError:
        pytest.skip("this system has UTF-8 names only")
    (tmp_path / "fox.jpg").write_bytes(tiny_ap10k.jpeg(2))
    with job.Results(tmp_path / "results.jsonl", {}) as results:
        job.run(predictor, job.find([str(tmp_path)]), results)
    (problem,) = results.problems()
    assert "caf\\udce9.jpg: the name is not UTF-8" in problem
    assert len([record for record in results.records if "animals" in record]) == 1


# Boxes.


BOXES = {
    "NaN": [float("nan"), 1, 20, 20],
    "infinite": [1, 1, float("inf"), 20],
    "huge": [1, 1, 1e308, 20],
    "without end": [1, 1, 10**400, 20],
    "a text": ["1", 1, 20, 20],
    "three numbers": [1, 1, 20],
    "true": [1, True, 20, 20],
}


@pytest.mark.parametrize("case", BOXES)
def test_boxes_that_are_no_numbers_refuse_the_file(tmp_path, case):
    path = tmp_path / "boxes.json"
    rows = [{"image_id": "a.jpg", "category_id": 1, "bbox": BOXES[case], "score": 0.9}]
    path.write_text(json.dumps(rows))
    with pytest.raises(box_files.BoxFileError, match=r"boxes\.json.*a box is four numbers"):
        box_files.read(path)


@pytest.mark.parametrize("score", ["0.9", float("nan"), [1]])
def test_scores_that_are_no_numbers_refuse_the_file(tmp_path, score):
    path = tmp_path / "boxes.json"
    rows = [{"image_id": "a.jpg", "category_id": 1, "bbox": [1, 1, 9, 9], "score": score}]
    path.write_text(json.dumps(rows))
    with pytest.raises(box_files.BoxFileError, match=r"boxes\.json.*a score is a number"):
        box_files.read(path)


def test_a_box_for_a_million_frames_takes_no_more_memory_than_one(tmp_path):
    detection = {"category": "1", "conf": 0.9, "bbox": [0.1] * 4, "frame_number": 0}
    film = {"file": "a.mp4", "frames_processed": [0, 10**7], "detections": [detection]}
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps({"detection_categories": {"1": "animal"}, "images": [film]}))
    found = box_files.read(path).boxes("a.mp4")
    assert len(found) == 1
    assert [len(box_files.in_frame(found, i)) for i in (0, 9_999_999, 10**7)] == [1, 1, 0]
    film["frames_processed"] = [0, 10**12]
    path.write_text(json.dumps({"detection_categories": {"1": "animal"}, "images": [film]}))
    with pytest.raises(box_files.BoxFileError, match="a frame is a number"):
        box_files.read(path)


@pytest.mark.parametrize("box", [[0, 0, 1e-50, 1e-50], [0, 0, 1e-4, 30], [-9, -9, 9, 9]])
def test_a_box_of_hardly_anything_has_no_crop(box):
    with pytest.raises(ValueError, match="no area"):
        transforms.box_to_center_scale(box, (60, 40))


def test_a_video_that_declares_frames_without_end_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "film.mp4"
    with video.Writer(path, rate=10, size=(64, 48)) as writer:
        writer.write(np.zeros((48, 64, 3), np.uint8))
    assert video.info(path).frames == 1
    monkeypatch.setattr(video, "MOST_FRAMES", 0)
    with pytest.raises(ValueError, match=r"film\.mp4.*1 frames"):
        video.info(path)
    monkeypatch.undo()
    monkeypatch.setattr(images, "MAX_PIXELS", 1000)
    with pytest.raises(ValueError, match=r"film\.mp4.*64x48"):
        next(video.read(path))


# The command lines, as somebody outside sees them.


def environment(folder) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


COMMANDS = {
    # arguments, with {} for a folder of broken files, the exit status, and what is said
    "build": (
        ["tfds_ap10k.build", "--manual-dir={}", "--data-dir={}/built"],
        1,
        "ap10k-train-split1.json: not valid JSON",
    ),
    "exchange": (
        ["tfds_ap10k.exchange", "{}/coco.json", "--from-cvat={}/task.xml", "--out={}/new.json"],
        1,
        "task.xml: not XML",
    ),
    "dedup": (
        ["tfds_ap10k.dedup", "{}/annotations", "--out={}", "--apply"],
        1,
        "decisions.csv: not a table",
    ),
    "convert": (
        ["ap10k_jax.convert", "{}/net.safetensors", "{}/out", "--model=hrnet_tiny"],
        1,
        "net.safetensors is truncated",
    ),
    "predict": (["ap10k_jax.predict", "{}/run", "{}/fox.jpg"], 1, "config.json is damaged"),
    "boxes": (
        ["ap10k_jax.predict", "{}/run", "{}/fox.jpg", "--boxes={}/boxes.json"],
        1,
        "boxes.json: neither JSON nor CSV",
    ),
    "main": (
        ["ap10k_jax.main", "--config=configs/quickstart.py", "--workdir={}/run"],
        1,
        "config.json is damaged",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_no_traceback_reaches_the_user(tmp_path, command):
    arguments, status, said = COMMANDS[command]
    (tmp_path / "annotations").mkdir()
    (tmp_path / "run/variables").mkdir(parents=True)
    coco = tiny_ap10k.contents()["val"]
    for name, data in {
        "annotations/ap10k-train-split1.json": b"[" * 99_999,
        "annotations/ap10k-val-split1.json": b"{",
        "annotations/ap10k-test-split1.json": b"\xff",
        "coco.json": json.dumps(coco).encode(),
        "task.xml": b"<annotations><image",
        "decisions.csv": b"group,file,decision\n\xff\xfe\n",
        "net.safetensors": b"\xff" * 100,
        "run/config.json": b'{"model": ',
        "boxes.json": b"[" * 99_999,
        "fox.jpg": b"",
    }.items():
        (tmp_path / name).write_bytes(data)
    arguments = [argument.replace("{}", str(tmp_path)) for argument in arguments]
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        capture_output=True,
        text=True,
        env=environment(tmp_path),
        timeout=300,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert said in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) < 30
