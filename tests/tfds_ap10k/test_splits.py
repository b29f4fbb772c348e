"""Photographs are divided 7:1:2 within every species, the same way whenever it is done."""

import hashlib
import json
from collections import Counter

import numpy as np
import pytest

from tfds_ap10k import splits


@pytest.mark.parametrize(
    ("members", "expected"),
    [(10, (7, 1, 2)), (25, (17, 3, 5)), (20, (14, 2, 4)), (100, (70, 10, 20)), (1, (1, 0, 0))],
)
def test_division_is_7_1_2_within_a_species(members, expected):
    parts = splits.divide([4] * members + [9] * 10, [0, 1])
    assert tuple(sum(i < members for i in parts[p]) for p in ("train", "val", "test")) == expected
    assert sorted(i for chosen in parts.values() for i in chosen) == list(range(members + 10))


def test_a_small_data_set_has_all_three_parts():
    parts = splits.divide(list(range(16)) * 3, [0, 1])
    assert [len(parts[part]) for part in splits.PARTS] == [33, 5, 10]


def test_the_division_is_what_it_was_when_first_published():
    # Were NumPy to draw other permutations, every split would be another one: do not adapt this.
    parts = splits.divide([1, 2, 3] * 100, [0, 1])
    text = json.dumps(parts, sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest().startswith("629ee360316717c1")


def a_file(count: int) -> dict:
    """Photograph i, of species 1 or 2; every third has a second animal, of the other species."""
    animals = [{"id": i, "image_id": i, "category_id": 1 + i % 2} for i in range(1, count + 1)]
    animals += [
        {"id": 1000 + i, "image_id": i, "category_id": 2 - i % 2} for i in range(3, count + 1, 3)
    ]
    images = [{"id": i} for i in range(1, count + 1)]
    return {"images": images, "annotations": animals, "categories": [{"id": 1}, {"id": 2}]}


def test_a_divided_file_has_every_photograph_once_with_all_its_animals():
    coco = a_file(40)
    parts = splits.divide_coco(coco, [0, 1])
    assert [len(parts[part]["images"]) for part in splits.PARTS] == [28, 4, 8]
    whole = [image["id"] for part in parts.values() for image in part["images"]]
    assert sorted(whole) == list(range(1, 41))
    for part in parts.values():
        ids = [image["id"] for image in part["images"]]
        assert ids == sorted(ids)  # the order of the file
        expected = [animal for animal in coco["annotations"] if animal["image_id"] in ids]
        assert part["annotations"] == expected
        assert part["categories"] == coco["categories"]


def test_splits_depend_on_ids_and_seed_but_not_on_the_order_of_the_file():
    coco = a_file(40)
    turned = coco | {"images": coco["images"][::-1]}

    def test_ids(coco, seed):
        return {image["id"] for image in splits.divide_coco(coco, seed)["test"]["images"]}

    assert test_ids(coco, [0, 1]) == test_ids(turned, [0, 1])
    assert test_ids(coco, [0, 1]) != test_ids(coco, [0, 2])


def test_photographs_without_animals_are_dealt_out_too():
    coco = a_file(10) | {"annotations": []}
    parts = splits.divide_coco(coco, [0])
    assert [len(parts[part]["images"]) for part in splits.PARTS] == [7, 1, 2]


def test_the_most_frequent_species_is_the_main_one_and_the_first_of_equals():
    def main(*species):
        return splits.main_species([{"category_id": s} for s in species])

    assert main(8, 24, 24) == 24
    assert main(24, 8) == 24
    assert main() is None


def test_what_is_of_a_group_stays_on_one_side():
    rng = np.random.default_rng(5)
    species = rng.integers(1, 4, 200).tolist()
    groups = [i if i % 3 else 1000 + i // 12 for i in range(200)]  # every third is one of four
    sides = {}
    parts = splits.divide(species, [0, 1], groups)
    for part, chosen in parts.items():
        for i in chosen:
            assert sides.setdefault(groups[i], part) == part
    assert sorted(i for chosen in parts.values() for i in chosen) == list(range(200))
    assert abs(len(parts["val"]) - 20) <= 4
    assert abs(len(parts["test"]) - 40) <= 4


def test_groups_of_one_change_nothing():
    species = [1, 2, 3] * 30
    assert splits.divide(species, [4], range(90)) == splits.divide(species, [4])
    coco = a_file(40)
    for image in coco["images"]:
        image["file_name"] = f"{image['id']}.jpg"
    assert splits.divide_coco(coco, [0], {}) == splits.divide_coco(coco, [0])
    together = splits.divide_coco(coco, [0], {f"{i}.jpg": 7 for i in (3, 9, 12, 30)})
    sides = [{i["id"] for i in part["images"]} & {3, 9, 12, 30} for part in together.values()]
    assert sorted(map(len, sides)) == [0, 0, 4]


def a_family(count: int) -> dict[str, dict]:
    """Parts of a file whose species 1 and 2 are of one family, 3 of another."""
    coco = a_file(count)
    names = {1: ("cow", "Bovidae"), 2: ("sheep", "Bovidae"), 3: ("cat", "Felidae")}
    coco["categories"] = [{"id": i, "name": n, "supercategory": f} for i, (n, f) in names.items()]
    for i in range(1, count + 1, 4):
        coco["annotations"].append({"id": 5000 + i, "image_id": i, "category_id": 3})
    return splits.divide_coco(coco, [0])


@pytest.mark.parametrize(("name", "held_out"), [("cow", {1}), ("Bovidae", {1, 2}), ("cat", {3})])
def test_a_species_left_out_is_nowhere_but_in_test(name, held_out):
    parts = a_family(60)
    without = splits.leave_out(parts, name)
    assert without["test"] == parts["test"]
    for part in ("train", "val"):
        shown = {a["image_id"] for a in parts[part]["annotations"] if a["category_id"] in held_out}
        before = {image["id"] for image in parts[part]["images"]}
        assert {image["id"] for image in without[part]["images"]} == before - shown
        assert not {a["category_id"] for a in without[part]["annotations"]} & held_out
        assert shown or part == "val"
    with pytest.raises(KeyError):
        splits.leave_out(parts, "dodo")


def test_few_labels_are_nested_and_as_many_of_each_species():
    coco = a_family(200)["train"]
    species = splits.species_of_images(coco)
    before = set()
    for count in splits.FEW:
        few = splits.few_labels(coco, count, [0])
        chosen = {image["id"] for image in few["images"]}
        assert before < chosen
        tally = Counter(species[i] for i in chosen)
        assert set(tally.values()) == {count}
        assert {a["image_id"] for a in few["annotations"]} == chosen
        before = chosen
    assert splits.few_labels(coco, 5, [0]) == splits.few_labels(coco, 5, [0])
    assert splits.few_labels(coco, 5, [0]) != splits.few_labels(coco, 5, [1])
    everything = splits.few_labels(coco, 10**6, [0])
    assert len(everything["images"]) == sum(s is not None for s in species.values())
