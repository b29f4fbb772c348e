"""SimpleBaseline (Xiao et al., ECCV 2018): a ResNet, then three deconvolutions up to stride 4."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from ap10k_jax.models import layers

# Depth -> the block, and how many of them at strides 4, 8, 16 and 32.
RESNETS = {
    18: (layers.basic, (2, 2, 2, 2)),
    34: (layers.basic, (3, 4, 6, 3)),
    50: (layers.bottleneck, (3, 4, 6, 3)),
    101: (layers.bottleneck, (3, 4, 23, 3)),
    152: (layers.bottleneck, (3, 8, 36, 3)),
}


class SimpleBaseline(nn.Module):
    """Heatmaps at a quarter of the input, whose sides must be multiples of 32."""

    depth: int
    num_keypoints: int = 17
    deconv_features: int = 256
    dtype: DTypeLike = jnp.float32  # of the computation; parameters are float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "b H W 3"], *, train: bool = False
    ) -> Float[Array, "b h w k"]:
        layers.check_sides(images, 32)
        options = {"kernel_init": layers.Kaiming(), "dtype": self.dtype}
        x = layers.conv(64, 7, 2, **options, name="conv1")(images.astype(self.dtype))
        x = nn.relu(layers.BatchNorm(dtype=self.dtype, name="bn1")(x, train=train))
        x = layers.max_pool(x)

        block, counts = RESNETS[self.depth]
        for s, count in enumerate(counts, 1):
            for b in range(count):
                stride = 2 if s > 1 and b == 0 else 1
                convs = block(64 * 2 ** (s - 1), stride)
                x = layers.Residual(convs, **options, name=f"layer{s}_block{b}")(x, train=train)

        for d in range(3):
            deconv = layers.Deconv(self.deconv_features, dtype=self.dtype, name=f"deconv{d}")
            norm = layers.BatchNorm(dtype=self.dtype, name=f"deconv{d}_bn")
            x = nn.relu(norm(deconv(x), train=train))
        return layers.heatmap_head(x, self.num_keypoints, name="head")
