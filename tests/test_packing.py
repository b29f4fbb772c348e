"""Packed states hold the same numbers in fewer arrays, and take the same steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ap10k_jax import models, packing, semi, train
from ap10k_jax import optimizer as optimizers
from ap10k_jax.runtime import sharding


@pytest.fixture(scope="module")
def module():
    return models.build("hrnet_tiny")


@pytest.fixture(scope="module")
def variables(module):
    return models.init(module, jax.random.key(0), image_size=(32, 32))


@pytest.mark.parametrize("init_state", [train.init_state, semi.init_state])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_packed_state_unpacks_to_itself(module, variables, init_state, dtype):
    state = init_state(variables, optimizers.make_optimizer(jnp.dtype(dtype)))
    packed = packing.Packing.of(variables)
    again = packed.unpack(packed.pack(state))
    assert jax.tree.structure(again) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, again, state)


def test_moments_and_a_teacher_are_packed_too(module, variables):
    state = semi.init_state(variables, optimizers.make_optimizer(jnp.dtype("float32")))
    packed = packing.Packing.of(variables)
    groups = len(packed.params.groups)
    # student, two moments and the teacher, each with its vectors of statistics or without
    assert len(jax.tree.leaves(packed.pack(state))) <= 4 * groups + 2 + 10
    assert len(jax.tree.leaves(state)) > 500


def test_every_kernel_keeps_its_own_numbers(variables):
    """Two kernels of one shape that are exchanged would go unnoticed in shapes."""
    numbered = jax.tree.map(
        lambda leaf, number: jnp.full(leaf.shape, number, jnp.float32),
        variables,
        jax.tree.unflatten(jax.tree.structure(variables), range(len(jax.tree.leaves(variables)))),
    )
    packed = packing.Packing.of(variables)
    jax.tree.map(np.testing.assert_array_equal, packed.unpack(packed.pack(numbered)), numbered)


def test_hrnet_w32s_state_is_fewer_than_a_hundred_arrays():
    shapes = models.shapes(models.build("hrnet_w32"))
    optimizer = optimizers.make_optimizer(jnp.dtype("float32"))
    state = jax.eval_shape(lambda v: train.init_state(v, optimizer), shapes)
    packed = jax.eval_shape(packing.Packing.of(shapes).pack, state)
    assert len(jax.tree.leaves(state)) > 3000
    assert len(jax.tree.leaves(packed)) < 100
    assert sum(x.size for x in jax.tree.leaves(packed)) == sum(
        x.size for x in jax.tree.leaves(state)
    )


def test_a_packed_state_takes_the_steps_of_a_plain_one():
    module = models.build("nano")
    shardings = sharding.shardings(jax.devices()[:1])
    optimizer = optimizers.make_optimizer(jnp.dtype("float32"))
    variables = models.init(module, jax.random.key(0), image_size=(32, 32))
    packed = packing.Packing.of(variables)
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (4, 32, 32, 3), np.uint8),
        "keypoints": rng.uniform(0, 32, (4, 17, 2)).astype(np.float32),
        "weights": np.ones((4, 17), np.float32),
    }
    states = []
    for packing_ in (None, packed):
        state = train.copy_to_devices(train.init_state(variables, optimizer), shardings)
        if packing_:
            state = packing_.pack(state)
        step = train.make_train_step(module, optimizer, shardings, packed=packing_)
        for _ in range(3):
            state, _ = step(optimizers.with_learning_rate(state, 1e-3), batch)
        states.append(packing_.unpack(state) if packing_ else state)
    assert int(states[1].step) == 3
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), *states)
