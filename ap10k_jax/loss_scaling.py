"""float16: the loss is scaled, so that small gradients do not vanish, and as far as they allow.

float16 (for cards without bfloat16, as V100) rounds what is below 6e-8 to nothing, and this
project's heatmap losses have gradients of that size. So the loss is multiplied by a large factor
and the gradient divided by it again, in float32. Where the factor was too large the gradient is
infinite: that step is skipped and the factor halved; after GROW_AFTER good steps it is doubled
(Micikevicius et al., ICLR 2018). bfloat16 has float32's range and needs none of this.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

START = 2.0**15
GROW_AFTER = 2000
# So many skipped steps in a row are no matter of the factor: then the numbers become NaN, and
# training ends with NonFiniteLoss.
MAX_SKIPPED = 50


class ScaledState(NamedTuple):
    """The state of a `scaled` optimizer."""

    factor: Float[Array, ""]
    good_steps: Int[Array, ""]  # since the factor was changed last
    inner: optax.OptState


def scaled(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """The optimizer for gradients of `loss * loss_factor(state)`; infinite ones change nothing."""
    careful = optax.apply_if_finite(optimizer, MAX_SKIPPED)

    def init(params: optax.Params) -> ScaledState:
        return ScaledState(jnp.float32(START), jnp.int32(0), careful.init(params))

    def update(
        gradient: optax.Updates, state: ScaledState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, ScaledState]:
        unscaled = jax.tree.map(lambda g: g / state.factor, gradient)
        updates, inner = careful.update(unscaled, state.inner, params)
        good_steps = jnp.where(inner.last_finite, state.good_steps + 1, 0)
        grow = good_steps == GROW_AFTER
        change = jnp.where(inner.last_finite, jnp.where(grow, 2.0, 1.0), 0.5)
        factor = jnp.maximum(state.factor * change, 1.0)
        return updates, ScaledState(factor, jnp.where(grow, 0, good_steps), inner)

    return optax.GradientTransformation(init, update)


def loss_factor(state: optax.OptState) -> Float[Array, ""] | float:
    """The factor to multiply the loss by: 1 unless the optimizer is a `scaled` one."""
    return optax.tree.get(state, "factor", 1.0)
