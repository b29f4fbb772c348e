"""The training step compiled for a GPU consists of few kernels in one CUDA graph.

The slow tests need JAX's CUDA plug-in, which is 1.1 GB with the rest of its environment: continuous
integration skips them. Run them with AP10K_CUDA_PYTHON after a change of batch norm, of residual
sums, of the packed state or of compiler options.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from ap10k_jax.runtime import sharding

ROOT = Path(__file__).parents[1]
PROGRAM = ROOT / "benchmarks" / "gpu_program.py"
# The interpreter of an environment with JAX's CUDA plug-in (1.1 GB), if it is not this one.
PYTHON = os.environ.get("AP10K_CUDA_PYTHON", sys.executable)


@pytest.fixture(scope="module")
def gpu_program():
    """The program as a module."""
    spec = importlib.util.spec_from_file_location("gpu_program", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def cuda_plugin():
    """Skips the test where nothing can compile for a GPU."""
    plugins = "'jax_plugins.xla_cuda12', 'jax_plugins.xla_cuda13'"
    search = f"import importlib.util as i; assert any(map(i.find_spec, ({plugins})))"
    if subprocess.run([PYTHON, "-c", search], stderr=subprocess.DEVNULL).returncode:
        pytest.skip(
            f"{PYTHON} has no CUDA plug-in of JAX; AP10K_CUDA_PYTHON names another interpreter, "
            "benchmarks/gpu_program.py says how to install one"
        )


def count(*arguments: str) -> dict:
    """The numbers that the program prints."""
    done = subprocess.run(
        [PYTHON, PROGRAM, *arguments],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert not done.returncode, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[0])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_step_is_one_launch_and_a_batch_norm_few_thunks(dtype, cuda_plugin):
    short, long = (count(f"--network=chain{n}", f"--dtype={dtype}") for n in (6, 12))
    for numbers in (short, long):
        assert numbers["launches"] == numbers["graphs"] == 1
    norms = long["norms"] - short["norms"]
    assert norms == 12
    # Convolutions are left out. ReLUs and residual sums are in it: about 2 of the 9.
    assert (long["other_thunks"] - short["other_thunks"]) / norms <= 9
    assert short["thunks"] <= 200


@pytest.mark.slow
def test_a_forward_pass_is_one_launch(cuda_plugin):
    numbers = count("--network=chain", "--forward")
    assert numbers["launches"] == numbers["graphs"] == 1


def test_thunks_are_read_with_their_depth(gpu_program, tmp_path):
    (tmp_path / "thunks.txt").write_text(
        "000: kCommandBuffer [a=1] command_buffer\n"
        "    000: kCustomKernel [b] loop_add_fusion.3\n"
        "    001: kConvolution  [] cudnn-conv.1\n"
        "001: kCopy [] copy.2\n"
    )
    assert gpu_program.read_thunks(tmp_path / "thunks.txt") == [
        (0, "kCommandBuffer", "command_buffer"),
        (1, "kCustomKernel", "loop_add_fusion.3"),
        (1, "kConvolution", "cudnn-conv.1"),
        (0, "kCopy", "copy.2"),
    ]


def test_bytes_are_those_of_operands_and_results(gpu_program):
    program = """HloModule m

ENTRY %main (a: f32[2,3], b: bf16[4]) -> (f32[2,3], bf16[4]) {
  %a = f32[2,3]{1,0} parameter(0)
  %b = bf16[4]{0} parameter(1)
  %both = (f32[2,3]{1,0}, bf16[4]{0}) fusion(%a, %b), kind=kLoop, calls=%f
  %first = f32[2,3]{1,0} get-tuple-element(%both), index=0
  ROOT %negated = f32[2,3]{1,0} negate(%first)
}
"""
    assert gpu_program.count_bytes(program) == 2 * (24 + 8) + 2 * 24


def test_networks_are_chains_or_ours(gpu_program):
    assert gpu_program.build("chain", "float32").blocks == 6
    assert gpu_program.build("chain12", "float32").blocks == 12
    assert [stage.modules for stage in gpu_program.build("one", "float32").stages] == [1, 1, 1]
    assert gpu_program.build("hrnet_w32", "float32").stages[1].modules == 4


def test_options_that_a_compiler_does_not_know_are_left_out():
    device = jax.devices()[0]
    options = {"xla_cpu_enable_fast_math": "False", "xla_no_such_option": "1"}
    assert list(sharding.known_options(options, device)) == ["xla_cpu_enable_fast_math"]
