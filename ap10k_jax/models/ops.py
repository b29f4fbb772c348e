"""Operations that need another form on some device or in an export: batch norm, convolutions, sums.

XLA's CPU compiler derives gradients of convolutions as convolutions of transposed and of dilated
arrays, and spends more time on copies and zeros than on numbers. The forms for CPU compute the
same up to rounding; on other devices the operations are those that JAX derives.

Letters: b batch, h w rows and columns, c d channels. Kernels are HWIO.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.experimental.xla_metadata import set_xla_metadata
from jaxtyping import Array, Float, PyTree

LAYOUT = ("NHWC", "HWIO", "NHWC")
_portable = contextvars.ContextVar("portable", default=False)
_platform = contextvars.ContextVar("platform", default=None)


@contextlib.contextmanager
def portable() -> Iterator[None]:
    """Trace for any platform and tool: ordinary operations and nothing else."""
    token = _portable.set(True)
    try:
        yield
    finally:
        _portable.reset(token)


def is_portable() -> bool:
    """True inside of `portable`."""
    return _portable.get()


@contextlib.contextmanager
def target_platform(name: str) -> Iterator[None]:
    """Trace functions for "cpu" or "gpu" in place of JAX's default backend.

    Serves programs compiled for a device that this machine lacks, and tests of the accelerator's
    operations on CPU. JAX's caches are cleared because the jitted functions of this module are
    cached by the shapes of their arguments alone.
    """
    token = _platform.set(name)
    jax.clear_caches()
    try:
        yield
    finally:
        _platform.reset(token)
        jax.clear_caches()


def is_for_cpu() -> bool:
    """True where the code traced now will run on a CPU and need not be portable."""
    return (_platform.get() or jax.default_backend()) == "cpu" and not is_portable()


def fusion_barrier(function: Callable, *arguments: PyTree[Array]) -> PyTree[Array]:
    """The result of a jitted function, on CPU computed apart from all that surrounds it.

    XLA does not fuse across a call that is not inlined.
    """
    if not is_for_cpu():
        return function(*arguments)
    with set_xla_metadata(inlineable="false"):
        return function(*arguments)


def conv_general_dilated(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "n n c d"],
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    **options: object,
) -> Float[Array, "b h2 w2 d"]:
    """In place of jax.lax's, for nn.Conv: square, of stride 1 or 2, padded alike on all sides."""
    if not is_for_cpu():
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)
    return convolve(x, kernel, strides[0], padding[0][0])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(
    x: Float[Array, "b h w c"], kernel: Float[Array, "n n c d"], stride: int, pad: int
) -> Float[Array, "b h2 w2 d"]:
    """A convolution of stride 1 or 2, `pad` zeros on every side."""
    return _convolve(x, kernel, stride, pad)


def _convolve(x: Array, kernel: Array, stride: int, pad: int) -> Array:
    strides, padding = (stride, stride), ((pad, pad), (pad, pad))
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=LAYOUT)


def _convolve_forward(x: Array, kernel: Array, stride: int, pad: int) -> tuple[Array, tuple]:
    return convolve(x, kernel, stride, pad), (x, kernel)


# Jitted, as below: convolutions of equal shape are traced and lowered once for all.
@functools.partial(jax.jit, static_argnums=(0, 1))
def _convolve_gradient(
    stride: int, pad: int, residuals: tuple, gradient: Array
) -> tuple[Array, Array]:
    x, kernel = residuals
    to_kernel = kernel_gradient(x, gradient, size=len(kernel), stride=stride, pad=pad)
    if stride == 2 and not (x.shape[1] % 2 or x.shape[2] % 2):
        pad_low = len(kernel) - 1 - pad
        to_x = dilated_convolution(gradient, transpose_kernel(kernel), pad_low=pad_low)
    else:
        (to_x,) = jax.vjp(lambda x: _convolve(x, kernel, stride, pad), x)[1](gradient)
    return to_x, to_kernel


convolve.defvjp(_convolve_forward, _convolve_gradient)


def kernel_gradient(
    x: Float[Array, "b h w c"],
    gradient: Float[Array, "b h2 w2 d"],
    *,
    size: int,
    stride: int,
    pad: int,
) -> Float[Array, "size size c d"]:
    """The gradient of a convolution's kernel, given that of its result.

    For a 1x1 kernel a product of matrices; else a convolution of `x`, channels as batch and batch
    as channels, with the gradient. Transposing `x` apart from it saves a quarter of the time.
    """
    if size == 1 and not pad:
        x = x[:, ::stride, ::stride]
        wide = jnp.promote_types(x.dtype, jnp.float32)
        product = jax.lax.dot_general(
            x.reshape(-1, x.shape[-1]),
            gradient.reshape(-1, gradient.shape[-1]),
            (((0,), (0,)), ((), ())),
            preferred_element_type=wide,
        )
        return product[None, None].astype(x.dtype)
    # The zeros after the last row and column that give the result the kernel's size.
    pad_high = [
        size + stride * (outputs - 1) - inputs - pad
        for inputs, outputs in zip(x.shape[1:3], gradient.shape[1:3], strict=True)
    ]
    return jax.lax.conv_general_dilated(
        fusion_barrier(_batch_last, x),
        gradient,
        (1, 1),
        [(pad, high) for high in pad_high],
        rhs_dilation=(stride, stride),
        dimension_numbers=("HWNC", "IHWO", "HWNC"),
    )


@jax.jit
def _batch_last(x: Float[Array, "b h w c"]) -> Float[Array, "h w c b"]:
    return x.transpose(1, 2, 3, 0)


def dilated_convolution(
    x: Float[Array, "b h w c"], kernel: Float[Array, "n n c d"], *, pad_low: int
) -> Float[Array, "b 2*h 2*w d"]:
    """The convolution of `x` dilated by 2 (a zero after each value), `pad_low` zeros in front.

    Computed by phases: rows and columns of the result at even places, and those at odd ones, each
    meet values of `x` through every other tap of the kernel only. So four smaller convolutions
    without zeros give them all.
    """

    def phase(row: int, column: int) -> Float[Array, "b h w d"]:
        taps, padding = zip(taps_of(row), taps_of(column), strict=True)
        part = kernel[taps[0], taps[1]]
        if 0 in part.shape:
            return jnp.zeros((*x.shape[:3], kernel.shape[3]), x.dtype)
        return jax.lax.conv_general_dilated(x, part, (1, 1), padding, dimension_numbers=LAYOUT)

    def taps_of(odd: int) -> tuple[slice, tuple[int, int]]:
        """The taps that meet values, at odd or even places, and the padding for them."""
        first = (pad_low - odd) % 2
        count = len(range(first, len(kernel), 2))
        before = (pad_low - odd - first) // 2
        return slice(first, None, 2), (before, count - 1 - before)

    b, h, w, _ = x.shape
    # concatenated, because jax2onnx does not know jnp.stack
    rows = [
        jnp.concatenate([phase(row, column)[:, :, None, :, None] for column in (0, 1)], axis=4)
        for row in (0, 1)
    ]
    return jnp.concatenate(rows, axis=2).reshape(b, 2 * h, 2 * w, -1)


def transpose_kernel(kernel: Float[Array, "n n c d"]) -> Float[Array, "n n d c"]:
    """The kernel of the transposed convolution: rotated by 180 degrees, channels exchanged."""
    return kernel[::-1, ::-1].swapaxes(2, 3)


@jax.custom_vjp
def deconv(
    x: Float[Array, "b h w c"], kernel: Float[Array, "4 4 c d"]
) -> Float[Array, "b 2*h 2*w d"]:
    """The transposed convolution of `layers.Deconv`: stride 2, PyTorch's padding 1.

    The gradient, on every device, is that of the strided convolution with the arguments exchanged:
    XLA's own, of an input with zeros between its values, took 25 to 80 times as long.
    """
    if is_for_cpu() or is_portable():  # jax2onnx gets transposed convolutions wrong
        return dilated_convolution(x, kernel, pad_low=2)
    # PyTorch's padding 1 is padding 4 - 1 - 1 of the dilated input.
    padding = ((2, 2), (2, 2))
    return jax.lax.conv_transpose(x, kernel, (2, 2), padding, dimension_numbers=LAYOUT)


def _deconv_forward(x: Array, kernel: Array) -> tuple[Array, tuple]:
    return deconv(x, kernel), (x, kernel)


def _deconv_gradient(residuals: tuple, gradient: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    kernel = transpose_kernel(kernel)
    if is_for_cpu():
        to_kernel = kernel_gradient(gradient, x, size=4, stride=2, pad=1)
    else:
        (to_kernel,) = jax.vjp(lambda kernel: _convolve(gradient, kernel, 2, 1), kernel)[1](x)
    return _convolve(gradient, kernel, 2, 1), transpose_kernel(to_kernel)


deconv.defvjp(_deconv_forward, _deconv_gradient)


@jax.custom_vjp
def normalize_batch(
    x: Float[Array, "b h w c"], scale: Float[Array, " c"], bias: Float[Array, " c"], epsilon: float
) -> tuple[Float[Array, "b h w c"], tuple[Float[Array, " c"], Float[Array, " c"]]]:
    """The batch with mean `bias` and deviation `scale` in every channel, and its statistics.

    Returns the normalised batch in the dtype of `x`, and (mean, biased variance) in float32, which
    have no gradient. The gradient is written out (Ioffe and Szegedy, 2015) because it needs `x`
    alone as residual, in the compute dtype, and one reduction. Each direction reads `x` twice: once
    for two sums, once for an affine map of every channel.
    """
    return _normalize_batch(x, scale, bias, epsilon)[0]


# Jitted, here and below, so that layers of equal shape are traced and lowered once.
@jax.jit
def _normalize_batch(x: Array, scale: Array, bias: Array, epsilon: float) -> tuple:
    mean, var = batch_statistics(x)
    inverse = jax.lax.rsqrt(var + epsilon)
    factor = scale * inverse
    y = at_least_float32(x) * factor + (bias - mean * factor)
    return (y.astype(x.dtype), (mean, var)), (x, mean, inverse, scale)


def batch_statistics(x: Float[Array, "b h w c"]) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
    """Mean and biased variance of every channel, in one pass over the batch.

    The sums are taken from the first pixel's value: from zero, the difference E[x^2] - E[x]^2
    would lose digits where a channel's mean is large against its deviation.
    """
    x = at_least_float32(x)
    count = x.size // x.shape[-1]
    shift = x[0, 0, 0]
    centered = x - shift
    total, squares = channel_sums(centered, centered * centered)
    mean = total / count
    var = jnp.maximum(squares / count - mean * mean, 0)
    return mean + shift, var


@jax.jit
def _normalize_batch_gradient(residuals: tuple, gradients: tuple) -> tuple:
    x, mean, inverse, scale = residuals
    wide, gradient = at_least_float32(x), at_least_float32(gradients[0])
    count = x.size // x.shape[-1]
    to_bias, moment = channel_sums(gradient, gradient * (wide - mean))
    to_scale = moment * inverse
    # (gradient - to_bias / count - normalized * to_scale / count) * scale * inverse, rearranged so
    # that only the last line works on pixels, all others on one number a channel
    gradient_factor = scale * inverse
    x_factor = -gradient_factor * inverse * to_scale / count
    constant = -gradient_factor * to_bias / count - x_factor * mean
    to_x = gradient_factor * gradient + x_factor * wide + constant
    return to_x.astype(x.dtype), to_scale, to_bias, None


normalize_batch.defvjp(_normalize_batch, _normalize_batch_gradient)


def channel_sums(
    x: Float[Array, "b h w c"], y: Float[Array, "b h w c"]
) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
    """The sums of two arrays over all but their channels.

    One reduction with two results: on GPUs a kernel for both, where two reductions side by side
    often become two. XLA's CPU compiler does not vectorise such a reduction.
    """
    axes = tuple(range(x.ndim - 1))
    if is_for_cpu() or is_portable():
        return x.sum(axes), y.sum(axes)
    zero = jnp.zeros((), x.dtype)
    return jax.lax.reduce((x, y), (zero, zero), _add_pairs, axes)


def _add_pairs(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
    return a[0] + b[0], a[1] + b[1]


def at_least_float32(x: Array) -> Array:
    """Half precision widened to float32; float32 and float64 (for tests) as they are."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def relu_of_sum(*branches: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """ReLU of a sum, behind a fusion barrier on CPU.

    XLA's CPU compiler fuses a cheap sum into each of its readers and computes it there anew, with
    the sum before it, and so on back to the first block: HRNet then takes time quadratic in the
    depth.
    """
    if not is_for_cpu():
        return _relu_of_sum(*branches)
    return _separate_relu_of_sum(branches)


@jax.custom_vjp
def _separate_relu_of_sum(branches: tuple[Array, ...]) -> Array:
    return fusion_barrier(_relu_of_sum, *branches)


def _relu_of_sum_forward(branches: tuple[Array, ...]) -> tuple[Array, tuple]:
    result = _separate_relu_of_sum(branches)
    return result, (result, len(branches))


def _relu_of_sum_backward(residuals: tuple, gradient: Array) -> tuple:
    result, count = residuals
    return ((fusion_barrier(_relu_gradient, result, gradient),) * count,)


_separate_relu_of_sum.defvjp(_relu_of_sum_forward, _relu_of_sum_backward)


@jax.jit
def _relu_of_sum(*branches: Array) -> Array:
    return jax.nn.relu(sum(branches))


@jax.jit
def _relu_gradient(result: Array, gradient: Array) -> Array:
    return jnp.where(result > 0, gradient, 0)


def max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """The max pooling of `layers.max_pool`; of Linen's, jax2onnx makes what no runtime takes."""
    if not is_portable():
        return nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
    _, h, w, _ = x.shape
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    x = functools.reduce(jnp.maximum, [x[:, i : i + h : 2] for i in range(3)])
    return functools.reduce(jnp.maximum, [x[:, :, i : i + w : 2] for i in range(3)])
