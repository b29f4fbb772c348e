"""The few layers that the three networks share: convolution, batch norm, residual blocks, head.

Shapes are NHWC: b batch, h w rows and columns of a feature map, c channels.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from ap10k_jax.models import ops

SAVED = "joined"  # name of the activations that rematerialisation saves, see `add_relu`


@dataclasses.dataclass(frozen=True)
class Normal:
    """A Linen initializer, N(0, deviation^2), that also tells `models.init` its deviation."""

    deviation: float = 0.001

    def std(self, shape: tuple[int, ...]) -> float:
        """The standard deviation for a kernel of this shape."""
        return self.deviation

    def __call__(self, key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
        return self.std(shape) * jax.random.normal(key, shape, dtype)


@dataclasses.dataclass(frozen=True)
class Kaiming(Normal):
    """He initialisation for ReLU networks on the fan-out, as ResNet has it (kernel HWIO)."""

    def std(self, shape: tuple[int, ...]) -> float:
        height, width, _, features = shape
        return float(np.sqrt(2.0 / (height * width * features)))


def conv(
    features: int,
    size: int,
    stride: int = 1,
    *,
    bias: bool = False,
    kernel_init: Normal = Normal(),
    dtype: DTypeLike | None = jnp.float32,
    name: str,
) -> nn.Conv:
    """A square convolution padded by size // 2 on every side.

    Padding is spelled out because 'SAME' puts the odd pixel of a stride-2 convolution at the bottom
    right only, half a pixel away from where PyTorch's weights expect it.
    """
    return nn.Conv(
        features,
        (size, size),
        (stride, stride),
        padding=size // 2,
        use_bias=bias,
        kernel_init=kernel_init,
        dtype=dtype,
        name=name,
        conv_general_dilated=ops.conv_general_dilated,
    )


class Deconv(nn.Module):
    """A transposed convolution of 4x4 and stride 2 without bias: twice the height and width.

    PyTorch's with padding 1. Parameters are those of nn.ConvTranspose.
    """

    features: int
    kernel_init: Normal = Normal()
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b 2*h 2*w d"]:
        shape = (4, 4, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        return ops.deconv(x.astype(self.dtype), kernel.astype(self.dtype))


class BatchNorm(nn.Module):
    """Batch normalisation with PyTorch's running statistics: the running variance is unbiased.

    The batch is normalised with the biased variance. Statistics are float32; the result has the
    dtype of the input, which is the network's compute dtype. Under jit with a sharded batch the
    statistics are those of the global batch.
    """

    epsilon: float = 1e-5
    momentum: float = 0.9  # PyTorch calls this 0.1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w c"]:
        channels = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, channels, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, channels, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)
        if not train:
            inverse = jax.lax.rsqrt(running_var.value + self.epsilon)
            y = (ops.at_least_float32(x) - running_mean.value) * (scale * inverse) + bias
            return y.astype(self.dtype)
        y, (mean, var) = ops.normalize_batch(x, scale, bias, self.epsilon)
        if not self.is_initializing():
            count = x.size // x.shape[-1]
            new, unbiased = 1 - self.momentum, count / (count - 1)
            running_mean.value = self.momentum * running_mean.value + new * mean
            running_var.value = self.momentum * running_var.value + (new * unbiased) * var
        return y.astype(self.dtype)


class ConvBN(nn.Module):
    """Convolution, batch norm and, unless told otherwise, ReLU."""

    features: int
    size: int
    stride: int = 1
    relu: bool = True
    kernel_init: Normal = Normal()
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 d"]:
        options = {"kernel_init": self.kernel_init, "dtype": self.dtype}
        x = conv(self.features, self.size, self.stride, **options, name="conv")(x)
        x = BatchNorm(dtype=self.dtype, name="bn")(x, train=train)
        return nn.relu(x) if self.relu else x


class Residual(nn.Module):
    """A residual block of post-activation convolutions, BN after each, ReLU after the sum.

    `convs` lists (features, size, stride). The shortcut is a 1x1 convolution with BN where the
    shape changes.
    """

    convs: tuple[tuple[int, int, int], ...]
    kernel_init: Normal = Normal()
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h2 w2 d"]:
        options = {"kernel_init": self.kernel_init, "dtype": self.dtype}
        shortcut, stride = x, int(np.prod([stride for _, _, stride in self.convs]))
        features = self.convs[-1][0]
        if stride > 1 or x.shape[-1] != features:
            projection = ConvBN(features, 1, stride, relu=False, **options, name="downsample")
            shortcut = projection(x, train=train)
        for i, (features, size, stride) in enumerate(self.convs, 1):
            x = conv(features, size, stride, **options, name=f"conv{i}")(x)
            x = BatchNorm(dtype=self.dtype, name=f"bn{i}")(x, train=train)
            x = nn.relu(x) if i < len(self.convs) else add_relu(x, shortcut)
        return x


def basic(features: int, stride: int = 1) -> tuple[tuple[int, int, int], ...]:
    """The convolutions of ResNet's basic block."""
    return ((features, 3, stride), (features, 3, 1))


def bottleneck(features: int, stride: int = 1) -> tuple[tuple[int, int, int], ...]:
    """The convolutions of ResNet's bottleneck, output 4 x features; the stride is on the 3x3."""
    return ((features, 1, 1), (features, 3, stride), (4 * features, 1, 1))


def check_sides(images: Float[Array, "b H W 3"], multiple: int) -> None:
    """Raises ValueError unless halving the images down to the lowest branch leaves no remainder."""
    if images.shape[1] % multiple or images.shape[2] % multiple:
        raise ValueError(f"the sides must be multiples of {multiple}, got images {images.shape}")


def max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """The largest value of every 3x3 at stride 2, padded by 1 on every side."""
    return ops.max_pool(x)


def upsample(x: Float[Array, "b h w c"], factor: int) -> Float[Array, "b h2 w2 c"]:
    """The map with every cell repeated factor x factor times (nearest neighbour)."""
    b, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None, :], (b, h, factor, w, factor, c))
    return x.reshape(b, h * factor, w * factor, c)


def add_relu(*branches: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """ReLU of the sum of a residual block's two paths, or of HRNet's branches at one resolution."""
    return checkpoint_name(ops.relu_of_sum(*branches), SAVED)


def heatmap_head(
    x: Float[Array, "b h w c"], num_keypoints: int, *, name: str
) -> Float[Array, "b h w k"]:
    """Heatmaps by a 1x1 convolution.

    In float32 whatever the network's compute dtype: sub-cell decoding compares neighbouring cells
    that differ by less than bfloat16 resolves.
    """
    return conv(num_keypoints, 1, bias=True, dtype=None, name=name)(ops.at_least_float32(x))
