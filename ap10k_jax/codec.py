"""From keypoints to heatmaps (training targets) and back (predictions); everything is jittable.

Letters: b any leading batch axes, h w heatmap, k keypoints. Coordinates are (x, y). "Crop" is the
frame of the network's input, "heatmap" that of its output, and heatmap = crop / stride; centres of
pixels and of cells are whole numbers, so that cell 0 lies on pixel 0.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ap10k_jax import keypoints as joints

# DARK smooths with OpenCV's Gaussian of 11 taps, whose sigma 0.3 * ((11 - 1) / 2 - 1) + 0.8 = 2 is
# that of the training targets.
DARK_TAPS = 11
DARK_SIGMA = 2.0

METHODS = ("default", "dark")


def encode(
    keypoints: Float[Array, "*b k 2"],
    weights: Float[Array, "*b k"],
    *,
    size: tuple[int, int] = (64, 64),
    stride: float = 4,
    sigma: float = 2.0,
) -> tuple[Float[Array, "*b h w k"], Float[Array, "*b k"]]:
    """Target heatmaps for keypoints in crop pixels, and the weights their joints have in the loss.

    A target is an un-normalised Gaussian with peak 1 at the cell nearest to the keypoint, cut to
    within 3 sigma on each axis (13x13 cells). A joint of weight 0 has an empty map; one whose patch
    lies off the map gets weight 0. `size` is (width, height) of the heatmap, sigma in its cells.
    """
    width, height = size
    radius = int(3 * sigma)
    # MMPose rounds with int(x + 0.5), toward zero: what lies up to 1.5 cells left of cell 0 lands
    # in cell 0, not -1.
    cell_x, cell_y = (jnp.trunc(keypoints[..., axis] / stride + 0.5) for axis in (0, 1))
    # As MMPose compares: a patch that ends exactly at the border (cell = -radius - 1) is empty and
    # yet keeps its weight, so that the network is told to predict nothing there.
    on_map = (cell_x - radius < width) & (cell_x + radius + 1 >= 0)
    on_map &= (cell_y - radius < height) & (cell_y + radius + 1 >= 0)
    weights = weights * on_map

    def profile(cell: Float[Array, "*b k"], length: int) -> Float[Array, "*b length k"]:
        shape = (*cell.shape[:-1], length, cell.shape[-1])
        distance = jax.lax.broadcasted_iota(jnp.float32, shape, len(shape) - 2) - cell[..., None, :]
        inside = jnp.abs(distance) <= radius
        return jnp.where(inside, jnp.exp(-jnp.square(distance) / (2 * sigma**2)), 0.0)

    # The Gaussian is separable, and so is its square patch: an outer product instead of a scatter.
    rows = profile(cell_y, height) * (weights > 0)[..., None, :]
    columns = profile(cell_x, width)
    return rows[..., :, None, :] * columns[..., None, :, :], weights


def decode(
    heatmaps: Float[Array, "*b h w k"], *, stride: float = 4, method: str = "default"
) -> tuple[Float[Array, "*b k 2"], Float[Array, "*b k"]]:
    """Keypoints in crop pixels and their scores (the heatmaps' maxima).

    'default' moves a quarter cell from the maximum toward the higher neighbour on each axis; 'dark'
    solves for the peak of a Gaussian (Zhang et al., CVPR 2020). Of equal maxima the first in
    reading order counts. A maximum <= 0 means "no keypoint": its coordinates are -stride.
    """
    heatmaps = heatmaps.astype(jnp.float32)
    height, width = heatmaps.shape[-3:-1]
    flat = heatmaps.reshape(*heatmaps.shape[:-3], height * width, heatmaps.shape[-1])
    peak = jnp.argmax(flat, axis=-2)
    scores = jnp.max(flat, axis=-2)
    x, y = peak % width, peak // width

    if method not in METHODS:
        raise ValueError(f"unknown decoding method {method!r}: one of {', '.join(METHODS)}")
    refine = _quarter_offset if method == "default" else _dark_offset
    offset = refine(heatmaps, x, y)
    keypoints = jnp.stack([x, y], axis=-1) + offset
    return jnp.where(scores[..., None] > 0, keypoints, -1.0) * stride, scores


def flip_back(
    heatmaps: Float[Array, "*b h w k"], *, pairs: Sequence[tuple[int, int]], shift: bool = True
) -> Float[Array, "*b h w k"]:
    """Heatmaps of a mirrored crop as those of the crop: mirrored, left and right joints exchanged.

    With `shift` they also move one cell to the right, column 0 kept: at stride 4 mirrored pixels
    come back 3/4 of a cell too far left (explained in UDP, Huang et al., CVPR 2020).
    """
    flipped = heatmaps[..., ::-1, joints.mirror_order(pairs, heatmaps.shape[-1])]
    if not shift:
        return flipped
    return jnp.concatenate([flipped[..., :1, :], flipped[..., :-1, :]], axis=-2)


def _at(
    heatmaps: Float[Array, "*b h w k"], x: Int[Array, "*b k"], y: Int[Array, "*b k"]
) -> Float[Array, "*b k"]:
    """The value of each joint's heatmap at a cell; of one off the map, that of another cell."""
    height, width, num_keypoints = heatmaps.shape[-3:]
    flat = heatmaps.reshape(*heatmaps.shape[:-3], height * width, num_keypoints)
    # clipped here: as a mode of the lookup it is lost on the way to ONNX
    index = jnp.clip(y * width + x, 0, height * width - 1)
    return jnp.take_along_axis(flat, index[..., None, :], axis=-2)[..., 0, :]


def _quarter_offset(
    heatmaps: Float[Array, "*b h w k"], x: Int[Array, "*b k"], y: Int[Array, "*b k"]
) -> Float[Array, "*b k 2"]:
    """A quarter cell toward the higher neighbour on each axis, none between equal ones."""
    height, width = heatmaps.shape[-3:-1]
    # Cells at the border stay where they are, and so does cell 1, although it has both neighbours:
    # as refine_keypoints in MMPose.
    move_x = (x > 1) & (x < width - 1) & (y > 0)
    move_y = (y > 1) & (y < height - 1) & (x > 0)
    right_minus_left = _at(heatmaps, x + 1, y) - _at(heatmaps, x - 1, y)
    below_minus_above = _at(heatmaps, x, y + 1) - _at(heatmaps, x, y - 1)
    offset_x = jnp.where(move_x, 0.25 * jnp.sign(right_minus_left), 0.0)
    offset_y = jnp.where(move_y, 0.25 * jnp.sign(below_minus_above), 0.0)
    return jnp.stack([offset_x, offset_y], axis=-1)


def _dark_offset(
    heatmaps: Float[Array, "*b h w k"], x: Int[Array, "*b k"], y: Int[Array, "*b k"]
) -> Float[Array, "*b k 2"]:
    """One Newton step on the logarithm of the smoothed heatmap, from the maximum of the raw one."""
    height, width = heatmaps.shape[-3:-1]
    # Highest precision: TF32 or bfloat16 products would move the peak by tenths of a cell.
    smooth = jnp.einsum(
        "ij,...jlk,ml->...imk",
        _gaussian_matrix(height),
        heatmaps,
        _gaussian_matrix(width),
        precision=jax.lax.Precision.HIGHEST,
    )
    # What MMPose scales the smoothed map by would add a constant to the logarithm: no derivative
    # sees it.
    log = jnp.log(jnp.maximum(smooth, 1e-10))

    def at(dx: int, dy: int) -> Float[Array, "*b k"]:
        return _at(log, x + dx, y + dy)

    center = at(0, 0)
    gradient_x = 0.5 * (at(1, 0) - at(-1, 0))
    gradient_y = 0.5 * (at(0, 1) - at(0, -1))
    curve_xx = 0.25 * (at(2, 0) - 2 * center + at(-2, 0))
    curve_yy = 0.25 * (at(0, 2) - 2 * center + at(0, -2))
    curve_xy = 0.25 * (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1))

    determinant = curve_xx * curve_yy - curve_xy**2
    # As MMPose: two cells at each border stay where they are.
    inside = (x > 1) & (x < width - 2) & (y > 1) & (y < height - 2)
    usable = inside & (determinant != 0)
    safe = jnp.where(usable, determinant, 1.0)
    offset_x = -(curve_yy * gradient_x - curve_xy * gradient_y) / safe
    offset_y = -(curve_xx * gradient_y - curve_xy * gradient_x) / safe
    return jnp.where(usable[..., None], jnp.stack([offset_x, offset_y], axis=-1), 0.0)


def _gaussian_matrix(length: int) -> Float[np.ndarray, "length length"]:
    """The matrix that smooths a signal of this length with DARK's taps (peak 1), zero-padded."""
    distance = np.subtract.outer(np.arange(length), np.arange(length))
    taps = np.exp(-np.square(distance) / (2 * DARK_SIGMA**2))
    return np.where(np.abs(distance) <= DARK_TAPS // 2, taps, 0.0).astype(np.float32)
