"""Told to stop, a run saves where it is, ends in time, and goes on as if nothing had been."""

import os
import signal
import subprocess
import sys
import time

import jax
import miniature
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from ap10k_jax import checkpoint, run, run_log, train_loop
from ap10k_jax.data import batches
from ap10k_jax.reproduce import __main__ as reproduce
from ap10k_jax.reproduce import plan, tables
from ap10k_jax.runtime import signals

TIMES = {"images_per_second", "waiting_for_data"}
STEPS = 10  # two epochs of five; a line of the log every three


@pytest.fixture(scope="module")
def runs(tmp_path_factory, synthetic_dir, config_of):
    """A config, and the directory of a run that nobody stopped."""
    config = config_of(synthetic_dir)
    config.batch_size = 8
    config.log_every_steps = 3
    config.eval.flip_test = False
    with pytest.MonkeyPatch.context() as patch:
        miniature.share_steps(patch)
        workdir = tmp_path_factory.mktemp("runs") / "whole"
        run.run(config, workdir)
        yield config, workdir


def lines(workdir):
    """The metrics of a run, times aside."""
    read = run_log.read(workdir / "metrics.jsonl")
    return [{k: v for k, v in line.items() if k not in TIMES} for line in read]


def steps(workdir):
    return [saved.step for saved in checkpoint.saved_in(workdir)]


def last(workdir):
    """Variables and optimizer state of the last checkpoint, and where its iterator is."""
    folder = workdir / "checkpoints" / str(steps(workdir)[-1])
    arrays = [ocp.load(folder, checkpointable_name=name) for name in ("variables", "optimizer")]
    return arrays, (folder / "data" / "data.json").read_text()


def signalled(function, count):
    """The function, which sends this process SIGTERM in its call number `count`, from 1."""
    calls = iter(range(1, 1000))

    def wrapped(*args, **kwargs):
        if next(calls) == count:
            os.kill(os.getpid(), signal.SIGTERM)
        return function(*args, **kwargs)

    return wrapped


def run_until(config, workdir, moment, count):
    """Start the run, which is told to stop in that call of this moment; what it says."""
    place = {"a step": (train_loop, "next_batch"), "scoring": (batches, "eval_batches")}[moment]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(*place, signalled(getattr(*place), count))
        with signals.handled(), pytest.raises(signals.Stopped) as caught:
            run.run(config, workdir)
    assert caught.value.status == 143
    return str(caught.value)


def test_a_run_stopped_anywhere_ends_as_one_that_was_not(runs, tmp_path):
    config, whole = runs
    workdir = tmp_path / "run"
    for moment, count, reached in [
        ("a step", 1, 1),
        ("a step", 1, 2),  # twice within a window
        ("scoring", 1, 5),
        ("scoring", 1, 5),  # again
        ("a step", 3, 8),
        ("a step", 2, 10),  # the last step; it is scored first
        ("scoring", 1, 10),  # training is done
    ]:
        said = run_until(config, workdir, moment, count)
        if said.startswith(f"stopped by SIGTERM. All {reached} of {STEPS} steps are saved in"):
            assert steps(workdir)[-1] == reached
        else:
            assert moment == "scoring"
            assert "What was finished is kept" in said
        assert not (workdir / "results.json").exists()
    run.run(config, workdir)

    assert lines(workdir) == lines(whole)
    assert steps(workdir) == steps(whole)
    (arrays, at), (arrays_whole, at_whole) = last(workdir), last(whole)
    jax.tree.map(np.testing.assert_array_equal, arrays, arrays_whole)
    assert at == at_whole
    for name in ("results.json", "predictions-validation.json", "predictions-test.json"):
        assert (workdir / name).read_text() == (whole / name).read_text()


def test_until_a_checkpoint_is_scored_the_one_before_it_stays(runs, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    config, whole = runs
    workdir = tmp_path / "run"
    run_until(config, workdir, "scoring", 2)
    assert steps(workdir) == [5, 10]

    def killed(*args, **kwargs):
        raise Killed

    with monkeypatch.context() as patch:  # after the line of its scores
        patch.setattr(checkpoint.Checkpoints, "save", killed)
        with pytest.raises(Killed):
            run.run(config, workdir)
    with checkpoint.Checkpoints(workdir / "checkpoints") as checkpoints:
        checkpoints._checkpointer.delete(10)  # while it is replaced
    run.run(config, workdir)
    assert lines(workdir) == lines(whole)
    assert steps(workdir) == steps(whole)
    assert (workdir / "results.json").read_text() == (whole / "results.json").read_text()


def test_a_loss_that_is_not_a_number_is_not_saved_by_a_stop(runs, tmp_path, monkeypatch):
    config, _ = runs
    closed = run_log.Window._numbers

    def poisoned(window):
        window._steps = [(s, n | {"loss": float("nan")}, i) for s, n, i in window._steps]
        return closed(window)

    monkeypatch.setattr(run_log.Window, "_numbers", poisoned)
    monkeypatch.setattr(train_loop, "next_batch", signalled(train_loop.next_batch, 2))
    with (
        signals.handled(),
        pytest.raises(run_log.NonFiniteLoss, match=r"step 1; its batch: .*\.jpg"),
    ):
        run.run(config, tmp_path / "run")
    assert not steps(tmp_path / "run")


def test_signals_wait_for_the_end_of_a_deferred_section():
    done = []

    def work():
        with signals.deferred():
            with signals.deferred():
                os.kill(os.getpid(), signal.SIGINT)
                done.append(signals.requested())
            done.append("still there")

    with signals.handled(), pytest.raises(signals.Stopped) as caught:
        work()
    assert done == [True, "still there"]
    assert caught.value.status == 130
    assert not signals.requested()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def python(code):
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


# as a library that Python cannot interrupt
STUCK = """
import ctypes
from ap10k_jax.runtime import signals
with signals.handled(grace=0.5), signals.deferred():
    print("ready", flush=True)
    ctypes.CDLL(None).sleep(20)
    ctypes.CDLL(None).sleep(20)
"""


def test_what_cannot_be_interrupted_ends_with_the_grace():
    process = python(STUCK)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    told = time.perf_counter()
    assert process.wait(timeout=15) == 143
    assert 0.5 <= time.perf_counter() - told < 5
    assert "The last checkpoint is kept" in process.stderr.read()


def test_a_second_interrupt_ends_at_once():
    code = (
        "import time\nfrom ap10k_jax.runtime import signals\n"
        "with signals.handled(), signals.deferred():\n"
    )
    process = python(code + " print('ready', flush=True)\n for _ in range(200): time.sleep(0.1)")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert "SIGINT: stopping" in process.stderr.readline() + process.stderr.readline()
    process.send_signal(signal.SIGTERM)  # as reproduce passes it on
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=5) == -signal.SIGINT


def test_reproduce_tells_the_cell_and_waits_until_it_has_saved(tmp_path, monkeypatch):
    (step,) = plan.make([tables.animal_pose()], ["data.dir=none"], tmp_path)
    code = (
        "import signal, sys, time, pathlib\n"
        "def saved(*_): time.sleep(0.5); pathlib.Path('saved').touch(); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, saved)\n"
        "pathlib.Path('ready').touch()\n"
        "time.sleep(20)"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plan, "command", lambda step: ["python", "-c", code])
    tell = f"until [ -e {tmp_path}/ready ]; do sleep 0.05; done; kill -TERM {os.getpid()}"
    with subprocess.Popen(["sh", "-c", tell]), signals.handled(), pytest.raises(signals.Stopped):
        reproduce.start(step)
    assert (tmp_path / "saved").exists()
