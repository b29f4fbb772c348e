"""HRNet (Sun et al., CVPR 2019): parallel branches at 1/4, 1/8, ... that keep exchanging features.

The network is a table of stages: `stages(32)` and `stages(48)` are the paper's, and any other table
is a network too. Branch i works at stride 4 * 2^i.
"""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from ap10k_jax.models import layers


class Stage(NamedTuple):
    """`modules` exchange units, each with `blocks` basic blocks on every branch."""

    modules: int
    blocks: int
    channels: tuple[int, ...]  # one entry a branch, highest resolution first


def stages(width: int) -> tuple[Stage, ...]:
    """The published table for a width C: stages of 2, 3 and 4 branches of (C, 2C, 4C, 8C)."""
    channels = (width, 2 * width, 4 * width, 8 * width)
    return Stage(1, 4, channels[:2]), Stage(4, 4, channels[:3]), Stage(3, 4, channels)


def small_stages(width: int) -> tuple[Stage, ...]:
    """All four branches with one block each: the fewest operations that still are an HRNet."""
    channels = (width, 2 * width, 4 * width, 8 * width)
    return tuple(Stage(1, 1, channels[:branches]) for branches in (2, 3, 4))


class ExchangeUnit(nn.Module):
    """Blocks on each branch, then every output branch sums all branches at its resolution."""

    blocks: int
    outputs: int  # branches kept after the exchange
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, branches: list[Array], *, train: bool) -> list[Array]:
        channels = [x.shape[-1] for x in branches]
        branches = list(branches)
        for i, features in enumerate(channels):
            for b in range(self.blocks):
                block = layers.Residual(
                    layers.basic(features), dtype=self.dtype, name=f"branch{i}_block{b}"
                )
                branches[i] = block(branches[i], train=train)
        return [
            layers.add_relu(*(self.fuse(x, j, i, channels, train) for j, x in enumerate(branches)))
            for i in range(self.outputs)
        ]

    def fuse(self, x: Array, source: int, target: int, channels: list[int], train: bool) -> Array:
        """Branch `source` brought to the resolution and channels of branch `target`."""
        name = f"fuse{target}_from{source}"
        if source == target:
            return x
        if source > target:  # up: 1x1 convolution, then nearest neighbour
            mix = layers.ConvBN(channels[target], 1, relu=False, dtype=self.dtype, name=name)
            return layers.upsample(mix(x, train=train), 2 ** (source - target))
        for step in range(target - source):  # down: stride-2 convolutions, the last without ReLU
            last = step == target - source - 1
            features = channels[target] if last else channels[source]
            down = layers.ConvBN(
                features, 3, 2, relu=not last, dtype=self.dtype, name=f"{name}_{step}"
            )
            x = down(x, train=train)
        return x


class HRNet(nn.Module):
    """Heatmaps at a quarter of the input, whose sides must be multiples of 32."""

    stages: tuple[Stage, ...]
    num_keypoints: int = 17
    stem_features: int = 64
    bottlenecks: int = 4  # at the stem's resolution, output 4 x stem_features
    dtype: DTypeLike = jnp.float32  # of the computation; parameters are float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "b H W 3"], *, train: bool = False
    ) -> Float[Array, "b h w k"]:
        layers.check_sides(images, 4 * 2 ** (len(self.stages[-1].channels) - 1))
        x = images.astype(self.dtype)
        for i in (1, 2):
            x = layers.conv(self.stem_features, 3, 2, dtype=self.dtype, name=f"conv{i}")(x)
            x = nn.relu(layers.BatchNorm(dtype=self.dtype, name=f"bn{i}")(x, train=train))
        for b in range(self.bottlenecks):
            block = layers.bottleneck(self.stem_features)
            x = layers.Residual(block, dtype=self.dtype, name=f"layer1_block{b}")(x, train=train)

        branches = [x]
        for s, stage in enumerate(self.stages, 2):
            branches = self.transition(branches, stage.channels, f"transition{s - 1}", train)
            for m in range(stage.modules):
                # Only the highest resolution is read out, so the last exchange makes nothing else.
                last = s == len(self.stages) + 1 and m == stage.modules - 1
                outputs = 1 if last else len(branches)
                unit = ExchangeUnit(stage.blocks, outputs, self.dtype, name=f"stage{s}_module{m}")
                branches = unit(branches, train=train)
        return layers.heatmap_head(branches[0], self.num_keypoints, name="head")

    def transition(
        self, branches: list[Array], channels: tuple[int, ...], name: str, train: bool
    ) -> list[Array]:
        """The branches of the next stage; every new one comes from the lowest existing one."""
        out = []
        for i, features in enumerate(channels):
            x = branches[min(i, len(branches) - 1)]
            stride = 1 if i < len(branches) else 2
            if stride == 2 or x.shape[-1] != features:
                step = layers.ConvBN(
                    features, 3, stride, dtype=self.dtype, name=f"{name}_branch{i}"
                )
                x = step(x, train=train)
            out.append(x)
        return out
