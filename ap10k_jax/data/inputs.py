"""Where training crops come from, and the patches of a data set in the device's own memory.

`stream` decodes every photograph every time; `decoded` keeps the pixels on disk
(data/decoded_cache.py) and cuts the same crops from them to the bit: the reference's. `cache` cuts
them from patches (data/patches.py) on the host; `device` holds the patches in the device's memory
and cuts there, so that the host sends a few numbers an animal. These two differ in rounding only,
and from the others in that patches are shrunk with antialiasing. The views are the same in all
four.

Every device holds all patches: then a batch that is split over devices is cut without
communication, and is the same on any number of them.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from ap10k_jax.data.decoded_cache import DecodedPhotographs, memory
from ap10k_jax.data.patches import Patches
from ap10k_jax.runtime import sharding

INPUTS = ("auto", "stream", "decoded", "cache", "device")
SHARE = 0.5  # of the host's memory, and of the free disk, that `auto` lets photographs take


class Input(NamedTuple):
    kind: str  # stream, decoded, cache or device
    kept: DecodedPhotographs | Patches | None  # None where photographs are streamed
    reason: str  # of the choice, to be printed


STREAM = Input("stream", None, "as asked")


def choose(asked: str, decoded: DecodedPhotographs, patches: Patches, device: jax.Device) -> Input:
    """The way that was asked for; for "auto" `decoded` where there is room for it, else `stream`.

    Auto keeps to the two that cut the reference's very crops, so that it never changes a result.
    Room is memory too: pixels that have to come from a disk every time are slower than JPEGs.
    Raises ValueError where what was asked for has no room.
    """
    if asked == "stream":
        return STREAM
    if asked in ("auto", "decoded"):
        size = f"{decoded.bytes / 1e9:.2f} GB of pixels"
        if asked == "decoded":
            if obstacle := decoded.obstacle(share=0.9):
                raise ValueError(f"{obstacle}; mend that, or choose stream")
            return Input(asked, decoded, f"as asked, {size}")
        if decoded.bytes > SHARE * memory():
            least = f"more than half of the memory, {memory() / 1e9:.1f} GB"
            return STREAM._replace(reason=f"{size} are {least}; see data.input in configs/base.py")
        obstacle = decoded.obstacle(share=SHARE)
        return STREAM._replace(reason=obstacle) if obstacle else Input("decoded", decoded, size)
    size, room = f"{patches.bytes / 1e9:.2f} GB of patches", device_memory(device)
    if obstacle := patches.obstacle():
        raise ValueError(f"{obstacle}; mend that, or choose stream")
    if asked == "device" and room and patches.bytes > 0.9 * room:
        raise ValueError(f"{size}; the device has {room / 1e9:.1f} GB; choose cache")
    return Input(asked, patches, f"as asked, {size}")


def device_memory(device: jax.Device) -> int:
    """Bytes that computations may take on a device; 0 for a CPU, whose memory is the host's."""
    stats = None if device.platform == "cpu" else device.memory_stats()
    return (stats or {}).get("bytes_limit", 0)


def upload(
    pixels: UInt8[np.ndarray, "n side side 3"], shardings: sharding.Shardings
) -> UInt8[Array, "n side 3*side"]:
    """All patches on every device, a row of pixels as one axis: TPUs would pad an axis of 3."""
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
    """Crops of patches: bilinear, black beyond the patch; `size` is (width, height).

    `matrix` leads from crop to patch pixels.
    """
    width, height = size
    grid = jnp.stack([*jnp.meshgrid(jnp.arange(width), jnp.arange(height)), jnp.ones(size[::-1])])
    # a product of matrices would be rounded to 10 bits on some devices: a pixel and more at 1,000
    x, y = jnp.moveaxis((matrix[..., None, None] * grid).sum(axis=2), 1, 0)
    left, top = jnp.floor(x), jnp.floor(y)
    patch = pixels[index]  # first: offsets within one patch stay small
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


def make_step(
    make: Callable, patches: Patches, *, image_size: int, places: Int[np.ndarray, "n"]
) -> Callable:
    """A `make_train_step` whose steps take `index` and `matrix` in place of `image`.

    `places` are the rows of the patches of the animals with index 0, 1, ...; they ascend.
    """

    def make_with_patches(module, optimizer, shardings: sharding.Shardings, **options) -> Callable:
        step = make(module, optimizer, shardings, **options)
        ends = places[0], places[-1] + 1
        in_a_row = len(places) == ends[1] - ends[0]  # as they ascend; a slice is not a copy
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
