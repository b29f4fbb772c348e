"""Photographs without annotations, beside the annotated ones: the split `unlabeled`.

    <data set>/unlabeled/<Family>/<species>/*.jpg    what AP-10K's 50,000 others are known by
    <data set>/unlabeled.json                        or a COCO file without annotations

A folder has the name of a family or species of the data set; `_` may stand for a space. Where there
is a file `unlabeled.json`, it decides: its `images` have `id`, `file_name` (below `unlabeled/`),
`width`, `height` and, where the species is known, `category_id`. Hidden files and those the file
does not name are counted in the report; everything else that cannot be used is a problem, and all
problems are listed at once.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from tfds_ap10k import annotations, flaws, photographs, sources
from tfds_ap10k.annotations import Problem
from tfds_ap10k.flaws import show

SPLIT = "unlabeled"
FOLDER = "unlabeled"
FILE = "unlabeled.json"
SYSTEM_FILES = ("thumbs.db", "desktop.ini")  # besides those that start with a dot
FIELDS = ("id", "file_name", "width", "height", "background", "category_id")

Categories = Mapping[int, tuple[str, str]]  # id: species and family


class Listed(NamedTuple):
    """Records of photographs, which are not opened yet, problems, and a count of ignored files."""

    images: list[dict]  # without `width` and `height` where folders are all there is
    problems: list[Problem]
    ignored: int  # files


def beside(
    root: sources.Root,
    read: Callable[[], tuple[dict[str, dict], dict]],
    categories: Categories,
    progress: Callable[[Sequence], Iterable] = iter,
) -> tuple[dict[str, dict], dict]:
    """Call `read` for the annotated splits and add the split `unlabeled` where there is one.

    Raises AnnotationError with the problems of both.
    """
    if not present(root):
        return read()
    problems = []
    try:
        splits, report = read()
    except annotations.AnnotationError as error:
        splits, report, problems = {}, {}, list(error.problems)
    images, counts, found = _read(root, categories, splits, progress)
    if problems or found:
        raise annotations.AnnotationError([*problems, *found])
    shared = next(iter(splits.values()))["categories"]
    coco = {"images": images, "annotations": [], "categories": shared}
    return splits | {SPLIT: coco}, report | counts


def present(root: sources.Root) -> bool:
    """True if a data set has photographs without annotations."""
    return (root / FILE).is_file() or (root / FOLDER).is_dir()


def listed(root: sources.Root, categories: Categories) -> Listed:
    """List the photographs that the file or the folders name, without opening them."""
    if not (root / FILE).is_file():
        return _from_folders(root / FOLDER, categories)
    found = _from_file(root / FILE, categories)
    named = {PurePosixPath(image["file_name"]) for image in found.images}
    others = sum(PurePosixPath(path) not in named for path in _walk(root / FOLDER))
    return found._replace(ignored=others)


def count(images: Iterable[Mapping], categories: Categories) -> dict:
    """Count photographs by family and species, the largest first, and those of unknown species."""
    species = Counter(image.get("category_id") for image in images)
    unknown = species.pop(None, 0)
    families = {}
    for number, n in sorted(species.items(), key=lambda item: (-item[1], item[0])):
        name, family = categories[number]
        families.setdefault(family, {})[name] = n
    order = sorted(families, key=lambda family: (-sum(families[family].values()), family))
    return {
        "images": species.total() + unknown,
        "species": len(species),
        "of_unknown_species": unknown,
        "per_family": {family: families[family] for family in order},
    }


def _read(
    root: sources.Root, categories: Categories, splits: Mapping[str, dict], progress: Callable
) -> tuple[list[dict], dict, list[Problem]]:
    """Read the valid records, counts for the report, and problems; checks every photograph."""
    images, problems, ignored = listed(root, categories)
    from_file = (root / FILE).is_file()
    taken = {image["id"] for coco in splits.values() for image in coco["images"]}
    first = max(taken, default=0) + 1
    kept, not_jpeg = [], 0
    for position, image in enumerate(progress(images)):
        name = image["file_name"]
        try:
            photograph = photographs.find(root / FOLDER, name)
        except ValueError as error:
            problems.append(Problem(f"{FOLDER}/", name, "", str(error)))
            continue
        size = {"width": photograph.width, "height": photograph.height}
        not_jpeg += not photograph.is_jpeg
        if not from_file:
            # after all annotated ones: the ids of a data set are unique
            image = {"id": first + position, "file_name": name, **size, **image}
        elif {field: image[field] for field in size} != size:
            recorded = f"{image['width']}x{image['height']}"
            text = f"{recorded}, but {name} has {photograph.width}x{photograph.height} pixels"
            problems.append(Problem(FILE, f"image {image['id']}", "width, height", text))
        elif image["id"] in taken:
            text = "is also that of an annotated photograph"
            problems.append(Problem(FILE, f"image {image['id']}", "id", text))
        kept.append(image)
    counts = {
        "unlabeled_without_species": sum("category_id" not in image for image in kept),
        "unlabeled_not_jpeg": not_jpeg,
        "unlabeled_files_passed_over": ignored,
    }
    return kept, counts, problems


def _from_folders(folder: sources.Root, categories: Categories) -> Listed:
    ids = {(family, species): number for number, (species, family) in categories.items()}
    families = {family for family, _ in ids}
    images, problems, ignored, complained = [], [], 0, set()

    def complain(record: str, text: str) -> None:
        if record not in complained:  # a folder's name is wrong once, not for each of its files
            complained.add(record)
            problems.append(Problem(f"{FOLDER}/", record, "", text))

    for path in _walk(folder):
        *folders, name = path.split("/")
        if _is_system_file(name):
            ignored += 1
            continue
        family, species = ([part.replace("_", " ") for part in folders] + [None, None])[:2]
        if len(folders) != 2:
            place = "/".join(folders[:3]) + "/" if len(folders) > 2 else path
            complain(place, f"photographs lie in {FOLDER}/<Family>/<species>/, and nowhere else")
        elif family not in families:
            known = ", ".join(sorted(families))
            complain(f"{folders[0]}/", f"no family of this data set: it has {known}")
        elif (family, species) not in ids:
            known = ", ".join(sorted(s for f, s in ids if f == family))
            complain(f"{folders[0]}/{folders[1]}/", f"no species of {family}: it has {known}")
        else:
            images.append({"file_name": path, "category_id": ids[family, species]})
    if not images and not problems:
        problems.append(Problem(f"{FOLDER}/", "", "", "there are no photographs in it"))
    return Listed(images, problems, ignored)


def _from_file(file: sources.Root, categories: Categories) -> Listed:
    content, problems = annotations.parse(file)
    if problems:
        return Listed([], problems, 0)
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        return Listed([], [Problem(FILE, "", "images", "missing or not a list")], 0)
    if content.get("annotations"):
        text = "there are some; annotated photographs belong into the annotation files"
        problems.append(Problem(FILE, "", "annotations", text))
    for category in content.get("categories") or ():
        number, name = (
            (category.get("id"), category.get("name")) if isinstance(category, dict) else (0, 0)
        )
        if not flaws.is_id(number) or categories.get(number, (None,))[0] != name:
            text = f"{show(name)} is no species of this data set with that id"
            problems.append(Problem(FILE, f"category {show(number)}", "name", text))
    images, ids, names = [], set(), set()
    for position, image in enumerate(content["images"]):
        number = image.get("id") if isinstance(image, dict) else None
        if not flaws.is_id(number):
            text = f"not a whole number: {show(number)}"
            problems.append(Problem(FILE, f"images[{position}]", "id", text))
            continue
        found = [Problem(FILE, f"image {number}", *flaw) for flaw in _flaws(image, categories)]
        if number in ids:
            found.append(Problem(FILE, f"image {number}", "id", "used more than once"))
        path = PurePosixPath(str(image.get("file_name")))
        if path in names:
            found.append(Problem(FILE, f"image {number}", "file_name", "used more than once"))
        ids.add(number)
        names.add(path)
        problems += found
        if not found:
            images.append({name: image[name] for name in FIELDS if name in image})
    if not images and not problems:
        problems.append(Problem(FILE, "", "images", "there are none"))
    return Listed(images, problems, 0)


def _flaws(image: dict, categories: Categories) -> flaws.Flaws:
    yield from flaws.of_image(image)
    species = image.get("category_id")
    if "category_id" in image and not (flaws.is_id(species) and species in categories):
        yield "category_id", f"unknown category: {show(species)}"


def _walk(folder: sources.Root, prefix: str = "") -> Iterator[str]:
    """Paths of the files below a folder, in order; links to folders are not followed."""
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        if path.is_dir() and not getattr(path, "is_symlink", bool)():
            yield from _walk(path, f"{prefix}{path.name}/")
        else:
            yield prefix + path.name


def _is_system_file(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM_FILES
