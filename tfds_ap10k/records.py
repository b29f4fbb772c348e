"""COCO dicts as TFDS features, records and metadata; shared by the builders of keypoint data sets.

The records follow the order of the annotation file, and the validated file itself goes into the
metadata of the data set. So `builder.info.metadata["annotations"]["train"]["images"][i]` describes
record i of train: a loader finds its animals, and the metric its ground truth, with no photograph
read.
"""

import functools
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import tensorflow_datasets as tfds
import tqdm

from tfds_ap10k import photographs, sources, splits, taxonomy

SHARD = 256  # photographs a file; about 90 MB of AP-10K


def features(
    species: Sequence[str], families: Sequence[str], num_keypoints: int
) -> tfds.features.FeaturesDict:
    """The features of a record, which describes one photograph.

    Boxes are xywh and keypoints x, y, visibility, both in pixels of the stored image. A label of -1
    means that there is no animal in the image.
    """
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "image_id": np.int64,
            "file_name": tfds.features.Text(),
            "width": np.int32,
            "height": np.int32,
            "background": tfds.features.ClassLabel(names=taxonomy.BACKGROUND_NAMES),
            "species": tfds.features.ClassLabel(names=species),
            "family": tfds.features.ClassLabel(names=families),
            "animals": tfds.features.Sequence(
                {
                    "id": np.int64,
                    "box": tfds.features.Tensor(shape=(4,), dtype=np.float32),
                    "area": np.float64,
                    "keypoints": tfds.features.Tensor(shape=(num_keypoints, 3), dtype=np.float32),
                    "num_keypoints": np.int32,
                    "species": tfds.features.ClassLabel(names=species),
                }
            ),
        }
    )


def shards(
    coco: Mapping, folder: sources.Root, title: str, on_read: Callable[[str], None]
) -> list[Callable[[], Iterator[tuple[int, dict]]]]:
    """Functions that read the photographs of each file of a split, with a shared progress bar.

    TFDS holds one shard in memory at a time. After the last shard `on_read` gets the SHA-256 of the
    concatenated bytes of all photographs.
    """
    images = coco["images"]
    digest = hashlib.sha256()  # of all shards: TFDS reads each once, in their order

    def read(start: int) -> Iterator[tuple[int, dict]]:
        part = images[start : start + SHARD]
        last = start + SHARD >= len(images)
        bar = tqdm.tqdm(
            part, title, initial=start, total=len(images), unit=" photographs", leave=last
        )
        for key, example in examples(coco, folder, bar):
            digest.update(example["image"])
            yield key, example
        if last:
            on_read(digest.hexdigest())

    return [functools.partial(read, start) for start in range(0, len(images), SHARD)]


def examples(
    coco: Mapping, folder: sources.Root, images: Iterable[Mapping]
) -> Iterator[tuple[int, dict]]:
    """(id, record) of each of these images of a validated COCO dict, with its encoded bytes."""
    names = {category["id"]: category["name"] for category in coco["categories"]}
    families = {category["id"]: category["supercategory"] for category in coco["categories"]}
    animals = defaultdict(list)
    for annotation in coco["annotations"]:
        animals[annotation["image_id"]].append(annotation)
    for image in images:
        present = animals[image["id"]]
        # The official files have one species in an image; elsewhere the most frequent one counts,
        # and the first of equals. Unlabelled photographs can have a species by their folder.
        species_id = splits.main_species(present) if present else image.get("category_id")
        yield (
            image["id"],
            {
                "image": sources.read(folder / image["file_name"], max_bytes=photographs.MAX_BYTES),
                "image_id": image["id"],
                "file_name": image["file_name"],
                "width": image["width"],
                "height": image["height"],
                "background": taxonomy.background_name(image.get("background")),
                "species": names.get(species_id, -1),
                "family": families.get(species_id, -1),
                "animals": [
                    {
                        "id": annotation["id"],
                        "box": np.array(annotation["bbox"], np.float32),
                        "area": annotation["area"],
                        "keypoints": np.array(annotation["keypoints"], np.float32).reshape(-1, 3),
                        "num_keypoints": annotation["num_keypoints"],
                        "species": names[annotation["category_id"]],
                    }
                    for annotation in present
                ],
            },
        )


def metadata(contents: Mapping[str, dict], report: Mapping) -> dict:
    """The metadata of a data set: annotations, their fingerprints, and the report of oddities.

    The annotations are those of the files, with their numbers and category ids. "photographs" is
    filled in while the photographs are read, see `shards`.
    """
    return {
        "annotations": dict(contents),
        "fingerprints": {split: fingerprint(coco) for split, coco in contents.items()},
        "photographs": {},
        "report": dict(report),
    }


def fingerprint(coco: Mapping) -> str:
    """SHA-256 of the canonical JSON, which does not depend on the file's layout."""
    canonical = json.dumps(coco, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
