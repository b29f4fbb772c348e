"""Geometry of boxes and crops: from a box to a crop's pixels and back. NumPy and OpenCV only.

Letters: H W image, S the crop's height and width, k keypoints. Coordinates are (x, y) in pixels
whose centres are whole numbers, boxes are xywh in image pixels, images are RGB uint8. This module
runs in loader processes and never imports jax.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from ap10k_jax import images
from ap10k_jax import keypoints as joints

SMALLEST_SIDE = 0.01  # pixels of a box inside its image; thinner ones would be magnified to nothing


def box_to_center_scale(
    box: Float[np.ndarray, "4"] | Sequence[float],
    image_size: tuple[int, int],
    *,
    padding: float = 1.25,
    aspect: float = 1.0,
) -> tuple[Float[np.ndarray, "2"], Float[np.ndarray, "2"]]:
    """Center and scale of the crop around a box: clipped to the image, padded, then widened.

    `image_size` is (width, height) in pixels, `aspect` the crop's width / height. Raises ValueError
    for a box that has no area inside the image.
    """
    center, sides = padded_box(box, image_size, padding)
    return center, widen(sides, aspect)


def padded_box(
    box: Float[np.ndarray, "4"] | Sequence[float], image_size: tuple[int, int], padding: float
) -> tuple[Float[np.ndarray, "2"], Float[np.ndarray, "2"]]:
    """Middle and padded sides of the part of a box that lies inside the image."""
    box = np.asarray(box, np.float64)
    # The last pixel, not the image's edge, is the limit: as MMPose 1.x clips.
    last = np.asarray(image_size, np.float64) - 1
    low, high = np.clip(box[:2], 0, last), np.clip(box[:2] + box[2:], 0, last)
    if not np.all(high - low > SMALLEST_SIDE):  # also refuses NaN
        width, height = image_size
        raise ValueError(f"box {box.tolist()} (xywh) has no area inside the {width}x{height} image")
    return ((low + high) / 2).astype(np.float32), ((high - low) * padding).astype(np.float32)


def widen(sides: Float[np.ndarray, "2"], aspect: float) -> Float[np.ndarray, "2"]:
    """The smallest sides with this width / height that contain the given ones."""
    width = max(sides[0], sides[1] * aspect)
    return np.array([width, width / aspect], np.float32)


def affine_matrix(
    center: Float[np.ndarray, "2"],
    scale: Float[np.ndarray, "2"],
    *,
    rotation: float = 0.0,
    size: tuple[int, int] = (256, 256),
) -> Float[np.ndarray, "2 3"]:
    """The matrix from image to crop pixels; `size` is (width, height) of the crop.

    A positive rotation (degrees) turns the crop's window clockwise on the image, and so the image
    counter-clockwise in the crop. A similarity: scale[0] decides, scale[1] follows from the aspect.
    """
    angle = np.deg2rad(rotation)
    zoom = size[0] / float(scale[0])
    linear = zoom * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    # The crop's middle is at size / 2, not (size - 1) / 2: MMPose's convention, half a pixel off.
    offset = np.array(size) / 2 - linear @ np.asarray(center, np.float64)
    return np.column_stack([linear, offset])


def apply_affine(
    points: Float[np.ndarray, "*k 2"], matrix: Float[np.ndarray, "2 3"]
) -> Float[np.ndarray, "*k 2"]:
    """The points mapped by a (2, 3) matrix, as float32."""
    mapped = np.asarray(points, np.float64) @ matrix[:, :2].T + matrix[:, 2]
    return mapped.astype(np.float32)


def invert_affine(matrix: Float[np.ndarray, "2 3"]) -> Float[np.ndarray, "2 3"]:
    """The matrix of the way back, from crop to image pixels."""
    inverse = np.linalg.inv(matrix[:, :2])
    return np.column_stack([inverse, -inverse @ matrix[:, 2]])


def compose(
    outer: Float[np.ndarray, "2 3"], inner: Float[np.ndarray, "2 3"]
) -> Float[np.ndarray, "2 3"]:
    """The matrix of `inner` followed by `outer`."""
    return np.column_stack([outer[:, :2] @ inner[:, :2], outer[:, :2] @ inner[:, 2] + outer[:, 2]])


def crop(
    image: UInt8[np.ndarray, "H W 3"],
    center: Float[np.ndarray, "2"],
    scale: Float[np.ndarray, "2"],
    *,
    rotation: float = 0.0,
    size: tuple[int, int] = (256, 256),
    mirror: bool = False,
) -> tuple[UInt8[np.ndarray, "S S 3"], Float[np.ndarray, "2 3"]]:
    """The crop (bilinear, black beyond the image) and the matrix from image to crop pixels.

    With `mirror` the crop is that of the mirrored image, and center, rotation and matrix refer to
    the mirrored image too; the pixels are read from the image as given, which saves a copy of it.
    """
    matrix = affine_matrix(center, scale, rotation=rotation, size=size)
    # OpenCV 4's warpAffine reads pixels at positions rounded to 1/32, OpenCV 5's at exact ones. We
    # round as 4 does: either version then cuts the crops that the published numbers come from.
    inverse = invert_affine(matrix)
    along_x = np.rint(np.arange(size[0]) * inverse[:, :1] * 1024).astype(np.int32)
    along_y = np.rint((np.arange(size[1]) * inverse[:, 1:2] + inverse[:, 2:]) * 1024)
    x, y = (along_y.astype(np.int32)[:, :, None] + along_x[:, None, :] + 16) >> 5  # in 1/32 pixel
    if mirror:
        x = 32 * (image.shape[1] - 1) - x
    # Far outside is as black as just outside; int16 is what remap takes.
    pixels = np.clip(np.stack([x >> 5, y >> 5], axis=-1), -2, images.MAX_SIDE).astype(np.int16)
    fractions = ((y & 31) * 32 + (x & 31)).astype(np.uint16)
    return cv2.remap(image, pixels, fractions, cv2.INTER_LINEAR), matrix


def crop_to_image(
    points: Float[np.ndarray, "*k 2"],
    center: Float[np.ndarray, "2"],
    scale: Float[np.ndarray, "2"],
    *,
    size: tuple[int, int] = (256, 256),
) -> Float[np.ndarray, "*k 2"]:
    """Points of an unrotated crop in image pixels: the way back for predictions."""
    return apply_affine(points, invert_affine(affine_matrix(center, scale, size=size)))


def flip(
    image: UInt8[np.ndarray, "H W 3"],
    keypoints: Float[np.ndarray, "k c"],
    center: Float[np.ndarray, "2"],
    *,
    pairs: Sequence[tuple[int, int]],
) -> tuple[UInt8[np.ndarray, "H W 3"], Float[np.ndarray, "k c"], Float[np.ndarray, "2"]]:
    """Image, keypoints and crop center, mirrored left to right (x -> W - 1 - x).

    The rows of left and right joints are exchanged; columns after x, such as visibility, go along.
    """
    width = image.shape[1]
    return image[:, ::-1], flip_keypoints(keypoints, width, pairs), flip_x(center, width)


def flip_keypoints(
    keypoints: Float[np.ndarray, "k c"], width: int, pairs: Sequence[tuple[int, int]]
) -> Float[np.ndarray, "k c"]:
    """Mirrored keypoints, left and right exchanged."""
    return flip_x(keypoints, width)[joints.mirror_order(pairs, len(keypoints))]


def flip_x(points: Float[np.ndarray, "*k c"], width: int) -> Float[np.ndarray, "*k c"]:
    """Points with x mirrored in an image of this width; further columns stay."""
    flipped = np.array(points)
    flipped[..., 0] = width - 1 - flipped[..., 0]
    return flipped
