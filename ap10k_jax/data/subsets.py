"""Subsets of a data set: images drawn for training, and images that keep their labels."""

import hashlib

import numpy as np

from ap10k_jax import keypoints
from ap10k_jax.data.animals import Animals
from tfds_ap10k import splits


def draw(animals: Animals, *, images: int, seed: int) -> dict:
    """Draw images to train on from those of `animals`; all other images are for testing.

    Returns {"seed", "train": ids in the order of drawing, "test": ids in ascending order,
    "sha256"}. It depends on the ids and the seed alone. The hash is that of "train" and "test",
    written as "3 1 7; 2 4 5 6". Raises ValueError where no image would be left to test on.
    """
    ids = sorted({animals.annotation(i)["image_id"] for i in range(len(animals))})
    if len(ids) <= images:
        raise ValueError(f"{len(ids)} images: drawing {images} leaves none to test on")
    order = [ids[i] for i in np.random.default_rng(seed).permutation(len(ids))]
    train, test = order[:images], sorted(order[images:])
    return {"seed": seed, "train": train, "test": test, "sha256": _digest(train, test)}


def few_labels(animals: Animals, *, images: int, seed: int) -> dict:
    """Choose `images` images of every species that keep their labels; the others are hidden.

    Returns {"images_per_species", "seed", "labelled": ids, "hidden": ids, "sha256"}. Both lists
    ascend; the hash is as in `draw`. The choice is that of tfds_ap10k.splits.few_labels. Raises
    ValueError where no image would be hidden.
    """
    coco = animals.ground_truth()
    coco["annotations"] = [a for a in coco["annotations"] if not keypoints.is_crowd(a)]
    labelled = sorted(i["id"] for i in splits.few_labels(coco, images, (seed,))["images"])
    hidden = sorted({a["image_id"] for a in coco["annotations"]} - set(labelled))
    if not hidden:
        raise ValueError(f"no species has more than {images} images: no label is left out")
    numbers = {"images_per_species": images, "seed": seed, "labelled": labelled, "hidden": hidden}
    return numbers | {"sha256": _digest(labelled, hidden)}


def _digest(*parts: list[int]) -> str:
    text = "; ".join(" ".join(map(str, part)) for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()
