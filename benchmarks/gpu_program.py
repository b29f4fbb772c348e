"""Counts what a GPU would run for a training step or forward pass, on a machine without a GPU.

    JAX_PLATFORMS=cpu python benchmarks/gpu_program.py [--network=chain] [--batch=64] [--forward]

JAX's CUDA plug-in compiles for a described card (h200_target.txt beside this file) without a
driver. The program, its packed state and its compiler options are those of a run on such a card.
Printed are, as a line of JSON and as lists of the most frequent kernels:

    thunks      kernels, calls of cuDNN and cuBLAS, and copies
    launches    thunks that the host starts one by one; a CUDA graph of many thunks is one
    graphs      CUDA graphs among the launches
    norms       batch norms of the network; `other_thunks` are the thunks that are no convolutions
    gigabytes   sizes of what all thunks read and write: an upper bound, as caches are not counted
    temporary_gibibytes  memory beside the arguments and results

Two things differ from a run. Kernels are not timed against each other, since there is no card. LLVM
does not optimise them, which leaves the thunks as they are and halves the time: compile_seconds are
comparable with each other only.

The plug-in needs no NVIDIA libraries. An environment of its own (1.1 GB) is made by

    python -m venv gpu && gpu/bin/pip install -e . jax==0.11.2
    gpu/bin/pip install --no-deps jax-cuda13-plugin==0.11.2 jax-cuda13-pjrt==0.11.2
"""

import argparse
import collections
import json
import math
import re
import tempfile
import time
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.stages import Compiled, Lowered
from jaxtyping import Array, Float

from ap10k_jax import inference, models, packing, train
from ap10k_jax import optimizer as optimizers
from ap10k_jax.models import hrnet, layers, ops
from ap10k_jax.runtime import sharding

TARGET = Path(__file__).with_name("h200_target.txt")
KEYPOINTS = 17
WITHOUT_A_KERNEL = ("parameter", "get-tuple-element", "tuple", "bitcast", "constant")


class Chain(nn.Module):
    """Basic blocks one after the other: the parts of HRNet in a program that compiles fast."""

    blocks: int
    dtype: jnp.dtype
    features: int = 32

    @nn.compact
    def __call__(
        self, images: Float[Array, "b H W 3"], *, train: bool = False
    ) -> Float[Array, "b h w k"]:
        x = images.astype(self.dtype)
        for i in (1, 2):
            stem = layers.ConvBN(self.features, 3, 2, dtype=self.dtype, name=f"stem{i}")
            x = stem(x, train=train)
        for i in range(self.blocks):
            block = layers.Residual(layers.basic(self.features), dtype=self.dtype, name=f"block{i}")
            x = block(x, train=train)
        return layers.heatmap_head(x, KEYPOINTS, name="head")


def build(name: str, dtype: jnp.dtype) -> nn.Module:
    """The network: `chain`, `chainN` with N blocks, `one`, or one of models.MODELS."""
    if match := re.fullmatch(r"chain(\d*)", name):
        return Chain(int(match[1] or 6), dtype)
    if name == "one":
        stages = tuple(stage._replace(modules=1) for stage in hrnet.stages(32))
        return hrnet.HRNet(stages, dtype=dtype)
    return models.build(name, dtype=dtype)


def lower_step(module: nn.Module, batch: int, size: int, shardings: sharding.Shardings) -> Lowered:
    """The training step on a packed state, traced for the devices of the shardings."""
    variables = models.shapes(module, image_size=(size, size))
    optimizer = optimizers.make_optimizer(jnp.dtype(module.dtype))
    packed = packing.Packing.of(variables)
    state = jax.eval_shape(lambda v: packed.pack(train.init_state(v, optimizer)), variables)
    step = train.make_train_step(module, optimizer, shardings, packed=packed)
    inputs = {
        "image": jax.ShapeDtypeStruct((batch, size, size, 3), jnp.uint8),
        "keypoints": jax.ShapeDtypeStruct((batch, KEYPOINTS, 2), jnp.float32),
        "weights": jax.ShapeDtypeStruct((batch, KEYPOINTS), jnp.float32),
    }
    return step.lower(optimizers.with_learning_rate(state, 0.0), inputs)


def lower_forward(
    module: nn.Module, batch: int, size: int, shardings: sharding.Shardings
) -> Lowered:
    """The forward pass on uint8 crops, traced for the devices of the shardings."""

    def forward(variables, images):
        return module.apply(variables, inference.normalize(images), train=False)

    jitted = jax.jit(
        forward,
        in_shardings=(shardings.replicated, shardings.batch),
        compiler_options=sharding.compiler_options(shardings),
    )
    images = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.uint8)
    return jitted.lower(models.shapes(module, image_size=(size, size)), images)


def compile_with_dump(lowered: Lowered, folder: str) -> Compiled:
    """The compiled program; XLA writes its list of thunks, and nothing else has it, to a folder."""
    return lowered.compile(
        compiler_options={
            "xla_dump_to": folder,
            "xla_dump_hlo_as_text": "True",
            "xla_gpu_autotune_level": "0",
            "xla_backend_optimization_level": "0",
            "xla_llvm_disable_expensive_passes": "True",
        }
    )


def read_thunks(path: Path) -> list[tuple[int, str, str]]:
    """(depth, kind, name) of every thunk of a dumped sequence; those of a graph have depth 1."""
    # 002: kConvolution   [...]  cudnn-conv.14
    line = re.compile(r"( *)\d+: (\w+) +\[[^\]]*\] *(\S*)", re.MULTILINE)
    return [(len(m[1]) // 4, m[2], m[3]) for m in line.finditer(path.read_text())]


def count_thunks(folder: str) -> tuple[dict[str, int], collections.Counter]:
    """Numbers of thunks, launches and graphs in a dump, and how often each kernel occurs."""

    def sequence(suffix: str) -> list[tuple[int, str, str]]:
        # The largest is the program itself; small helpers are dumped beside it.
        files = Path(folder).glob(f"*.{suffix}.txt")
        return read_thunks(max(files, key=lambda path: path.stat().st_size))

    thunks = [(kind, name) for _, kind, name in sequence("thunk_sequence")]
    launches = [
        kind for depth, kind, _ in sequence("thunk_sequence_after_thunk_passes") if not depth
    ]
    names = collections.Counter(
        re.sub(r"([_.]?\d+)+$", "", name) if "Kernel" in kind else kind for kind, name in thunks
    )
    convolutions = sum(kind == "kConvolution" for kind, _ in thunks)
    numbers = {
        "thunks": len(thunks),
        "other_thunks": len(thunks) - convolutions,
        "launches": len(launches),
        "graphs": launches.count("kCommandBuffer"),
    }
    return numbers, names


def count_bytes(program: str) -> int:
    """Sizes of the operands and results of all operations in an optimised program's text."""
    sizes, total = {}, 0
    entry = program[program.index("\nENTRY") :]
    # %name = bf16[64,64,64,32]{3,2,1,0} fusion(%first, %second), kind=kLoop, ...
    line = re.compile(r"  (?:ROOT )?%(\S+) = (.*?) ([a-z][\w\-]*)\((.*?)\)(?:,|$)")
    for text in entry[: entry.index("\n}")].splitlines():
        if match := line.match(text):
            name, shape, operation, operands = match.groups()
            sizes[name] = bytes_of(shape)
            if operation not in WITHOUT_A_KERNEL:
                total += sizes[name] + sum(sizes[x] for x in re.findall(r"%([\w.\-]+)", operands))
    return total


def bytes_of(shape: str) -> int:
    """The size of arrays in XLA's notation, such as "(f32[32]{0}, bf16[3,3]{1,0})"."""
    arrays = re.findall(r"\b(pred|[a-z]+\d+)\[([\d,]*)\]", shape)
    return sum(
        (1 if kind == "pred" else int(re.sub(r"\D", "", kind)) // 8)
        * math.prod(int(side) for side in sides.split(",") if side)
        for kind, sides in arrays
    )


def count_norms(module: nn.Module, size: int) -> int:
    """The number of batch norms in a network."""
    statistics = models.shapes(module, image_size=(size, size))["batch_stats"]
    return len(jax.tree.leaves(statistics)) // 2  # a mean and a variance


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    networks = ", ".join(models.MODELS)
    parser.add_argument(
        "--network",
        default="chain",
        help="chain (six basic blocks), chain12 (or any other number of them), one (HRNet-w32 with "
        f"one module a stage), {networks}",
    )
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=256, help="side of the crops in pixels")
    parser.add_argument("--dtype", default="bfloat16", choices=models.DTYPES)
    parser.add_argument("--forward", action="store_true", help="the forward pass alone")
    parser.add_argument("--target", type=Path, default=TARGET, help="description of the card")
    flags = parser.parse_args()

    topology = topologies.get_topology_desc(
        platform="cuda", topology="1x1x1", target_config=flags.target.read_text()
    )
    shardings = sharding.shardings(list(topology.devices))
    module = build(flags.network, jnp.dtype(flags.dtype))
    lower = lower_forward if flags.forward else lower_step
    with ops.target_platform("gpu"), tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        lowered = lower(module, flags.batch, flags.size, shardings)
        traced = time.perf_counter()
        compiled = compile_with_dump(lowered, folder)
        seconds = time.perf_counter() - traced
        numbers, names = count_thunks(folder)
    print(
        json.dumps(
            {
                "network": flags.network,
                "pass": "forward" if flags.forward else "step",
                "dtype": flags.dtype,
                "batch": flags.batch,
                "size": flags.size,
                "norms": count_norms(module, flags.size),
                **numbers,
                "gigabytes": round(count_bytes(compiled.as_text()) / 1e9, 2),
                "temporary_gibibytes": round(
                    compiled.memory_analysis().temp_size_in_bytes / 2**30, 2
                ),
                "trace_seconds": round(traced - started, 1),
                "compile_seconds": round(seconds, 1),
            }
        )
    )
    print("\n".join(f"{count:6} {name}" for name, count in names.most_common(20)))


if __name__ == "__main__":
    main()
