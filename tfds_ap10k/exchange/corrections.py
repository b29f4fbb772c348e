"""Annotations that come back from an annotation tool, put together as a COCO dict again.

What comes back is not trusted: whatever does not fit the file that went there is reported, all of
it at once. Shared by `cvat` and `label_studio`.
"""

import contextlib
import math
import re
import reprlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np

from ap10k_jax import keypoints
from ap10k_jax.runtime import errors
from tfds_ap10k import annotations, flaws

MARGIN = 0.1  # of what the joints cover, on every side, of an animal without a box


class ExchangeError(errors.UserError, ValueError):
    """Corrections cannot be used; the message has every reason."""


class Animal(NamedTuple):
    """One animal as it comes back, of a known image and species."""

    known_id: int | None
    image_id: int
    species: str
    box: tuple[float, float, float, float] | None  # xywh in pixels
    points: dict[str, tuple[float, float, int]]  # x, y in pixels, and visibility, by joint


class Images:
    """Finds the photograph of a reference that a tool means."""

    def __init__(self, reference: Mapping):
        self.by_name = {image["file_name"]: image for image in reference["images"]}
        self.found = set()

    def find(self, name: str, width: str | int | None, height: str | int | None) -> Mapping:
        """Tools add folders before a name, and Label Studio eight digits and a dash."""
        *folders, base = PurePosixPath(name).parts or ("",)
        plain = re.sub(r"^[0-9a-f]{8}-", "", base)
        tails = ["/".join([*folders[i:], base]) for i in range(len(folders) + 1)]
        image = next((self.by_name[tail] for tail in [*tails, plain] if tail in self.by_name), None)
        if image is None:
            raise ValueError("no photograph of the reference is called that")
        if width is None:
            size = None
        elif not all(str(side).isdecimal() for side in (width, height)):
            raise ValueError(f"{width!r} x {height!r} is no size of a photograph")
        else:
            size = (int(width), int(height))
        if size not in (None, (image["width"], image["height"])):
            size = f"{image['width']}x{image['height']}"
            raise ValueError(f"{width}x{height} pixels, but {size} in the reference")
        if image["id"] in self.found:
            raise ValueError("is there twice")
        self.found.add(image["id"])
        return image


def assemble(
    reference: Mapping, images: Sequence[int], animals: Sequence[Animal], problems: list[str]
) -> dict:
    """A COCO dict of what came back, once all of it is known to be sound."""
    joints = keypoints.of_annotations(reference)
    ids = {category["name"]: category["id"] for category in reference["categories"]}
    homes = {animal["id"]: animal["image_id"] for animal in reference["annotations"]}
    crowds = {animal["id"] for animal in reference["annotations"] if animal.get("iscrowd")}
    names = {image["id"]: image["file_name"] for image in reference["images"]}
    sizes = {image["id"]: (image["width"], image["height"]) for image in reference["images"]}
    free = max(homes, default=0) + 1
    used, records = set(), []
    for animal in animals:
        unknown = sorted(set(animal.points) - set(joints.names))
        if animal.species not in ids:
            problems.append(f"{names[animal.image_id]}: unknown species {animal.species!r}")
        elif unknown:
            problems.append(f"{names[animal.image_id]}: unknown joint {unknown[0]!r}")
        elif not (animal.points or animal.box):
            problems.append(f"{names[animal.image_id]}: an animal without joints and box")
        else:
            identity = animal.known_id
            if identity in used or homes.get(identity) != animal.image_id:
                identity, free = free, free + 1  # drawn anew, or copied
            used.add(identity)
            points = [animal.points.get(name, (0, 0, 0)) for name in joints.names]
            box = [_plain(side) for side in animal.box or _around(animal, sizes[animal.image_id])]
            records.append(
                {
                    "id": identity,
                    "image_id": animal.image_id,
                    "category_id": ids[animal.species],
                    "bbox": box,
                    "area": _plain(box[2] * box[3]),
                    "iscrowd": int(identity in crowds),  # no tool knows crowds
                    "num_keypoints": len(animal.points),
                    "keypoints": [_plain(value) for point in points for value in point],
                }
            )
    wanted = set(images)
    new = {
        "images": [image for image in reference["images"] if image["id"] in wanted],
        "annotations": records,
        "categories": reference["categories"],
    }
    if not problems:  # boxes turned inside out, or outside of their photograph
        _, found = annotations.check(new, file="", keypoint_names=joints.names)
        place = {f"annotation {r['id']}": names[r["image_id"]] for r in records}
        problems = [f"{place.get(p.record, p.record)}: {p.field}: {p.text}" for p in found]
    if problems:
        raise ExchangeError("\n".join(problems[: annotations.MAX_LISTED]))
    return new


def _around(animal: Animal, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """A box around the joints, with a margin, within the image."""
    points = np.array([point[:2] for point in animal.points.values()])
    first, last = points.min(axis=0), points.max(axis=0)
    pad = MARGIN * max(*(last - first), 10)
    first, last = np.clip([first - pad, last + pad], 0, size)
    return *first.tolist(), *(last - first).tolist()


def _plain(value: float) -> int | float:
    """Rounded to 1/100 of a pixel, as CVAT does; without a fraction where there is none."""
    rounded = round(value, 2)
    return int(rounded) if rounded == int(rounded) else rounded


def number(text: str | float | None) -> float:
    """A coordinate. Raises ValueError for what is none."""
    value = math.nan
    if isinstance(text, str | int | float) and not isinstance(text, bool):
        with contextlib.suppress(OverflowError):
            value = float(text)
    if not abs(value) <= flaws.MAX_COORDINATE:  # also refuses NaN
        raise ValueError(f"{reprlib.repr(text)} is not a coordinate")
    return value


def triples(animal: Mapping) -> list[tuple[float, float, int]]:
    values = animal["keypoints"]
    return list(zip(values[0::3], values[1::3], values[2::3], strict=True))


def species_by_id(coco: Mapping) -> dict[int, str]:
    return {category["id"]: category["name"] for category in coco["categories"]}


def animals_by_image(coco: Mapping) -> dict[int, list[Mapping]]:
    animals = defaultdict(list)
    for animal in coco["annotations"]:
        animals[animal["image_id"]].append(animal)
    return animals
