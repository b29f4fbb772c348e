"""Hand-written gradients are those of the formulas; the CPU compiles each block once."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ap10k_jax.models import layers, ops


def plain_batch_norm(x, scale, bias, epsilon):
    mean = x.mean(axis=(0, 1, 2))
    var = jnp.square(x - mean).mean(axis=(0, 1, 2))
    return (x - mean) / jnp.sqrt(var + epsilon) * scale + bias


@pytest.fixture(params=["cpu", "accelerator"])
def lowering(request, monkeypatch):
    """Both ways to compute, on whatever device the tests have."""
    monkeypatch.setattr(ops, "is_for_cpu", lambda: request.param == "cpu")
    jax.clear_caches()
    yield request.param
    jax.clear_caches()


@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_batch_norms_gradient_is_that_of_its_formula(offset, lowering):
    rng = np.random.default_rng(0)
    x = rng.normal(offset, 1, (4, 6, 5, 3)).astype(np.float32)
    scale, bias = rng.normal(1, 0.2, (2, 3)).astype(np.float32)
    gradient = rng.normal(0, 1, x.shape).astype(np.float32)
    ours, back = jax.vjp(lambda *a: ops.normalize_batch(*a, 1e-5)[0], x, scale, bias)
    plain, plain_back = jax.vjp(lambda *a: plain_batch_norm(*a, 1e-5), x, scale, bias)
    np.testing.assert_allclose(ours, plain, atol=1e-5)
    for a, b in zip(back(gradient), plain_back(gradient), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_statistics_lose_no_digits_where_the_mean_is_a_thousand_deviations(lowering):
    """Sums from zero would leave no digit of the variance; PyTorch is exact to 1e-5 here, too."""
    x = np.random.default_rng(0).normal(1000, 1, (8, 32, 32, 5)).astype(np.float32)
    mean, var = ops.batch_statistics(x)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(var, exact.var((0, 1, 2)), rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_normalised_with_float32_sums(dtype, lowering):
    x = jnp.asarray(np.random.default_rng(0).normal(3, 1, (16, 64, 64, 2)), dtype)
    scale, bias = jnp.ones(2), jnp.zeros(2)
    (y, (mean, var)), back = jax.vjp(lambda x: ops.normalize_batch(x, scale, bias, 1e-5), x)
    assert y.dtype == dtype
    assert mean.dtype == var.dtype == jnp.float32
    # bfloat16 sums of 65,536 values would be wrong in the first digit
    np.testing.assert_allclose(mean, np.asarray(x, float).mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(var, np.asarray(x, float).var((0, 1, 2)), rtol=1e-4)
    (to_x,) = back((jnp.ones_like(y), (jnp.zeros(2), jnp.zeros(2))))
    assert to_x.dtype == dtype


def test_the_gradient_of_a_sum_goes_to_every_branch_where_the_sum_is_positive():
    a, b, c = np.random.default_rng(0).normal(0, 1, (3, 2, 4, 4, 3)).astype(np.float32)
    gradient = np.random.default_rng(1).normal(0, 1, a.shape).astype(np.float32)
    ours, back = jax.vjp(layers.add_relu, a, b, c)
    with ops.portable():
        plain, plain_back = jax.vjp(lambda *x: layers.add_relu(*x), a, b, c)
    np.testing.assert_array_equal(ours, plain)
    for x, y in zip(back(gradient), plain_back(gradient), strict=True):
        np.testing.assert_array_equal(x, y)


class Chain(nn.Module):
    depth: int

    @nn.compact
    def __call__(self, x, train):
        for i in range(self.depth):
            x = layers.Residual(layers.basic(4), name=f"block{i}")(x, train=train)
        return x


def compiled_lines(depth, *, train):
    module, x = Chain(depth), jnp.ones((2, 8, 8, 4))
    variables = module.init(jax.random.key(0), x, train=False)

    def loss(params):
        y, _ = module.apply(variables | {"params": params}, x, train=True, mutable=["batch_stats"])
        return jnp.square(y).mean()

    def forward(params):
        return module.apply(variables | {"params": params}, x, train=False)

    function = jax.grad(loss) if train else forward
    return jax.jit(function).lower(variables["params"]).compile().as_text().count("\n")


@pytest.mark.parametrize("train", [True, False])
def test_on_the_cpu_a_blocks_sum_is_not_computed_again_in_every_later_block(train):
    # where it is, twice the depth has three times the operations and more
    assert compiled_lines(16, train=train) < 2.2 * compiled_lines(8, train=train)


def test_what_is_portable_has_no_calls_for_the_cpu_compiler():
    def text():
        return jax.jit(lambda x: layers.add_relu(x, x)).lower(jnp.ones((1, 2, 2, 3))).as_text()

    assert "inlineable" in text()
    with ops.portable():
        assert "inlineable" not in text()


@pytest.mark.parametrize("sides", [(8, 6), (7, 9), (1, 2)])
def test_the_portable_max_pool_is_linens(sides):
    x = jnp.asarray(np.random.default_rng(0).normal(-3, 1, (2, *sides, 3)), jnp.float32)
    with ops.portable():
        portable = layers.max_pool(x)
    np.testing.assert_array_equal(portable, layers.max_pool(x))
