"""A full or a read-only disk: said with its name and the way out, and what was good stays."""

import errno
import os
import subprocess

import commands
import cv2
import miniature
import numpy as np
import pytest

from ap10k_jax import checkpoint, run, run_log
from ap10k_jax.predict import __main__ as predict_command
from ap10k_jax.runtime import files
from tfds_ap10k import build, synthetic


def mount(*words):
    return subprocess.run(["mount", *map(str, words)], capture_output=True, text=True, check=False)


@pytest.fixture
def small_disk(tmp_path):
    """A function: size -> a folder on a disk of this size; called again it changes the size, or
    makes it read-only.
    """
    folder = tmp_path / "disk"
    folder.mkdir()

    def sized(options):
        mounted = os.path.ismount(folder)
        done = mount("-t", "tmpfs", "-o", ("remount," if mounted else "") + options, "none", folder)
        if done.returncode:
            pytest.skip(f"a small disk cannot be mounted (that takes root): {done.stderr.strip()}")
        return folder

    yield sized
    if os.path.ismount(folder):
        subprocess.run(["umount", folder], check=True)


@pytest.fixture
def shared(monkeypatch):
    miniature.share_steps(monkeypatch)


def test_a_run_on_a_full_disk_keeps_its_last_checkpoint_and_goes_on(
    config, small_disk, tmp_path, shared
):
    config.batch_size = 8
    config.epochs = 6
    config.eval.flip_test = False
    run.run(config, tmp_path / "whole")
    size = sum(p.stat().st_size for p in (tmp_path / "whole").rglob("*") if p.is_file())

    workdir = small_disk(f"size={size // 1024 * 3 // 4}k") / "run"  # less than two checkpoints
    with pytest.raises(files.DiskError) as caught:
        run.run(config, workdir)
    for words in (f"No space left on device in {workdir}", "MiB free", "the last checkpoint is"):
        assert words in str(caught.value)
    (saved,) = checkpoint.saved_in(workdir)
    checkpoint.load(workdir / "checkpoints" / str(saved.step))

    with pytest.raises(files.DiskError, match="No space left"):  # no better, no worse
        run.run(config, workdir)
    assert checkpoint.saved_in(workdir)[0] == saved

    small_disk("size=20m")
    run.run(config, workdir)
    assert (workdir / "results.json").read_text() == (
        tmp_path / "whole" / "results.json"
    ).read_text()
    steps = [[line["step"] for line in run_log.read(w / "metrics.jsonl")] for w in
             (workdir, tmp_path / "whole")]  # fmt: skip
    assert steps[0] == steps[1]


def test_a_run_in_a_read_only_directory_says_so(config, small_disk):
    folder = small_disk("size=1m")
    small_disk("ro")
    with pytest.raises(
        files.DiskError, match=f"Read-only file system: {folder}.*another --workdir"
    ):
        run.run(config, folder / "run")


def test_a_data_set_on_a_full_disk(synthetic_dir, small_disk):
    drawn = synthetic_dir / "drawn"
    folder = small_disk("size=600k")
    for _ in range(2):
        with pytest.raises(files.DiskError) as caught:
            build.build("split1", manual_dir=drawn, data_dir=folder)
        assert f"No space left on device in {folder}" in str(caught.value)
        assert "nothing of it was kept" in str(caught.value)
        assert not list(folder.rglob("*.array_record*"))
    small_disk("size=20m")
    built = build.build("split1", manual_dir=drawn, data_dir=folder)
    sizes = [len(built.as_data_source(s)) for s in ("train", "validation", "test")]
    assert sum(sizes) == 48
    small_disk("ro")
    build.build("split1", manual_dir=drawn, data_dir=folder)  # what is there can be read
    with pytest.raises(files.DiskError, match=r"Read-only file system.*another data directory"):
        build.build("split2", manual_dir=drawn, data_dir=folder)


def test_drawings_on_a_full_disk(small_disk):
    folder = small_disk("size=200k")
    with pytest.raises(files.DiskError, match=f"No space left on device in {folder}.*make room"):
        synthetic.generate(folder / "drawn", images=16)
    assert not list(folder.iterdir())


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(40):
        pixels = np.random.default_rng(i).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{i:02d}.png"), pixels)
    return folder


def test_a_prediction_job_on_a_full_disk_goes_on(checkpoint_dir, photos, small_disk, capsys):
    def predict(out):
        status = commands.status(
            predict_command.main, [str(checkpoint_dir), str(photos), "--out", str(out)]
        )
        return status, capsys.readouterr()

    folder = small_disk("size=24k")
    status, said = predict(folder / "out")
    assert status == 1
    assert f"error: No space left on device in {folder / 'out'}" in said.err
    assert "start the same command again" in said.err
    small_disk("size=4m")
    status, said = predict(folder / "out")
    assert status == 0, said.err
    assert "going on after" in said.err
    assert "40 animals in 40 pictures" in said.out
    small_disk("ro")
    status, said = predict(folder / "other")
    assert status == 1
    assert f"error: Read-only file system: {folder / 'other'}: choose another --out" in said.err


def test_errors_of_the_disk_are_found_behind_those_of_libraries(tmp_path):
    def wrapped(inner):
        try:
            raise inner
        except type(inner) as error:
            raise ValueError("cannot save") from error

    for inner in (
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        RuntimeError("write failed: No space left on device [source locations]"),
        OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
    ):
        with (
            pytest.raises(files.DiskError, match=f"in {tmp_path / 'run'} .*: make room"),
            files.explain_disk_errors(tmp_path / "run", full="make room", closed="elsewhere"),
        ):
            wrapped(inner)
    refused = os.strerror(errno.EACCES)
    with (
        pytest.raises(files.DiskError, match=f"{refused}: {tmp_path}/x: elsewhere"),
        files.explain_disk_errors(tmp_path, full="make room", closed="elsewhere"),
    ):
        raise PermissionError(errno.EACCES, refused, str(tmp_path / "x"))
    with (  # what is read from is another matter
        pytest.raises(PermissionError, match="/x"),
        files.explain_disk_errors(tmp_path, full="make room", closed="elsewhere"),
    ):
        raise PermissionError(errno.EACCES, refused, "/x")
    with (
        pytest.raises(ValueError, match="cannot save"),
        files.explain_disk_errors(tmp_path, full="", closed=""),
    ):
        wrapped(KeyError("another mistake"))
