"""Every animal comes once an epoch, as its record says, in an order that only the seed decides."""

import dataclasses
import json
import shutil

import cv2
import numpy as np
import pytest
import tiny_ap10k

from ap10k_jax.augmentation import Augmentation
from ap10k_jax.data import batches, subsets
from ap10k_jax.data.animals import Animals, decode_example
from tfds_ap10k import build

PLAIN = Augmentation(
    flip_probability=0,
    half_body_probability=0,
    scale_sigma=0,
    rotation_probability=0,
    shift_probability=0,
)


@pytest.fixture(scope="module")
def animals(synthetic_dir):
    return Animals.open("ap10k/split1", "train", data_dir=synthetic_dir)


def read_batches(animals, **options):
    options = {"batch_size": 8, "epochs": 1, "seed": 0, "image_size": 32} | options
    return list(batches.train_batches(animals, **options))


def order(animals, **options):
    return np.concatenate([batch["index"] for batch in read_batches(animals, **options)])


def test_an_example_is_what_its_record_says(animals, synthetic_dir):
    for i in (0, 5, len(animals) - 1):
        example, record, image = animals[i], animals.annotation(i), animals.image(i)
        assert record["image_id"] == image["id"]
        stored = (synthetic_dir / "drawn" / "data" / image["file_name"]).read_bytes()
        assert example["bytes"] == stored
        np.testing.assert_allclose(example["box"], record["bbox"])
        np.testing.assert_allclose(example["keypoints"].ravel(), record["keypoints"])
        assert example["index"] == i


def test_a_record_that_the_index_does_not_mean_is_refused(animals):
    coco = animals.ground_truth()
    shuffled = coco | {"images": coco["images"][::-1]}
    stale = Animals(animals._source, shuffled, fingerprint="")
    with pytest.raises(ValueError, match="build the data set anew"):
        stale[0]


def test_a_data_set_built_before_its_photographs_were_hashed_opens(synthetic_dir, tmp_path):
    shutil.copytree(synthetic_dir, tmp_path, dirs_exist_ok=True)
    (path,) = tmp_path.glob("ap10k/split1/*/metadata.json")
    metadata = json.loads(path.read_text())
    digest = metadata.pop("photographs")["train"]
    opened = Animals.open("ap10k/split1", "train", data_dir=tmp_path)
    assert opened.photographs_sha256 == digest
    assert len(digest) == 64
    path.write_text(json.dumps(metadata))
    opened = Animals.open("ap10k/split1", "train", data_dir=tmp_path)
    assert opened.photographs_sha256 == ""
    assert opened[0]["bytes"]


def test_every_epoch_has_every_animal_once_in_an_order_of_its_own(animals):
    seen = order(animals, epochs=2)
    first, second = np.split(seen, 2)
    assert sorted(first) == sorted(second) == list(range(len(animals)))
    assert not np.array_equal(first, second)


def test_a_shift_once_stays_over_the_epochs(animals):
    once = dataclasses.replace(PLAIN, shift_probability=1, shift_once=True)

    def by_animal(augmentation, **options):
        found = read_batches(animals, epochs=2, augmentation=augmentation, **options)
        index, center = (np.concatenate([b[n] for b in found]) for n in ("index", "center"))
        return center[np.argsort(index, kind="stable")].reshape(-1, 2, 2)

    first, second = np.moveaxis(by_animal(once), 1, 0)
    np.testing.assert_array_equal(first, second)
    assert (first != by_animal(PLAIN)[:, 0]).any(axis=1).all()
    assert (first != by_animal(once, seed=1)[:, 0]).any(axis=1).all()
    first, second = np.moveaxis(by_animal(dataclasses.replace(once, shift_once=False)), 1, 0)
    assert (first != second).any(axis=1).all()


def test_order_and_crops_follow_from_the_seed_and_not_from_the_threads(animals):
    one, many = (read_batches(animals, threads=threads) for threads in (1, 5))
    for a, b in zip(one, many, strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
    assert not np.array_equal(order(animals), order(animals, seed=1))


def test_an_animal_is_augmented_anew_every_epoch(animals):
    by_epoch = [{}, {}]
    for i, batch in enumerate(all_batches := read_batches(animals, epochs=2)):
        epoch = by_epoch[i >= len(all_batches) // 2]
        epoch.update(zip(batch["index"].tolist(), batch["keypoints"], strict=True))
    same = [np.array_equal(by_epoch[0][i], by_epoch[1][i]) for i in range(len(animals))]
    assert not any(same)


def test_without_augmentation_training_sees_the_crops_of_evaluation(animals):
    upright = {}
    for batch in batches.eval_batches(animals, batch_size=8, image_size=32):
        upright |= dict(zip(batch["index"].tolist(), batch["image"], strict=True))
    for batch in read_batches(animals, augmentation=PLAIN):
        for index, image in zip(batch["index"], batch["image"], strict=True):
            np.testing.assert_array_equal(image, upright[int(index)])


def test_a_restored_iterator_goes_on_where_it_was(animals):
    iterator = iter(batches.train_batches(animals, batch_size=8, epochs=2, seed=0, image_size=32))
    for _ in range(3):
        next(iterator)
    state = iterator.get_state()
    rest = [batch["index"] for batch in iterator]
    again = iter(batches.train_batches(animals, batch_size=8, epochs=2, seed=0, image_size=32))
    again.set_state(state)
    np.testing.assert_array_equal(np.concatenate(rest), np.concatenate([b["index"] for b in again]))


def test_the_last_batch_of_an_epoch_is_kept_or_dropped(animals):
    rest = len(animals) % 8
    assert rest, "the data set should leave a remainder"
    sizes = [len(batch["index"]) for batch in read_batches(animals)]
    assert sizes == [8] * (len(animals) // 8) + [rest]
    dropped = [len(batch["index"]) for batch in read_batches(animals, drop_remainder=True)]
    assert dropped == [8] * (len(animals) // 8)


def test_the_last_batch_is_filled_up_for_the_devices_with_its_own_animals(animals):
    last = read_batches(animals, batch_size=len(animals) - 3, multiple_of=8)[-1]["index"]
    assert len(last) == 8
    np.testing.assert_array_equal(last, np.resize(last[:3], 8))


@pytest.mark.parametrize(
    ("animals_", "batch", "drop", "steps"),
    [
        (9122, 64, False, 143),  # split 1, as in the paper
        (9122, 64, True, 142),
        (128, 64, False, 2),
    ],
)
def test_steps_an_epoch(animals_, batch, drop, steps):
    assert batches.steps_per_epoch(animals_, batch, drop_remainder=drop) == steps


def test_an_epoch_without_a_batch_is_refused():
    with pytest.raises(ValueError, match="no full batch"):
        batches.steps_per_epoch(10, 64, drop_remainder=True)


def test_evaluation_has_every_animal_once_in_order(animals):
    index = np.concatenate(
        [batch["index"] for batch in batches.eval_batches(animals, batch_size=16, image_size=32)]
    )
    assert len(index) % 16 == 0
    np.testing.assert_array_equal(index[: len(animals)], np.arange(len(animals)))
    assert set(index[len(animals) :]) <= {-1}


def test_species_families_and_a_maximum_choose_animals(animals, synthetic_dir):
    def chosen(**options):
        return Animals.open("ap10k/split1", "train", data_dir=synthetic_dir, **options)

    names = {c["id"]: (c["name"], c["supercategory"]) for c in animals.ground_truth()["categories"]}
    kinds = [names[animals.annotation(i)["category_id"]] for i in range(len(animals))]
    zebras = chosen(species=("zebra",))
    assert 0 < len(zebras) == sum(species == "zebra" for species, _ in kinds)
    mixed = chosen(species=("zebra", "Felidae"))
    assert len(mixed) == sum(s == "zebra" or f == "Felidae" for s, f in kinds) > len(zebras)
    first = chosen(max_animals=5)
    assert [a["id"] for a in first.ground_truth()["annotations"]] == [
        animals.annotation(i)["id"] for i in range(5)
    ]


def test_animals_without_keypoints_are_left_out_and_counted(tmp_path):
    files = tiny_ap10k.contents()
    blank = files["train"]["annotations"][1]
    blank["keypoints"], blank["num_keypoints"] = [0] * 51, 0
    tiny_ap10k.write(tmp_path / "raw", files)
    build.build("split1", manual_dir=tmp_path / "raw", data_dir=tmp_path)
    animals = Animals.open("ap10k/split1", "train", data_dir=tmp_path)
    assert (len(animals), animals.unlabeled) == (3, 1)
    assert blank["id"] not in [animals.annotation(i)["id"] for i in range(3)]


@pytest.fixture(scope="module")
def crowded(tmp_path_factory):
    """A data set of four photographs in train; annotation 20, with labelled joints, is a crowd.

    Photograph 3 has a crowd beside its animal, annotation 31.
    """
    folder = tmp_path_factory.mktemp("crowded")
    files = tiny_ap10k.contents()
    animals = files["train"]["annotations"]
    next(a for a in animals if a["id"] == 20)["iscrowd"] = 1
    animals.append(tiny_ap10k.animal(31, 3, 24) | {"iscrowd": 1})
    tiny_ap10k.write(folder / "raw", files)
    build.build("split1", manual_dir=folder / "raw", data_dir=folder)
    return Animals.open("ap10k/split1", "train", data_dir=folder)


def test_crowds_are_neither_trained_on_nor_predicted_and_counted(crowded):
    assert (len(crowded), crowded.crowds, crowded.unlabeled) == (3, 2, 0)
    assert [crowded.annotation(i)["id"] for i in range(3)] == [40, 30, 10]
    seen = [i for batch in batches.eval_batches(crowded, batch_size=4) for i in batch["index"]]
    assert sorted(seen) == [-1, 0, 1, 2]


def test_crowds_on_photographs_of_the_animals_are_regions_to_ignore(crowded):
    assert [a["id"] for a in crowded.ground_truth()["annotations"]] == [40, 30, 10, 31]
    part = crowded.of_images({1, 4})
    assert [a["id"] for a in part.ground_truth()["annotations"]] == [40, 10]


def test_a_photograph_is_of_the_species_of_its_animals_whatever_its_crowds_are(crowded):
    # Two photographs show dogs (1 and 3), one a cat (4): of each species one keeps its labels.
    chosen = subsets.few_labels(crowded, images=1, seed=0)
    assert len(chosen["labelled"]) == 2
    assert 4 in chosen["labelled"]
    assert set(chosen["labelled"] + chosen["hidden"]) == {1, 3, 4}


def test_crops_are_rgb(animals):
    example = animals[0]
    bgr = cv2.imdecode(np.frombuffer(example["bytes"], np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(decode_example(example)["image"], bgr[..., ::-1])
