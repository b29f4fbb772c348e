"""A user's folder: which annotation files it has, what their categories declare, what they hold."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ap10k_jax import keypoints
from tfds_ap10k import annotations, flaws, sources, splits
from tfds_ap10k.annotations import AnnotationError, Problem
from tfds_ap10k.flaws import Flaws, Json, show

PARTS = {"train": "train", "validation": "val", "test": "test"}  # TFDS split: file
PHOTOGRAPHS = ("data", "images")
SEED = (1,)  # of the division of a single file


class Declared(NamedTuple):
    """Species, families and joints that the categories of all files declare."""

    categories: dict[int, tuple[str, str]]  # id: species and family, by ascending id
    joints: keypoints.KeypointSet


def files(root: sources.Root) -> dict[str, sources.Root]:
    """The annotation file of every TFDS split, or of "all" where there is a single one.

    Raises AnnotationError where it is not clear which to take.
    """
    single, folder = root / "annotations.json", root / "annotations"
    found = {split: folder / f"{part}.json" for split, part in PARTS.items()}
    present = [split for split, path in found.items() if path.is_file()]
    if single.is_file():
        if present:
            text = "is there besides annotations/; remove the one that is not meant"
            raise AnnotationError([Problem(single.name, "", "", text)])
        return {"all": single}
    if "test" not in present:
        del found["test"]
    return found  # a file that is missing is a problem for whoever reads it


def photographs(root: sources.Root) -> sources.Root:
    """The folder that file names are relative to; there must be one. Raises AnnotationError."""
    present = [name for name in PHOTOGRAPHS if (root / name).is_dir()]
    if len(present) == 1:
        return root / present[0]
    text = "only one of them can hold the photographs" if present else annotations.NO_FOLDER
    raise AnnotationError([Problem(" or ".join(f"{name}/" for name in PHOTOGRAPHS), "", "", text)])


def declared(root: sources.Root) -> Declared:
    """The species and joints of a folder. Raises AnnotationError if its categories disagree."""
    problems, categories, first = [], {}, None
    for path in files(root).values():
        content, found = annotations.parse(path)
        listed = content.get("categories") if isinstance(content, dict) else None
        if not (isinstance(listed, list) and listed):
            missing = Problem(path.name, "", "categories", "missing, or not a list of species")
            problems += found or [missing]
            continue
        for index, category in enumerate(listed):
            if not (isinstance(category, dict) and flaws.is_id(category.get("id"))):
                text = f"not an object whose id is a whole number: {show(category)}"
                problems.append(Problem(path.name, f"categories[{index}]", "id", text))
                continue
            where = f"category {category['id']}"
            try:
                joints = keypoints.from_category(category)
            except ValueError as error:
                problems.append(Problem(path.name, where, "keypoints", str(error)))
                continue
            first = first or (joints, f"{where} of {path.name}")
            found = [
                *_difference(joints, *first),
                *_flaws_of_names(_completed(category), categories),
            ]
            problems += [Problem(path.name, where, *flaw) for flaw in found]
            if not found:
                categories[category["id"]] = _names(_completed(category))
    if problems:
        raise AnnotationError(problems)
    return Declared(dict(sorted(categories.items())), first[0])


def read(
    root: sources.Root, *, progress: Callable[[Sequence], Iterable] = iter
) -> tuple[dict[str, dict], dict]:
    """The validated COCO dict of every split, and the report of oddities.

    A single file is divided 7:1:2 within every species, in the same way every time. Raises
    annotations.AnnotationError with everything that is wrong.
    """
    joints = declared(root).joints
    contents, report = annotations.read(
        files(root),
        folder=photographs(root),
        select=_with_families,
        progress=progress,
    )
    report["keypoints_of_one_side"] = keypoints.one_sided(joints)
    if "all" in contents:
        contents = divided(contents["all"])
    if not any("background" in image for coco in contents.values() for image in coco["images"]):
        del report["undocumented_backgrounds"]  # there are none at all in this data set
    return contents, report


def divided(coco: dict) -> dict[str, dict]:
    """The COCO dict as train, validation and test. Raises AnnotationError if one would be empty."""
    parts = splits.divide_coco(coco, SEED)
    empty = [part for part, content in parts.items() if not content["annotations"]]
    if empty:
        text = f"{len(coco['images'])} photographs leave no animal for {', '.join(empty)}"
        raise AnnotationError([Problem("annotations.json", "", "images", text)])
    return {split: parts[part] for split, part in PARTS.items()}


def _difference(joints: keypoints.KeypointSet, first: keypoints.KeypointSet, where: str) -> Flaws:
    """Differences of a category's joints from those of the first category, at `where`."""
    if len(joints) != len(first):
        yield "keypoints", f"{len(joints)}, but {len(first)} in {where}"
    elif joints.names != first.names:
        a, b = next((a, b) for a, b in zip(joints.names, first.names, strict=True) if a != b)
        yield "keypoints", f"{show(a)} in place of {show(b)} in {where}"
    elif {frozenset(limb) for limb in joints.skeleton} != {frozenset(x) for x in first.skeleton}:
        yield "skeleton", f"other limbs than in {where}"
    elif joints.sigmas != first.sigmas:
        yield "sigmas", f"others than in {where}"


def _flaws_of_names(category: dict, known: Mapping[int, tuple[str, str]]) -> Iterator:
    """A name must be a text, the same for one id in all files, and that of no other id."""
    kinds = flaws.of_category(category, category["keypoints"], None)
    found = [flaw for flaw in kinds if flaw[0] in ("name", "supercategory")]
    yield from found
    if found:
        return
    names = _names(category)
    if known.get(category["id"], names) != names:
        before = known[category["id"]]
        yield "name, supercategory", f"{show(names)}, but {show(before)} elsewhere"
    for other, (species, _) in known.items():
        if species == names[0] and other != category["id"]:
            yield "name", f"{show(species)} is also that of category {other}"


def _names(category: dict) -> tuple[str, str]:
    return category["name"], category["supercategory"]


def _completed(category: dict) -> dict:
    """A species without family, as annotation tools leave it, is a family of its own."""
    return category | {"supercategory": category.get("supercategory") or category.get("name")}


def _with_families(split: str, content: Json) -> Json:
    listed = content.get("categories") if isinstance(content, dict) else None
    if not isinstance(listed, list):
        return content
    return content | {"categories": [_completed(c) if isinstance(c, dict) else c for c in listed]}
