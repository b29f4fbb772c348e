"""Sheets of captioned pictures for review by a person."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import UInt8

from ap10k_jax import visualize

WHITE = (255, 255, 255)
GAP, BORDER, LINE = 8, 4, 18  # pixels
FONT_SCALE = 0.42


def tile(
    image: UInt8[np.ndarray, "H W 3"],
    captions: Sequence[str],
    *,
    size: tuple[int, int] = (240, 180),
    color: tuple[int, int, int] = WHITE,
) -> UInt8[np.ndarray, "h w 3"]:
    """Resize a picture to fit `size` (width, height), frame it, and add lines of text below.

    Tiles of the same `size` and number of lines have the same shape.
    """
    zoom = min(size[0] / image.shape[1], size[1] / image.shape[0])
    fitted = (max(1, round(zoom * image.shape[1])), max(1, round(zoom * image.shape[0])))
    method = cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC
    picture = cv2.resize(image, fitted, interpolation=method)
    height, width = size[1] + 2 * BORDER, size[0] + 2 * BORDER
    framed = np.full((height + LINE * len(captions), width, 3), WHITE, np.uint8)
    framed[:height] = color
    top, left = (height - fitted[1]) // 2, (width - fitted[0]) // 2
    framed[BORDER : height - BORDER, BORDER : width - BORDER] = 238
    framed[top : top + fitted[1], left : left + fitted[0]] = picture
    for i, caption in enumerate(captions):
        (length, _), _ = cv2.getTextSize(caption, visualize.FONT, FONT_SCALE, 1)
        scale = FONT_SCALE * min(1.0, (width - 4) / max(length, 1))
        place = (2, height + LINE * i + 13)
        ink = visualize.OUTLINE
        cv2.putText(framed, caption, place, visualize.FONT, scale, ink, 1, cv2.LINE_AA)
    return framed


def grid(rows: Sequence[Sequence[UInt8[np.ndarray, "h w 3"]]]) -> UInt8[np.ndarray, "H W 3"]:
    """Join tiles of one shape into a picture; rows may differ in length."""
    height, width = (side + GAP for side in rows[0][0].shape[:2])
    columns = max(len(row) for row in rows)
    sheet = np.full((len(rows) * height + GAP, columns * width + GAP, 3), WHITE, np.uint8)
    for y, row in enumerate(rows):
        for x, one in enumerate(row):
            top, left = GAP + y * height, GAP + x * width
            sheet[top : top + one.shape[0], left : left + one.shape[1]] = one
    return sheet


def wrap(tiles: Sequence[np.ndarray], columns: int) -> list[Sequence[np.ndarray]]:
    """Divide tiles into rows of so many columns."""
    return [tiles[i : i + columns] for i in range(0, len(tiles), columns)]
