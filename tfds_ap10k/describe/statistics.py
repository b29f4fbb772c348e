"""Count what is in a keypoint data set: the numbers of the paper's Table 2 and Figures 1 to 3.

Everything is counted from validated COCO dicts; no photograph is needed.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from tfds_ap10k import taxonomy

# COCO's sizes by area in square pixels; the metric has AP(M) and AP(L), with both ends in M.
MEDIUM = 32**2, 96**2
RARE = 50  # animals; with fewer than these, a species has about ten to be tested on


def count(cocos: Sequence[Mapping]) -> dict:
    """All counts of a data set that may be in several files, as JSON has them."""
    images = [image for coco in cocos for image in coco["images"]]
    animals = [animal for coco in cocos for animal in coco["annotations"]]
    per_image = Counter()
    for part, coco in enumerate(cocos):  # ids are unique within a file only
        per_image.update({(part, image["id"]): 0 for image in coco["images"]})
        per_image.update((part, animal["image_id"]) for animal in coco["annotations"])
    families = count_families(cocos)
    species = {name: n for family in families.values() for name, n in family["species"].items()}
    return {
        "images": len(images),
        "animals": len(animals),
        "species": len(species),
        "species_with_animals": sum(n["animals"] > 0 for n in species.values()),
        "families": len(families),
        "families_with_animals": sum(n["animals"] > 0 for n in families.values()),
        "animals_without_keypoints": sum(animal["num_keypoints"] == 0 for animal in animals),
        "animals_per_image": dict(sorted(Counter(per_image.values()).items())),
        "per_family": families,
        "long_tail": long_tail({name: n["animals"] for name, n in species.items()}),
        "keypoints": count_keypoints(cocos),
        "image_sizes": describe_sizes((i["width"], i["height"]) for i in images),
        "box_sizes": describe_sizes(animal["bbox"][2:] for animal in animals),
        "areas": count_areas(animal["area"] for animal in animals),
        "backgrounds": count_backgrounds(images),
    }


def count_families(cocos: Sequence[Mapping]) -> dict[str, dict]:
    """Images and animals of every family and, within it, of every species, the largest first.

    An image of two species counts for both of them.
    """
    species_of, home = {}, {}
    animals, images = Counter(), defaultdict(set)
    for part, coco in enumerate(cocos):
        for category in coco["categories"]:
            species_of[part, category["id"]] = category["name"]
            home[category["name"]] = category.get("supercategory") or category["name"]
        for animal in coco["annotations"]:
            name = species_of[part, animal["category_id"]]
            animals[name] += 1
            images[name].add((part, animal["image_id"]))
    members = defaultdict(list)
    for name in sorted(home, key=lambda name: (-animals[name], name)):
        members[home[name]].append(name)
    families = {
        family: {
            "images": len(set().union(*(images[name] for name in names))),
            "animals": sum(animals[name] for name in names),
            "species": {
                name: {"images": len(images[name]), "animals": animals[name]} for name in names
            },
        }
        for family, names in members.items()
    }
    return dict(sorted(families.items(), key=lambda item: (-item[1]["animals"], item[0])))


def long_tail(animals: Mapping[str, int]) -> dict:
    """Measure how unevenly animals are spread over species, given the number of each."""
    ranked = sorted(((n, name) for name, n in animals.items() if n), reverse=True)
    numbers = np.array([n for n, _ in ranked])
    share = np.cumsum(numbers) / max(1, numbers.sum())
    return {
        "largest": {name: n for n, name in ranked[:5]},
        "smallest": {name: n for n, name in ranked[:-6:-1]},
        "share_of_ten_largest": round(float(share[:10].max(initial=0)), 4),
        "species_with_half_of_the_animals": int(np.searchsorted(share, 0.5) + 1) if ranked else 0,
        f"species_with_fewer_than_{RARE}_animals": int((numbers < RARE).sum()),
        "species_without_animals": sorted(name for name, n in animals.items() if not n),
    }


def count_keypoints(cocos: Sequence[Mapping]) -> dict[str, dict[str, int]]:
    """For every joint, in how many animals it is labelled, and hidden (a visibility of 1)."""
    counts = {}
    for coco in cocos:
        if not coco["categories"]:  # nothing of this file was sound
            continue
        names = coco["categories"][0]["keypoints"]  # all have the same
        visibility = np.array([animal["keypoints"][2::3] for animal in coco["annotations"]])
        visibility = visibility.reshape(-1, len(names))
        for joint, name in enumerate(names):
            found = counts.setdefault(name, {"labelled": 0, "hidden": 0})
            found["labelled"] += int((visibility[:, joint] > 0).sum())
            found["hidden"] += int((visibility[:, joint] == 1).sum())
    return counts


def describe_sizes(sizes: Iterable[Sequence[float]]) -> dict[str, list[float]]:
    """The smallest and largest by area, and the median of width and of height, in pixels."""
    table = np.array(list(sizes), float).reshape(-1, 2)
    if not len(table):
        return {}
    areas = table.prod(axis=1)
    return {
        "smallest": _plain(table[areas.argmin()]),
        "median": _plain(np.median(table, axis=0)),
        "largest": _plain(table[areas.argmax()]),
    }


def count_areas(areas: Iterable[float]) -> dict[str, int]:
    """Small, medium and large animals as the metric tells them apart."""
    table = np.array(list(areas), float)
    small, large = table < MEDIUM[0], table > MEDIUM[1]
    medium = ~small & ~large
    return {"small": int(small.sum()), "medium": int(medium.sum()), "large": int(large.sum())}


def count_backgrounds(images: Iterable[Mapping]) -> dict[str, int]:
    """Images of every background, in the order of the taxonomy; undocumented values by number."""
    counts = Counter(image["background"] for image in images if "background" in image)
    known = {name: counts.pop(value, 0) for value, name in taxonomy.BACKGROUNDS.items()}
    other = {f"undocumented value {value}": counts[value] for value in sorted(counts)}
    return {name: n for name, n in (known | other).items() if n}


def rows(counts: Mapping) -> Iterator[tuple[str, str, int, int]]:
    """Family, species, images and animals, one row a species."""
    for family, found in counts["per_family"].items():
        for name, n in found["species"].items():
            yield family, name, n["images"], n["animals"]


def _plain(size: np.ndarray) -> list[float]:
    return [round(float(side), 1) for side in size]
