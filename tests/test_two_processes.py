"""Two real processes of four devices each make the run of one process with eight.

Through the real command line, with the tests' tiny network (nano.py).
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from ap10k_jax import checkpoint, run_log
from ap10k_jax.runtime import distributed

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
TIMES = ("images_per_second", "waiting_for_data")
FIELDS = {
    "model.name": "nano",
    "data.synthetic_images": 48,
    "data.image_size": 32,
    "batch_size": 16,
    "drop_remainder": False,
    "epochs": 12,  # long enough to be stopped on the way
    "eval.every_epochs": 1,
    "eval.batch_size": 16,
    "log_every_steps": 1,
    # Adam's first steps are +-rate even where the gradient is rounding, which differs between one
    # process and two: with the usual rate they part within ten steps, with this one not.
    "optimizer.learning_rate": 1e-6,
    "optimizer.warmup_steps": 2,
}
# The steps need not be fast here: without LLVM's optimisations they compile in half the time.
XLA_FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


@pytest.fixture(scope="module")
def command(tmp_path_factory, synthetic_dir):
    """A function that starts a run's processes, with shares of eight devices.

    Fields of the config that are tuples have a value for each process.
    """
    folder = tmp_path_factory.mktemp("processes")

    def start(workdir, count, **fields):
        fields = {"data.dir": synthetic_dir, **FIELDS, **fields}
        port = free_port()
        started = []
        for i in range(count):
            several = {"coordinator_address": f"localhost:{port}", "num_processes": count}
            several |= {"process_id": i}
            own = {k: v[i] if isinstance(v, tuple) else v for k, v in fields.items()}
            options = {f"config.{k}": v for k, v in own.items()} | (several if count > 1 else {})
            environment = os.environ | {
                "JAX_NUM_CPU_DEVICES": str(8 // count),
                "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
                "XLA_FLAGS": XLA_FLAGS,
                "PYTHONPATH": str(ROOT),
            }
            output = (folder / f"{workdir.name}-{i}-{len(list(folder.iterdir()))}.txt").open("w+")
            arguments = [f"--{name}={value}" for name, value in options.items()]
            nano, config = ROOT / "tests" / "nano.py", ROOT / "configs" / "quickstart.py"
            rest = [f"--workdir={workdir}", *arguments]
            process = subprocess.Popen(
                [sys.executable, nano, "main", f"--config={config}", *rest],
                env=environment,
                start_new_session=True,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            process.said = lambda output=output: output.seek(0) or output.read()
            started.append(process)
        return started

    return start


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("localhost", 0))
        return listening.getsockname()[1]


def finish(started, seconds=900):
    """The exit statuses."""
    try:
        return [process.wait(timeout=seconds) for process in started]
    finally:
        for process in started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def said(started):
    return "\n\n".join(process.said() for process in started)


@pytest.fixture(scope="module")
def whole(command, tmp_path_factory):
    """The runs of one process and of two."""
    runs = {}
    for count in (1, 2):
        runs[count] = tmp_path_factory.mktemp("runs") / "run"
        started = command(runs[count], count)
        assert finish(started) == [0] * count, said(started)
        runs[f"{count} said"] = [process.said() for process in started]
    return runs


def lines(workdir):
    return run_log.read(workdir / "metrics.jsonl")


def variables(workdir):
    last = checkpoint.saved_in(workdir)[-1].step
    return checkpoint.load(workdir / "checkpoints" / str(last))[1]


def test_two_processes_log_the_numbers_of_one(whole):
    ours, theirs = lines(whole[2]), lines(whole[1])
    assert [(line["step"], line["kind"]) for line in ours] == [
        (line["step"], line["kind"]) for line in theirs
    ]
    for a, b in zip(ours, theirs, strict=True):
        for name in b.keys() - {*TIMES, "step", "kind"}:
            expected = b[name]
            if isinstance(expected, float):  # sums over devices are taken in another order
                expected = pytest.approx(expected, rel=1e-4, abs=1e-6, nan_ok=True)
            assert a[name] == expected, (name, a, b)


def test_two_processes_leave_the_files_of_one(whole):
    ours, theirs = (
        sorted(str(p.relative_to(run)) for p in run.rglob("*") if "tfevents" not in p.name)
        for run in (whole[2], whole[1])
    )
    shallow = [[p for p in found if p.count("/") < 3] for found in (ours, theirs)]
    assert shallow[0] == shallow[1]
    assert len(list(whole[2].rglob("*tfevents*"))) == 1
    (start,) = json.loads((whole[2] / "environment.json").read_text())
    assert len(start["devices"]) == 8


def test_two_processes_score_every_animal_once(whole):
    for split in ("validation", "test"):
        ours, theirs = (
            json.loads((whole[count] / f"predictions-{split}.json").read_text()) for count in (2, 1)
        )
        assert [row["id"] for row in ours] == [row["id"] for row in theirs]
        assert len({row["id"] for row in ours}) == len(ours)
    ours, theirs = (json.loads((whole[count] / "results.json").read_text()) for count in (2, 1))
    assert ours["step"] == theirs["step"]
    for split in ("validation", "test"):
        assert ours[split]["AP"] == pytest.approx(theirs[split]["AP"], abs=0.02)
        assert ours[split]["num_animals"] == theirs[split]["num_animals"]


def test_the_first_process_alone_prints(whole):
    first, second = whole["2 said"]
    assert "Best checkpoint" in first
    assert "Best checkpoint" not in second
    assert "step/s" in first
    assert "step/s" not in second


def test_two_processes_stopped_and_started_again_end_as_uninterrupted_ones(
    command, whole, tmp_path
):
    """SIGTERM to one of them; both save at the same step."""
    started = command(tmp_path / "run", 2)
    metrics = tmp_path / "run" / "metrics.jsonl"
    wait_until(lambda: metrics.exists() and metrics.stat().st_size, started)
    os.kill(started[1].pid, signal.SIGTERM)
    assert finish(started) == [143, 143], said(started)
    assert 0 < checkpoint.saved_in(tmp_path / "run")[-1].step < lines(whole[2])[-1]["step"]

    started = command(tmp_path / "run", 2)
    assert finish(started) == [0, 0], said(started)
    ours, theirs = (
        [{k: v for k, v in line.items() if k not in TIMES} for line in lines(run)]
        for run in (tmp_path / "run", whole[2])
    )
    assert ours == theirs
    jax.tree.map(np.testing.assert_array_equal, variables(tmp_path / "run"), variables(whole[2]))
    for name in ("results.json", "predictions-test.json"):
        assert (tmp_path / "run" / name).read_text() == (whole[2] / name).read_text()


def test_when_one_is_killed_the_other_ends(command, tmp_path):
    started = command(tmp_path / "run", 2, epochs=2000)
    metrics = tmp_path / "run" / "metrics.jsonl"
    wait_until(lambda: metrics.exists() and metrics.stat().st_size, started)
    os.killpg(started[1].pid, signal.SIGKILL)
    status = finish(started, seconds=distributed.HEARTBEAT + 120)[0]
    assert status not in (0, -signal.SIGKILL)
    text = started[0].said()
    assert "Gloo" in text or "another task died" in text, text


def test_processes_with_other_command_lines_say_so_and_end(command, tmp_path):
    started = command(tmp_path / "run", 2, seed=(0, 1))
    assert finish(started) == [1, 1], said(started)
    for process in started:
        assert "error: the processes of this run do not see the same config" in process.said()
    assert not (tmp_path / "run" / "config.json").exists()


def wait_until(condition, started, seconds=900):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, said(started)
        assert all(process.poll() is None for process in started), said(started)
        time.sleep(0.05)
