"""Photographs are divided 7:1:2 within every species, the same way whenever it is done."""

import hashlib
import json

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
