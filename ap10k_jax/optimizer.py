"""Adam, its learning rate over a run, and one step of it."""

import functools
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from ap10k_jax import loss_scaling
from ap10k_jax.models import ops

State = TypeVar("State")  # train.TrainState or semi.SemiState


def learning_rate(config: ConfigDict, steps_per_epoch: int) -> Callable[[int], float]:
    """Linear warm-up from a thousandth, then a tenth after each of `decay_at` (shares of the run).

    The rate is full at step `warmup_steps`, as in MMPose 0.x. With `linear_decay` it falls evenly
    instead, and would be 0 at the step after the last.
    """
    optimizer = config.optimizer
    falls = {round(share * config.epochs) * steps_per_epoch for share in optimizer.decay_at}
    total = config.epochs * steps_per_epoch

    def schedule(step: int) -> float:
        if optimizer.linear_decay:
            rate = optimizer.learning_rate * max(1 - step / total, 0.0)
        else:
            rate = optimizer.learning_rate * 0.1 ** sum(step >= fall for fall in falls)
        if optimizer.warmup_steps:
            rate *= 0.001 + 0.999 * min(1.0, step / optimizer.warmup_steps)
        return rate

    return schedule


@functools.cache
def make_optimizer(dtype: jnp.dtype) -> optax.GradientTransformation:
    """Adam, as in the paper; for a float16 network with a scaled loss.

    The rate is part of its state, see `with_learning_rate`: a schedule inside would make a compiled
    step that is good for one length of training and one size of data set only.
    """

    def at(learning_rate: Float[Array, ""]) -> optax.GradientTransformation:
        adam = optax.adam(learning_rate)
        return loss_scaling.scaled(adam) if dtype == jnp.float16 else adam

    return optax.inject_hyperparams(at)(learning_rate=0.0)


def with_learning_rate(state: State, rate: float) -> State:
    """The state, to take its next step at this learning rate."""
    hyperparams = state.opt_state.hyperparams | {"learning_rate": np.float32(rate)}
    return state.replace(opt_state=state.opt_state._replace(hyperparams=hyperparams))


def apply_gradient(
    optimizer: optax.GradientTransformation,
    gradient: dict,
    opt_state: optax.OptState,
    params: dict,
) -> tuple[dict, optax.OptState]:
    """Parameters and optimizer state after a step down the gradient.

    On CPU a computation of its own: XLA orders the kernels of each anew whenever a compiled step is
    loaded, in time quadratic in their number, and Adam has as many as there are parameters.
    """

    @jax.jit
    def update(gradient, opt_state, params):
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    return ops.fusion_barrier(update, gradient, opt_state, params)
