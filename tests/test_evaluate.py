"""Predictions come back to the image where they belong, and every animal is scored."""

import numpy as np
import pytest

from ap10k_jax import evaluate, metrics
from ap10k_jax.data import batches
from ap10k_jax.data.animals import Animals


@pytest.fixture(scope="module")
def animals(synthetic_dir):
    return Animals.open("ap10k/split1", "validation", data_dir=synthetic_dir)


class Oracle:
    """In place of a compiled step: the true keypoints of each crop in turn, with score 1."""

    def __init__(self, animals, config, shift=0.0):
        loader = batches.eval_batches(
            animals, batch_size=config.eval.batch_size, image_size=config.data.image_size
        )
        self._points = iter([batch["keypoints"] + shift for batch in loader])

    def __call__(self, variables, images):
        points = next(self._points)
        return np.concatenate([points, np.ones_like(points[..., :1])], axis=-1)


def test_the_true_keypoints_of_the_crops_have_an_ap_of_one(animals, config):
    rows = evaluate.predict(Oracle(animals, config), {}, animals, config, name="test")
    result = evaluate.score(animals, rows, sigmas="corrected")
    assert result["AP"] == pytest.approx(1.0)
    assert result["num_missing"] == 0


def test_crowds_change_no_number_of_a_report(animals, config):
    rows = evaluate.predict(Oracle(animals, config, shift=1.0), {}, animals, config, name="test")
    expected = evaluate.full_score(animals, rows, sigmas="corrected")
    coco = animals.ground_truth()
    unseen = next(c["id"] for c in coco["categories"] if c["name"] not in expected["per_species"])
    # their area is not that of their box, as that of the animals is
    crowds = [
        {"id": -1 - i, "image_id": image["id"], "category_id": unseen, "iscrowd": 1}
        | {"bbox": [0, 0, 20, 20], "area": 999, "num_keypoints": 0, "keypoints": [0] * 51}
        for i, image in enumerate(coco["images"])
    ]
    crowded = Animals(
        animals._source, coco | {"annotations": coco["annotations"] + crowds}, fingerprint=""
    )
    assert len(crowded.ground_truth()["annotations"]) > len(animals)
    np.testing.assert_equal(evaluate.full_score(crowded, rows, sigmas="corrected"), expected)


def test_half_a_crop_aside_nothing_is_right(animals, config):
    # the check above must be able to fail
    oracle = Oracle(animals, config, shift=config.data.image_size / 2)
    rows = evaluate.predict(oracle, {}, animals, config, name="test")
    assert evaluate.score(animals, rows, sigmas="corrected")["AP"] < 0.1


def test_a_row_belongs_to_the_animal_whose_box_was_used(animals, config):
    rows = evaluate.predict(Oracle(animals, config), {}, animals, config, name="test")
    for i, row in enumerate(rows):
        record = animals.annotation(i)
        assert (row["id"], row["image_id"], row["category_id"]) == (
            record["id"],
            record["image_id"],
            record["category_id"],
        )
        labelled = np.reshape(record["keypoints"], (-1, 3))
        seen = labelled[:, 2] > 0
        np.testing.assert_allclose(row["keypoints"][seen, :2], labelled[seen, :2], atol=1e-2)


def test_predictions_read_back_as_coco_results(animals, config, tmp_path):
    import json

    rows = evaluate.predict(Oracle(animals, config), {}, animals, config, name="test")
    evaluate.write_predictions(tmp_path / "predictions.json", rows)
    stored = json.loads((tmp_path / "predictions.json").read_text())
    assert len(stored) == len(animals)
    again = [row | {"keypoints": np.reshape(row["keypoints"], (-1, 3))} for row in stored]
    assert metrics.evaluate(animals.ground_truth(), again)["AP"] == pytest.approx(1.0)
    assert all(row["score"] == pytest.approx(1.0) for row in stored)


def test_the_picture_shows_animals(animals, config):
    rows = evaluate.predict(Oracle(animals, config), {}, animals, config, name="test")
    sheet = evaluate.picture(animals, rows, sigmas="corrected")
    assert sheet.dtype == np.uint8
    assert sheet.shape[0] > 240
    assert sheet.std() > 20
