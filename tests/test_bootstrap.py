"""Intervals of AP: exact where they can be, and right as often as they say."""

import time

import numpy as np
import pytest

from ap10k_jax import bootstrap, metrics

NAMES = {1: ("antelope", "Bovidae"), 5: ("cow", "Bovidae"), 22: ("zebra", "Equidae")}


def made_up(images, *, seed=0, error=0.1, missing=0.0, species=tuple(NAMES)):
    """Animals, one or two an image, and predictions off by `error` x sqrt(area) in the mean."""
    rng = np.random.default_rng(seed)
    truth = {
        "images": [{"id": i, "width": 400, "height": 300} for i in range(1, images + 1)],
        "annotations": [],
        "categories": [
            {"id": i, "name": name, "supercategory": family} for i, (name, family) in NAMES.items()
        ],
    }
    rows = []
    for image in range(1, images + 1):
        for n in range(rng.integers(1, 3)):
            box = [10 + 190 * n, 20, 150, 150]
            points = rng.uniform(0, 150, (17, 2)) + box[:2]
            category = int(rng.choice(species))
            animal = {
                "id": 10 * image + n,
                "image_id": image,
                "category_id": category,
                "bbox": box,
                "area": 150.0 * 150,
                "iscrowd": 0,
                "num_keypoints": 17,
                "keypoints": np.column_stack([points, np.full(17, 2)]).ravel().tolist(),
            }
            truth["annotations"].append(animal)
            if rng.random() < missing:
                continue
            spread = error * 150 * rng.exponential()
            moved = points + rng.normal(0, spread + 1e-9, (17, 2))
            score = np.clip(rng.uniform(0.5, 1) - spread / 150, 0.25, 1)
            keypoints = np.column_stack([moved, np.full(17, score)])
            fields = ("id", "image_id", "category_id")
            rows.append({k: animal[k] for k in fields} | {"keypoints": keypoints})
    return truth, rows


@pytest.mark.parametrize("seed", range(5))
def test_the_sample_itself_has_the_ap_of_pycocotools(seed):
    truth, rows = made_up(40, seed=seed, missing=0.1)
    coco = metrics.compare(truth, rows, "corrected")
    once = np.ones((1, len(coco.params.imgIds)), int)
    expected = metrics.evaluate(truth, rows)["per_species"]
    for category, matches in bootstrap._matches(coco):
        (ap,) = bootstrap._resampled(once, *matches)
        assert ap == pytest.approx(expected[NAMES[category][0]], abs=1e-12)


def test_an_image_drawn_twice_is_scored_as_two_images():
    truth, rows = made_up(12, seed=3, species=(5,))
    copies = {
        **truth,
        "images": truth["images"] + [x | {"id": x["id"] + 100} for x in truth["images"][:4]],
        "annotations": truth["annotations"]
        + [
            a | {"id": a["id"] + 1000, "image_id": a["image_id"] + 100}
            for a in truth["annotations"]
            if a["image_id"] <= 4
        ],
    }
    more = [
        r | {"id": r["id"] + 1000, "image_id": r["image_id"] + 100}
        for r in rows
        if r["image_id"] <= 4
    ]
    expected = metrics.evaluate(copies, rows + more)["AP"]
    coco = metrics.compare(truth, rows, "corrected")
    times = np.array([[2 if i <= 4 else 1 for i in coco.params.imgIds]])
    ((_, matches),) = bootstrap._matches(coco)
    assert bootstrap._resampled(times, *matches)[0] == pytest.approx(expected, abs=1e-12)


def test_of_perfect_predictions_nothing_is_in_doubt():
    truth, rows = made_up(30, error=0.0)
    found = bootstrap.intervals(truth, rows, resamples=200)
    assert found["AP"] == [1.0, 1.0]
    assert found["per_species"]["zebra"] == [1.0, 1.0]
    assert found["per_family"] == {"Bovidae": [1.0, 1.0], "Equidae": [1.0, 1.0]}


def test_of_nothing_right_nothing_is_in_doubt():
    truth, rows = made_up(30, error=50.0)
    assert bootstrap.intervals(truth, rows, resamples=50)["AP"] == [0.0, 0.0]


def test_more_images_make_it_surer():
    few, many = (bootstrap.intervals(*made_up(n, seed=1), resamples=300)["AP"] for n in (40, 640))
    assert 2 < np.ptp(few) / np.ptp(many) < 8  # sixteen times the images: a quarter


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """AP of a small sample is a little above that of very many, so not quite 90 % are expected."""
    limit = metrics.evaluate(*made_up(4000, seed=99, species=(5,)))["AP"]
    hits = 0
    for seed in range(40):
        sample = made_up(120, seed=seed, species=(5,))
        low, high = bootstrap.intervals(*sample, resamples=150, level=0.9)["AP"]
        hits += low <= limit <= high
    assert 30 <= hits <= 40


def test_a_species_that_a_resample_lacks_is_left_out_of_its_mean():
    truth, rows = made_up(30, error=0.0, species=(1,))
    # one cow in one image: absent in a third of all resamples
    truth["annotations"][0]["category_id"] = rows[0]["category_id"] = 5
    found = bootstrap.intervals(truth, rows, resamples=100)
    assert found["per_species"]["cow"] == [1.0, 1.0]
    assert found["AP"] == [1.0, 1.0]


def test_the_same_seed_gives_the_same_interval():
    sample = made_up(30)
    a, b, c = (bootstrap.intervals(*sample, resamples=50, seed=s) for s in (0, 0, 1))
    assert a == b
    assert a != c


def test_a_thousand_resamples_of_split_ones_validation_take_seconds():
    sample = made_up(900)
    started = time.perf_counter()
    bootstrap.intervals(*sample)
    assert time.perf_counter() - started < 60


def test_in_the_instance_ap_every_animal_counts_alike():
    truth, rows = made_up(60, error=0.0, species=(1,))
    # a rare species that is always wrong: half of the macro AP, little of the instance AP
    for animal, row in zip(truth["annotations"][:3], rows[:3], strict=True):
        animal["category_id"] = row["category_id"] = 5
        row["keypoints"] = row["keypoints"] + [500.0, 0, 0]
    assert metrics.evaluate(truth, rows)["AP"] == pytest.approx(0.5, abs=0.01)
    assert metrics.evaluate(*metrics.instance_view(truth, rows))["AP"] > 0.9
    assert truth["categories"][0]["name"] == "antelope"  # what was passed in is as it was
    assert {a["category_id"] for a in truth["annotations"]} == {1, 5}
