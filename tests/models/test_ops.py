"""Convolutions whose gradients are written out have the very gradients that JAX derives."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ap10k_jax.models import layers, ops

SIZES = [(8, 6), (9, 7), (8, 5), (1, 2)]


def whole_numbers(*shape, seed, dtype=np.float32):
    """Small ones: their sums of products are exact in any order."""
    return jnp.asarray(np.random.default_rng(seed).integers(-4, 5, shape), dtype)


def plain(x, kernel, stride, pad):
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), ((pad, pad), (pad, pad)), dimension_numbers=ops.LAYOUT
    )


def assert_same_with_gradients(ours, derived, *arguments):
    result, back = jax.vjp(ours, *arguments)
    expected, derived_back = jax.vjp(derived, *arguments)
    np.testing.assert_array_equal(result, expected)
    gradient = whole_numbers(*result.shape, seed=9, dtype=result.dtype)
    for one, other in zip(back(gradient), derived_back(gradient), strict=True):
        assert one.dtype == other.dtype
        assert np.abs(other).max() > 0
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("sides", SIZES)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [1, 3, 7])
def test_a_convolution(size, stride, sides):
    x, kernel = whole_numbers(2, *sides, 3, seed=0), whole_numbers(size, size, 3, 5, seed=1)
    assert_same_with_gradients(
        lambda x, kernel: ops.convolve(x, kernel, stride, size // 2),
        lambda x, kernel: plain(x, kernel, stride, size // 2),
        *(x, kernel),
    )


@pytest.mark.parametrize("sides", SIZES)
def test_a_transposed_convolution(sides, lowering):
    x, kernel = whole_numbers(2, *sides, 3, seed=0), whole_numbers(4, 4, 3, 5, seed=1)
    assert_same_with_gradients(
        ops.deconv,
        lambda x, kernel: jax.lax.conv_transpose(
            x, kernel, (2, 2), ((2, 2), (2, 2)), dimension_numbers=ops.LAYOUT
        ),
        *(x, kernel),
    )


def test_a_portable_transposed_convolution_is_made_of_plain_ones():
    x, kernel = whole_numbers(2, 5, 4, 3, seed=0), whole_numbers(4, 4, 3, 5, seed=1)
    with ops.portable():
        program = str(jax.make_jaxpr(ops.deconv)(x, kernel))
        portable = ops.deconv(x, kernel)
    assert program.count("conv_general_dilated[") == 4
    assert "lhs_dilation=(2" not in program
    np.testing.assert_array_equal(portable, ops.deconv(x, kernel))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("size", [1, 3])
def test_half_precision_stays_and_sums_are_wider(size, dtype):
    # a bfloat16 sum of 512 ones would end at 256
    x, kernel = jnp.ones((2, 16, 16, 1), dtype), jnp.ones((size, size, 1, 1), dtype)
    to_x, to_kernel = jax.grad(
        lambda x, kernel: ops.convolve(x, kernel, 1, size // 2).sum(), argnums=(0, 1)
    )(x, kernel)
    assert to_x.dtype == to_kernel.dtype == dtype
    assert to_kernel[size // 2, size // 2, 0, 0] == 512


def test_layers_of_the_networks_use_it_on_the_cpu_and_no_other_device(monkeypatch):
    def gradient():
        module = layers.conv(4, 3, name="conv")
        x = jnp.ones((1, 8, 8, 3))
        variables = module.init(jax.random.key(0), x)
        return str(jax.make_jaxpr(jax.grad(lambda v: module.apply(v, x).sum()))(variables))

    assert "_batch_last" in gradient()
    with ops.portable():
        assert "_batch_last" not in gradient()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert "_batch_last" not in gradient()


def test_a_layer_is_linens():
    x = whole_numbers(2, 8, 8, 3, seed=0)
    ours = layers.conv(4, 3, 2, name="conv")
    linens = nn.Conv(4, (3, 3), (2, 2), padding=1, use_bias=False)
    variables = ours.init(jax.random.key(0), x)
    np.testing.assert_allclose(ours.apply(variables, x), linens.apply(variables, x), atol=1e-6)


def test_what_stands_apart_is_a_call_and_is_none_where_it_has_to_be_portable():
    double = jax.jit(lambda x: 2 * x)

    def text():
        return jax.jit(lambda x: ops.fusion_barrier(double, x)).lower(1.0).as_text()

    assert "inlineable" in text()
    with ops.portable():
        assert "inlineable" not in text()
