"""The networks of the paper by name, and their initialisation.

module = models.build("hrnet_w32")
variables = models.init(module, jax.random.key(0))
heatmaps = module.apply(variables, images)  # (b, H, W, 3) normalised -> (b, H/4, W/4, 17)
"""

import functools
import zlib
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array

from ap10k_jax.models import hourglass, hrnet, layers, simplebaseline

# Bounds of what a config, which may be a stranger's, can ask for.
LARGEST_IMAGE = 2048  # pixels a side of the crop
MOST_KEYPOINTS = 1000
DTYPES = ("float32", "bfloat16", "float16")

MODELS: dict[str, Callable[..., nn.Module]] = {
    "hrnet_w32": functools.partial(hrnet.HRNet, hrnet.stages(32)),
    "hrnet_w48": functools.partial(hrnet.HRNet, hrnet.stages(48)),
    # For a CPU: the same structure, about a tenth of the operations to compile.
    "hrnet_tiny": functools.partial(
        hrnet.HRNet, hrnet.small_stages(16), stem_features=16, bottlenecks=1
    ),
    "simplebaseline_resnet18": functools.partial(simplebaseline.SimpleBaseline, 18),
    "simplebaseline_resnet34": functools.partial(simplebaseline.SimpleBaseline, 34),
    "simplebaseline_resnet50": functools.partial(simplebaseline.SimpleBaseline, 50),
    "simplebaseline_resnet101": functools.partial(simplebaseline.SimpleBaseline, 101),
    "simplebaseline_resnet152": functools.partial(simplebaseline.SimpleBaseline, 152),
    "hourglass52": hourglass.Hourglass,
    "hourglass104": functools.partial(hourglass.Hourglass, stacks=2),
}


def build(name: str, *, num_keypoints: int = 17, dtype: DTypeLike = jnp.float32) -> nn.Module:
    """The network called `name`; `dtype` is that of the computation, parameters are float32."""
    if name not in MODELS:
        raise ValueError(f"no model is called {name!r}; there are {', '.join(sorted(MODELS))}")
    return MODELS[name](num_keypoints=num_keypoints, dtype=dtype)


def shapes(module: nn.Module, *, image_size: tuple[int, int] = (256, 256)) -> dict:
    """The variables as a tree of jax.ShapeDtypeStruct, without computing anything."""
    images = jax.ShapeDtypeStruct((1, *image_size, 3), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.eval_shape(functools.partial(module.init, train=False), key, images)


def init(module: nn.Module, key: Array, *, image_size: tuple[int, int] = (256, 256)) -> dict:
    """Freshly initialised variables, from the distributions of `module.init`, without compiling.

    Compiling `module.init` takes most of a minute for HRNet, because each of its 300 kernels is a
    random call of its own. Here numpy draws every kernel from a seed made of `key` and the kernel's
    path: deterministic, the same on every device, and independent of the other leaves. Runs on the
    host: not to be called under jit.
    """
    initializers = {}

    def record(call, args, kwargs, context):
        if isinstance(context.module, nn.Conv | layers.Deconv):
            initializers[(*context.module.path, "kernel")] = context.module.kernel_init
        return call(*args, **kwargs)

    with nn.intercept_methods(record):
        tree = shapes(module, image_size=image_size)

    is_typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    seed = np.asarray(jax.random.key_data(key) if is_typed else key).ravel().tolist()

    def leaf(path: tuple, struct: jax.ShapeDtypeStruct) -> np.ndarray:
        _, *names = (entry.key for entry in path)
        if names[-1] in ("bias", "mean"):
            return np.zeros(struct.shape, np.float32)
        if names[-1] in ("scale", "var"):
            return np.ones(struct.shape, np.float32)
        rng = np.random.default_rng([*seed, zlib.crc32("/".join(names).encode())])
        std = np.float32(initializers[tuple(names)].std(struct.shape))
        return std * rng.standard_normal(struct.shape, dtype=np.float32)

    return jax.device_put(jax.tree.map_with_path(leaf, tree))
