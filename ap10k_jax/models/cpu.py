"""What XLA's compiler for CPUs does badly, written out: walls to its fusion, and convolutions.

It derives gradients of convolutions as convolutions again, of transposed arrays and of arrays with
zeros between their values, and spends more time on copying and on zeros than on numbers. What is
here computes the same, up to rounding, and on other devices is what JAX derives.

Letters: b batch, h w rows and columns, c d channels. Kernels are HWIO.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
from jax.experimental.xla_metadata import set_xla_metadata
from jaxtyping import Array, Float, PyTree

LAYOUT = ("NHWC", "HWIO", "NHWC")
_portable = contextvars.ContextVar("portable", default=False)


@contextlib.contextmanager
def portable() -> Iterator[None]:
    """What is traced here is for any platform and tool: ordinary operations and nothing else."""
    token = _portable.set(True)
    try:
        yield
    finally:
        _portable.reset(token)


def is_portable() -> bool:
    """Whether what is traced now has to be."""
    return _portable.get()


def is_meant() -> bool:
    """Whether what is traced now will run on a CPU, and need not be portable."""
    return jax.default_backend() == "cpu" and not is_portable()


def apart(function: Callable, *arguments: PyTree[Array]) -> PyTree[Array]:
    """`function(*arguments)`, which is jitted: where a CPU is meant, a computation of its own.

    A call that is not inlined is a wall to fusion; between two walls everything may fuse.
    """
    if not is_meant():
        return function(*arguments)
    with set_xla_metadata(inlineable="false"):
        return function(*arguments)


# --- convolution


def conv_general_dilated(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "n n c d"],
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    **options: object,
) -> Float[Array, "b h2 w2 d"]:
    """In place of jax.lax's, for nn.Conv: square, of stride 1 or 2, padded alike on all sides."""
    if not is_meant():
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)
    return convolve(x, kernel, strides[0], padding[0][0])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(
    x: Float[Array, "b h w c"], kernel: Float[Array, "n n c d"], stride: int, pad: int
) -> Float[Array, "b h2 w2 d"]:
    """A convolution of stride 1 or 2, `pad` zeros on every side."""
    return _convolve(x, kernel, stride, pad)


def _convolve(x: Array, kernel: Array, stride: int, pad: int) -> Array:
    padding = ((pad, pad), (pad, pad))
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=LAYOUT
    )


def _convolve_forward(x: Array, kernel: Array, stride: int, pad: int) -> tuple[Array, tuple]:
    return convolve(x, kernel, stride, pad), (x, kernel)


# Jitted, as below: convolutions of equal shape are traced and lowered once for all.
@functools.partial(jax.jit, static_argnums=(0, 1))
def _convolve_gradient(stride: int, pad: int, kept: tuple, gradient: Array) -> tuple[Array, Array]:
    x, kernel = kept
    to_kernel = kernel_gradient(x, gradient, size=len(kernel), stride=stride, pad=pad)
    if stride == 2 and not (x.shape[1] % 2 or x.shape[2] % 2):
        return spread(gradient, turned(kernel), low=len(kernel) - 1 - pad), to_kernel
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

    Of a kernel of 1x1 it is a product of matrices. Else it is a convolution of `x`, channels as
    batch and batch as channels, with the gradient; transposed by XLA on the way, with what makes
    `x` computed again in the loop, it takes a third longer.
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
    # so many zeros behind that the result has the kernel's size
    behind = [
        size + stride * (after - 1) - before - pad
        for before, after in zip(x.shape[1:3], gradient.shape[1:3], strict=True)
    ]
    return jax.lax.conv_general_dilated(
        apart(_batch_last, x),
        gradient,
        (1, 1),
        [(pad, zeros) for zeros in behind],
        rhs_dilation=(stride, stride),
        dimension_numbers=("HWNC", "IHWO", "HWNC"),
    )


@jax.jit
def _batch_last(x: Float[Array, "b h w c"]) -> Float[Array, "h w c b"]:
    return x.transpose(1, 2, 3, 0)


def spread(
    x: Float[Array, "b h w c"], kernel: Float[Array, "n n c d"], *, low: int
) -> Float[Array, "b 2*h 2*w d"]:
    """The convolution of `x` with a zero after each of its values, and `low` zeros in front.

    The rows and columns of the result with even places, and those with odd ones, each see values
    through some rows and columns of the kernel only, and zeros through the others: four smaller
    convolutions.
    """

    def part(row: int, column: int) -> Float[Array, "b h w d"]:
        taps, padding = zip(*(seen(odd) for odd in (row, column)), strict=True)
        some = kernel[taps[0], taps[1]]
        if 0 in some.shape:
            return jnp.zeros((*x.shape[:3], kernel.shape[3]), x.dtype)
        return jax.lax.conv_general_dilated(x, some, (1, 1), padding, dimension_numbers=LAYOUT)

    def seen(odd: int) -> tuple[slice, tuple[int, int]]:
        """The taps that see values, at odd or even places, and the padding for them."""
        first = (low - odd) % 2
        count = len(range(first, len(kernel), 2))
        before = (low - odd - first) // 2
        return slice(first, None, 2), (before, count - 1 - before)

    b, h, w, _ = x.shape
    # joined, not jnp.stack, which jax2onnx does not know
    rows = [
        jnp.concatenate([part(row, column)[:, :, None, :, None] for column in (0, 1)], axis=4)
        for row in (0, 1)
    ]
    return jnp.concatenate(rows, axis=2).reshape(b, 2 * h, 2 * w, -1)


def turned(kernel: Float[Array, "n n c d"]) -> Float[Array, "n n d c"]:
    """Rows, columns and the two kinds of channels the other way round; twice, it is as before."""
    return kernel[::-1, ::-1].swapaxes(2, 3)


# --- transposed convolution


@jax.custom_vjp
def deconv(
    x: Float[Array, "b h w c"], kernel: Float[Array, "4 4 c d"]
) -> Float[Array, "b 2*h 2*w d"]:
    """The transposed convolution of `layers.Deconv`: stride 2, PyTorch's padding 1.

    The gradient is that of the strided convolution that a transposed one is the transpose of, the
    two arguments exchanged, on every device: of a kernel's gradient that is derived from an
    input with zeros between its values, XLA made 25 to 80 times the time.
    """
    if is_meant() or is_portable():  # jax2onnx gets transposed convolutions wrong
        return spread(x, kernel, low=2)
    # PyTorch's padding 1 is padding 4 - 1 - 1 of the dilated input.
    padding = ((2, 2), (2, 2))
    return jax.lax.conv_transpose(x, kernel, (2, 2), padding, dimension_numbers=LAYOUT)


def _deconv_forward(x: Array, kernel: Array) -> tuple[Array, tuple]:
    return deconv(x, kernel), (x, kernel)


def _deconv_gradient(kept: tuple, gradient: Array) -> tuple[Array, Array]:
    x, kernel = kept
    kernel = turned(kernel)
    if is_meant():
        to_kernel = kernel_gradient(gradient, x, size=4, stride=2, pad=1)
    else:
        (to_kernel,) = jax.vjp(lambda kernel: _convolve(gradient, kernel, 2, 1), kernel)[1](x)
    return _convolve(gradient, kernel, 2, 1), turned(to_kernel)


deconv.defvjp(_deconv_forward, _deconv_gradient)
