"""Keypoints of crops on the device: normalise, forward, mirror test, decode, in one jitted step.

Letters: b crops, H W their height and width, k keypoints. Used by evaluation, prediction and export
alike, so that all three compute the same. Knows nothing of data sets or configs.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from ap10k_jax import codec, keypoints, transforms
from ap10k_jax.runtime import sharding

# Mean and standard deviation of ImageNet's RGB in 0..1, as every pretrained backbone here expects.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def normalize(images: UInt8[Array, "b H W 3"]) -> Float[Array, "b H W 3"]:
    """The network's input: RGB bytes scaled to 0..1, less ImageNet's mean, over its deviation."""
    scaled = images.astype(jnp.float32) / 255.0
    return (scaled - jnp.array(MEAN)) / jnp.array(STD)


def predict_crops(
    variables: dict,
    images: UInt8[Array, "b H W 3"],
    *,
    module: nn.Module,
    pairs: tuple[tuple[int, int], ...],
    flip_test: bool = True,
    decode: str = "default",
) -> Float[Array, "b k 3"]:
    """Keypoints in crop pixels with their scores, (x, y, score)."""
    inputs = normalize(images)
    if flip_test:  # both views in one batch: one forward pass
        inputs = jnp.concatenate([inputs, inputs[:, :, ::-1]])
    heatmaps = module.apply(variables, inputs, train=False)
    stride = images.shape[1] / heatmaps.shape[1]
    if flip_test:
        plain, mirrored = jnp.split(heatmaps, 2)
        heatmaps = (plain + codec.flip_back(mirrored, pairs=pairs)) / 2
    points, scores = codec.decode(heatmaps, stride=stride, method=decode)
    return jnp.concatenate([points, scores[..., None]], axis=-1)


def make_predict_step(
    module: nn.Module,
    shardings: sharding.Shardings,
    *,
    pairs: tuple[tuple[int, int], ...] = keypoints.AP10K.pairs,
    flip_test: bool = True,
    decode: str = "default",
) -> Callable:
    """`predict_crops`, compiled: (variables, uint8 crops) -> (b, k, 3) on every host."""
    step = functools.partial(
        predict_crops, module=module, pairs=pairs, flip_test=flip_test, decode=decode
    )
    return jax.jit(
        step,
        in_shardings=(shardings.replicated, shardings.batch),
        out_shardings=shardings.replicated,
        compiler_options=sharding.compiler_options(shardings),
    )


def to_image(points: Float[np.ndarray, "b k 3"], batch: dict) -> Float[np.ndarray, "b k 3"]:
    """Keypoints of a batch's crops in image pixels; the scores stay."""
    size = batch["image"].shape[2:0:-1]
    boxes = zip(points[..., :2], batch["center"], batch["scale"], strict=True)
    xy = [transforms.crop_to_image(p, center, scale, size=size) for p, center, scale in boxes]
    return np.concatenate([xy, points[..., 2:]], axis=-1)
