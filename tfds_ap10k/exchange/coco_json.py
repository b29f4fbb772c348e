"""COCO keypoint files as annotation tools write them, brought back to ours.

Tools number photographs and species anew, put folders before file names, change the order of joints
and leave out what they do not know. What counts are names: of photographs, species and joints.
"""

from collections.abc import Mapping, Sequence

from ap10k_jax import keypoints
from tfds_ap10k.exchange import corrections


def fetch(content: Mapping, reference: Mapping) -> dict:
    """A tool's COCO dict with the photographs, species and order of joints of the reference.

    Of the photographs only those that it has. Raises corrections.ExchangeError.
    """
    try:
        return _fetch(content, reference)
    except (KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        text = f"not a COCO keypoint file: {type(error).__name__} {error}"
        raise corrections.ExchangeError(text) from error


def _fetch(content: Mapping, reference: Mapping) -> dict:
    images, problems, places, seen = corrections.Images(reference), [], {}, []
    for record in content["images"]:
        try:
            image = images.find(record["file_name"], record.get("width"), record.get("height"))
        except ValueError as error:
            problems.append(f"{record['file_name']}: {error}")
        else:
            places[record["id"]] = image["id"]
            seen.append(image["id"])
    categories = {category["id"]: category for category in content["categories"]}
    names = {image["id"]: image["file_name"] for image in reference["images"]}
    joints = keypoints.of_annotations(reference).names
    animals = []
    for record in content["annotations"]:
        if record["image_id"] not in places:
            continue  # its photograph has been listed
        image, category = places[record["image_id"]], categories[record["category_id"]]
        try:
            points = _points(record.get("keypoints"), category.get("keypoints") or joints)
            box = tuple(map(corrections.number, record["bbox"])) if record.get("bbox") else None
        except ValueError as error:
            problems.append(f"{names[image]}: annotation {record['id']}: {error}")
        else:
            # an id of the tool's own, which counts anew: none of the reference's
            animals.append(corrections.Animal(None, image, category["name"], box, points))
    return corrections.assemble(reference, seen, animals, problems)


def _points(values: list | None, names: Sequence[str]) -> dict[str, tuple[float, float, int]]:
    """x, y and visibility of the joints that are there, by name."""
    values = values or [0] * (3 * len(names))
    if len(values) != 3 * len(names):
        raise ValueError(f"{len(values)} numbers in place of {3 * len(names)}")
    return {
        name: (corrections.number(x), corrections.number(y), int(visibility))
        for name, (x, y, visibility) in zip(
            names, corrections.triples({"keypoints": values}), strict=True
        )
        if visibility
    }
