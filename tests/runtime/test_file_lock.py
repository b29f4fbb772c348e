"""A directory belongs to one process at a time, and to nobody after a kill."""

import os
import signal
import subprocess
import sys
import threading
import time

import commands
import pytest

from ap10k_jax import run, run_directory
from ap10k_jax.reproduce import __main__ as reproduce
from ap10k_jax.runtime import errors, file_lock
from tfds_ap10k.synthetic import dataset

HOLDER = """
import sys, time, pathlib
from ap10k_jax.runtime import file_lock
with file_lock.locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def holder(path, seconds=30):
    """Another process that has the lock."""
    words = [sys.executable, "-c", HOLDER, str(path), str(seconds)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_the_holder_is_named_and_the_lock_goes_with_it_when_it_is_killed(tmp_path):
    path = tmp_path / "lock"
    process = holder(path)
    for attempt in (lambda: file_lock.locked(path).__enter__(), lambda: file_lock.check(path)):
        with pytest.raises(
            file_lock.InUse, match=f"{tmp_path} is in use by process {process.pid} on "
        ):
            attempt()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert path.exists()
    file_lock.check(path)
    with file_lock.locked(path):
        assert f"process {os.getpid()} on" in path.read_text()
    assert not path.exists()
    file_lock.check(path)


def test_who_waits_says_for_whom(tmp_path, capsys):
    process = holder(tmp_path / "lock", seconds=1)
    started = time.monotonic()
    with file_lock.locked(tmp_path / "lock", wait=True):
        assert time.monotonic() - started > 0.3
    assert f"waiting for process {process.pid}" in capsys.readouterr().err
    assert process.wait() == 0
    assert not (tmp_path / "lock").exists()


def test_of_many_that_wait_each_has_the_lock_alone(tmp_path):
    inside, most = [], []

    def work():
        for _ in range(20):
            with file_lock.locked(tmp_path / "lock", wait=True):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.001)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 80


def test_a_run_that_is_going_on_is_not_joined(config, tmp_path):
    workdir = tmp_path / "run"
    with run_directory.locked(workdir):
        with pytest.raises(errors.UserError, match=r"in use by process .*another --workdir"):
            run.run(config, workdir)
        assert [path.name for path in workdir.iterdir()] == ["lock"]
    assert not workdir.exists()


def test_reproduce_does_not_join_another_but_plans_beside_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(reproduce, "start", lambda step: pytest.fail("started a cell"))
    monkeypatch.setattr(reproduce, "prepare", lambda steps: pytest.fail("built data"))
    arguments = ["--table=7", f"--workdir={tmp_path}", f"--data-dir={tmp_path}/none"]
    with run_directory.locked(tmp_path):
        assert commands.status(reproduce.main, arguments) == 1
        assert f"{tmp_path} is in use by process {os.getpid()}" in capsys.readouterr().err
        assert commands.status(reproduce.main, [*arguments, "--dry-run"]) == 0


def test_two_that_want_the_same_drawings_make_them_once(tmp_path, monkeypatch):
    draw_all, calls = dataset.draw_all, []

    def counted(*args):
        calls.append(1)
        draw_all(*args)

    monkeypatch.setattr(dataset, "draw_all", counted)
    threads = [
        threading.Thread(target=dataset.generate, args=(tmp_path / "drawn",), kwargs={"images": 4})
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [1]
    assert [path.name for path in tmp_path.iterdir()] == ["drawn"]
