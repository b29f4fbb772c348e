"""The loss is a plain weighted mean, with nothing hidden in it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_files import copy

from ap10k_jax import losses


def test_loss_agrees_with_the_reference():
    golden = copy("loss.npz")
    target = copy("decode.npz")["heatmaps"][:2]
    loss = jax.jit(losses.heatmap_mse)(golden["loss_pred"], target, golden["loss_weights"])
    assert loss == pytest.approx(float(golden["loss"]), abs=1e-6)


def test_one_wrong_cell_costs_its_share_of_all_cells():
    # Weightless joints and empty cells are part of the mean, and there is no factor 1/2.
    target = jnp.zeros((2, 4, 8, 3))
    predicted = target.at[0, 1, 2, 0].set(2.0)
    weights = jnp.array([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    assert losses.heatmap_mse(predicted, target, weights) == pytest.approx(4 / (2 * 4 * 8 * 3))


def test_weightless_joints_have_no_gradient():
    predicted = jnp.ones((1, 4, 4, 2))
    weights = jnp.array([[0.0, 1.0]])
    gradient = jax.grad(losses.heatmap_mse)(predicted, jnp.zeros((1, 4, 4, 2)), weights)
    assert not np.any(gradient[..., 0])
    assert np.all(gradient[..., 1] == 2 / 32)


def test_half_precision_predictions_are_summed_in_full_precision():
    # A bfloat16 mean of 10^-3 squared over 10^5 cells would be wrong in the second digit.
    predicted = jnp.full((2, 64, 64, 17), 1e-3, jnp.bfloat16)
    loss = losses.heatmap_mse(predicted, jnp.zeros(predicted.shape), jnp.ones((2, 17)))
    assert loss.dtype == jnp.float32
    assert loss == pytest.approx(float(predicted[0, 0, 0, 0]) ** 2, rel=1e-5)
