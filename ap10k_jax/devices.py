"""How a computation lies on the devices: the batch is split over all of them, the rest is copied.

With these shardings `jax.jit` inserts the communication itself: means over the batch (the loss, the
statistics of BatchNorm) are means over the global batch on any number of devices.
"""

import os
from pathlib import Path
from typing import NamedTuple

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec


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


def training_options(shardings: Shardings) -> dict[str, str]:
    """XLA options for the training step on this kind of device.

    On CPU the fusion pass copies the whole residual chain into each of its consumers and recomputes
    it there; without that pass HRNet's training step is about three times as fast. The forward pass
    alone is faster with it.
    """
    on_cpu = shardings.batch.mesh.devices.flat[0].platform == "cpu"
    return {"xla_disable_hlo_passes": "fusion"} if on_cpu else {}


def use_compilation_cache() -> None:
    """Keep compiled steps between runs: HRNet-w32's takes minutes to compile on a small machine."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = Path("~/.cache/ap10k_jax/compiled").expanduser()
        jax.config.update("jax_compilation_cache_dir", str(folder))
