"""Divide photographs into train, val and test, 7:1:2 within every species, as AP-10K's authors did.

The result follows from the seed, the ids and their species alone, and so does whatever is measured
on it.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

PARTS = ("train", "val", "test")  # as AP-10K's files call them


def divide(species: Sequence[int], seed: Sequence[int]) -> dict[str, list[int]]:
    """Indices of train, val and test: 7:1:2 within every species, at random, in ascending order.

    What rounding takes from one species the next ones get, so that the whole is 7:1:2 as well and
    a small data set has all three parts; within a species val and test are off by less than one.
    """
    rng = np.random.default_rng(seed)
    parts = {part: [] for part in PARTS}
    total = 0
    for one in sorted(set(species)):
        members = rng.permutation([i for i, s in enumerate(species) if s == one]).tolist()
        total += len(members)
        for part, tenths in (("val", 1), ("test", 2)):
            take = (tenths * total + 5) // 10 - len(parts[part])
            parts[part] += members[:take]
            members = members[take:]
        parts["train"] += members
    return {part: sorted(chosen) for part, chosen in parts.items()}


def divide_coco(coco: Mapping, seed: Sequence[int]) -> dict[str, dict]:
    """A validated COCO dict as three, for train, val and test; each keeps the order of the file.

    Photographs are dealt out in the order of their ids, so a file in another order gives the same
    splits. The animals of a photograph stay together; one without animals is a species of its own.
    """
    animals = defaultdict(list)
    for animal in coco["annotations"]:
        animals[animal["image_id"]].append(animal)
    ids = sorted(image["id"] for image in coco["images"])
    parts = divide([main_species(animals[i]) or 0 for i in ids], seed)
    result = {}
    for part, chosen in parts.items():
        members = {ids[i] for i in chosen}
        result[part] = {
            "images": [image for image in coco["images"] if image["id"] in members],
            "annotations": [a for a in coco["annotations"] if a["image_id"] in members],
            "categories": coco["categories"],
        }
    return result


def main_species(animals: Sequence[Mapping]) -> int | None:
    """The most frequent category id among the annotations of a photograph, the first of equals."""
    counted = Counter(animal["category_id"] for animal in animals).most_common(1)
    return counted[0][0] if counted else None
