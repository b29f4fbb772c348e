"""What the tracks ask of a run: which animals, for how long, from which weights."""

import json
import math

import numpy as np
import pytest

from ap10k_jax import checkpoint, run, run_data, settings
from ap10k_jax import optimizer as optimizers
from ap10k_jax.configs import base, cdtl, cross_dataset, dg_inter, dg_intra, few_label, sl, transfer
from ap10k_jax.data import subsets
from ap10k_jax.data.animals import SPLITS, Animals
from ap10k_jax.runtime import errors
from tfds_ap10k import taxonomy


def rates(config, steps_per_epoch, steps):
    schedule = optimizers.learning_rate(config, steps_per_epoch)
    return [float(schedule(step)) for step in steps]


def test_the_configs_are_in_order():
    for config in (
        *(sl.get_config(), cdtl.get_config(), dg_inter.get_config("Cercopithecidae")),
        *(dg_intra.get_config("king cheetah"), transfer.get_config("zebra,generalization")),
        *(cross_dataset.get_config(), cross_dataset.get_config("ap10k")),
        *(cross_dataset.get_config("animal_pose,midpoint"), few_label.get_config()),
        dg_inter.get_config("Bovidae,images_as_sl"),
    ):
        settings.check(config, device_count=1)


@pytest.mark.parametrize("held_out", ["cow", "dog", "king cheetah"])
def test_within_a_family_all_species_but_one_are_trained_on_and_all_are_tested(held_out):
    config = dg_intra.get_config(held_out)
    family = taxonomy.family_of(held_out)
    seen = settings.names(config.data.species)
    assert set(seen) | {held_out} == set(taxonomy.species_in(family))
    assert held_out not in seen
    assert config.eval.species == family
    assert config.eval.splits == "test"


def images_of(animals):
    return len({animals.annotation(i)["image_id"] for i in range(len(animals))})


@pytest.mark.parametrize(
    "config",
    [dg_intra.get_config("cow"), few_label.get_config("2"), dg_inter.get_config("Bovidae")],
)
def test_few_species_are_shown_for_as_many_images_as_the_whole_split_has(config, synthetic_dir):
    config.data.dir = str(synthetic_dir)
    training = run_data.open_animals(config, "train", config.data.species, {})
    if config.data.labels_per_species:
        chosen = subsets.few_labels(training, images=config.data.labels_per_species, seed=0)
        training = training.of_images({*chosen["labelled"]})
    whole = Animals.open("ap10k/split1", "train", data_dir=synthetic_dir)
    passes = run_data.passes_per_epoch(config, training)
    if config.epochs_of_whole_split:
        assert passes * images_of(training) == pytest.approx(images_of(whole))
        assert passes > 1
    else:
        assert passes == 1
    # so the animals of the two need not be as many
    assert len(whole) / images_of(whole) != len(training) / images_of(training)


def test_a_run_takes_the_steps_of_as_many_images_as_the_whole_split_has(config, tmp_path):
    species = "Bovidae,Canidae,Felidae"
    config.data.species, config.epochs_of_whole_split = species, True
    config.epochs, config.eval.every_epochs, config.eval.splits = 1, 0, "validation"
    config.batch_size, config.drop_remainder = 8, False
    run.run(config, tmp_path / "run")
    training = run_data.open_animals(config, "train", species, {})
    whole = run_data.open_animals(config, "train", "", {})
    passes = round(images_of(whole) / images_of(training))
    assert passes > 1
    (last,) = {saved.step for saved in checkpoint.saved_in(tmp_path / "run")}
    assert last == passes * math.ceil(len(training) / 8)


def test_an_epoch_of_several_passes_moves_all_that_is_counted_in_epochs():
    config = dg_intra.get_config("antelope")
    # split 1: 7,023 images; of Bovidae without antelope 615 images and 1,169 animals
    passes = run_data.epochs_as_passes(config, 7023 / 615)
    assert passes.epochs * 1169 == 2_803_262
    assert passes.eval.every_epochs * 615 == pytest.approx(10 * 7023, rel=0.01)
    assert passes.checkpoint_every_epochs * 615 == pytest.approx(7023, rel=0.1)
    assert config.epochs == 210  # the config that was passed in is as it was
    # the rate falls at the same share of the run
    boundary = round(170 / 210 * passes.epochs) * 20
    before, after = rates(passes, 20, [boundary - 1, boundary + 1])
    assert before == pytest.approx(10 * after)


def test_without_a_size_an_epoch_is_a_pass():
    config = base.get_config()
    assert run_data.passes_per_epoch(config, []) == 1
    assert run_data.epochs_as_passes(config, 1) is config


def test_between_families_training_takes_the_papers_passes():
    config = dg_inter.get_config("Bovidae")
    assert (config.epochs, config.epochs_of_whole_split) == (210, False)
    longer = dg_inter.get_config("Bovidae,images_as_sl")
    assert (longer.epochs, longer.epochs_of_whole_split) == (210, True)
    for arguments in ("Bovidae,as_sl", "Felidae"):
        with pytest.raises(ValueError, match="Bovidae or Cercopithecidae, and perhaps ,images_as"):
            dg_inter.get_config(arguments)


def test_transfer_from_human_pose_warms_up_as_sl_and_then_keeps_its_rate():
    config = cdtl.get_config()
    expected = [1e-7, 1e-4 * (0.001 + 0.999 / 2), 1e-4, 1e-4]
    assert rates(config, 143, [0, 250, 500, 209 * 143]) == pytest.approx(expected)
    assert rates(sl.get_config(), 143, [0, 250, 500])[:3] == pytest.approx(
        [5 * rate for rate in expected[:3]]
    )


def test_transfer_decays_linearly_and_few_shot_is_fixed():
    config = transfer.get_config("deer,transfer")
    expected = [1e-5, 0.5e-5, 1e-5 / 70]
    assert rates(config, 2, [0, 35, 69]) == pytest.approx(expected, rel=1e-4)
    config = transfer.get_config("deer,few_shot")
    assert rates(config, 2, [0, 35, 99]) == pytest.approx([1e-5] * 3)
    assert (config.epochs, config.draw.images, config.draw.shots) == (50, 140, 20)


@pytest.fixture
def every_animal(synthetic_dir):
    return Animals.open("ap10k/split1", "all", data_dir=synthetic_dir)


def test_all_splits_together_are_every_animal_once(synthetic_dir, every_animal):
    splits = [Animals.open("ap10k/split1", s, data_dir=synthetic_dir) for s in SPLITS]
    assert len(every_animal) == sum(map(len, splits))
    wanted = [split[i] for split in splits for i in range(len(split))]
    for i, example in enumerate(wanted):
        found = every_animal[i]
        assert found["bytes"] == example["bytes"]
        np.testing.assert_array_equal(found["keypoints"], example["keypoints"])
    assert every_animal.fingerprint not in [split.fingerprint for split in splits]


def test_images_are_divided_by_the_draw_and_none_is_on_both_sides(every_animal):
    ids = {every_animal.annotation(i)["image_id"] for i in range(len(every_animal))}
    drawn = subsets.draw(every_animal, images=20, seed=1)
    assert len(drawn["train"]) == len(set(drawn["train"])) == 20
    assert set(drawn["train"]) | set(drawn["test"]) == ids
    assert not set(drawn["train"]) & set(drawn["test"])


def test_the_draw_follows_from_ids_and_seed_alone(every_animal):
    class Shuffled:
        def __len__(self):
            return len(every_animal)

        def annotation(self, i):
            return every_animal.annotation(len(every_animal) - 1 - i)

    one = subsets.draw(every_animal, images=20, seed=1)
    assert subsets.draw(Shuffled(), images=20, seed=1) == one
    other = subsets.draw(every_animal, images=20, seed=2)
    assert other["sha256"] != one["sha256"]
    assert other["test"] != one["test"]
    # frozen: another library version must not draw other images unnoticed
    fixed = subsets.draw(Ids(range(1, 11)), images=4, seed=1)
    assert fixed["train"] == FIXED
    assert fixed["sha256"] == FIXED_HASH


class Ids:
    """Animals of these images, one each."""

    def __init__(self, ids):
        self._ids = list(ids)

    def __len__(self):
        return len(self._ids)

    def annotation(self, i):
        return {"image_id": self._ids[i]}


FIXED = [9, 5, 8, 1]
FIXED_HASH = "68976b176749c6a9904cc5ed3291e63161cf72d226f836fe8fcc43f3b7ff2300"


def test_a_draw_that_leaves_nothing_to_test_on_is_refused(every_animal, config, tmp_path):
    with pytest.raises(ValueError, match="leaves none to test on"):
        subsets.draw(Ids(range(5)), images=5, seed=0)
    config.draw.images = 140
    with pytest.raises(errors.UserError, match=r"config.draw.images=140: 48 images"):
        run.run(config, tmp_path / "run")


def test_a_run_trains_on_the_drawn_images_and_tests_on_the_others(config, tmp_path):
    config.draw.images, config.draw.shots, config.draw.seed = 30, 20, 2
    config.eval.splits, config.eval.every_epochs = "test", 0
    run.run(config, tmp_path / "run")
    drawn = json.loads((tmp_path / "run" / "draw.json").read_text())
    assert len(drawn["train"]) == 20
    assert len(drawn["test"]) == 18
    scored = json.loads((tmp_path / "run" / "predictions-test.json").read_text())
    assert {row["image_id"] for row in scored} == set(drawn["test"])
    (start,) = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert start["animals"]["train"] == start["animals"]["validation"] < 40
    # only the last weights were scored, and they are the ones that count
    assert len(checkpoint.saved_in(tmp_path / "run")) == 1

    # few-shot has the images of transfer, and is tested on the same
    every = run_data.draw_images(changed(config, shots=0), tmp_path)
    assert every["train"][:20] == drawn["train"]
    assert (every["test"], every["sha256"]) == (drawn["test"], drawn["sha256"])

    (tmp_path / "run" / "draw.json").write_text(json.dumps(drawn | {"test": [1]}))
    with pytest.raises(errors.UserError, match="names other images"):
        run.run(config, tmp_path / "run")


def changed(config, **draw):
    config = config.copy_and_resolve_references()
    config.draw.update(draw)
    return config


def test_without_epochs_the_initial_weights_are_scored_as_they_are(config, tmp_path):
    run.run(config, tmp_path / "trained")
    alone = config.copy_and_resolve_references()
    alone.epochs, alone.init_from = 0, str(tmp_path / "trained")
    run.run(alone, tmp_path / "alone")
    trained, scored = (
        json.loads((tmp_path / name / "results.json").read_text()) for name in ("trained", "alone")
    )
    assert scored.pop("step") == 0
    del trained["step"]
    assert scored == trained
    assert not (tmp_path / "alone" / "checkpoints").exists()


def test_a_run_that_has_not_ended_is_no_start_for_another(config, tmp_path):
    run.run(config, tmp_path / "run")
    (tmp_path / "run" / "results.json").unlink()
    config.init_from = str(tmp_path / "run")
    with pytest.raises(errors.UserError, match=r"not been trained to its end.*checkpoints/<step>"):
        run.run(config, tmp_path / "next")
    step = checkpoint.saved_in(tmp_path / "run")[-1].step
    config.init_from, config.epochs = str(tmp_path / "run" / "checkpoints" / str(step)), 0
    run.run(config, tmp_path / "next")


def test_results_say_how_sure_they_are(config, tmp_path):
    config.epochs = 0
    found = run.run(config, tmp_path / "run")["test"]
    assert set(found["AP_by_sigmas"]) == {"corrected", "paper"}
    assert found["AP_by_sigmas"]["corrected"] == found["AP"]
    assert set(found["intervals"]) == {"AP", "instance_AP", "per_species", "per_family"}
    assert set(found["intervals"]["per_species"]) == set(found["per_species"])


@pytest.mark.parametrize(
    ("config_filename", "name"),
    [
        ("configs/sl.py", "sl"),
        ("configs/transfer.py:deer,few_shot", "transfer-deer-few_shot"),
        ("/a/b.c/dg_intra.py:king cheetah", "dg_intra-king-cheetah"),
    ],
)
def test_runs_of_different_cells_have_different_directories(config_filename, name):
    assert settings.run_name(config_filename) == name
