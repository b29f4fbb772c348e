"""Annotations as CVAT reads and writes them, "CVAT for images 1.1".

    <image id="0" name="000000000371.jpg" width="1024" height="768">
      <box label="box" xtl="255.00" ytl="209.00" xbr="738.00" ybr="596.00" group_id="441" .../>
      <skeleton label="antelope" group_id="441" ...>
        <points label="nose" outside="0" occluded="0" points="681.00,464.00" .../>
        ...
      </skeleton>
    </image>

A joint that is not there is `outside`, a hidden one (visibility 1) `occluded`. A skeleton has no
box, so a `box` with the label "box" goes beside it, in the same group. The task in CVAT needs that
label, and a skeleton label of every species whose points are called like the joints.
"""

from collections.abc import Mapping
from xml.etree import ElementTree

from ap10k_jax import keypoints
from tfds_ap10k.exchange import corrections

BOX = "box"


def export(coco: Mapping) -> str:
    """A COCO dict as XML, "CVAT for images 1.1"; groups are the ids of the annotations."""
    joints = keypoints.of_annotations(coco)
    species, animals = corrections.species_by_id(coco), corrections.animals_by_image(coco)
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    for frame, image in enumerate(coco["images"]):
        size = {"width": str(image["width"]), "height": str(image["height"])}
        name = {"id": str(frame), "name": image["file_name"]}
        element = ElementTree.SubElement(root, "image", name | size)
        for animal in animals[image["id"]]:
            group = {"source": "file", "z_order": "0", "group_id": str(animal["id"])}
            x, y, width, height = animal["bbox"]
            sides = {"xtl": x, "ytl": y, "xbr": x + width, "ybr": y + height}
            corners = {name: f"{value:.2f}" for name, value in sides.items()}
            box = {"label": BOX, "occluded": "0"} | corners
            ElementTree.SubElement(element, "box", box | group)
            label = {"label": species[animal["category_id"]]}
            skeleton = ElementTree.SubElement(element, "skeleton", label | group)
            for joint, (px, py, visibility) in zip(
                joints.names, corrections.triples(animal), strict=True
            ):
                point = {
                    "label": joint,
                    "source": "file",
                    "outside": str(int(visibility == 0)),
                    "occluded": str(int(visibility == 1)),
                    "points": f"{px:.2f},{py:.2f}",
                }
                ElementTree.SubElement(skeleton, "points", point)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True)


def fetch(text: str, reference: Mapping) -> dict:
    """Convert CVAT's export to a COCO dict with the species of the reference.

    It has the photographs of the reference that are in the file. Raises ExchangeError.
    """
    if "<!DOCTYPE" in text:  # CVAT writes none, and entities are a way to fill the memory
        raise corrections.ExchangeError("the file declares a document type, CVAT's do not")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise corrections.ExchangeError(f"not XML ({error})") from error
    images, problems = corrections.Images(reference), []
    animals, seen = [], []
    for element in root.iter("image"):
        name = element.get("name", "")
        try:
            image = images.find(name, element.get("width"), element.get("height"))
            seen.append(image["id"])
            boxes, skeletons = {}, list(element.iter("skeleton"))
            for box in element.iter("box"):
                corners = [
                    corrections.number(box.get(side)) for side in ("xtl", "ytl", "xbr", "ybr")
                ]
                left, top, right, bottom = corners
                if box.get("group_id") in boxes:
                    raise ValueError("two boxes in a group, or in none")
                boxes[box.get("group_id")] = (left, top, right - left, bottom - top)
            for skeleton in skeletons:
                group = skeleton.get("group_id")
                points = {}
                for point in skeleton.iter("points"):
                    x, y = (
                        corrections.number(value) for value in point.get("points", "").split(",")
                    )
                    visibility = 1 if point.get("occluded") == "1" else 2
                    if point.get("outside") != "1":
                        points[point.get("label", "")] = (x, y, visibility)
                known = int(group) if (group or "").isdecimal() else None
                label = skeleton.get("label", "")
                # Without a group nothing says whose box it is, unless there is one of each.
                if group not in boxes and len(boxes) == len(skeletons) == 1:
                    (group,) = boxes
                box = boxes.pop(group, None)
                animals.append(corrections.Animal(known, image["id"], label, box, points))
            if boxes:
                raise ValueError("a box without a skeleton in its group")
        except ValueError as error:
            problems.append(f"{name}: {error}")
    return corrections.assemble(reference, seen, animals, problems)
