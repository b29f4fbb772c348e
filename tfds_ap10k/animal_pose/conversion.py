"""Animal-Pose's own file as COCO dicts with AP-10K's names and ids of species.

    {"images": {"2": "2007_000175.jpg", ...},
     "annotations": [{"image_id": 2, "category_id": 3, "bbox": [16, 22, 268, 173],
                      "num_keypoints": 20, "keypoints": [[211, 54, 1], ..., [0, 0, 0]]}, ...],
     "categories": [{"id": 3, "name": "sheep", "supercategory": "animal",
                     "keypoints": ["left_eye", ..., "tailbase"], "skeleton": [[0, 1], ...]}, ...]}

Boxes there are corners x1, y1, x2, y2. A visibility of 1 means labelled and becomes AP-10K's 2; 0
means not labelled, and what coordinates are there are dropped. `num_keypoints` is always 20 there:
it is counted anew. Animals have neither id nor area: the n-th of the file gets the id n, and
the area of its box, as in AP-10K. Photographs have no size: they are asked for it.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from ap10k_jax import keypoints
from tfds_ap10k import annotations, flaws, oddities, photographs, sources, splits, taxonomy
from tfds_ap10k.annotations import Problem
from tfds_ap10k.flaws import Flaws, Json, show

SPECIES = ("dog", "cat", "sheep", "horse", "cow")
JOINTS = keypoints.ANIMAL_POSE
PARTS = {"train": "train", "validation": "val", "test": "test"}

# Of a photograph that could not be read, so that not all of its animals are reported as well.
ANY_SIZE = (65535, 65535)


def read(
    file: sources.Root,
    folder: sources.Root,
    *,
    seed: Sequence[int],
    progress: Callable[[Sequence], Iterable] = iter,
) -> tuple[dict[str, dict], dict]:
    """COCO dicts of train, validation and test, and the report of oddities.

    Raises annotations.AnnotationError with everything that is wrong; animals are numbered from 1
    in the order of the file there.
    """
    content, problems = annotations.parse(file)
    content = content if isinstance(content, dict) else {}
    if not (problems or content):
        problems = [Problem(file.name, "", "", "not a JSON object, or an empty one")]
    if problems:
        raise annotations.AnnotationError(problems)
    names = content.get("images")
    names = names if isinstance(names, dict) else {}
    sizes, not_jpeg, problems = measure(names, folder, file=file.name, progress=progress)
    coco, more = convert(content, sizes, file=file.name)
    problems += more
    coco, more = annotations.check(
        coco,
        file=file.name,
        keypoint_names=JOINTS.names,
        categories={taxonomy.id_of(name): (name, taxonomy.family_of(name)) for name in SPECIES},
    )
    problems += more
    if problems:
        raise annotations.AnnotationError(problems)
    parts = splits.divide_coco(coco, seed)
    contents = {split: parts[part] for split, part in PARTS.items()}
    report = oddities.count(contents) | {"photographs_not_jpeg": not_jpeg}
    del report["undocumented_backgrounds"]  # there are none at all in this data set
    return contents, report


def measure(
    names: Mapping[str, Json],
    folder: sources.Root,
    *,
    file: str,
    progress: Callable[[Sequence], Iterable] = iter,
) -> tuple[dict[str, tuple[int, int]], int, list[Problem]]:
    """Width and height of every photograph by its key in the file, how many are no JPEG, problems.

    Names that cannot be those of photographs are left to the check of the converted file.
    """
    sizes, not_jpeg, problems = {}, 0, []
    if not folder.is_dir():
        return sizes, 0, [Problem(f"{folder.name}/", "", "", annotations.NO_FOLDER)]
    for key in progress(list(names)):
        name = names[key]
        if any(flaws.of_image({"id": 0, "file_name": name, "width": 1, "height": 1})):
            continue
        try:
            photograph = photographs.find(folder, name)
        except ValueError as error:
            where = f"image {show(key)}"
            problems.append(Problem(file, where, "file_name", f"{show(name)}: {error}"))
            continue
        sizes[key] = (photograph.width, photograph.height)
        not_jpeg += not photograph.is_jpeg
    return sizes, not_jpeg, problems


def convert(
    content: dict, sizes: Mapping[str, tuple[int, int]], *, file: str
) -> tuple[dict, list[Problem]]:
    """The file as a COCO dict that is still to be checked, and what cannot be converted.

    `sizes` are width and height of the photographs; one without may have any.
    """
    problems = []
    species_of = {}
    for index, category in enumerate(_list(content, "categories", file, problems)):
        found = list(_category_flaws(category, species_of))
        problems += [Problem(file, f"categories[{index}]", *flaw) for flaw in found]
        if not found:
            species_of[category["id"]] = taxonomy.id_of(category["name"])

    names = content.get("images")
    if not isinstance(names, dict):
        problems.append(Problem(file, "", "images", "missing or not an object of ids and names"))
        names = {}
    images = []
    for key, name in names.items():
        if not re.fullmatch(r"[0-9]{1,18}", key):
            problems.append(Problem(file, f"image {show(key)}", "id", "not a whole number"))
            continue
        width, height = sizes.get(key, ANY_SIZE)
        images.append({"id": int(key), "file_name": name, "width": width, "height": height})

    animals = []
    for number, animal in enumerate(_list(content, "annotations", file, problems), start=1):
        found = list(_animal_flaws(animal, species_of))
        problems += [Problem(file, f"annotation {number}", *flaw) for flaw in found]
        if not found:
            animals.append(_converted(animal, number, species_of))
    skeleton = [[a + 1, b + 1] for a, b in JOINTS.skeleton]  # COCO counts joints from 1
    categories = [
        {
            "id": species,
            "name": taxonomy.name_of(species),
            "supercategory": taxonomy.family_of(taxonomy.name_of(species)),
            "keypoints": list(JOINTS.names),
            "skeleton": skeleton,
        }
        for species in sorted(species_of.values())
    ]
    return {"images": images, "annotations": animals, "categories": categories}, problems


def _list(content: dict, key: str, file: str, problems: list[Problem]) -> list:
    records = content.get(key)
    if isinstance(records, list):
        return records
    problems.append(Problem(file, "", key, "missing or not a list"))
    return []


def _category_flaws(category: Json, known: Mapping[int, int]) -> Flaws:
    if not isinstance(category, dict) or not flaws.is_id(category.get("id")):
        yield "id", f"not an object whose id is a whole number: {show(category)}"
        return
    name = category.get("name")
    if name not in SPECIES:
        yield "name", f"not one of {', '.join(SPECIES)}: {show(name)}"
    elif category["id"] in known or taxonomy.id_of(name) in known.values():
        yield "id, name", f"used more than once: {show((category['id'], name))}"
    # Its last joint is "tailbase" there, with the underscore that all others have forgotten.
    joints = category.get("keypoints")
    plain = [name.replace("_", "") for name in JOINTS.names]
    if not isinstance(joints, list) or [str(j).replace("_", "") for j in joints] != plain:
        yield "keypoints", f"should be the {len(JOINTS)} names of the data set: {show(joints)}"


def _animal_flaws(animal: Json, species_of: Mapping[int, int]) -> Flaws:
    """Check what the conversion relies on; its result is checked for everything else."""
    if not isinstance(animal, dict):
        yield "", f"not an object: {show(animal)}"
        return
    category = animal.get("category_id")
    if not (flaws.is_id(category) and category in species_of):
        yield "category_id", f"unknown category: {show(category)}"
    corners = animal.get("bbox")
    if not (isinstance(corners, list) and len(corners) == 4 and _all_numbers(corners)):
        yield "bbox", f"not four numbers x1, y1, x2, y2: {show(corners)}"
    elif not (corners[0] < corners[2] and corners[1] < corners[3]):
        yield "bbox", f"x1, y1 is not the upper left corner of x1, y1, x2, y2: {show(corners)}"
    points = animal.get("keypoints")
    if not isinstance(points, list) or len(points) != len(JOINTS):
        yield "keypoints", f"not a list of {len(JOINTS)} keypoints: {show(points)}"
        return
    for point in points:
        if not (isinstance(point, list) and len(point) == 3 and _all_numbers(point)):
            yield "keypoints", f"not three numbers x, y, visibility: {show(point)}"
        elif point[2] not in (0, 1):
            yield "keypoints", f"visibility is neither 0 nor 1: {show(point)}"


def _all_numbers(values: list) -> bool:
    return all(flaws.is_number(value) for value in values)


def _converted(animal: dict, number: int, species_of: Mapping[int, int]) -> dict:
    left, top, right, bottom = animal["bbox"]
    points = list(_labelled_as_in_ap10k(animal["keypoints"]))
    return {
        "id": number,
        "image_id": animal.get("image_id"),
        "category_id": species_of[animal["category_id"]],
        "bbox": [left, top, right - left, bottom - top],
        "area": (right - left) * (bottom - top),
        "iscrowd": 0,
        "num_keypoints": sum(point[2] > 0 for point in points),
        "keypoints": [value for point in points for value in point],
    }


def _labelled_as_in_ap10k(points: Sequence[Sequence[float]]) -> Iterator[tuple]:
    for x, y, labelled in points:
        yield (x, y, 2) if labelled else (0, 0, 0)
