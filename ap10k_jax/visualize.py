"""Skeletons on photographs, and sheets that show where a model is right and wrong.

Letters: H W image, k keypoints. Images are RGB uint8; keypoints are (x, y, score or visibility) in
pixels of the image they are drawn on. The animal's own left is orange, its right blue, the middle
white; dark outlines keep all three readable on snow and at night.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from ap10k_jax import keypoints as joints
from ap10k_jax.runtime import files

# Orange and blue stay apart for colour-blind readers.
COLORS = {"left": (255, 140, 0), "right": (30, 160, 255), "middle": (245, 245, 245)}
OUTLINE = (25, 25, 25)
SURE = 0.5  # a score below is drawn as uncertain
SUBPIXEL_BITS = 4  # OpenCV draws at 1/16 of a pixel
FONT = cv2.FONT_HERSHEY_SIMPLEX


class Panel(NamedTuple):
    """One animal of a contact sheet; keypoints in pixels of its crop."""

    image: UInt8[np.ndarray, "H W 3"]
    predicted: Float[np.ndarray, "k 3"]
    truth: Float[np.ndarray, "k 3"]
    caption: str


def draw_skeleton(
    image: UInt8[np.ndarray, "H W 3"],
    keypoints: Float[np.ndarray, "k 3"],
    *,
    keypoint_set: joints.KeypointSet = joints.AP10K,
    threshold: float = 0.2,
    width: int | None = None,
) -> UInt8[np.ndarray, "H W 3"]:
    """A copy of the image with the joints above the threshold, and the limbs between them.

    A joint whose score is below `SURE` is a ring, and the limbs to it are thin. Without a `width`
    (pixels) lines grow with the animal, so that it looks the same in a thumbnail and in a
    6000-pixel photograph.
    """
    canvas = np.ascontiguousarray(image).copy()
    keypoints = np.asarray(keypoints, float)
    shown = (keypoints[:, 2] > threshold) & np.isfinite(keypoints[:, :2]).all(axis=1)
    if not shown.any():
        return canvas
    width = width or line_width(image, keypoints[shown])

    limbs = [(a, b) for a, b in keypoint_set.skeleton if shown[a] and shown[b]]
    points = [_fixed(point) for point in np.where(shown[:, None], keypoints[:, :2], 0)]
    sure = keypoints[:, 2] >= SURE
    border = max(1, width // 2)

    def disc(i: int, radius: float, color: tuple[int, int, int]) -> None:
        radius = round(radius * 2**SUBPIXEL_BITS)
        cv2.circle(canvas, points[i], radius, color, cv2.FILLED, cv2.LINE_AA, SUBPIXEL_BITS)

    for outline in (True, False):
        grow = border if outline else 0
        for a, b in limbs:
            color = OUTLINE if outline else COLORS[_limb_side(keypoint_set, a, b)]
            thickness = (width if sure[a] and sure[b] else max(1, width // 2)) + 2 * grow
            cv2.line(canvas, points[a], points[b], color, thickness, cv2.LINE_AA, SUBPIXEL_BITS)
        for i in np.flatnonzero(shown):
            color = OUTLINE if outline else COLORS[keypoint_set.side(i)]
            disc(i, 1.2 * width + 0.5 + grow, color)
            if not sure[i] and not outline:
                disc(i, 0.6 * width, OUTLINE)
    return canvas


def line_width(image: UInt8[np.ndarray, "H W 3"], keypoints: Float[np.ndarray, "k c"]) -> int:
    """The width of lines, in pixels, that suits an animal with these joints."""
    size = np.array(image.shape[1::-1])
    # What lies outside the image does not make the animal look bigger; a lone joint has no extent
    # and must be seen too.
    extent = np.ptp(np.clip(keypoints[:, :2], 0, size), axis=0).max()
    return max(1, round(max(extent / 80, size.max() / 300)))


def draw_heatmaps(
    image: UInt8[np.ndarray, "H W 3"],
    heatmaps: Float[np.ndarray, "h w k"],
    *,
    keypoint_set: joints.KeypointSet = joints.AP10K,
    columns: int = 6,
    side: int = 192,
) -> UInt8[np.ndarray, "H2 W2 3"]:
    """A sheet with the image once for each joint, its heatmap glowing in it and its peak below.

    `image` is the crop that the heatmaps belong to; it is shown in dark grey. Where a heatmap is 0
    or less nothing is lit, where it is 1 or more it is white; a weak peak is brought out.
    """
    size = (round(image.shape[1] * side / image.shape[0]), side)
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    dark = 0.45 * cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32)
    # cell i lies on pixel i * stride: an affine map, where cv2.resize would add half a pixel
    zoom = np.array(size) / np.array(heatmaps.shape[1::-1])
    matrix = np.array([[zoom[0], 0, 0], [0, zoom[1], 0]])
    tiles = []
    for name, heatmap in zip(keypoint_set.names, np.moveaxis(heatmaps, -1, 0), strict=True):
        heat = np.clip(np.asarray(heatmap, np.float32), 0, 1)
        heat = cv2.warpAffine(heat, matrix, size, borderMode=cv2.BORDER_REPLICATE)
        # the root brings out weak peaks: half the height would be a purple that the dark swallows
        heat = np.sqrt(heat)
        colors = cv2.applyColorMap(np.uint8(255 * heat), cv2.COLORMAP_INFERNO)[..., ::-1]
        lit = np.uint8((1 - heat[..., None]) * dark + heat[..., None] * colors)
        tiles.append(np.concatenate([lit, _text_bar(f"{name} {heatmap.max():.2f}", size[0])]))
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[i : i + columns], axis=1) for i in range(0, len(tiles), columns)]
    return np.concatenate(rows)


def draw_comparison(
    image: UInt8[np.ndarray, "H W 3"],
    predicted: Float[np.ndarray, "k 3"],
    truth: Float[np.ndarray, "k 3"],
    box: Float[np.ndarray, "4"] | None = None,
    *,
    keypoint_set: joints.KeypointSet = joints.AP10K,
    threshold: float = 0.2,
) -> UInt8[np.ndarray, "H W2 3"]:
    """The image twice, side by side: predicted skeleton left, true one right, both with the box.

    The box is xywh. Both skeletons have the same line width, that of the true one.
    """
    image = np.ascontiguousarray(image).copy()
    if box is not None:
        x, y, width, height = (float(value) for value in box)
        corners = _fixed((x, y)), _fixed((x + width, y + height))
        line = max(1, round(max(image.shape[:2]) / 400))
        for color, extra in ((OUTLINE, 2), (COLORS["middle"], 0)):
            cv2.rectangle(image, *corners, color, line + extra, cv2.LINE_AA, SUBPIXEL_BITS)
    truth = np.asarray(truth, float)
    labelled = truth[truth[:, 2] > 0]
    style = {"keypoint_set": keypoint_set}
    style["width"] = line_width(image, labelled) if len(labelled) else None
    left = draw_skeleton(image, predicted, threshold=threshold, **style)
    # Truth has visibilities (0, 1, 2) where a prediction has scores: any label is shown.
    right = draw_skeleton(image, truth, threshold=0, **style)
    gap = np.full((image.shape[0], max(2, image.shape[1] // 100), 3), 255, np.uint8)
    return np.concatenate([left, gap, right], axis=1)


def contact_sheet(
    panels: Sequence[Panel],
    *,
    columns: int = 3,
    side: int = 240,
    keypoint_set: joints.KeypointSet = joints.AP10K,
    threshold: float = 0.2,
) -> UInt8[np.ndarray, "H W 3"]:
    """Panels in rows, each with its prediction, the truth beside it and its caption below.

    `side` is the height of a picture in pixels of the sheet.
    """
    if not panels:
        raise ValueError("a contact sheet needs at least one panel")
    tiles = []
    for image, predicted, truth, caption in panels:
        zoom = side / image.shape[0]
        size = (round(image.shape[1] * zoom), side)
        large = cv2.resize(
            image, size, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC
        )
        # half-pixel centres: OpenCV's resize maps x to zoom * (x + 0.5) - 0.5
        moved = [
            np.column_stack([zoom * (np.asarray(k)[:, :2] + 0.5) - 0.5, np.asarray(k)[:, 2]])
            for k in (predicted, truth)
        ]
        pair = draw_comparison(large, *moved, keypoint_set=keypoint_set, threshold=threshold)
        tiles.append(np.concatenate([pair, _text_bar(caption, pair.shape[1])]))

    width = max(tile.shape[1] for tile in tiles)
    height = tiles[0].shape[0]
    margin = 8
    rows = -(-len(tiles) // columns)
    legend = _legend(columns * (width + margin) + margin)
    sheet = np.full((rows * (height + margin) + margin, legend.shape[1], 3), 255, np.uint8)
    for i, tile in enumerate(tiles):
        y = margin + i // columns * (height + margin)
        x = margin + i % columns * (width + margin)
        sheet[y : y + height, x : x + tile.shape[1]] = tile
    return np.concatenate([legend, sheet])


def best_median_worst(similarity: Float[np.ndarray, " n"], count: int = 3) -> list[int]:
    """Indices of `count` best, then `count` median, then `count` worst animals, none of them twice.

    A contact sheet with `count` columns shows one group a row. Fewer than 3 x count animals make
    smaller groups; fewer than 3 are all returned.
    """
    order = np.argsort(-np.asarray(similarity), kind="stable")
    count = min(count, len(order) // 3)
    if not count:
        return order.tolist()
    middle = (len(order) - count) // 2
    return [*order[:count].tolist(), *order[middle:][:count].tolist(), *order[-count:].tolist()]


def save(path: str | Path, image: UInt8[np.ndarray, "H W 3"]) -> None:
    """Writes an RGB image; the name's ending chooses the format. Raises OSError if it cannot."""
    written, data = cv2.imencode(Path(path).suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not written:
        raise OSError(f"{path}: cannot be encoded")
    files.write_bytes(Path(path), data.tobytes())


def _fixed(point: Sequence[float]) -> tuple[int, int]:
    """A point in OpenCV's fixed-point pixels; far outside is drawn as far outside, not wrapped."""
    x, y = np.clip(np.round(np.asarray(point) * 2**SUBPIXEL_BITS), -(2**19), 2**19)
    return int(x), int(y)


def _limb_side(keypoint_set: joints.KeypointSet, a: int, b: int) -> str:
    """The side of a limb: that of its lateral joints, or the middle if they are of both sides."""
    sides = {keypoint_set.side(a), keypoint_set.side(b)} - {"middle"}
    return sides.pop() if len(sides) == 1 else "middle"


def _text_bar(text: str, width: int) -> UInt8[np.ndarray, "h w 3"]:
    """A white strip with the text, shrunk to fit."""
    bar = np.full((24, width, 3), 255, np.uint8)
    scale = 0.5
    (length, _), _ = cv2.getTextSize(text, FONT, scale, 1)
    scale *= min(1.0, (width - 8) / max(length, 1))
    cv2.putText(bar, text, (4, 17), FONT, scale, OUTLINE, 1, cv2.LINE_AA)
    return bar


def _legend(width: int) -> UInt8[np.ndarray, "h w 3"]:
    """The legend of the colours and the two pictures."""
    bar = np.full((30, width, 3), 255, np.uint8)
    text = "left picture: predicted (the labelled joints), right picture: labelled"
    cv2.putText(bar, text, (12, 21), FONT, 0.5, OUTLINE, 1, cv2.LINE_AA)
    x = 24 + cv2.getTextSize(text, FONT, 0.5, 1)[0][0]
    for side, name in (("left", "its left side"), ("right", "its right side")):
        cv2.line(bar, (x, 16), (x + 24, 16), OUTLINE, 6, cv2.LINE_AA)
        cv2.line(bar, (x, 16), (x + 24, 16), COLORS[side], 4, cv2.LINE_AA)
        cv2.putText(bar, name, (x + 32, 21), FONT, 0.5, OUTLINE, 1, cv2.LINE_AA)
        x += 48 + cv2.getTextSize(name, FONT, 0.5, 1)[0][0]
    return bar
