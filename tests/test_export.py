"""An exported network gives our keypoints, without our package."""

import functools
import json
import subprocess
import sys
from pathlib import Path

import commands
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export as jax_export

from ap10k_jax import export, inference, keypoints, models, visualize
from ap10k_jax.data.animals import Animals, decode_example
from ap10k_jax.predict import Predictor

RUNNER = Path(__file__).parents[1] / "examples" / "run_onnx.py"


@pytest.fixture(scope="module")
def photographs(synthetic_dir):
    """Pixels and boxes of 20 animals."""
    animals = Animals.open("ap10k/split1", "train", data_dir=synthetic_dir)
    examples = [decode_example(animals[i]) for i in range(20)]
    return [e["image"] for e in examples], [e["box"] for e in examples]


@pytest.fixture(scope="module")
def crops(predictor, photographs):
    return np.stack([predictor.crops(*one)[0]["image"] for one in zip(*photographs, strict=True)])


@pytest.fixture(scope="module")
def expected(predictor, crops):
    """The Predictor's keypoints of the crops, in their pixels."""
    step = functools.partial(predictor._step, predictor.variables)
    return np.concatenate([step(part) for part in np.split(crops, [8, 16])])


@pytest.fixture(scope="module")
def onnx_files(checkpoint_dir, tmp_path_factory):
    pytest.importorskip("jax2onnx", reason="the extra export")
    pytest.importorskip("onnxruntime", reason="the extra export")
    dest = tmp_path_factory.mktemp("onnx") / "fox.v1"  # the dot is part of the name
    assert commands.status(export.main, [str(checkpoint_dir), str(dest), "--format=onnx"]) == 0
    return dest.with_name("fox.v1.onnx"), dest.with_name("fox.v1.json")


def assert_same(found, expected):
    assert expected[..., 0].std() > 5  # there is something to compare
    assert len(found) == 20
    np.testing.assert_allclose(found, expected, atol=export.TOLERANCE)


def test_stablehlo_gives_the_predictors_keypoints_for_any_batch(
    checkpoint_dir, crops, expected, tmp_path
):
    assert (
        commands.status(
            export.main, [str(checkpoint_dir), str(tmp_path / "fox"), "--format=stablehlo"]
        )
        == 0
    )
    # nothing but JAX from here
    program = jax_export.deserialize(bytearray((tmp_path / "fox.stablehlo").read_bytes()))
    assert program.platforms == ("cpu", "cuda", "tpu")
    assert_same(program.call(crops), expected)
    assert_same(
        np.concatenate([program.call(c) for c in (crops[:1], crops[1:4], crops[4:])]), expected
    )
    about = json.loads((tmp_path / "fox.json").read_text())
    assert tuple(about["keypoints"]) == keypoints.AP10K.names
    assert (about["input"]["size"], about["mirror_test"]) == (64, True)
    assert about["checked"]["largest_difference"] <= export.TOLERANCE


def test_onnx_gives_the_predictors_keypoints(onnx_files, crops, expected):
    import onnxruntime

    session = onnxruntime.InferenceSession(onnx_files[0])
    assert session.get_inputs()[0].type == "tensor(uint8)"
    assert session.get_inputs()[0].shape == [1, 64, 64, 3]
    assert session.get_outputs()[0].shape == [1, 17, 3]
    found = [session.run(["keypoints"], {"crops": crop[None]})[0][0] for crop in crops]
    assert_same(found, expected)
    inside = json.loads(session.get_modelmeta().custom_metadata_map["ap10k_jax"])
    beside = json.loads(onnx_files[1].read_text())
    assert inside["keypoints"] == beside["keypoints"] == list(keypoints.AP10K.names)
    assert inside["input"] == beside["input"]


def test_without_the_mirror_and_in_batches(checkpoint_dir, crops, tmp_path):
    pytest.importorskip("jax2onnx", reason="the extra export")
    pytest.importorskip("onnxruntime", reason="the extra export")
    options = ["--batch=4", "--no-mirror"]
    assert commands.status(export.main, [str(checkpoint_dir), str(tmp_path / "fox"), *options]) == 0
    plain = Predictor.load(checkpoint_dir, flip_test=False, batch_sizes=(20,))
    content = (tmp_path / "fox.onnx").read_bytes()
    found = export.run_onnx(content, crops)
    assert_same(found, plain._step(plain.variables, crops))
    assert json.loads((tmp_path / "fox.json").read_text())["mirror_test"] is False


def test_the_example_runs_without_us_and_finds_what_we_find(
    onnx_files, predictor, photographs, tmp_path
):
    image, box = photographs[0][0], photographs[1][0]
    visualize.save(tmp_path / "photograph.png", image)
    for given in ([], [str(float(v)) for v in box]):
        run = subprocess.run(
            # -I: neither this folder nor PYTHONPATH; -S would take NumPy away too
            [sys.executable, "-I", str(RUNNER), str(onnx_files[0]), "photograph.png", *given],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        found = json.loads(run.stdout)
        (animal,) = predictor(image, box if given else None)
        assert list(found) == list(keypoints.AP10K.names)
        # OpenCV's own warp differs from ours by a rounding of 1/32 pixel
        off = np.abs(np.array(list(found.values())) - animal.keypoints)
        assert np.median(off[:, :2]) < 0.05
        assert np.mean(off[:, :2] < 2) > 0.8
    source = RUNNER.read_text()
    assert "import jax" not in source
    assert "import ap10k_jax" not in source
    assert "from ap10k_jax" not in source


def test_a_file_that_disagrees_is_not_written(checkpoint_dir, tmp_path, monkeypatch, capsys):
    honest = export.run_stablehlo
    off = 2 * export.TOLERANCE
    monkeypatch.setattr(export, "run_stablehlo", lambda *given: honest(*given) + off)
    assert (
        commands.status(
            export.main, [str(checkpoint_dir), str(tmp_path / "fox"), "--format=stablehlo"]
        )
        == 1
    )
    assert "differ from ours" in capsys.readouterr().err
    monkeypatch.setattr(export, "run_stablehlo", lambda *given: honest(*given) * np.nan)
    assert (
        commands.status(
            export.main, [str(checkpoint_dir), str(tmp_path / "fox"), "--format=stablehlo"]
        )
        == 1
    )
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_checkpoint_is_said(tmp_path, capsys):
    assert (
        commands.status(export.main, [str(tmp_path), str(tmp_path / "fox"), "--format=stablehlo"])
        == 1
    )
    assert "is no checkpoint" in capsys.readouterr().err


def test_a_missing_converter_is_named(checkpoint_dir, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    assert commands.status(export.main, [str(checkpoint_dir), str(tmp_path / "fox")]) == 1
    assert "ap10k_jax[export]" in capsys.readouterr().err


def call_of(name, size, **options):
    """A network with random weights, as `export.network` gives it, and what is said of it."""
    module = models.build(name)
    rng = np.random.default_rng(0)

    def redraw(x):
        if x.ndim != 4:
            return x
        return jnp.asarray(rng.normal(0, np.prod(x.shape[:3]) ** -0.5, x.shape), x.dtype)

    variables = models.init(module, jax.random.key(0), image_size=(size, size))
    call = functools.partial(
        inference.predict_crops,
        jax.tree.map(redraw, variables),
        module=module,
        pairs=keypoints.AP10K.pairs,
        **options,
    )
    return call, {"model": name, "mirror_test": options.get("flip_test", True)}


def assert_onnx_agrees(call, about, size):
    pictures = export.sample_crops(size, 4)
    content = export.to_onnx(call, size, 2, about)
    found, ours = export.run_onnx(content, pictures), np.asarray(jax.jit(call)(pictures))
    np.testing.assert_allclose(found[..., :2], ours[..., :2], atol=export.TOLERANCE)
    np.testing.assert_allclose(found[..., 2], ours[..., 2], rtol=1e-3)
    assert ours[..., 0].std() > 5


def test_dark_decoding_goes_through_onnx(nano):
    pytest.importorskip("jax2onnx", reason="the extra export")
    pytest.importorskip("onnxruntime", reason="the extra export")
    assert_onnx_agrees(*call_of(nano, 64, decode="dark"), 64)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "flip_test"),
    [("hrnet_w32", True), ("hourglass52", False), ("simplebaseline_resnet50", False)],
)
def test_the_papers_networks_go_through_onnx(name, flip_test):
    pytest.importorskip("jax2onnx", reason="the extra export")
    pytest.importorskip("onnxruntime", reason="the extra export")
    assert_onnx_agrees(*call_of(name, 128, flip_test=flip_test), 128)
