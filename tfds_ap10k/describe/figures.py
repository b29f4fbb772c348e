"""Pictures of a data set: how many animals of each species it has, and what they look like."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ap10k_jax import images, keypoints, visualize
from ap10k_jax.runtime import errors
from tfds_ap10k import photographs, sources, splits

# One hue for all families, in two shades by turns: colour has nothing to say here but where a
# family ends.
SHADES = ("#1f6f8b", "#5aa9c4")
INK, QUIET = "#222222", "#777777"
LABELS, BAR, NUMBERS, ROW = 1.75, 3.2, 0.55, 0.185  # inches; BAR is the longest bar
TILE = 320, 240  # width and height in pixels of a photograph on the sheet
PADDING = 1.3  # of what the animals of a photograph cover


class NoPhotographs(errors.UserError, ValueError):
    """None of the photographs is where it was looked for."""


def draw_species(counts: Mapping, title: str) -> Figure:
    """A bar for every species with animals, grouped by family, the largest first, all bars on one
    scale; the counts are those of `statistics.count`.
    """
    families = [
        (family, [(name, n["animals"]) for name, n in found["species"].items() if n["animals"]])
        for family, found in counts["per_family"].items()
        if found["animals"]
    ]
    longest = max((n for _, species in families for _, n in species), default=1)
    columns = in_columns(families)
    widths = [
        LABELS + NUMBERS + BAR * max(n for _, species in column for _, n in species) / longest
        for column in columns
    ]
    rows = max(sum(_rows(species) for _, species in column) for column in columns)
    size = max(7.0, sum(widths) + 0.2), ROW * rows + 1.2  # inches
    figure = Figure(figsize=size, dpi=150)
    shade = {family: SHADES[i % 2] for i, (family, _) in enumerate(families)}
    left = 0.0
    for column, width in zip(columns, widths, strict=True):
        axis = figure.add_axes(
            (
                (left + LABELS) / size[0],
                0.35 / size[1],
                (width - LABELS) / size[0],
                1 - 1.2 / size[1],
            )
        )
        axis.axis("off")
        axis.set_xlim(0, (width - LABELS) / BAR * longest)
        axis.set_ylim(rows, 0)
        row = 0.5
        for family, species in column:
            _name(axis, row, family, sum(n for _, n in species), 0, INK, "bold")
            for name, n in species:
                row += 1
                axis.barh(row, n, color=shade[family], height=0.78)
                _name(axis, row, name, n, n, QUIET, "normal")
            row += 1.4
        left += width
    summary = (
        f"{counts['animals']:,} animals on {counts['images']:,} images, "
        f"{counts['species_with_animals']} species in {counts['families_with_animals']} families"
    )
    figure.text(0.15 / size[0], 1 - 0.35 / size[1], f"Animals per species: {title}", size=13)
    figure.text(0.15 / size[0], 1 - 0.62 / size[1], summary, color=QUIET)
    absent = counts["long_tail"]["species_without_animals"]
    if absent:
        names = ", ".join(absent) if len(absent) < 9 else f"{len(absent)} species"
        figure.text(0.15 / size[0], 0.12 / size[1], f"Without animals: {names}", color=QUIET)
    return figure


def in_columns(families: Sequence[tuple[str, Sequence]]) -> list[list]:
    """The families in their order, none of them torn apart, in columns of about the same length."""
    sizes = np.array([_rows(species) for _, species in families])
    number = int(min(3, 1 + sizes.sum() // 25))
    middles = np.cumsum(sizes) - sizes / 2
    chosen = middles * number // sizes.sum()
    columns = [
        [family for family, place in zip(families, chosen, strict=True) if place == column]
        for column in range(number)
    ]
    return [column for column in columns if column]  # a huge family may leave one empty


def draw_examples(
    places: Sequence[tuple[dict, Sequence[sources.Root]]], number: int, seed: int
) -> Figure:
    """A sheet of photographs with boxes and skeletons, at first one from every family.

    `places` are validated COCO dicts with the folders that their photographs may be in. Raises
    NoPhotographs if there are none.
    """
    chosen = choose(places, number, seed)
    columns = min(6, len(chosen))
    lines = -(-len(chosen) // columns)
    width = max(4.2, columns * (TILE[0] + 12) / 100)  # inches; narrower has no room for the legend
    height = lines * (TILE[1] + 34) / 100 + 0.5
    figure = Figure(figsize=(width, height), dpi=100)
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, (family, species, coco, image, folder) in zip(axes, chosen, strict=False):
        animals = [a for a in coco["annotations"] if a["image_id"] == image["id"]]
        axis.imshow(annotated(folder, image, animals, joints(coco)))
        caption = species if species == family else f"{species} ({family})"
        axis.set_title(caption, size=9, pad=3, color=INK)
    for x, side, name in ((0.01, "left", "left"), (0.01 + 1.6 / width, "right", "right")):
        color = np.array(visualize.COLORS[side]) / 255
        label = f"\N{BLACK CIRCLE} its own {name} side"
        figure.text(x, 1 - 0.25 / height, label, color=color, size=10, weight="bold")
    figure.subplots_adjust(0.005, 0.01, 0.995, 1 - 0.55 / height, wspace=0.03, hspace=0.14)
    return figure


def choose(
    places: Sequence[tuple[dict, Sequence[sources.Root]]], number: int, seed: int
) -> list[tuple[str, str, dict, dict, sources.Root]]:
    """Family, species, COCO dict, image and folder of photographs that are there, drawn by lot: a
    species of every family, then another of each until all were shown, then all again; sorted by
    name.
    """
    found = defaultdict(lambda: defaultdict(list))
    for coco, folders in places:
        categories = {category["id"]: category for category in coco["categories"]}
        animals = defaultdict(list)
        for animal in coco["annotations"]:
            animals[animal["image_id"]].append(animal)
        for image in coco["images"]:
            category = categories.get(splits.main_species(animals[image["id"]]))
            folder = next((f for f in folders if (f / image["file_name"]).is_file()), None)
            if category and folder:
                family = category.get("supercategory") or category["name"]
                found[family][category["name"]].append((coco, image, folder))
    rng = np.random.default_rng(seed)
    ranked = []
    for family in sorted(found):
        by_lot = rng.permutation(sorted(found[family])).tolist()
        for rank, species in enumerate(by_lot):
            members = found[family][species]
            for turn, i in enumerate(rng.permutation(len(members))):
                ranked.append((turn, rank, (family, species, *members[i])))
    if not ranked:
        raise NoPhotographs("None of the photographs was found; say where with --images=FOLDER.")
    ranked.sort(key=lambda example: example[:2])
    chosen = [example for _, _, example in ranked[:number]]
    return sorted(chosen, key=lambda example: example[:2])


def annotated(
    folder: sources.Root, image: Mapping, animals: Sequence[Mapping], names: keypoints.KeypointSet
) -> UInt8[np.ndarray, "H W 3"]:
    """The part of a photograph where its animals are, as a tile, with their boxes and skeletons.

    Raises ValueError if it cannot be read, or is not as large as recorded: joints would be drawn
    where they are not.
    """
    data = sources.read(folder / image["file_name"], max_bytes=photographs.MAX_BYTES)
    pixels = images.decode(data, image["file_name"])
    if pixels.shape[:2] != (image["height"], image["width"]):
        recorded = f"{image['width']}x{image['height']}"
        found = f"{pixels.shape[1]}x{pixels.shape[0]}"
        raise ValueError(f"{image['file_name']} has {found} pixels, its record says {recorded}")
    boxes = np.array([animal["bbox"] for animal in animals], float)
    first, last = boxes[:, :2].min(axis=0), (boxes[:, :2] + boxes[:, 2:]).max(axis=0)
    size = PADDING * (last - first)
    size = np.maximum(size, size[::-1] * np.array([TILE[0] / TILE[1], TILE[1] / TILE[0]]))
    whole = np.array(pixels.shape[1::-1])
    center = (first + last) / 2
    start = np.clip(center - size / 2, 0, whole - 1).astype(int)
    stop = np.clip(center + size / 2, start + 1, whole).astype(int)
    part = pixels[start[1] : stop[1], start[0] : stop[0]]
    zoom = min(TILE[0] / part.shape[1], TILE[1] / part.shape[0])
    scaled = np.maximum(1, np.round(zoom * (stop - start))).astype(int)
    method = cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC
    tile = cv2.resize(part, tuple(scaled.tolist()), interpolation=method)
    for animal, box in zip(animals, boxes, strict=True):
        corners = zoom * (np.stack([box[:2], box[:2] + box[2:]]) - start)
        upper, lower = (tuple(corner.round().astype(int).tolist()) for corner in corners)
        cv2.rectangle(tile, upper, lower, visualize.COLORS["middle"], 1, cv2.LINE_AA)
        points = np.reshape(np.array(animal["keypoints"], float), (-1, 3))
        # half-pixel centres: OpenCV's resize maps x to zoom * (x + 0.5) - 0.5
        points[:, :2] = zoom * (points[:, :2] - start + 0.5) - 0.5
        tile = visualize.draw_skeleton(tile, points, keypoint_set=names, threshold=0)
    canvas = np.full((TILE[1], TILE[0], 3), 238, np.uint8)
    top, left = (TILE[1] - tile.shape[0]) // 2, (TILE[0] - tile.shape[1]) // 2
    canvas[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return canvas


def joints(coco: Mapping) -> keypoints.KeypointSet:
    """The joints as the file itself names and connects them (it counts them from 1)."""
    category = coco["categories"][0]
    skeleton = tuple((a - 1, b - 1) for a, b in category.get("skeleton", ()))
    return keypoints.KeypointSet(names=tuple(category["keypoints"]), pairs=(), skeleton=skeleton)


def _rows(species: Sequence) -> float:
    """Rows that a family takes: its name, its species, and some space."""
    return len(species) + 1.4


def _name(axis: Axes, row: float, name: str, n: int, at: float, color: str, weight: str) -> None:
    """Write a name before the bars, and a number at the end of its bar."""
    axis.text(0, row, f"{name}  ", ha="right", va="center", color=INK, weight=weight, size=9)
    axis.text(at, row, f" {n:,}", va="center", color=color, weight=weight, size=9)
