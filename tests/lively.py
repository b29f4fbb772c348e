"""A tiny network with random weights of ordinary size: untrained ones see nothing at all."""

import jax
import jax.numpy as jnp
import numpy as np

from ap10k_jax import checkpoint, models

CONFIG = {
    "model": {"name": "nano", "num_keypoints": 17, "dtype": "float32"},
    "data": {"name": "ap10k/split1", "image_size": 64},
    "eval": {"flip_test": True, "decode": "default"},
}


def variables(seed=0):
    """Kernels by He's rule, so that every joint's heatmap has a peak that the picture decides."""
    module = models.build("nano")
    initial = models.init(module, jax.random.key(0), image_size=(64, 64))
    rng = np.random.default_rng(seed)

    def redraw(x):
        if x.ndim != 4:
            return x
        return jnp.asarray(rng.normal(0, np.sqrt(2 / np.prod(x.shape[:3])), x.shape), x.dtype)

    return jax.tree.map(redraw, initial)


def export(folder):
    """Writes the network as an exported checkpoint; returns its folder."""
    checkpoint.export(folder, variables(), CONFIG)
    return folder
