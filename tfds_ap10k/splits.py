"""Divide photographs into train, val and test, 7:1:2 within every species, as AP-10K's authors did.

The result depends on the seed, the ids and their species alone. `python -m tfds_ap10k.divide`
divides files.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence

import numpy as np

PARTS = ("train", "val", "test")  # as AP-10K's files call them
FEW = (5, 10, 15, 20, 25)  # labelled photographs of a species, as the paper's outlook has it


def divide(
    species: Sequence[int], seed: Sequence[int], groups: Sequence[Hashable] | None = None
) -> dict[str, list[int]]:
    """Indices of train, val and test: 7:1:2 within every species, at random, in ascending order.

    What rounding takes from one species the next ones get, so that the whole is 7:1:2 as well and
    a small data set has all three parts; within a species val and test are off by less than one.
    What is of one of the `groups` stays together, and counts for the species of its first; val and
    test may then be smaller, by less than the largest group.
    """
    rng = np.random.default_rng(seed)
    parts = {part: [] for part in PARTS}
    together = defaultdict(list)
    for i in range(len(species)):
        together[i if groups is None else groups[i]].append(i)
    units = {members[0]: members for members in together.values()}
    total = 0
    for one in sorted({species[first] for first in units}):
        members = rng.permutation([i for i in units if species[i] == one]).tolist()
        total += sum(len(units[i]) for i in members)
        for part, tenths in (("val", 1), ("test", 2)):
            room = (tenths * total + 5) // 10 - len(parts[part])
            others = []
            for i in members:
                if len(units[i]) <= room:
                    parts[part] += units[i]
                    room -= len(units[i])
                else:
                    others.append(i)
            members = others
        parts["train"] += [j for i in members for j in units[i]]
    return {part: sorted(chosen) for part, chosen in parts.items()}


def divide_coco(
    coco: Mapping, seed: Sequence[int], groups: Mapping[str, int] | None = None
) -> dict[str, dict]:
    """Divide a validated COCO dict into train, val and test; each keeps the order of the file.

    Photographs are divided in the order of their ids, so a file in another order gives the same
    splits. The animals of a photograph stay together; photographs without animals count as one
    species of their own. `groups` maps file names to groups of near-duplicates that stay together.
    """
    species = species_of_images(coco)
    ids = sorted(species)
    together = None
    if groups is not None:
        names = {image["id"]: image["file_name"] for image in coco["images"]}
        # a photograph in no group is one of its own
        together = [groups.get(names[i], f"image {i}") for i in ids]
    parts = divide([species[i] or 0 for i in ids], seed, together)
    return {part: with_images(coco, {ids[i] for i in chosen}) for part, chosen in parts.items()}


def leave_out(parts: Mapping[str, dict], name: str) -> dict[str, dict]:
    """Remove a species, or all species of a family, from train and val.

    Photographs that show it among others are removed, too. `test` stays complete, so that species
    seen in training are measured as well. Raises KeyError if there is no such species or family.
    """
    categories = [c for coco in parts.values() for c in coco["categories"]]
    held_out = {c["id"] for c in categories if name in (c["name"], c.get("supercategory"))}
    if not held_out:
        raise KeyError(name)
    result = dict(parts)
    for part in ("train", "val"):
        coco = parts[part]
        shown = {a["image_id"] for a in coco["annotations"] if a["category_id"] in held_out}
        result[part] = with_images(coco, {image["id"] for image in coco["images"]} - shown)
    return result


def few_labels(coco: Mapping, images_per_species: int, seed: Sequence[int]) -> dict:
    """Select at random at most so many photographs of each species.

    A smaller selection is part of a larger one: the 5 are among the 10. Photographs without animals
    are left out.
    """
    members = defaultdict(list)
    for image_id, species in sorted(species_of_images(coco).items()):
        if species is not None:
            members[species].append(image_id)
    chosen = set()
    for species in sorted(members):
        # a lot of its own for every species: one more photograph of another changes nothing
        rng = np.random.default_rng([*seed, species])
        chosen |= set(rng.permutation(members[species])[:images_per_species].tolist())
    return with_images(coco, chosen)


def species_of_images(coco: Mapping) -> dict[int, int | None]:
    """The main species of every photograph by its id; None for one without animals."""
    animals = defaultdict(list)
    for animal in coco["annotations"]:
        animals[animal["image_id"]].append(animal)
    return {image["id"]: main_species(animals[image["id"]]) for image in coco["images"]}


def with_images(coco: Mapping, ids: set[int]) -> dict:
    """Select these photographs of a COCO dict and their animals, in the order of the file."""
    return {
        "images": [image for image in coco["images"] if image["id"] in ids],
        "annotations": [animal for animal in coco["annotations"] if animal["image_id"] in ids],
        "categories": coco["categories"],
    }


def join(cocos: Iterable[Mapping]) -> dict:
    """Join COCO dicts of disjoint photographs into one, with the categories of all of them."""
    cocos, categories = list(cocos), {}
    for category in (category for coco in cocos for category in coco["categories"]):
        categories.setdefault(category["id"], category)
    return {
        "images": [image for coco in cocos for image in coco["images"]],
        "annotations": [animal for coco in cocos for animal in coco["annotations"]],
        "categories": list(categories.values()),
    }


def main_species(animals: Sequence[Mapping]) -> int | None:
    """The most frequent category id among the annotations of a photograph, the first of equals."""
    counted = Counter(animal["category_id"] for animal in animals).most_common(1)
    return counted[0][0] if counted else None
