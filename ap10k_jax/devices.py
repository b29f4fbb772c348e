"""How a computation lies on the devices: the batch is split over all of them, the rest is copied.

With these shardings `jax.jit` inserts the communication itself: means over the batch (the loss, the
statistics of BatchNorm) are means over the global batch on any number of devices.
"""

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


def compiler_options(shardings: Shardings) -> dict[str, str]:
    """XLA options for the steps on this kind of device.

    On CPU the fusion pass copies the whole residual chain into each of its consumers and recomputes
    it there; without that pass HRNet's training step is about three times as fast.
    """
    on_cpu = shardings.batch.mesh.devices.flat[0].platform == "cpu"
    return {"xla_disable_hlo_passes": "fusion"} if on_cpu else {}
