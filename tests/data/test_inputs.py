"""The device cuts the crops that OpenCV would cut; the choice of an input is printed and kept."""

import dataclasses
import functools
from types import SimpleNamespace

import cv2
import jax
import numpy as np
import pytest

from ap10k_jax import run, run_data, run_directory, run_log, train
from ap10k_jax.augmentation import Augmentation
from ap10k_jax.data import batches, device_crops, inputs, patches, pixel_file
from ap10k_jax.data.animals import Animals
from ap10k_jax.runtime import errors, sharding

SIZE = 64


@pytest.fixture(scope="module")
def animals(synthetic_dir):
    return Animals.open("ap10k/split1", "train", data_dir=synthetic_dir)


@pytest.fixture(scope="module")
def kept(animals, synthetic_dir):
    augmentation = Augmentation()
    made = patches.Patches(
        animals, synthetic_dir / "patches", image_size=SIZE, augmentation=augmentation
    )
    made.fill(threads=2)
    return made


def cut(kept, batch, shardings):
    held = device_crops.upload(kept.pixels[kept.animals.places], shardings)
    step = jax.jit(
        lambda pixels, index, matrix: device_crops.cut(pixels, index, matrix, size=(SIZE, SIZE)),
        in_shardings=(shardings.replicated, shardings.batch, shardings.batch),
    )
    return np.asarray(step(held, batch["index"], batch["matrix"]))


def cut_on_host(kept, batch):
    """The crops as OpenCV cuts them from the patches."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.stack(
        [
            cv2.warpAffine(kept.pixels[kept.animals.places[i]], matrix, (SIZE, SIZE), flags=flags)
            for i, matrix in zip(batch["index"], batch["matrix"], strict=True)
        ]
    )


def test_the_device_cuts_what_opencv_cuts(kept):
    options = {"batch_size": 16, "epochs": 1, "seed": 0, "image_size": SIZE, "multiple_of": 8}
    for batch in batches.train_batches(kept, **options):
        assert "image" not in batch
        crops = cut(kept, batch, sharding.shardings())
        assert crops.dtype == np.uint8
        apart = np.abs(crops.astype(int) - cut_on_host(kept, batch))
        # OpenCV 4 reads at 1/32 pixels, on a step from black to white 8 of 255
        assert apart.max() <= 8
        assert apart.mean() < 0.2


def test_one_and_eight_devices_cut_alike(kept, one_device):
    options = {"batch_size": 16, "epochs": 1, "seed": 0, "image_size": SIZE}
    batch = next(iter(batches.train_batches(kept, **options)))
    np.testing.assert_array_equal(
        cut(kept, batch, one_device), cut(kept, batch, sharding.shardings())
    )


def test_pixels_are_blended_and_black_beyond_the_patch():
    pixels = np.zeros((2, 4, 4, 3), np.uint8)
    pixels[1] = [10, 20, 30]
    pixels[1, 1, 2] = [110, 120, 130]
    held = pixels.reshape(2, 4, 12)

    pixel = jax.jit(functools.partial(device_crops.cut, size=(1, 1)))

    def one(x, y):
        matrix = np.array([[[1, 0, x], [0, 1, y]]], np.float32)
        return np.asarray(pixel(held, np.array([1]), matrix))[0, 0, 0]

    np.testing.assert_array_equal(one(2, 1), [110, 120, 130])
    np.testing.assert_array_equal(one(1.5, 1), [60, 70, 80])
    np.testing.assert_array_equal(one(2, 1.25), [85, 95, 105])
    np.testing.assert_array_equal(one(-0.5, 0), [5, 10, 15])  # half of it is beyond
    np.testing.assert_array_equal(one(3.5, 3.5), [2, 5, 8])
    for x, y in ((-1, 0), (0, 4), (-1e6, 1), (1e6, 1e6)):
        np.testing.assert_array_equal(one(x, y), [0, 0, 0])


# --- which way


def device(bytes_limit=None):
    stats = {"bytes_limit": bytes_limit}
    platform = "gpu" if bytes_limit else "cpu"
    return SimpleNamespace(platform=platform, memory_stats=lambda: stats)


def stand_in(gigabytes, obstacle=""):
    return SimpleNamespace(
        bytes=int(gigabytes * 1e9), obstacle=lambda **share: obstacle, animals="animals"
    )


@pytest.mark.parametrize(
    ("memory", "size", "obstacle", "chosen", "reason"),
    [
        (32e9, 13, "", "decoded", "13.00 GB of pixels"),
        (16e9, 13, "", "stream", "13.00 GB of pixels are more than half of the memory, 16.0 GB"),
        (32e9, 13, "the disk is full", "stream", "the disk is full"),
    ],
)
def test_auto_keeps_to_the_references_crops(monkeypatch, memory, size, obstacle, chosen, reason):
    monkeypatch.setattr(inputs.memory, "limit", lambda: memory)
    source = inputs.choose("auto", stand_in(size, obstacle), stand_in(4), device(60e9))
    assert source.kind == chosen
    assert reason in source.reason
    assert (source.examples == "animals") == (chosen == "stream")


@pytest.mark.parametrize("asked", ["stream", "decoded", "device"])
def test_what_is_asked_for_is_done(asked):
    decoded, small = stand_in(1e6), stand_in(4)
    for memory in (None, 12e9):
        source = inputs.choose(asked, decoded, small, device(memory))
        assert source.kind == asked
        examples = {"stream": decoded.animals, "decoded": decoded, "device": small}
        assert source.examples is examples[asked]


def test_what_is_asked_for_and_cannot_be_is_refused():
    full = stand_in(4, "the disk is full")
    for asked, others in (("decoded", (full, stand_in(4))), ("device", (stand_in(1), full))):
        with pytest.raises(ValueError, match="disk is full; mend that, or choose stream"):
            inputs.choose(asked, *others, device())
    with pytest.raises(ValueError, match=r"4\.00 GB of patches; the device has 4\.0 GB; choose"):
        inputs.choose("device", stand_in(1), stand_in(4), device(4e9))


def test_a_disk_without_room_and_a_folder_without_leave_are_said(kept, animals, monkeypatch):
    elsewhere = patches.Patches(
        animals,
        kept.folder.parent / "others" / "patches",
        image_size=SIZE,
        augmentation=Augmentation(),
    )
    assert not elsewhere.obstacle()
    needed = elsewhere.bytes
    for free, fits in ((needed / 0.89, True), (needed / 0.91, False)):
        usage = SimpleNamespace(free=free)
        monkeypatch.setattr(pixel_file.shutil, "disk_usage", lambda path, usage=usage: usage)
        assert (not elsewhere.obstacle()) == fits
        assert not kept.obstacle()  # all there already
    assert "do not fit" in elsewhere.obstacle()
    monkeypatch.setattr(pixel_file.os, "access", lambda path, mode: False)
    assert elsewhere.obstacle() == f"{kept.folder.parent} cannot be written to"
    assert not kept.obstacle()


# --- runs


def losses(workdir):
    return [r["loss"] for r in run_log.read(workdir / "metrics.jsonl") if r["kind"] == "train"]


def test_the_way_is_said(config, animals, tmp_path, capsys):
    for asked, kind in (("auto", "decoded"), ("device", "device"), ("stream", "stream")):
        config.data.input = asked
        assert run_data.choose_input(config, animals).kind == kind
        assert f"training crops: {kind} (" in capsys.readouterr().out


def test_steps_get_the_crops_that_opencv_would_cut(config, animals, kept):
    def make(module, optimizer, shardings):
        return lambda state, batch: (state, batch)  # shows what a step is given

    config.epochs = 1
    config.augment.update(dataclasses.asdict(Augmentation()))
    source = inputs.Input("device", kept, "")
    method = train.supervised(config, animals, sharding.shardings(), source)
    sent = next(iter(method.batches))
    step = device_crops.make_step(make, kept, image_size=SIZE)
    _, batch = step(None, None, sharding.shardings())(
        None, {name: sent[name] for name in method.inputs}
    )
    assert set(batch) == {"image", "keypoints", "weights"}
    np.testing.assert_allclose(batch["image"], cut_on_host(kept, sent), atol=8)
    for name in ("keypoints", "weights"):
        np.testing.assert_array_equal(batch[name], sent[name])


@pytest.mark.slow
def test_a_killed_run_on_the_device_ends_as_an_uninterrupted_one(config, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    config.data.input = "device"
    close, calls = run_log.Window.close, iter(range(100))

    def killed(window):
        if next(calls) == 1:
            raise Killed
        return close(window)

    with monkeypatch.context() as patch:
        patch.setattr(run_log.Window, "close", killed)
        with pytest.raises(Killed):
            run.run(config, tmp_path / "stopped")
    for name in ("stopped", "whole"):
        run.run(config, tmp_path / name)
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")
    results = [(tmp_path / name / "results.json").read_text() for name in ("stopped", "whole")]
    assert results[0] == results[1]


def test_another_way_is_another_run(config, tmp_path):
    config.data.input = "stream"
    run_directory.open_run(tmp_path / "run", config)
    for same in ("auto", "decoded"):  # the same crops
        config.data.input = same
        run_directory.check(tmp_path / "run", config)
    config.data.input = "device"
    with pytest.raises(errors.UserError, match=r"data\.input: auto there, device now"):
        run_directory.check(tmp_path / "run", config)


def test_an_unknown_way_and_one_without_room_are_refused(config, tmp_path, monkeypatch):
    config.data.input = "disk"
    with pytest.raises(errors.UserError, match=r"config\.data\.input='disk': one of auto, stream"):
        run.run(config, tmp_path / "run")
    config.data.input = "device"
    monkeypatch.setattr(patches.Patches, "obstacle", lambda self: "the disk is full")
    with pytest.raises(errors.UserError, match=r"config\.data\.input='device': the disk is full"):
        run.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_input_that_was_removed_is_refused_with_the_way_out(config, tmp_path):
    config.data.input = "cache"
    text = r"config\.data\.input='cache': this choice was removed; use decoded .*, or device"
    with pytest.raises(errors.UserError, match=text):
        run.run(config, tmp_path / "run")


def test_a_photograph_that_makes_no_patch_is_named_without_a_traceback(
    config, tmp_path, monkeypatch
):
    def faulty(self, file, group):
        raise ValueError("000000000001.jpg: cannot be decoded")

    config.data.input, config.data.image_size = "device", 96  # no patches of this size yet
    monkeypatch.setattr(patches.Patches, "_write", faulty)
    with pytest.raises(errors.UserError, match=r"config\.data\.name=.*: 0+1\.jpg: cannot be"):
        run.run(config, tmp_path / "run")
