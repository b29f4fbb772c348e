"""Read COCO-style keypoint files, one for each split, and list everything that is wrong with them.

A problem is a fault that would break or distort training or the metric; any problem refuses the
data. What is odd but harmless, such as a species without photographs, is counted in a report.
Records look like

    {"id": 371, "file_name": "000000000371.jpg", "width": 1024, "height": 768, "background": 2}
    {"id": 441, "image_id": 371, "category_id": 1, "bbox": [255, 209, 483, 387], "area": 186921,
     "iscrowd": 0, "num_keypoints": 16, "keypoints": [0, 0, 0, 681, 464, 2, ...]}
    {"id": 1, "name": "antelope", "supercategory": "Bovidae", "keypoints": ["left_eye", ...],
     "skeleton": [[1, 2], ...]}

Boxes are xywh, keypoints x, y, visibility; both in pixels of the stored image. The files are not
trusted: every value is checked before it is used, and error texts quote it shortened.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from ap10k_jax.runtime import errors
from tfds_ap10k import flaws, oddities, photographs, sources
from tfds_ap10k.flaws import Flaws, Json, show

MAX_FILE_BYTES = 1 << 30
MAX_CONTAINERS = 20_000_000  # COCO's largest keypoint file has two million
MAX_LISTED = 50
NO_FOLDER = "the folder of photographs is missing"

# What is kept of each record; files carry more (licences, segmentations) that nobody checked.
IMAGE_FIELDS = ("id", "file_name", "width", "height", "background", "license")
ANNOTATION_FIELDS = (
    *("id", "image_id", "category_id", "bbox", "area"),
    *("iscrowd", "num_keypoints", "keypoints"),
)
CATEGORY_FIELDS = ("id", "name", "supercategory", "keypoints", "skeleton", "sigmas")


class Problem(NamedTuple):
    file: str
    record: str  # such as "image 371" or "annotation 441"; empty for the file as a whole
    field: str
    text: str

    def __str__(self) -> str:
        return ": ".join(part for part in self if part)


class AnnotationError(errors.UserError, ValueError):
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
    select: Callable[[str, Json], Json] | None = None,
    progress: Callable[[Sequence[dict]], Iterable[dict]] = iter,
) -> tuple[dict[str, dict], dict]:
    """Read the COCO dict of every split, in the file's order, and the report of oddities.

    `files` maps split names to annotation files. Photographs are checked if `folder` is given.
    `keypoint_names` and `categories` (id to name and supercategory) say what the files must
    declare; without them the first category of a file decides. `select` gets a split and the
    unchecked content of its file, and returns the part to use. Raises AnnotationError.
    """
    problems, splits = [], {}
    for split, path in files.items():
        content, found = parse(path)
        if select is not None:
            content = select(split, content)
        splits[split], more = check(
            content, file=path.name, keypoint_names=keypoint_names, categories=categories
        )
        problems += found or more
    names = {split: path.name for split, path in files.items()}
    problems += _check_disjoint(splits, names)
    problems += _check_categories_agree(splits, names)
    seen = {"photographs_not_jpeg": 0, "identical_photographs": [], "photographs_in_two_splits": []}
    if folder is not None and not folder.is_dir():
        problems.append(Problem(f"{folder.name}/", "", "", NO_FOLDER))
    elif folder is not None:
        images = [(split, image) for split, coco in splits.items() for image in coco["images"]]
        known = {}
        for split, image in progress(images):
            flaw = _check_photograph(split, image, folder, seen, known)
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
    """Check one file: its valid records, with known fields only, and all its problems."""
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
            if not flaws.is_id(identity):
                text = f"not a whole number: {show(identity)}"
                problems.append(Problem(file, f"{key}[{index}]", "id", text))
                continue
            where = f"{kind} {identity}"
            if identity in ids:
                problems.append(Problem(file, where, "id", "used more than once"))
                continue
            ids.add(identity)
            found = [Problem(file, where, *flaw) for flaw in find_flaws(record)]
            problems.extend(found)
            if not found:
                kept[identity] = {name: record[name] for name in record if name in fields}
        tables[key] = list(kept.values())
        return kept, ids

    names = keypoint_names or _declared_names(content.get("categories"))
    _, category_ids = sound(
        "categories",
        "category",
        lambda record: flaws.of_category(record, names, categories),
        CATEGORY_FIELDS,
    )
    images, image_ids = sound("images", "image", flaws.of_image, IMAGE_FIELDS)
    sound(
        "annotations",
        "annotation",
        lambda record: flaws.of_annotation(record, images, image_ids, category_ids, len(names)),
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


def parse(path: sources.Root) -> tuple[Json, list[Problem]]:
    """Parse a JSON file: its content, or the reason why it cannot be read."""
    try:
        data = sources.read(path, max_bytes=MAX_FILE_BYTES)
        # A list takes 2 bytes in the file and 60 in memory, and zip presses a thousand into 3.
        if data.count(b"[") + data.count(b"{") > MAX_CONTAINERS:
            raise ValueError(f"more than {MAX_CONTAINERS:,} lists and objects")
        return json.loads(data), []
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


def _check_disjoint(splits: Mapping[str, dict], files: Mapping[str, str]) -> Iterator[Problem]:
    """Check that no image is in two splits: tested on training images, numbers mean nothing."""
    for field in ("id", "file_name"):
        home = {}
        for split, coco in splits.items():
            for image in coco["images"]:
                key = PurePosixPath(image[field]) if field == "file_name" else image[field]
                first = home.setdefault(key, split)
                if first != split:
                    text = f"{show(image[field])} is also in {files[first]}"
                    yield Problem(files[split], f"image {image['id']}", field, text)


def _check_categories_agree(
    splits: Mapping[str, dict], files: Mapping[str, str]
) -> Iterator[Problem]:
    """Check that an id means the same species in training and in test."""
    first = {}
    for split, coco in splits.items():
        for category in coco["categories"]:
            other = first.setdefault(category["id"], (split, category["name"]))
            if other[1] != category["name"]:
                text = f"{show(category['name'])}, but {show(other[1])} in {files[other[0]]}"
                yield Problem(files[split], f"category {category['id']}", "name", text)


def _check_photograph(
    split: str,
    image: dict,
    folder: sources.Root,
    seen: dict[str, int | list],
    known: dict[str, tuple[str, str]],
) -> tuple[str, str] | None:
    """Check the photograph of an image record; returns a problem as (field, text), or None.

    `known` maps the SHA-256 of each photograph seen so far to its split and name.
    """
    name = show(image["file_name"])
    try:
        photograph = photographs.find(folder, image["file_name"])
    except ValueError as error:
        return "file_name", f"{name}: {error}"
    if (photograph.width, photograph.height) != (image["width"], image["height"]):
        recorded = f"{image['width']}x{image['height']}"
        found = f"{photograph.width}x{photograph.height}"
        return "width, height", f"{recorded}, but {name} has {found} pixels"
    seen["photographs_not_jpeg"] += not photograph.is_jpeg
    first, other = known.setdefault(photograph.sha256, (split, image["file_name"]))
    if other != image["file_name"]:
        kind = "identical_photographs" if first == split else "photographs_in_two_splits"
        seen[kind].append(f"{image['file_name']} in {split} is {other} in {first}")
    return None
