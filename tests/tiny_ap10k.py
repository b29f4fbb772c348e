"""Writes an AP-10K of seven little photographs, for tests to build, break and read back."""

import json
from pathlib import Path

import cv2
import numpy as np

from ap10k_jax import keypoints
from tfds_ap10k import taxonomy

SIZES = {"train": 4, "val": 1, "test": 2}
WIDTH, HEIGHT = 40, 30


def contents() -> dict[str, dict]:
    """The COCO dicts of the three files, faultless and with nothing odd but absent species.

    Images 1..4 are train, 5 val, 6 and 7 test; image i has one animal, annotation 10 * i, a dog
    (8) or a cat (24); ids descend within a file, to tell file order from sorted order.
    """
    files, image_id = {}, 0
    for part, size in SIZES.items():
        ids = [image_id + 1 + i for i in range(size)][::-1]
        image_id += size
        files[part] = {
            "info": {"description": "tiny"},
            "images": [
                {
                    "license": 1,
                    "id": i,
                    "file_name": f"{i:012d}.jpg",
                    "width": WIDTH,
                    "height": HEIGHT,
                    "background": 1 + i % 8,
                }
                for i in ids
            ],
            "annotations": [animal(10 * i, i, 8 if i % 2 else 24) for i in ids],
            "categories": [
                {
                    "id": species.id,
                    "name": species.name,
                    "supercategory": species.family,
                    "keypoints": list(keypoints.AP10K.names),
                    "skeleton": [[a + 1, b + 1] for a, b in keypoints.AP10K.skeleton],
                }
                for species in taxonomy.SPECIES
            ],
        }
    return files


def animal(annotation_id: int, image_id: int, category_id: int) -> dict:
    """An annotation with the first two of the 17 keypoints labelled."""
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [2, 3, 20.5, 10],
        "area": 205.0,
        "iscrowd": 0,
        "num_keypoints": 2,
        "keypoints": [5, 6, 2, 7.25, 8, 2] + [0] * 45,
    }


def jpeg(seed: int, *, width: int = WIDTH, height: int = HEIGHT) -> bytes:
    """A photograph of noise, a different one for every seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def write(folder: Path, files: dict[str, dict] | None = None) -> Path:
    """The folder with annotations/ for the three splits, all alike, and data/."""
    files = files or contents()
    for name in ("annotations", "data"):
        (folder / name).mkdir(parents=True)
    for split in (1, 2, 3):
        for part, content in files.items():
            path = folder / "annotations" / f"ap10k-{part}-split{split}.json"
            path.write_text(json.dumps(content))
    for content in files.values():
        for image in content["images"]:
            (folder / "data" / image["file_name"]).write_bytes(jpeg(image["id"]))
    return folder
