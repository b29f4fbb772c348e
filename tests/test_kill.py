"""Real processes, really killed: a run ends the same however often it was stopped."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from ap10k_jax import checkpoint, runlog

ROOT = Path(__file__).parents[1]
KILLS = 5
TIMES = ("images_per_second", "waiting_for_data")


def command(data_dir, workdir):
    fields = {
        "data.dir": data_dir,
        "data.synthetic_images": 48,
        "data.image_size": 64,
        "epochs": 60,
        "batch_size": 16,
        "eval.batch_size": 16,
        "eval.every_epochs": 6,
        "log_every_steps": 1,
        "checkpoint_every_epochs": 1,
    }
    overrides = [f"--config.{name}={value}" for name, value in fields.items()]
    config = ROOT / "configs" / "quickstart.py"
    return [
        *(sys.executable, "-m", "ap10k_jax.main", f"--config={config}", f"--workdir={workdir}"),
        *overrides,
    ]


def start(arguments, compiled):
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1", "JAX_COMPILATION_CACHE_DIR": compiled}
    return subprocess.Popen(
        arguments,
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def final(workdir):
    last = checkpoint.saved_in(workdir)[-1].step
    _, variables, _ = checkpoint.load(workdir / "checkpoints" / str(last))
    return last, variables


def lines(workdir):
    read = runlog.read(workdir / "metrics.jsonl")
    return [{k: v for k, v in line.items() if k not in TIMES} for line in read]


def kill_after(process, path, count, seconds):
    """SIGKILL once `path` has so many lines and a moment has passed; False if it ended before."""
    while process.poll() is None:
        if path.exists() and path.read_bytes().count(b"\n") >= count:
            time.sleep(seconds)
            os.killpg(process.pid, signal.SIGKILL)
            return process.wait() == -signal.SIGKILL
        time.sleep(0.01)
    return False


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_as_an_uninterrupted_one(synthetic_dir, tmp_path):
    compiled = str(tmp_path / "compiled")
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert start(command(synthetic_dir, whole), compiled).wait(timeout=600) == 0

    moments = random.Random(0)
    metrics, reached = stopped / "metrics.jsonl", 0
    for _ in range(KILLS):
        process = start(command(synthetic_dir, stopped), compiled)
        # within the next epochs (a line a step, one more where validation was due); the short
        # delay reaches scoring and the writing of checkpoints too
        killed = kill_after(
            process, metrics, reached + moments.randint(1, 9), moments.uniform(0, 0.2)
        )
        assert killed, "the run ended before the killer came"
        reached = len(runlog.read(metrics))
    assert start(command(synthetic_dir, stopped), compiled).wait(timeout=600) == 0

    (last, variables), (last_whole, variables_whole) = final(stopped), final(whole)
    assert last == last_whole
    jax.tree.map(np.testing.assert_array_equal, variables, variables_whole)
    assert lines(stopped) == lines(whole)
    assert (stopped / "results.json").read_text() == (whole / "results.json").read_text()
    for split in ("validation", "test"):
        name = f"predictions-{split}.json"
        assert (stopped / name).read_text() == (whole / name).read_text()
