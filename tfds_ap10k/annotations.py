"""Read COCO-style keypoint files, one for each split, and find everything wrong with them at once.

What would break or bend training or the metric is a problem, and any problem refuses the data.
What is odd but harmless (a species nobody photographed) is counted in a report. Records look like

    {"id": 371, "file_name": "000000000371.jpg", "width": 1024, "height": 768, "background": 2}
    {"id": 441, "image_id": 371, "category_id": 1, "bbox": [255, 209, 483, 387], "area": 186921,
     "iscrowd": 0, "num_keypoints": 16, "keypoints": [0, 0, 0, 681, 464, 2, ...]}
    {"id": 1, "name": "antelope", "supercategory": "Bovidae", "keypoints": ["left_eye", ...],
     "skeleton": [[1, 2], ...]}

Boxes are xywh, keypoints x, y, visibility; both in pixels of the stored image. The files are not
trusted: every value is looked at before it is used, and error texts quote them shortened.
"""

import json
import re
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from tfds_ap10k import oddities, photographs, sources

MAX_FILE_BYTES = 1 << 30
MAX_COORDINATE = 1e6  # pixels; far beyond any photograph, small enough for float32
MAX_LISTED = 50

# What is kept of each record; files carry more (licences, segmentations) that nobody checked.
IMAGE_FIELDS = ("id", "file_name", "width", "height", "background", "license")
ANNOTATION_FIELDS = (
    *("id", "image_id", "category_id", "bbox", "area"),
    *("iscrowd", "num_keypoints", "keypoints"),
)
CATEGORY_FIELDS = ("id", "name", "supercategory", "keypoints", "skeleton")

Json = bool | int | float | str | list | dict | None
Flaws = Iterator[tuple[str, str]]  # (field, what is wrong with it)


class Problem(NamedTuple):
    file: str
    record: str  # such as "image 371" or "annotation 441"; empty for the file as a whole
    field: str
    text: str

    def __str__(self) -> str:
        return ": ".join(part for part in self if part)


class AnnotationError(ValueError):
    """The files cannot be used; `problems` has every reason, the message the first of them."""

    def __init__(self, problems: Sequence[Problem]):
        self.problems = tuple(problems)
        lines = [f"  {problem}" for problem in self.problems[:MAX_LISTED]]
        if len(self.problems) > MAX_LISTED:
            lines.append(f"  ... and {len(self.problems) - MAX_LISTED} more")
        found = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        super().__init__("\n".join([f"The annotations have {found}:", *lines]))


def read(
    files: Mapping[str, sources.Root],
    *,
    folder: sources.Root | None = None,
    keypoint_names: Sequence[str] | None = None,
    categories: Mapping[int, tuple[str, str]] | None = None,
    progress: Callable[[Sequence[dict]], Iterable[dict]] = iter,
) -> tuple[dict[str, dict], dict]:
    """The COCO dict of every split, in the file's order, and the report of oddities.

    `files` maps split names to annotation files. Photographs are looked at when `folder` has
    them. `keypoint_names` and `categories` (id to name and supercategory) say what the files must
    declare; without them their own first category speaks for the rest. Raises AnnotationError.
    """
    problems, splits = [], {}
    for split, path in files.items():
        content, found = _parse(path)
        splits[split], more = check(
            content, file=path.name, keypoint_names=keypoint_names, categories=categories
        )
        problems += found or more
    names = {split: path.name for split, path in files.items()}
    problems += _check_disjoint(splits, names)
    seen = {"photographs_not_jpeg": 0}
    if folder is not None and not folder.is_dir():
        problems.append(Problem(f"{folder.name}/", "", "", "the folder of photographs is missing"))
    elif folder is not None:
        images = [(split, image) for split, coco in splits.items() for image in coco["images"]]
        for split, image in progress(images):
            flaw = _check_photograph(image, folder, seen)
            if flaw:
                problems.append(Problem(names[split], f"image {image['id']}", *flaw))
    if problems:
        raise AnnotationError(problems)
    return splits, oddities.count(splits) | seen


def check(
    content: Json,
    *,
    file: str,
    keypoint_names: Sequence[str] | None = None,
    categories: Mapping[int, tuple[str, str]] | None = None,
) -> tuple[dict, list[Problem]]:
    """The records of one file that are sound, with their known fields, and all its problems."""
    problems = []
    tables = {"images": [], "annotations": [], "categories": []}
    if not isinstance(content, dict):
        return tables, [Problem(file, "", "", "not a JSON object")]

    def sound(key: str, kind: str, find_flaws: Callable[[dict], Flaws], fields: Sequence[str]):
        """Records without flaws, by id; all ids seen."""
        kept, ids = {}, set()
        records = content.get(key)
        if not isinstance(records, list):
            problems.append(Problem(file, "", key, "missing or not a list"))
            records = []
        for index, record in enumerate(records):
            identity = record.get("id") if isinstance(record, dict) else None
            if not _is_id(identity):
                text = f"not a whole number: {show(identity)}"
                problems.append(Problem(file, f"{key}[{index}]", "id", text))
                continue
            where = f"{kind} {identity}"
            if identity in ids:
                problems.append(Problem(file, where, "id", "used more than once"))
                continue
            ids.add(identity)
            flaws = [Problem(file, where, *flaw) for flaw in find_flaws(record)]
            problems.extend(flaws)
            if not flaws:
                kept[identity] = {name: record[name] for name in record if name in fields}
        tables[key] = list(kept.values())
        return kept, ids

    names = keypoint_names or _declared_names(content.get("categories"))
    _, category_ids = sound(
        "categories",
        "category",
        lambda record: _category_flaws(record, names, categories),
        CATEGORY_FIELDS,
    )
    images, image_ids = sound("images", "image", _image_flaws, IMAGE_FIELDS)
    sound(
        "annotations",
        "annotation",
        lambda record: _annotation_flaws(record, images, image_ids, category_ids, len(names)),
        ANNOTATION_FIELDS,
    )
    file_names = {}
    for image in images.values():
        first = file_names.setdefault(PurePosixPath(image["file_name"]), image["id"])
        if first != image["id"]:
            text = f"{show(image['file_name'])} is also that of image {first}"
            problems.append(Problem(file, f"image {image['id']}", "file_name", text))
    if not images and not problems:
        problems.append(Problem(file, "", "images", "there are none"))
    return tables, problems


def _parse(path: sources.Root) -> tuple[Json, list[Problem]]:
    try:
        return json.loads(sources.read(path, max_bytes=MAX_FILE_BYTES)), []
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        reason = f"not valid JSON ({error})"
    except RecursionError:
        reason = "not valid JSON (nested too deeply)"
    except ValueError as error:  # from sources.read, or a number of thousands of digits
        reason = str(error)
    return None, [Problem(path.name, "", "", reason)]


def _declared_names(categories: Json) -> Sequence[str]:
    """The keypoint names of the first category that has any."""
    for category in categories if isinstance(categories, list) else []:
        names = category.get("keypoints") if isinstance(category, dict) else None
        if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
            return names
    return []


def _category_flaws(
    category: dict, names: Sequence[str], expected: Mapping[int, tuple[str, str]] | None
) -> Flaws:
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
        and all(_is_id(joint) and 1 <= joint <= len(names) for joint in bone)
        for bone in skeleton
    ):
        yield "skeleton", f"not pairs of keypoint numbers from 1 to {len(names)}"


def _image_flaws(image: dict) -> Flaws:
    name = image.get("file_name")
    if not _is_text(name):
        yield "file_name", f"not a text: {show(name)}"
    elif not _stays_inside(name):
        yield "file_name", f"leads outside the folder of photographs: {show(name)}"
    for field in ("width", "height"):
        if not (_is_id(image.get(field)) and 1 <= image[field] <= 65535):
            yield field, f"not a number of pixels: {show(image.get(field))}"
    for field in ("background", "license"):
        if field in image and not _is_id(image[field]):
            yield field, f"not a whole number: {show(image[field])}"


def _annotation_flaws(
    annotation: dict,
    images: Mapping[int, dict],
    image_ids: set[int],
    category_ids: set[int],
    count: int,
) -> Flaws:
    image_id, category_id = annotation.get("image_id"), annotation.get("category_id")
    if not (_is_id(image_id) and image_id in image_ids):
        yield "image_id", f"there is no such image: {show(image_id)}"
        image_id = None
    if not (_is_id(category_id) and category_id in category_ids):
        yield "category_id", f"unknown category: {show(category_id)}"
    # The box needs the image's size; where that is flawed, the image has been reported.
    yield from _box_flaws(annotation.get("bbox"), images.get(image_id))
    area = annotation.get("area")
    if not (_is_number(area, limit=MAX_COORDINATE**2) and area > 0):
        yield "area", f"not a positive number: {show(area)}"
    if annotation.get("iscrowd", 0) not in (0, 1):
        yield "iscrowd", f"neither 0 nor 1: {show(annotation['iscrowd'])}"
    keypoints = annotation.get("keypoints")
    if not isinstance(keypoints, list):
        yield "keypoints", f"not a list: {show(keypoints)}"
    elif len(keypoints) != 3 * count:
        yield "keypoints", f"{len(keypoints)} numbers in place of {3 * count} ({count} x, y, v)"
    elif not all(_is_number(value) for value in keypoints):
        flawed = next(value for value in keypoints if not _is_number(value))
        yield "keypoints", f"not a coordinate: {show(flawed)}"
    elif not all(visibility in (0, 1, 2) for visibility in keypoints[2::3]):
        flawed = next(value for value in keypoints[2::3] if value not in (0, 1, 2))
        yield "keypoints", f"visibility is neither 0, 1 nor 2: {show(flawed)}"
    else:
        # The metric leaves animals of no keypoints out by this number, the loader by the list.
        labelled = sum(visibility > 0 for visibility in keypoints[2::3])
        if not _is_id(annotation.get("num_keypoints")) or annotation["num_keypoints"] != labelled:
            shown = show(annotation.get("num_keypoints"))
            yield "num_keypoints", f"{shown}, but {labelled} keypoints are labelled"


def _box_flaws(box: Json, image: dict | None) -> Flaws:
    if not (isinstance(box, list) and len(box) == 4 and all(_is_number(side) for side in box)):
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


def _check_disjoint(splits: Mapping[str, dict], files: Mapping[str, str]) -> Iterator[Problem]:
    """Test images among the training images would make every number worthless."""
    for field in ("id", "file_name"):
        home = {}
        for split, coco in splits.items():
            for image in coco["images"]:
                key = PurePosixPath(image[field]) if field == "file_name" else image[field]
                first = home.setdefault(key, split)
                if first != split:
                    text = f"{show(image[field])} is also in {files[first]}"
                    yield Problem(files[split], f"image {image['id']}", field, text)


def _check_photograph(
    image: dict, folder: sources.Root, seen: dict[str, int]
) -> tuple[str, str] | None:
    """What is wrong with the photograph of an image record, as (field, text)."""
    path = folder / image["file_name"]
    name = show(image["file_name"])
    try:
        if sources.leads_outside(path, folder):
            raise ValueError("a link out of the folder of photographs")
        photograph = photographs.inspect(sources.read(path, max_bytes=photographs.MAX_BYTES))
    except ValueError as error:
        return "file_name", f"{name}: {error}"
    if (photograph.width, photograph.height) != (image["width"], image["height"]):
        recorded = f"{image['width']}x{image['height']}"
        found = f"{photograph.width}x{photograph.height}"
        return "width, height", f"{recorded}, but {name} has {found} pixels"
    seen["photographs_not_jpeg"] += not photograph.is_jpeg
    return None


def _is_id(value: Json) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _is_number(value: Json, *, limit: float = MAX_COORDINATE) -> bool:
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
