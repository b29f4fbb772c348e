"""What training minimises."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def heatmap_mse(
    predicted: Float[Array, "*b h w k"],
    target: Float[Array, "*b h w k"],
    weights: Float[Array, "*b k"],
) -> Float[Array, ""]:
    """Mean of weight x (predicted - target)^2 over images, cells and joints, without a factor 1/2.

    The mean runs over all joints, the weightless ones included: an animal with few labelled joints
    counts less than one with many. As JointsMSELoss in MMPose. Computed in float32 even when the
    network predicts in bfloat16, because most squares are tiny.
    """
    error = predicted.astype(jnp.float32) - target
    return jnp.mean(weights[..., None, None, :] * jnp.square(error))
