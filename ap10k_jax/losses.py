"""The training loss."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def heatmap_mse(
    predicted: Float[Array, "*b h w k"],
    target: Float[Array, "*b h w k"],
    weights: Float[Array, "*b k"],
) -> Float[Array, ""]:
    """Mean of weight x (predicted - target)^2 over images, cells and joints, without a factor 1/2.

    The mean runs over all joints, the weightless ones included: an animal with few labelled joints
    counts less than one with many. As JointsMSELoss in MMPose. A network may predict in bfloat16:
    float32 targets make the differences, and the mean of their tiny squares, float32. It is taken
    axis by axis: one sum of a hundred thousand cells would lose two digits.
    """
    squares = weights[..., None, None, :] * jnp.square(predicted - target)
    return squares.mean(axis=-3).mean(axis=-2).mean()
