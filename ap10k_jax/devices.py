"""How a computation lies on the devices: the batch is split over all of them, the rest is copied.

With these shardings `jax.jit` inserts the communication itself: means over the batch (the loss, the
statistics of BatchNorm) are means over the global batch on any number of devices.
"""

import functools
import os
from pathlib import Path
from typing import NamedTuple

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

YNN = "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"


class Shardings(NamedTuple):
    replicated: NamedSharding  # parameters, statistics, optimizer state, scalars
    batch: NamedSharding  # split along the first axis


def shardings(devices: list[jax.Device] | None = None) -> Shardings:
    """The two shardings of the project, over `devices` (all of them by default)."""
    devices = devices or jax.devices()
    mesh = jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)
    return Shardings(
        NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
    )


def compiler_options(shardings: Shardings) -> dict[str, str]:
    """XLA options that suit convolutional networks on this kind of device.

    On CPU XLA gives convolutions, products and reductions to the library YNN. Its convolutions take
    a quarter longer than XLA's own in HRNet's forward pass, and twice as long for the gradients of
    kernels; its reductions we keep, because XLA's own add up one by one and lose digits.
    """
    on_cpu = shardings.batch.mesh.devices.flat[0].platform == "cpu"
    return known_options({"xla_cpu_experimental_ynn_fusion_type": YNN}) if on_cpu else {}


@functools.cache
def _is_known(name: str, value: str) -> bool:
    try:
        jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


def known_options(options: dict[str, str]) -> dict[str, str]:
    """Those of the options that this version of XLA has: experimental ones come and go."""
    return {name: value for name, value in options.items() if _is_known(name, value)}


def use_compilation_cache() -> None:
    """Keep compiled steps between runs: HRNet-w32's takes minutes to compile on a small machine."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = Path("~/.cache/ap10k_jax/compiled").expanduser()
        jax.config.update("jax_compilation_cache_dir", str(folder))
