"""Two processes with the same config end with the same bits, whatever their loaders do."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from ap10k_jax import checkpoint, run_log

ROOT = Path(__file__).parents[1]
TIMES = {"images_per_second", "waiting_for_data"}


def run(synthetic_dir, workdir, *, threads, hash_seed):
    """A short training in a process of its own; the arrays and numbers it ends with."""
    fields = {
        "model.name": "nano",
        "data.dir": synthetic_dir,
        "data.synthetic_images": 48,
        "data.image_size": 64,
        "data.loader_threads": threads,
        "epochs": 3,
        "batch_size": 16,
        "eval.batch_size": 16,
        "eval.every_epochs": 1,
        "log_every_steps": 1,
    }
    overrides = [f"--config.{name}={value}" for name, value in fields.items()]
    config = f"--config={ROOT / 'configs' / 'quickstart.py'}"
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    program = [sys.executable, ROOT / "tests" / "nano.py", "main"]
    subprocess.run(
        [*program, config, f"--workdir={workdir}", *overrides],
        env=os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        check=True,
        timeout=600,
    )
    lines = run_log.read(workdir / "metrics.jsonl")
    numbers = [{k: v for k, v in line.items() if k not in TIMES} for line in lines]
    return checkpoint.load(workdir)[1], numbers, (workdir / "results.json").read_text()


@pytest.mark.slow
def test_two_processes_with_the_same_seed_end_with_the_same_bits(synthetic_dir, tmp_path):
    one = run(synthetic_dir, tmp_path / "one", threads=1, hash_seed="1")
    other = run(synthetic_dir, tmp_path / "other", threads=5, hash_seed="2")
    jax.tree.map(np.testing.assert_array_equal, one[0], other[0])
    assert one[1:] == other[1:]
