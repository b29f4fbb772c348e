"""Annotations as Label Studio reads and writes them, in JSON.

    {"data": {"image": "http://host/photos/000000000371.jpg"}, "annotations": [{"result": [
      {"id": "animal-441", "type": "rectanglelabels", "from_name": "label", "to_name": "image",
       "original_width": 1024, "original_height": 768,
       "value": {"x": 24.9, "y": 27.2, "width": 47.2, "height": 50.4, "rectanglelabels": ["fox"]}},
      {"id": "animal-441-nose", "type": "keypointlabels", "parentID": "animal-441", ...,
       "value": {"x": 66.5, "y": 60.4, "width": 0.5, "keypointlabels": ["nose"]}}]}]}

A rectangle with the species, and keypoints that name it as their parent; everything in percent of
the photograph. A hidden joint (visibility 1) has the note "hidden". The project in Label Studio
needs the labelling interface that `interface` returns.
"""

import urllib.parse
from collections import defaultdict
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

from ap10k_jax import keypoints
from tfds_ap10k.exchange import corrections

HIDDEN = "hidden"
TAG = "label", "keypoint"  # names of the two tools in the labelling interface


def export(coco: Mapping, url: str = "") -> list[dict]:
    """A COCO dict as Label Studio's tasks; `url` goes before the names of photographs."""
    joints = keypoints.of_annotations(coco)
    species, animals = corrections.species_by_id(coco), corrections.animals_by_image(coco)
    tasks = []
    for image in coco["images"]:
        results = []
        for animal in animals[image["id"]]:
            parent = f"animal-{animal['id']}"
            x, y, width, height = animal["bbox"]
            label = {"rectanglelabels": [species[animal["category_id"]]], "rotation": 0}
            value = _percent(image, x, y) | _percent(image, width, height, ("width", "height"))
            results.append(_result(image, parent, "rectanglelabels", TAG[0], value | label))
            for joint, (px, py, visibility) in zip(
                joints.names, corrections.triples(animal), strict=True
            ):
                if visibility:
                    value = _percent(image, px, py) | {"width": 0.5, "keypointlabels": [joint]}
                    identity = f"{parent}-{joint}"
                    result = _result(image, identity, "keypointlabels", TAG[1], value)
                    result["parentID"] = parent
                    if visibility == 1:
                        result["meta"] = {"text": [HIDDEN]}
                    results.append(result)
        data = {"image": url + urllib.parse.quote(image["file_name"])}
        tasks.append({"data": data, "annotations": [{"result": results}]})
    return tasks


def interface(coco: Mapping) -> str:
    """The labelling interface, for a project's settings."""
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", {"name": "image", "value": "$image", "zoom": "true"})
    for name, tag, labels in (
        (TAG[0], "RectangleLabels", list(corrections.species_by_id(coco).values())),
        (TAG[1], "KeyPointLabels", list(keypoints.of_annotations(coco).names)),
    ):
        parent = ElementTree.SubElement(view, tag, {"name": name, "toName": "image"})
        for i, label in enumerate(labels):
            # `model_index` is the order of joints in Label Studio's own COCO export
            ElementTree.SubElement(parent, "Label", {"value": label, "model_index": str(i)})
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode")


def fetch(tasks: Sequence[Mapping], reference: Mapping) -> dict:
    """Convert Label Studio's export to a COCO dict with photographs and species of the reference.

    Of several annotations of a photograph the last one that was not cancelled counts. A keypoint
    without a parent belongs to the only animal of the photograph; where there are several animals,
    it is a problem.
    """
    images, problems = corrections.Images(reference), []
    animals, seen = [], []
    if not isinstance(tasks, list):
        raise corrections.ExchangeError("not a list of tasks, as its JSON export is")
    for number, task in enumerate(tasks, start=1):
        name = f"task {number}"
        try:
            name = str(task["data"]["image"])
            done = [one for one in task["annotations"] if not one.get("was_cancelled")]
            results = done[-1]["result"] if done else []
            sizes = [(r["original_width"], r["original_height"]) for r in results[:1]]
            image = images.find(_file_name(name), *(sizes[0] if sizes else (None, None)))
            seen.append(image["id"])
            found = _animals(results, image)
            animals += found
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            reason = f"has no {error}" if isinstance(error, KeyError) else error
            problems.append(f"{name}: {reason}")
    return corrections.assemble(reference, seen, animals, problems)


def _animals(results: Sequence[Mapping], image: Mapping) -> list[corrections.Animal]:
    found, points = {}, defaultdict(dict)
    for result in results:
        if result["type"] == "rectanglelabels":
            value = result["value"]
            if value.get("rotation"):
                raise ValueError("a rotated rectangle is no box")
            (species,) = value["rectanglelabels"]
            box = (*_pixels(image, value), *_pixels(image, value, ("width", "height")))
            tail = result["id"].removeprefix("animal-")
            known = int(tail) if tail.isdecimal() and tail != result["id"] else None
            found[result["id"]] = corrections.Animal(
                known, image["id"], species, box, points[result["id"]]
            )
    for result in results:
        if result["type"] == "keypointlabels":
            parent = result.get("parentID")
            if parent not in found and len(found) == 1:
                (parent,) = found
            (joint,) = result["value"]["keypointlabels"]
            if parent not in found:
                raise ValueError(f"{joint} belongs to no rectangle")
            if joint in points[parent]:
                raise ValueError(f"{joint} twice in one animal")
            hidden = HIDDEN in (result.get("meta") or {}).get("text", ())
            points[parent][joint] = (*_pixels(image, result["value"]), 1 if hidden else 2)
    return list(found.values())


def _percent(image: Mapping, x: float, y: float, names=("x", "y")) -> dict[str, float]:
    return {names[0]: 100 * x / image["width"], names[1]: 100 * y / image["height"]}


def _pixels(image: Mapping, value: Mapping, names=("x", "y")) -> tuple[float, float]:
    x, y = (corrections.number(value[name]) for name in names)
    return x * image["width"] / 100, y * image["height"] / 100


def _result(image: Mapping, identity: str, kind: str, tool: str, value: dict) -> dict:
    return {
        "id": identity,
        "type": kind,
        "from_name": tool,
        "to_name": "image",
        "original_width": image["width"],
        "original_height": image["height"],
        "image_rotation": 0,
        "value": value,
    }


def _file_name(address: str) -> str:
    """The path within an address, or within the `d` of Label Studio's local files."""
    parts = urllib.parse.urlsplit(address)
    local = urllib.parse.parse_qs(parts.query).get("d")
    return local[0] if local else urllib.parse.unquote(parts.path)
