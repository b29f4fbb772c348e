"""Animals with 9 joints, and with 20, go from a folder to AP, pictures and predictions."""

import dataclasses
import json

import cv2
import jax
import numpy as np
import own_joints
import pytest
from test_evaluate import Oracle

from ap10k_jax import (
    checkpoint,
    evaluate,
    inference,
    keypoints,
    predict,
    run,
    run_directory,
)
from ap10k_jax.augmentation import Augmentation
from ap10k_jax.data import batches
from ap10k_jax.data.animals import Animals
from ap10k_jax.runtime import errors
from tfds_ap10k import build

JOINTS = {"nine": own_joints.NINE, "twenty": own_joints.TWENTY}
PAIRS = {
    "nine": {(2, 1), (5, 4), (6, 7)},
    "twenty": {*keypoints.AP10K.pairs, (19, 18)},
}


@pytest.fixture(scope="module", params=JOINTS)
def own(request, tmp_path_factory, synthetic_dir):
    """The name of a data set, and the folder and data directory it is built from and in."""
    folder = tmp_path_factory.mktemp(request.param)
    joints = JOINTS[request.param]
    return (
        request.param,
        own_joints.write(synthetic_dir / "drawn", folder / "manual", joints),
        folder,
    )


@pytest.fixture(scope="module")
def config(own, config_of):
    name, manual_dir, data_dir = own
    config = config_of(data_dir)
    config.data.synthetic_images = 0
    config.data.manual_dir = str(manual_dir)
    config.data.name = f"own/{name}"
    config.model.num_keypoints = len(JOINTS[name])
    config.drop_remainder = True  # one shape, compiled once
    return config


@pytest.fixture(scope="module")
def built(own):
    name, manual_dir, data_dir = own
    build.build(name, manual_dir, data_dir, dataset="own")
    return f"own/{name}", data_dir


@pytest.fixture(scope="module")
def animals(built):
    return Animals.open(built[0], "validation", data_dir=built[1])


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    """The directory and the results of a run, and the pairs that its mirror test exchanged."""
    workdir, pairs = tmp_path_factory.mktemp("run") / "run", []
    make_step = inference.make_predict_step

    def remember(*arguments, **options):
        pairs.append(options["pairs"])
        return make_step(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inference, "make_predict_step", remember)
        results = run.run(config, workdir)
    return workdir, results, pairs


def test_joints_are_those_of_the_folder(own, animals):
    joints = animals.keypoint_set
    assert joints.names == tuple(JOINTS[own[0]])
    assert set(joints.pairs) == PAIRS[own[0]]
    assert keypoints.one_sided(joints) == []


def test_a_run_ends_with_an_ap_and_a_picture_of_these_joints(own, finished):
    workdir, results, pairs = finished
    number = len(JOINTS[own[0]])
    assert [set(p) for p in pairs] == [PAIRS[own[0]]]
    assert results["sigmas"] == "uniform 0.05"
    for split in ("validation", "test"):
        assert results[split]["sigmas"] == "uniform 0.05"
        assert 0 <= results[split]["AP"] <= 1
        assert results[split]["AP_by_sigmas"] == {"uniform 0.05": results[split]["AP"]}
        assert all(name.startswith("our ") for name in results[split]["per_species"])
        rows = json.loads((workdir / f"predictions-{split}.json").read_text())
        assert {len(row["keypoints"]) for row in rows} == {3 * number}
        assert cv2.imread(str(workdir / f"animals-{split}.png")).std() > 10
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["kind"] == "train"]
    assert losses[-1] < losses[0]


def test_a_run_is_not_continued_on_other_joints(finished, config):
    others = dataclasses.replace(keypoints.AP10K, names=keypoints.AP10K.names[::-1])
    with pytest.raises(errors.UserError, match="a run on other joints"):
        run_directory.open_run(finished[0], config, others)


def test_the_checkpoint_predicts_these_joints_without_the_data_set(own, finished):
    predictor = predict.Predictor.load(finished[0])
    assert predictor.keypoint_set.names == tuple(JOINTS[own[0]])
    if own[0] == "nine":  # compiled once
        (animal,) = predictor(np.zeros((50, 60, 3), np.uint8))
        assert animal.keypoints.shape == (9, 3)


def test_true_keypoints_have_an_ap_of_one_and_others_not(animals, config):
    for shift, low, high in ((0.0, 0.999, 1), (config.data.image_size / 2, 0, 0.1)):
        rows = evaluate.predict(Oracle(animals, config, shift), {}, animals, config, name="test")
        assert low <= evaluate.score(animals, rows, sigmas="corrected")["AP"] <= high


def test_a_mirrored_crop_has_left_and_right_exchanged(animals):
    still = dataclasses.replace(
        Augmentation(),
        **{"flip_probability": 1, "scale_sigma": 0, "rotation_probability": 0},
        **{"shift_probability": 0, "half_body_probability": 0},
    )
    options = {"batch_size": 1, "epochs": 1, "seed": 0, "image_size": 64}
    plain = {
        int(b["index"][0]): b for b in batches.eval_batches(animals, batch_size=1, image_size=64)
    }
    order = keypoints.mirror_order(animals.keypoint_set.pairs, len(animals.keypoint_set))
    assert (order != np.arange(len(order))).any()
    for batch in batches.train_batches(animals, augmentation=still, **options):
        before = plain[int(batch["index"][0])]
        np.testing.assert_array_equal(batch["weights"], before["weights"][:, order])
        seen = batch["weights"][0] > 0
        expected = before["keypoints"][0, order][seen] * [-1, 1] + [64, 0]
        np.testing.assert_allclose(batch["keypoints"][0][seen], expected, atol=1e-3)


def test_the_number_of_joints_must_be_that_of_the_data_set(own, config, built, tmp_path):
    wrong = config.copy_and_resolve_references()
    wrong.model.num_keypoints = 17
    number = len(JOINTS[own[0]])
    with pytest.raises(errors.UserError, match=rf"num_keypoints=17: {built[0]} has {number}"):
        run.run(wrong, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("data.species", "our dog,our tapir", "our tapir"),
        ("eval.species", "Felidae,dog", "'dog'"),
        ("eval.sigmas", "paper", "AP-10K's 17 joints"),
    ],
)
def test_what_the_data_set_does_not_have_is_named_before_training(
    config, built, tmp_path, field, value, text
):
    wrong = config.copy_and_resolve_references()
    section, name = field.split(".")
    wrong[section][name] = value
    with pytest.raises(errors.UserError, match=rf"config.{field}=.*{text}"):
        run.run(wrong, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_on_ap10k_lends_its_network_but_for_the_last_layer(config, tmp_path, capsys):
    theirs = config.copy_and_resolve_references()
    theirs.model.num_keypoints = 17
    module = checkpoint.build_module(theirs.to_dict())
    variables = jax.tree.map(lambda x: x + 1, run.initial_variables(theirs, module))
    checkpoint.export(tmp_path / "ap10k", variables, theirs.to_dict())
    ours = config.copy_and_resolve_references()
    ours.init_from = str(tmp_path / "ap10k")
    started = run.initial_variables(ours, checkpoint.build_module(ours.to_dict()))
    fresh = run.initial_variables(config, checkpoint.build_module(config.to_dict()))
    assert "last layer starts anew" in capsys.readouterr().out
    heads = 0
    for path, leaf in jax.tree.leaves_with_path(started):
        source = fresh if path[1].key == "head" else variables
        heads += source is fresh
        expected = source[path[0].key]
        for entry in path[1:]:
            expected = expected[entry.key]
        np.testing.assert_array_equal(leaf, expected)
    assert heads == 2
