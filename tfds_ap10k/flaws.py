"""Checks of one record of an annotation file; each finding is a (field, text) pair.

Records come from JSON and may have any type and shape. The only guarantee is that they are objects
with an `id` that is a whole number.
"""

import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath

MAX_COORDINATE = 1e6  # pixels; far beyond any photograph, small enough for float32

Json = bool | int | float | str | list | dict | None
Flaws = Iterator[tuple[str, str]]


def of_category(
    category: dict, names: Sequence[str], expected: Mapping[int, tuple[str, str]] | None
) -> Flaws:
    """`names` are the keypoints it must have, `expected` maps ids to (name, supercategory)."""
    name, family = category.get("name"), category.get("supercategory")
    if not _is_text(name):
        yield "name", f"not a text: {show(name)}"
    elif not (family is None or _is_text(family)):
        yield "supercategory", f"not a text: {show(family)}"
    elif expected is not None and expected.get(category["id"]) != (name, family):
        should_be = expected.get(category["id"], "no category of this data set")
        yield "name", f"unknown category: {show((name, family))} should be {show(should_be)}"
    if not names or category.get("keypoints") != list(names):
        shown = show(category.get("keypoints"))
        yield "keypoints", f"should be the {len(names)} names of the data set: {shown}"
    skeleton = category.get("skeleton", [])
    if not isinstance(skeleton, list) or not all(
        isinstance(bone, list)
        and len(bone) == 2
        and all(is_id(joint) and 1 <= joint <= len(names) for joint in bone)
        for bone in skeleton
    ):
        yield "skeleton", f"not pairs of keypoint numbers from 1 to {len(names)}"
    sigmas = category.get("sigmas")  # of us, for data sets with joints of their own
    if sigmas is not None and not (
        isinstance(sigmas, list)
        and len(sigmas) == len(names)
        and all(is_number(sigma) and 0 < sigma < 1 for sigma in sigmas)
    ):
        yield "sigmas", f"not {len(names)} numbers between 0 and 1: {show(sigmas)}"


def of_image(image: dict) -> Flaws:
    """Without a look at the photograph."""
    name = image.get("file_name")
    if not _is_text(name):
        yield "file_name", f"not a text: {show(name)}"
    elif not _stays_inside(name):
        yield "file_name", f"leads outside the folder of photographs: {show(name)}"
    for field in ("width", "height"):
        if not (is_id(image.get(field)) and 1 <= image[field] <= 65535):
            yield field, f"not a number of pixels: {show(image.get(field))}"
    for field in ("background", "license"):
        if field in image and not is_id(image[field]):
            yield field, f"not a whole number: {show(image[field])}"


def of_annotation(
    annotation: dict,
    images: Mapping[int, dict],
    image_ids: set[int],
    category_ids: set[int],
    count: int,
) -> Flaws:
    """`images` are the sound ones by id, `image_ids` and `category_ids` all that the file has,
    `count` is the number of keypoints an animal has.
    """
    image_id, category_id = annotation.get("image_id"), annotation.get("category_id")
    if not (is_id(image_id) and image_id in image_ids):
        yield "image_id", f"there is no such image: {show(image_id)}"
        image_id = None
    if not (is_id(category_id) and category_id in category_ids):
        yield "category_id", f"unknown category: {show(category_id)}"
    # The box needs the image's size; where that is flawed, the image has been reported.
    yield from _of_box(annotation.get("bbox"), images.get(image_id))
    area = annotation.get("area")
    if not (is_number(area, limit=MAX_COORDINATE**2) and area > 0):
        yield "area", f"not a positive number: {show(area)}"
    if annotation.get("iscrowd", 0) not in (0, 1):
        yield "iscrowd", f"neither 0 nor 1: {show(annotation['iscrowd'])}"
    keypoints = annotation.get("keypoints")
    if not isinstance(keypoints, list):
        yield "keypoints", f"not a list: {show(keypoints)}"
    elif len(keypoints) != 3 * count:
        yield "keypoints", f"{len(keypoints)} numbers in place of {3 * count} ({count} x, y, v)"
    elif not all(is_number(value) for value in keypoints):
        flawed = next(value for value in keypoints if not is_number(value))
        yield "keypoints", f"not a coordinate: {show(flawed)}"
    elif not all(visibility in (0, 1, 2) for visibility in keypoints[2::3]):
        flawed = next(value for value in keypoints[2::3] if value not in (0, 1, 2))
        yield "keypoints", f"visibility is neither 0, 1 nor 2: {show(flawed)}"
    else:
        # The metric leaves animals of no keypoints out by this number, the loader by the list.
        labelled = sum(visibility > 0 for visibility in keypoints[2::3])
        if not is_id(annotation.get("num_keypoints")) or annotation["num_keypoints"] != labelled:
            shown = show(annotation.get("num_keypoints"))
            yield "num_keypoints", f"{shown}, but {labelled} keypoints are labelled"


def _of_box(box: Json, image: dict | None) -> Flaws:
    if not (isinstance(box, list) and len(box) == 4 and all(is_number(side) for side in box)):
        yield "bbox", f"not four numbers x, y, width, height: {show(box)}"
        return
    x, y, width, height = box
    if width < 1 or height < 1:
        yield "bbox", f"has no extent of a pixel or more: {show(box)}"
        return
    if image is not None:
        # The crop is made around the part inside, up to the last pixel as MMPose clips it. That
        # must be a pixel at least; a box that merely sticks out is counted as odd.
        inside_x = min(x + width, image["width"] - 1) - max(x, 0)
        inside_y = min(y + height, image["height"] - 1) - max(y, 0)
        if inside_x < 1 or inside_y < 1:
            size = f"{image['width']}x{image['height']}"
            yield "bbox", f"lies outside the image of {size}: {show(box)}"


def is_id(value: Json) -> bool:
    """A whole number that fits 64 bits; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def is_number(value: Json, *, limit: float = MAX_COORDINATE) -> bool:
    """Finite and within the limit; the comparison is False for NaN and safe for huge integers."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= limit


def _is_text(value: Json) -> bool:
    """A text one can print and store: no control characters, no lone surrogates."""
    return isinstance(value, str) and 0 < len(value) <= 1000 and value.isprintable()


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name)
    drive = re.match(r"[A-Za-z]:", name)
    return bool(path.parts) and not (
        path.is_absolute() or ".." in path.parts or "\\" in name or drive
    )


_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80


def show(value: Json) -> str:
    """A value as an error text quotes it: short, and with control characters escaped."""
    return _short.repr(value)
