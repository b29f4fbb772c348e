"""Every slip that has made, in public, a number of this benchmark wrong without a word.

Each test plants one and sees it caught: refused, or said so loudly that no reader of the results or
of the report can miss it. Facts: the protocol's section on the metric; what each slip did to AP.
"""

import copy
import json

import commands
import lively
import numpy as np
import pytest
import safetensors.numpy
import tiny_ap10k
from test_paper_report import made_up

from ap10k_jax import (
    checkpoint,
    evaluate,
    initial_weights,
    keypoints,
    metrics,
    run,
    run_data,
    run_directory,
)
from ap10k_jax.convert import __main__ as convert_command
from ap10k_jax.convert import torch_names
from ap10k_jax.data import batches
from ap10k_jax.data.animals import Animals
from ap10k_jax.predict import predictor
from ap10k_jax.reproduce import paper_report, plan, results, tables
from tfds_ap10k import annotations, build, oddities


def truth_and_rows():
    """Five animals of two species, each predicted where it is."""
    coco = tiny_ap10k.contents()["train"]
    rng = np.random.default_rng(0)
    rows = []
    for i, animal in enumerate(coco["annotations"]):
        points = np.column_stack([rng.uniform(2, 20, (17, 2)), np.full(17, 2)])
        animal |= {"keypoints": points.ravel().tolist(), "num_keypoints": 17, "area": 205.0}
        animal |= {"bbox": [2, 3, 20.5, 10]}
        rows.append({name: animal[name] for name in ("id", "image_id", "category_id")})
        points[:, 2] = 0.9 - 0.1 * i
        rows[-1]["keypoints"] = points
    return coco, rows


# Predictions without their species: a good model's AP became 0.05.


def test_predictions_without_a_category_are_refused():
    coco, rows = truth_and_rows()
    bare = [{k: v for k, v in row.items() if k != "category_id"} for row in rows]
    with pytest.raises(ValueError, match="without category_id"):
        metrics.evaluate(coco, bare)


def test_predictions_of_one_category_are_warned_of_and_counted():
    coco, rows = truth_and_rows()
    assert metrics.evaluate(coco, rows)["num_wrong_category"] == 0
    alike = [row | {"category_id": 8} for row in rows]
    with pytest.warns(UserWarning, match="2 of 4 predictions have another category"):
        result = metrics.evaluate(coco, alike)
    assert result["num_wrong_category"] == 2


def test_our_own_evaluation_refuses_a_species_that_changed(animals):
    rows = [row_of(animals, i) for i in range(len(animals))]
    evaluate.score(animals, rows, sigmas="corrected")
    first = rows[0]["category_id"]
    other = next(row["category_id"] for row in rows if row["category_id"] != first)
    with (
        pytest.warns(UserWarning, match="another category"),
        pytest.raises(RuntimeError, match="have another species"),
    ):
        evaluate.score(animals, [rows[0] | {"category_id": other}, *rows[1:]], sigmas="corrected")


# Sigmas of another vector: the same model is 0.738 with one and 0.722 with the other.


@pytest.mark.parametrize("name", ["paper", "corrected"])
def test_results_name_their_sigmas(name):
    assert metrics.evaluate(*truth_and_rows(), sigmas=name)["sigmas"] == name


def test_a_report_says_that_it_mixes_sigmas(tmp_path):
    assert "NOT COMPARABLE" not in text_of(tmp_path, ["paper"] * 3)
    text = text_of(tmp_path, ["paper", "corrected", "paper"])
    assert "NOT COMPARABLE with each other: OKS sigmas “paper” in 2 runs, “corrected” in 1" in text


# Areas scaled by 0.53, as for data sets that have none: AP falls by several points.


def test_scaled_areas_are_in_the_builders_report_and_in_the_results(tmp_path, animals):
    files = tiny_ap10k.contents()
    coco = copy.deepcopy(files)
    for part in coco.values():
        for animal in part["annotations"]:
            animal["area"] *= 0.53
    said = oddities.describe(oddities.count(coco))
    assert "areas not of the box: 7" in said
    assert "areas scaled by: 1 (0.53)" in said
    assert "areas" not in oddities.describe(oddities.count(files))
    coco["test"]["annotations"][0]["area"] *= 2  # not all by one factor
    said = oddities.describe(oddities.count(coco))
    assert "areas not of the box: 7" in said
    assert "scaled" not in said

    rows = [row_of(animals, i) for i in range(len(animals))]
    assert evaluate.full_score(animals, rows, sigmas="paper")["area_over_box"] == 1
    shrunk = Scaled(animals, 0.53)
    assert evaluate.full_score(shrunk, rows, sigmas="paper")["area_over_box"] == 0.53


def test_scaled_areas_are_in_the_report_and_in_what_is_printed(tmp_path):
    text = text_of(tmp_path, ["paper"] * 3, area_over_box=0.53)
    assert "NOT COMPARABLE with AP-10K's areas: 0.53 of the boxes' in" in text
    found = made_up(())
    found["test"] = found["test"] | {"area_over_box": 0.53}
    printed = run.summary(found, ("validation", "test"))
    assert "test: areas are 0.53 of the boxes' in the median" in printed
    assert "validation: areas" not in printed


# Validation taken for test, or test trained on.


def test_val_copied_to_test_is_refused_by_the_builder(tmp_path):
    files = tiny_ap10k.contents()
    root = tiny_ap10k.write(tmp_path / "ap-10k", files | {"test": files["val"]})
    with pytest.raises(annotations.AnnotationError, match=r"is also in ap10k-val-split1\.json"):
        build.build("split1", root, tmp_path / "built")


def test_photographs_that_are_in_two_splits_to_the_byte_are_in_every_report(tmp_path):
    """Renamed copies, with ids of their own: only the bytes tell."""
    root = tiny_ap10k.write(tmp_path / "ap-10k")
    photo = root / "data/000000000004.jpg"  # of train
    (root / "data/000000000007.jpg").write_bytes(photo.read_bytes())  # of test
    (root / "data/000000000003.jpg").write_bytes(photo.read_bytes())  # of train too
    builder = build.build("split1", root, tmp_path / "built")
    found = builder.info.metadata["report"]
    said = "000000000007.jpg in test is 000000000004.jpg in train"
    assert found["photographs_in_two_splits"] == [said]
    assert found["identical_photographs"] == [
        "000000000003.jpg in train is 000000000004.jpg in train"
    ]
    assert said in oddities.describe(found)
    animals = Animals.open("ap10k/split1", "train", data_dir=tmp_path / "built")
    run_directory.write_environment(tmp_path, {"train": animals}, report=found)
    (start,) = json.loads((tmp_path / "environment.json").read_text())
    assert start["photographs_in_two_splits"] == [said]
    text = text_of(tmp_path, ["paper"], photographs_in_two_splits=[said])
    assert "TRAINED ON AND TESTED ON, to the byte: 1 photographs are in two splits" in text
    assert said in text


def test_a_run_refuses_photographs_that_it_is_tested_on(animals, synthetic_dir):
    training = Animals.open("ap10k/split1", "train", data_dir=synthetic_dir)
    run_data.check_unseen(training, {"test": animals})
    with pytest.raises(ValueError, match=r"photographs of test are trained on, such as \w+\.jpg"):
        run_data.check_unseen(training, {"test": training})


def test_environment_tells_the_splits_apart(animals, synthetic_dir, tmp_path):
    """Who reports val as test is found out by the fingerprints."""
    validation = Animals.open("ap10k/split1", "validation", data_dir=synthetic_dir)
    run_directory.write_environment(tmp_path, {"validation": validation, "test": animals})
    (start,) = json.loads((tmp_path / "environment.json").read_text())
    prints = start["fingerprints"]
    assert prints["validation"] != prints["test"]
    assert prints["test"] == animals.fingerprint


# Weights that filled nothing.


def nano_state():
    return torch_names.to_torch(lively.variables(), "nano")


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (lambda name: False, "absent: backbone"),  # nothing at all
        (lambda name: name.startswith("head."), "absent: backbone"),  # the head only
        (lambda name: "bn1" not in name, "absent: backbone.bn1"),  # all but a layer
    ],
)
def test_weights_that_leave_the_backbone_unfilled_are_refused(nano, tmp_path, kept, said):
    state = {name: array for name, array in nano_state().items() if kept(name)}
    path = tmp_path / "net.safetensors"
    safetensors.numpy.save_file(state, path)
    with pytest.raises(ValueError, match=said):
        initial_weights.load(path, nano)


def test_weights_under_names_of_another_network_are_refused(nano, tmp_path):
    """As with strict=False, which fills what it can and stays silent of the rest."""
    state = {f"encoder.{name}": array for name, array in nano_state().items()}
    safetensors.numpy.save_file(state, tmp_path / "net.safetensors")
    with pytest.raises(ValueError, match=r"(?s)unknown: encoder\..*absent|do not fit"):
        initial_weights.load(tmp_path / "net.safetensors", nano)


# A network of 17 joints that are a person's.


def human(folder):
    joints = {"keypoints": keypoints.as_category(keypoints.COCO_PERSON)}
    checkpoint.export(folder, lively.variables(), lively.CONFIG | joints)
    return str(folder)


def test_a_network_of_human_joints_is_not_scored_on_animals(config, tmp_path):
    config.init_from, config.epochs = human(tmp_path / "human"), 0
    with pytest.raises(ValueError, match=r"finds 17 other joints, as '\w+', than ap10k/split1 has"):
        run_data.check_joints(config, keypoints.AP10K)
    run_data.check_joints(config, keypoints.COCO_PERSON)
    config.init_from = "coco"
    with pytest.raises(ValueError, match="its numbers mean nothing"):
        run_data.check_joints(config, keypoints.AP10K)


def test_a_network_of_human_joints_may_be_trained_on_and_it_is_said(config, tmp_path, capsys):
    config.init_from = human(tmp_path / "human")
    run_data.check_joints(config, keypoints.AP10K)
    assert "its last layer has to learn them anew" in capsys.readouterr().out


def test_converted_coco_weights_keep_their_joints(nano, tmp_path, monkeypatch, capsys):
    path = tmp_path / "net.safetensors"
    safetensors.numpy.save_file(nano_state(), path)
    monkeypatch.setattr(initial_weights, "public_url", lambda *_: "")
    monkeypatch.setattr(initial_weights, "fetch", lambda _: path)
    for source, joints in (("coco", keypoints.COCO_PERSON), ("ap10k", keypoints.AP10K)):
        arguments = ["convert", source, str(tmp_path / source), f"--model={nano}"]
        monkeypatch.setattr("sys.argv", arguments)
        assert commands.status(convert_command.main) == 0
        assert predictor.keypoint_set(checkpoint.config_of(tmp_path / source)) == joints
    assert "joints: coco_person" in capsys.readouterr().out


# An evaluation that lost an animal.


@pytest.fixture(scope="module")
def animals(synthetic_dir):
    return Animals.open("ap10k/split1", "test", data_dir=synthetic_dir)


def row_of(animals, index):
    """A perfect prediction of an animal."""
    record = animals.annotation(index)
    points = np.reshape(np.array(record["keypoints"], float), (-1, 3))
    points[:, 2] = 0.9
    return evaluate.row(record, points)


class Scaled:
    """Animals whose areas are scaled by a factor."""

    def __init__(self, animals, factor):
        truth = animals.ground_truth()
        scaled = [a | {"area": factor * a["area"]} for a in truth["annotations"]]
        self.keypoint_set, self._truth = animals.keypoint_set, truth | {"annotations": scaled}

    def ground_truth(self):
        return self._truth


def test_an_animal_that_is_lost_is_counted_and_refused(animals):
    rows = [row_of(animals, i) for i in range(len(animals))]
    assert metrics.evaluate(animals.ground_truth(), rows[1:])["num_missing"] == 1
    with pytest.raises(RuntimeError, match="1 animals were lost"):
        evaluate.score(animals, rows[1:], sigmas="corrected")


def test_a_batch_that_is_lost_on_the_way_is_refused(animals, config, monkeypatch):
    whole = batches.eval_batches

    def lossy(*args, **options):
        return list(whole(*args, **options))[:-1]

    def step(variables, images):
        return np.zeros((len(images), 17, 3), np.float32)

    config.eval.batch_size = 8  # one for each device
    assert len(evaluate.predict(step, {}, animals, config, name="test")) == len(animals)
    monkeypatch.setattr(batches, "eval_batches", lossy)
    with pytest.raises(RuntimeError, match=rf"test: \d+ predictions for {len(animals)} animals"):
        evaluate.predict(step, {}, animals, config, name="test")


# Reports of made-up runs.


def text_of(folder, sigmas, *, area_over_box=1.0, photographs_in_two_splits=()):
    """The Markdown report of Table 3's runs with these sigma vectors."""
    numbers = tables.numbers(3)[: len(sigmas)]
    cells = tables.cells(numbers)[: len(sigmas)]
    steps = plan.make(cells, ("data.dir=none",), folder / "runs")
    runs = []
    for step, name in zip(steps, sigmas, strict=True):
        found = made_up(()) | {"sigmas": name}
        found["validation"]["area_over_box"] = area_over_box
        start = {"photographs_in_two_splits": list(photographs_in_two_splits)}
        runs.append(
            results.Run(
                *(step.cell.name, plan.FINISHED, "", json.loads(step.config.to_json()), ()),
                *(found, [start], {}, []),
            )
        )
    return "\n".join(part.text for part in paper_report.doubts(runs))
