"""Patches in the accelerator's memory, and crops that are cut from them there.

Every device holds all patches. A batch that is split over devices is therefore cut without
communication, and the crops do not depend on the number of devices.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from ap10k_jax.data.patches import Patches
from ap10k_jax.runtime import sharding


def upload(
    pixels: UInt8[np.ndarray, "n side side 3"], shardings: sharding.Shardings
) -> UInt8[Array, "n side 3*side"]:
    """Copy all patches to every device, with width and channels as one axis: TPUs pad axes of 3."""
    rows = pixels.reshape(*pixels.shape[:2], -1)
    return jax.make_array_from_callback(
        rows.shape, shardings.replicated, lambda where: np.asarray(rows[where])
    )


def cut(
    pixels: UInt8[Array, "n side 3*side"],
    index: Int[Array, "b"],
    matrix: Float[Array, "b 2 3"],
    *,
    size: tuple[int, int],
) -> UInt8[Array, "b H W 3"]:
    """Cut a crop from each patch `index`: bilinear, black beyond the patch.

    `matrix` maps crop pixels to patch pixels; `size` is (width, height) in pixels.
    """
    width, height = size
    grid = jnp.stack([*jnp.meshgrid(jnp.arange(width), jnp.arange(height)), jnp.ones(size[::-1])])
    # Some devices round a matrix product to 10 bits, an error of a pixel and more at x = 1,000.
    x, y = jnp.moveaxis((matrix[..., None, None] * grid).sum(axis=2), 1, 0)
    left, top = jnp.floor(x), jnp.floor(y)
    patch = pixels[index]  # gathered first, so that offsets within one patch stay small
    side, channels = pixels.shape[1], jnp.arange(3)

    def corner(column: Array, row: Array) -> Float[Array, "b H W 3"]:
        inside = (column >= 0) & (column < side) & (row >= 0) & (row < side)
        at = [jnp.clip(i, 0, side - 1).astype(jnp.int32) for i in (row, column)]
        found = jax.vmap(lambda one, i, j: one[i[..., None], 3 * j[..., None] + channels])(
            patch, *at
        )
        weight = (1 - jnp.abs(x - column)) * (1 - jnp.abs(y - row)) * inside
        return weight[..., None] * found

    blended = sum(corner(left + i, top + j) for i in (0, 1) for j in (0, 1))
    return jnp.round(blended).astype(jnp.uint8)


def make_step(make: Callable, patches: Patches, *, image_size: int) -> Callable:
    """Wrap `make_train_step`: the steps take `index` and `matrix` in place of `image`."""
    places = patches.animals.places  # ascending

    def make_with_patches(module, optimizer, shardings: sharding.Shardings, **options) -> Callable:
        step = make(module, optimizer, shardings, **options)
        ends = places[0], places[-1] + 1
        in_a_row = len(places) == ends[1] - ends[0]  # then a slice will do, which copies nothing
        held = upload(patches.pixels[slice(*ends) if in_a_row else places], shardings)
        cut_crops = jax.jit(
            lambda pixels, index, matrix: cut(pixels, index, matrix, size=(image_size,) * 2),
            in_shardings=(shardings.replicated, shardings.batch, shardings.batch),
            out_shardings=shardings.batch,
        )

        def with_patches(state, batch: dict):
            rest = {k: v for k, v in batch.items() if k not in ("index", "matrix")}
            crops = cut_crops(held, batch["index"], batch["matrix"])
            return step(state, rest | {"image": crops})

        return with_patches

    return make_with_patches
