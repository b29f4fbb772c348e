"""Count what is unusual in a data set but no reason to refuse it."""

from collections import Counter, defaultdict
from collections.abc import Mapping

from tfds_ap10k import taxonomy


def count(splits: Mapping[str, dict]) -> dict:
    """Count the oddities of validated COCO dicts; all keys are strings, as in JSON.

    Values are lists of names, a count for every value of backgrounds, and plain counts.
    """
    categories = {c["id"]: c for coco in splits.values() for c in coco["categories"]}
    families = {c.get("supercategory", c["name"]) for c in categories.values()}
    backgrounds, counts, populated, ratios = Counter(), Counter(), set(), Counter()
    for coco in splits.values():
        images = {image["id"]: image for image in coco["images"]}
        species = defaultdict(set)
        for image in coco["images"]:
            background = image.get("background")
            if background not in taxonomy.BACKGROUNDS:
                backgrounds["none" if background is None else str(background)] += 1
        for animal in coco["annotations"]:
            image = images[animal["image_id"]]
            species[image["id"]].add(animal["category_id"])
            ratios[round(animal["area"] / (animal["bbox"][2] * animal["bbox"][3]), 2)] += 1
            counts["boxes_partly_outside"] += _partly_outside(animal["bbox"], image)
            counts["keypoints_outside"] += _keypoints_outside(animal["keypoints"], image)
            counts["animals_without_keypoints"] += animal["num_keypoints"] == 0
            counts["crowds"] += animal.get("iscrowd", 0) == 1
        populated |= set().union(*species.values())
        counts["images_without_animals"] += len(images) - len(species)
        counts["images_of_several_species"] += sum(len(ids) > 1 for ids in species.values())
    counts["areas_not_of_the_box"] = ratios.total() - ratios[1.0]
    present = {categories[i].get("supercategory", categories[i]["name"]) for i in populated}
    return {
        "species_without_animals": [
            categories[i]["name"] for i in sorted(categories) if i not in populated
        ],
        "families_without_animals": sorted(families - present),
        "undocumented_backgrounds": dict(sorted(backgrounds.items())),
        **{
            name: counts[name]
            for name in (
                "images_without_animals",
                "images_of_several_species",
                "animals_without_keypoints",
                "boxes_partly_outside",
                "keypoints_outside",
                "crowds",
                "areas_not_of_the_box",
            )
        },
        # AP-10K's are the box's; some tools write 0.53 of it. AP follows the area: numbers from
        # files that differ by a factor cannot be compared.
        "areas_scaled_by": _common_factor(ratios),
    }


def _common_factor(ratios: Counter) -> list[str]:
    """The factor, as ["0.53"], by which all areas differ from their box's; else an empty list."""
    return [f"{factor:g}" for factor in ratios if factor != 1.0] if len(ratios) == 1 else []


def _partly_outside(box: list[float], image: dict) -> bool:
    x, y, width, height = box
    return x < 0 or y < 0 or x + width > image["width"] or y + height > image["height"]


def _keypoints_outside(keypoints: list[float], image: dict) -> int:
    joints = zip(keypoints[0::3], keypoints[1::3], keypoints[2::3], strict=True)
    return sum(
        visibility > 0 and not (0 <= x <= image["width"] and 0 <= y <= image["height"])
        for x, y, visibility in joints
    )


def describe(report: Mapping) -> str:
    """Describe the report, with a line for each oddity that occurs."""
    lines = []
    for name, value in report.items():
        if isinstance(value, Mapping) and value:
            value = ", ".join(f"{key} ({times} times)" for key, times in value.items())
        elif isinstance(value, list) and value:
            more = ["..."] if len(value) > 8 else []
            value = f"{len(value)} ({', '.join([*value[:8], *more])})"
        if value:
            lines.append(f"  {name.replace('_', ' ')}: {value}")
    return "\n".join(lines) or "  none"
