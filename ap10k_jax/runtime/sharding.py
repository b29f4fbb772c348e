"""Shardings: the batch is split over all devices, everything else is copied to each of them.

With these shardings `jax.jit` inserts the communication itself: means over the batch (the loss, the
statistics of BatchNorm) are means over the global batch on any number of devices, also where they
belong to several processes (see runtime/distributed.py).
"""

import functools
import os
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

YNN = "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
# XLA's default list and CONVOLUTION, which it leaves out because not all of them can be captured.
IN_GRAPHS = "FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,CONDITIONAL,DYNAMIC_SLICE_FUSION,CONVOLUTION"


class Shardings(NamedTuple):
    replicated: NamedSharding  # parameters, statistics, optimizer state, scalars
    batch: NamedSharding  # split along the first axis


def shardings(devices: list[jax.Device] | None = None) -> Shardings:
    """The two shardings of the project, over `devices` (all of them by default)."""
    # A process's devices are neighbours in the mesh, so its rows of a batch are consecutive.
    devices = devices or sorted(jax.devices(), key=lambda d: (d.process_index, d.id))
    mesh = Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))
    return Shardings(
        NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
    )


def rows(shardings: Shardings, size: int) -> range:
    """Rows of a global batch of `size` rows that this process must load."""
    devices = shardings.batch.mesh.devices.flat
    local = [i for i, device in enumerate(devices) if device.process_index == jax.process_index()]
    per_device = size // len(devices)
    return range(local[0] * per_device, (local[-1] + 1) * per_device)


def split(local_rows: PyTree[np.ndarray], shardings: Shardings) -> PyTree[Array]:
    """The global batch on all devices, of which each process gives the rows that it loaded."""
    return jax.make_array_from_process_local_data(shardings.batch, local_rows)


def gather(local_rows: PyTree[np.ndarray]) -> PyTree[np.ndarray]:
    """All rows of a batch, on every process."""
    if jax.process_count() == 1:
        return local_rows
    return multihost_utils.process_allgather(local_rows, tiled=True)


def replicate(tree: PyTree[Array], shardings: Shardings) -> PyTree[Array]:
    """A copy of the tree on every device. With several processes the first one's is copied."""
    if jax.process_count() == 1:
        return jax.device_put(tree, shardings.replicated)
    tree = multihost_utils.broadcast_one_to_all(tree)
    return jax.make_array_from_process_local_data(
        shardings.replicated, jax.tree.map(np.asarray, tree)
    )


def compiler_options(shardings: Shardings) -> dict[str, str]:
    """XLA options that suit convolutional networks on this kind of device.

    On GPUs convolutions become part of CUDA graphs too: a training step is then one graph instead
    of hundreds, with the convolutions launched one by one between them. Independent branches of the
    graph run at the same time, as HRNet's do.

    On CPU XLA gives convolutions, products and reductions to the library YNN. Its convolutions take
    a quarter longer than XLA's own in HRNet's forward pass, and twice as long for the gradients of
    kernels; its reductions run as fast as XLA's own, but each one slows the loading of a compiled
    step from the cache, and HRNet has thousands.
    """
    options = {
        "cpu": {"xla_cpu_experimental_ynn_fusion_type": YNN},
        "gpu": {
            "xla_gpu_enable_command_buffer": IN_GRAPHS,
            "xla_gpu_command_buffer_scheduling_mode": "CONCURRENT",
        },
    }
    devices = shardings.batch.mesh.devices.flat
    device = next(d for d in devices if d.process_index == jax.process_index())
    return known_options(options.get(device.platform, {}), device)


@functools.cache
def _is_known(name: str, value: str, device: jax.Device) -> bool:
    place = shardings([device]).replicated  # of an absent device too: nothing is run
    try:
        jax.jit(lambda: 0, out_shardings=place, compiler_options={name: value}).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


def known_options(options: dict[str, str], device: jax.Device) -> dict[str, str]:
    """The options that XLA's compiler for a device has; experimental ones come and go."""
    return {name: value for name, value in options.items() if _is_known(name, value, device)}


def compilation_cache() -> Path:
    """The folder of compiled functions: $JAX_COMPILATION_CACHE_DIR, or one in ~/.cache."""
    usual = Path("~/.cache/ap10k_jax/compiled").expanduser()
    return Path(os.environ.get("JAX_COMPILATION_CACHE_DIR", usual))


def use_compilation_cache() -> None:
    """Cache compiled functions on disk: HRNet-w32's step takes minutes on a small machine."""
    jax.config.update("jax_compilation_cache_dir", str(compilation_cache()))
