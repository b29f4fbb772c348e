"""Half precision learns what float32 learns; saving memory changes no number but by rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from ap10k_jax import loss_scaling, models, train


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    half = {
        "image": rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8),
        "keypoints": rng.uniform(0, 32, (4, 17, 2)).astype(np.float32),
        "weights": (rng.random((4, 17)) < 0.8).astype(np.float32),
    }
    # each animal twice, so that every second one makes a batch with the statistics of the whole
    return {name: np.repeat(x, 2, axis=0) for name, x in half.items()}


@pytest.fixture(scope="module")
def after_a_step(nano, one_device, batch):
    """A function: options of a step -> the change of the parameters, the numbers and the state."""

    def take(dtype=jnp.float32, *, factor=None, **options):
        module = models.build(nano, dtype=dtype)
        optimizer = optax.sgd(1.0)
        if dtype == jnp.float16:
            optimizer = loss_scaling.scaled(optimizer)
        variables = models.init(module, jax.random.key(0), image_size=(32, 32))
        state = train.copy_to_devices(train.init_state(variables, optimizer), one_device)
        if factor:
            state = state.replace(opt_state=state.opt_state._replace(factor=jnp.float32(factor)))
        step = train.make_train_step(module, optimizer, one_device, **options)
        new, numbers = step(state, batch)
        change, _ = ravel_pytree(jax.tree.map(jnp.subtract, new.params, variables["params"]))
        return np.asarray(change), jax.device_get(numbers), new

    return take


@pytest.fixture(scope="module")
def plain(after_a_step):
    return after_a_step()


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_moves_the_weights_where_float32_does(after_a_step, plain, dtype):
    change, numbers, _ = after_a_step(dtype)
    assert numbers["loss"] == pytest.approx(plain[1]["loss"], rel=0.01)
    assert np.linalg.norm(change) == pytest.approx(np.linalg.norm(plain[0]), rel=0.05)
    cosine = change @ plain[0] / np.linalg.norm(change) / np.linalg.norm(plain[0])
    assert cosine > 0.99


def test_a_gradient_that_overflows_changes_nothing_but_the_factor(after_a_step):
    change, _, state = after_a_step(jnp.float16, factor=2.0**40)
    assert not change.any()
    assert state.opt_state.factor == 2.0**39
    assert state.opt_state.good_steps == 0
    assert int(state.step) == 1


def test_the_factor_doubles_after_many_good_steps(monkeypatch):
    monkeypatch.setattr(loss_scaling, "GROW_AFTER", 3)
    optimizer = loss_scaling.scaled(optax.sgd(1.0))
    state = optimizer.init(jnp.zeros(2))
    factors = []
    for gradient in (1.0, 1.0, 1.0, 1.0, np.inf, 1.0):
        _, state = optimizer.update(jnp.full(2, gradient), state)
        factors.append(float(state.factor) / loss_scaling.START)
    assert factors == [1, 1, 2, 2, 1, 1]


def test_the_scaled_optimizer_gets_the_gradient_of_the_loss_itself():
    optimizer = loss_scaling.scaled(optax.sgd(1.0))
    state = optimizer.init(jnp.zeros(2))
    scaled = jnp.array([1e-8, 3.0]) * loss_scaling.loss_factor(state)
    updates, _ = optimizer.update(scaled, state)
    np.testing.assert_allclose(updates, [-1e-8, -3.0], rtol=1e-6)


@pytest.mark.parametrize("options", [{"remat": True}, {"parts": 2}])
def test_saving_memory_takes_the_same_step(after_a_step, plain, options):
    change, numbers, state = after_a_step(**options)
    assert numbers["loss"] == pytest.approx(plain[1]["loss"], rel=1e-5)
    assert np.linalg.norm(change - plain[0]) < 1e-4 * np.linalg.norm(plain[0])
    means = [
        [x for path, x in jax.tree.leaves_with_path(s.batch_stats) if path[-1].key == "mean"]
        for s in (state, plain[2])
    ]
    # two parts with the same statistics move the running ones twice: 1 - 0.9^2 = 1.9 x 0.1
    times = 1.9 if "parts" in options else 1
    for a, b in zip(*means, strict=True):
        np.testing.assert_allclose(a, times * b, rtol=1e-3, atol=1e-6)


def test_every_part_has_rows_of_every_device():
    rows = {"x": jnp.arange(8)}
    _, sums = train.in_parts(lambda carry, part: (carry, part["x"]), {}, rows, 2)
    np.testing.assert_array_equal(2 * sums, [0 + 1, 2 + 3, 4 + 5, 6 + 7])
