"""Hourglass as AP-10K used it: MMPose's variant, after CornerNet (Law and Deng, ECCV 2018).

Not Newell's: basic blocks with the norm after the convolution, and stride 2 in place of pooling.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from ap10k_jax.models import layers


class HourglassModule(nn.Module):
    """Down, an hourglass of the rest of the table (or plain blocks), up, and a path around it.

    `levels` is one (channels, blocks) a resolution, highest first.
    """

    levels: tuple[tuple[int, int], ...]
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w c"]:
        (features, count), (low_features, low_count) = self.levels[:2]
        around = x
        for b in range(count):
            around = self.block(features, f"around{b}")(around, train=train)
        for b in range(count):
            stride = 2 if b == 0 else 1
            x = self.block(low_features, f"down{b}", stride)(x, train=train)
        if len(self.levels) > 2:
            x = HourglassModule(self.levels[1:], self.dtype, name="inner")(x, train=train)
        else:
            for b in range(low_count):
                x = self.block(low_features, f"inner{b}")(x, train=train)
        for b in range(count):  # the last block changes the channels, not the first
            last = b == count - 1
            x = self.block(features if last else low_features, f"up{b}")(x, train=train)
        return around + layers.upsample(x, 2)

    def block(self, features: int, name: str, stride: int = 1) -> layers.Residual:
        return layers.Residual(layers.basic(features, stride), dtype=self.dtype, name=name)


class Hourglass(nn.Module):
    """Heatmaps at a quarter of the input, whose sides must be multiples of 128 (4 * 2^5).

    At test the last stack's heatmaps; when training a list of all stacks', each to be supervised.
    """

    levels: tuple[tuple[int, int], ...] = (
        (256, 2),
        (256, 2),
        (384, 2),
        (384, 2),
        (384, 2),
        (512, 4),
    )
    num_keypoints: int = 17
    stacks: int = 1
    stem_features: int = 128
    out_features: int = 256
    dtype: DTypeLike = jnp.float32  # of the computation; parameters are float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "b H W 3"], *, train: bool = False
    ) -> Float[Array, "b h w k"] | list[Float[Array, "b h w k"]]:
        layers.check_sides(images, 4 * 2 ** (len(self.levels) - 1))
        features = self.levels[0][0]

        def conv_bn(features: int, size: int, stride: int = 1, **options) -> layers.ConvBN:
            return layers.ConvBN(features, size, stride, dtype=self.dtype, **options)

        x = conv_bn(self.stem_features, 7, 2, name="stem")(images.astype(self.dtype), train=train)
        stem_block = layers.basic(features, stride=2)
        x = layers.Residual(stem_block, dtype=self.dtype, name="stem_block")(x, train=train)

        heatmaps = []
        for s in range(self.stacks):
            y = HourglassModule(self.levels, self.dtype, name=f"stack{s}")(x, train=train)
            y = conv_bn(self.out_features, 3, name=f"out{s}")(y, train=train)
            heatmaps.append(layers.heatmap_head(y, self.num_keypoints, name=f"head{s}"))
            if s < self.stacks - 1:  # the next stack starts from this one's input and output
                skip = conv_bn(features, 1, relu=False, name=f"skip{s}")(x, train=train)
                remap = conv_bn(features, 1, relu=False, name=f"remap{s}")(y, train=train)
                between = layers.Residual(
                    layers.basic(features), dtype=self.dtype, name=f"between{s}"
                )
                x = between(layers.add_relu(skip, remap), train=train)
        return heatmaps if train else heatmaps[-1]
