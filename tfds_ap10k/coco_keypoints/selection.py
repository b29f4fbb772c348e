"""Which people of COCO are trained on: each with a labelled keypoint and a box of its own.

As MMPose and HRNet do it. What is left out is counted, and listed where something is wrong with it.
"""

from collections import Counter
from collections.abc import Mapping

from ap10k_jax import keypoints
from tfds_ap10k import flaws
from tfds_ap10k.flaws import Json


class Selection:
    """Selects from the contents of the files, one call each, and remembers what it left out.

    `folders` maps splits to the folders of their photographs, which become part of the file names.
    """

    def __init__(self, folders: Mapping[str, str]):
        self.folders = folders
        self.counts = Counter()
        self.flawed = []

    def __call__(self, split: str, content: Json) -> Json:
        """The selected people and the photographs that they are in, in the order of the file.

        Only what can be understood is left out; the rest is for the check of annotations.
        """
        if not isinstance(content, dict):
            return content
        images, people = content.get("images"), content.get("annotations")
        if not (isinstance(images, list) and isinstance(people, list)):
            return content
        sound = {
            image["id"]: image
            for image in images
            if isinstance(image, dict) and flaws.is_id(image.get("id")) and _has_size(image)
        }
        kept = [person for person in people if self._keeps(person, sound, split)]
        inhabited = {
            person["image_id"]
            for person in kept
            if isinstance(person, dict) and flaws.is_id(person.get("image_id"))
        }
        chosen = [image for image in images if _is_chosen(image, inhabited)]
        self.counts["left_out_images_without_people"] += len(images) - len(chosen)
        chosen = [_in_folder(image, self.folders[split]) for image in chosen]
        return content | {"images": chosen, "annotations": kept}

    def report(self) -> dict:
        """Counts of what was left out, and every person whose box or area cannot be used."""
        names = ("crowds", "people_without_keypoints", "images_without_people")
        counts = {f"left_out_{name}": self.counts[f"left_out_{name}"] for name in names}
        return counts | {"left_out_flawed_people": list(self.flawed)}

    def _keeps(self, person: Json, images: Mapping[int, dict], split: str) -> bool:
        if not isinstance(person, dict):
            return True
        if person.get("iscrowd") == 1:
            self.counts["left_out_crowds"] += 1
            return False
        if person.get("num_keypoints") == 0:
            self.counts["left_out_people_without_keypoints"] += 1
            return False
        if not flaws.is_id(person.get("id")):
            return True
        # COCO has boxes without extent; they cannot be cropped, and are no reason to refuse it all.
        unusable = [
            f"{field}: {text}"
            for field, text in flaws.of_annotation(
                person, images, images.keys(), set(), len(keypoints.COCO_PERSON)
            )
            if field in ("bbox", "area")
        ]
        if unusable:
            self.flawed.append(f"{split}: annotation {person['id']}: {'; '.join(unusable)}")
        return not unusable


def _has_size(image: dict) -> bool:
    return all(flaws.is_id(image.get(side)) for side in ("width", "height"))


def _is_chosen(image: Json, inhabited: set[int]) -> bool:
    """Photographs of the selected people, and what is no sound record: it must not get lost."""
    if not isinstance(image, dict) or not flaws.is_id(image.get("id")):
        return True
    return image["id"] in inhabited


def _in_folder(image: Json, folder: str) -> Json:
    if isinstance(image, dict) and isinstance(image.get("file_name"), str):
        return image | {"file_name": f"{folder}/{image['file_name']}"}
    return image
