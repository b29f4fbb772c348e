"""Prints parameters and multiply-adds of every model: python -m ap10k_jax.models [--size=256x256].

Nothing is compiled or run: the counts come from shapes.
"""

import argparse
import math
import re

import jax
import jax.numpy as jnp
from flax import linen as nn

from ap10k_jax import models
from ap10k_jax.models import layers

# Published counts include the block after the last stack, which the reference makes and never runs.
UNUSED = {"hourglass52": 2 * 9 * 256 * 256 + 4 * 256}


def count_parameters(module: nn.Module) -> int:
    """Trained numbers: kernels, biases, scales; not the running statistics."""
    return sum(leaf.size for leaf in jax.tree.leaves(models.shapes(module)["params"]))


def count_multiply_adds(module: nn.Module, image_size: tuple[int, int] = (256, 256)) -> int:
    """Multiply-adds of the convolutions for one (height, width) image, padding included.

    Most papers call this FLOPs. Norms, ReLUs and upsampling, a percent more, are left out.
    """
    counts = []

    def record(call, args, kwargs, context):
        x, y = args[0], call(*args, **kwargs)
        layer = context.module
        if isinstance(layer, nn.Conv):
            counts.append(y.size * math.prod(layer.kernel_size) * x.shape[-1])
        elif isinstance(layer, layers.Deconv):  # the zeros between its inputs cost nothing
            counts.append(x.size * 4 * 4 * layer.features)
        return y

    images = jax.ShapeDtypeStruct((1, *image_size, 3), jnp.float32)
    variables = models.shapes(module, image_size=image_size)
    with nn.intercept_methods(record):
        jax.eval_shape(module.apply, variables, images)
    return sum(counts)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ap10k_jax.models", description=__doc__)
    parser.add_argument("--size", default="256x256", help="height x width of the image")
    size = parser.parse_args().size
    if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", size):
        parser.error(f"--size={size}: expected height x width, such as 256x192")
    height, width = map(int, size.split("x"))
    print(f"{'model':26}{'parameters':>12}{'multiply-adds at ' + f'{height}x{width}':>30}")
    for name in models.MODELS:
        module = models.build(name)
        parameters = count_parameters(module) / 1e6
        line = f"{name:26}{parameters:10.1f} M"
        try:
            line += f"{count_multiply_adds(module, (height, width)) / 1e9:28.1f} G"
        except ValueError as error:  # a size that this network cannot halve evenly
            line += f"   {error}"
        if UNUSED.get(name):
            published = parameters + UNUSED[name] / 1e6
            line += f"  (published as {published:.1f} M, with a block that is never run)"
        print(line)


if __name__ == "__main__":
    main()
