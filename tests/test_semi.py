"""What the teacher says is taken on, averaged and learnt from, and hidden truth is not."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ap10k_jax import (
    checkpoint,
    codec,
    evaluate,
    inference,
    keypoints,
    metrics,
    models,
    run,
    run_data,
    run_log,
    semi,
    settings,
)
from ap10k_jax.configs import few_label
from ap10k_jax.configs import semi as semi_config
from ap10k_jax.data import subsets
from ap10k_jax.data.animals import Animals
from ap10k_jax.runtime import errors, sharding

PAIRS = keypoints.AP10K.pairs


class Seen:
    """A network whose heatmaps, for the crops and then for their mirror images, are given."""

    def apply(self, variables, images, *, train):
        assert not train
        assert len(images) == 2 * len(variables["plain"])
        return jnp.concatenate([variables["plain"], variables["mirrored"]])


def maps(points, peak=1.0):
    """Heatmaps (1, 16, 16, 17) with one Gaussian a joint, of this height."""
    return peak * codec.encode(points, np.ones((1, 17)), size=(16, 16), stride=4)[0]


def mirrored(points):
    """Keypoints of a crop of 64 pixels as the network sees them in its mirror image."""
    turned = points * [-1, 1] + [63, 0]
    return turned[:, keypoints.mirror_order(PAIRS, 17)]


@pytest.mark.parametrize(
    ("peak", "shift", "height"),
    [
        (1.0, 0.0, 1.0),
        (0.55, 0.0, 0.55),
        (1.3, 0.0, 1.0),  # no higher than a label's
        (0.45, 0.0, 0.0),  # not confident
        (1.0, 8.0, 0.0),  # the mirror image shows it elsewhere; the mean is still .5 or more
        (1.0, 4.0, 0.94),  # two Gaussians, a cell apart
    ],
)
def test_a_joint_is_accepted_if_it_is_sure_and_its_mirror_image_agrees(peak, shift, height):
    rng = np.random.default_rng(0)
    points = rng.integers(3, 13, (1, 17, 2)) * 4.0
    moved = points.copy()
    moved[:, 3, 0] += shift
    heights = np.ones(17)
    heights[3] = peak
    variables = {
        "plain": maps(points, heights),
        "mirrored": maps(mirrored(moved), heights[keypoints.mirror_order(PAIRS, 17)]),
    }
    found, seen = semi.pseudo_labels(
        variables,
        np.zeros((1, 64, 64, 3), np.uint8),
        module=Seen(),
        pairs=PAIRS,
        confidence=0.5,
        agreement=6.5 / 64,
    )
    assert seen[0, 3] == pytest.approx(height, abs=0.005)
    others = np.delete(np.arange(17), 3)
    np.testing.assert_allclose(seen[0, others], 1, atol=0.005)
    np.testing.assert_allclose(found[0, others], points[0, others], atol=2.1)


def test_joints_go_to_the_strong_view_with_their_names():
    points = np.arange(34, dtype=np.float32).reshape(1, 17, 2).repeat(2, axis=0)
    heights = np.zeros((2, 17), np.float32)
    heights[:, 5] = 0.7  # left shoulder
    matrix = np.array([[[2, 0, 1], [0, 3, -1]], [[-1, 0, 63], [0, 1, 0]]], np.float32)
    moved, taken = semi.to_strong(points, heights, matrix, np.array([False, True]), pairs=PAIRS)
    np.testing.assert_allclose(moved[0], points[0] * [2, 3] + [1, -1])
    assert taken[0].nonzero()[0].tolist() == [5]
    assert taken[1].nonzero()[0].tolist() == [8]  # right shoulder
    assert taken[0, 5] == taken[1, 8] == np.float32(0.7)
    np.testing.assert_allclose(moved[1, 8], [63 - points[1, 5, 0], points[1, 5, 1]])


def test_the_teacher_is_a_running_average_that_forgets_its_start():
    decays = [float(semi.ema_decay(step, decay=0.99)) for step in (0, 10, 890, 891, 5000)]
    assert decays == pytest.approx([0.1, 11 / 20, 891 / 900, 0.99, 0.99])
    teacher, student = {"a": jnp.array([1.0, 2.0])}, {"a": jnp.array([3.0, 2.0])}
    np.testing.assert_allclose(semi.averaged(teacher, student, 0.75)["a"], [1.5, 2.0])


def test_the_weight_of_pseudo_labels_grows():
    weights = [float(semi.ramp_up(s, weight=2.0, steps=100)) for s in (0, 50, 100, 1000)]
    assert weights == pytest.approx([2 * np.exp(-5), 2 * np.exp(-1.25), 2, 2])
    assert semi.ramp_up(0, weight=2.0, steps=0) == 2.0


def test_quality_is_that_of_pck_and_oks():
    rng = np.random.default_rng(1)
    truth = rng.uniform(0, 64, (5, 17, 2)).astype(np.float32)
    points = truth + rng.normal(0, 4, truth.shape).astype(np.float32)
    known = rng.random((5, 17)) < 0.7
    known[4] = False  # nobody labelled the last
    accepted = rng.random((5, 17)) < 0.5
    area = rng.uniform(900, 2500, 5).astype(np.float32)
    unlabelled = {"truth": truth, "truth_weights": known.astype(np.float32), "area": area}
    sigmas = keypoints.AP10K.sigmas
    found = semi.quality(points, accepted, unlabelled, sigmas=sigmas)
    found = {name: run_log.mean([value]) for name, value in found.items()}
    right = np.linalg.norm(points - truth, axis=-1) <= semi.PCK * np.sqrt(area)[:, None]
    joint = np.eye(17, dtype=bool)
    similarity = np.array(
        [
            [metrics.oks(truth[i], points[i], area[i], sigmas=sigmas, visible=j) for j in joint]
            for i in range(5)
        ]
    )
    both = accepted & known
    assert found["pseudo_accepted"] == pytest.approx(accepted.mean())
    assert found["pseudo_pck"] == pytest.approx(right[both].mean())
    assert found["pseudo_oks"] == pytest.approx(similarity[both].mean(), rel=1e-5)
    assert found["pseudo_pck_of_all"] == pytest.approx(right[known].mean())
    assert found["pseudo_unseen"] == pytest.approx((~known[:4])[accepted[:4]].mean())
    # the share of no joint at all is no number
    nothing = semi.quality(points, np.zeros_like(accepted), unlabelled, sigmas=sigmas)
    assert np.isnan(run_log.mean([nothing["pseudo_pck"]] * 2))


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    crops = {name: rng.integers(0, 256, (8, 64, 64, 3), dtype=np.uint8) for name in "abc"}
    still = np.tile(np.array([[1, 0, 0], [0, 1, 0]], np.float32), (8, 1, 1))
    return {
        "image": crops["a"],
        "keypoints": rng.uniform(0, 64, (8, 17, 2)).astype(np.float32),
        "weights": np.ones((8, 17), np.float32),
        "unlabeled": {
            "weak": crops["b"],
            "strong": crops["c"],
            "to_strong": still,
            "exchanged": np.zeros(8, bool),
            "truth": rng.uniform(0, 64, (8, 17, 2)).astype(np.float32),
            "truth_weights": np.ones((8, 17), np.float32),
            "area": np.full(8, 1000, np.float32),
        },
    }


@pytest.fixture(scope="module")
def take_step(nano):
    """A function: (batch, settings) -> states before and after a step, and its numbers."""
    module, optimizer = models.build(nano), optax.sgd(0.1)
    variables = models.init(module, jax.random.key(0), image_size=(64, 64))
    state = semi.init_state(variables, optimizer)
    state = state.replace(
        step=jnp.int32(5),
        teacher=jax.tree.map(lambda leaf: leaf + 0.01 * jnp.sin(1 + leaf), state.teacher),
    )
    compiled = {}

    def take(batch, **changes):
        settings = semi_config.get_config("5,quickstart").semi
        # an untrained teacher: take all that it says
        settings.confidence, settings.agreement, settings.ramp_up_steps = 0.0, 10.0, 0
        settings.update(changes)
        key = json.dumps(changes)
        if key not in compiled:
            compiled[key] = jax.jit(
                lambda state, batch: semi.semi_step(
                    state, batch, module=module, optimizer=optimizer, settings=settings
                )
            )
        return state, *compiled[key](state, batch)

    return take


def equal(a, b):
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))


def test_hidden_truth_measures_and_teaches_nothing(take_step, batch):
    other = batch["unlabeled"] | {
        "truth": batch["unlabeled"]["truth"][::-1] + 3,
        "truth_weights": 1 - np.tri(8, 17, dtype=np.float32),
        "area": batch["unlabeled"]["area"] * 2,
    }
    _, a, numbers_a = take_step(batch)
    _, b, numbers_b = take_step(batch | {"unlabeled": other})
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert numbers_a["loss"] == numbers_b["loss"]
    assert not np.array_equal(numbers_a["pseudo_pck"], numbers_b["pseudo_pck"])


def test_a_step_learns_from_both_and_the_teacher_follows(take_step, batch):
    before, after, numbers = take_step(batch)
    assert after.step == before.step + 1
    both = float(numbers["loss_on_labels"]) + float(numbers["loss_on_pseudo_labels"])
    assert float(numbers["loss"]) == pytest.approx(both, rel=1e-6)
    # the strong view's pixels, and where the teacher points to in it, count
    moved = batch["unlabeled"]["to_strong"] + np.array([[0, 0, 8], [0, 0, 0]], np.float32)
    elsewhere = batch | {"unlabeled": batch["unlabeled"] | {"to_strong": moved}}
    assert not equal(take_step(elsewhere)[1].params, after.params)
    decay = 6 / 15
    student = {"params": after.params, "batch_stats": after.batch_stats}
    jax.tree.map(
        lambda old, new, got: np.testing.assert_allclose(
            got, decay * old + (1 - decay) * new, rtol=1e-5, atol=1e-7
        ),
        *(before.teacher, student, after.teacher),
    )


def test_without_weight_only_the_labels_teach(take_step, batch):
    moved = batch["unlabeled"]["to_strong"] + np.array([[0, 0, 8], [0, 0, 0]], np.float32)
    elsewhere = batch | {"unlabeled": batch["unlabeled"] | {"to_strong": moved}}
    _, a, numbers = take_step(batch, weight=0.0)
    assert equal(take_step(elsewhere, weight=0.0)[1].params, a.params)
    assert numbers["loss"] == numbers["loss_on_labels"]


def test_targets_are_as_high_as_the_teachers_peaks(monkeypatch, take_step, batch):
    points = np.tile(np.arange(17, dtype=np.float32)[:, None] * 3 + 4, (8, 1, 2))
    heights = np.tile(np.linspace(0, 0.9, 17, dtype=np.float32), (8, 1))
    monkeypatch.setattr(semi, "pseudo_labels", lambda *_, **__: (points, heights))
    plain, _ = codec.encode(points, heights > 0, size=(16, 16), stride=4)
    labels, _ = codec.encode(batch["keypoints"], batch["weights"], size=(16, 16), stride=4)
    wanted = iter([(labels, batch["weights"]), (plain * heights[:, None, None], heights > 0)])

    def differs(predicted, target, weights):
        expected = next(wanted)
        return (
            jnp.abs(target - expected[0]).max()
            + jnp.abs(weights - expected[1]).max()
            + 0 * predicted.mean()
        )

    monkeypatch.setattr(semi.losses, "heatmap_mse", differs)
    _, _, numbers = take_step(batch, weight=0.5)
    assert numbers["loss_on_labels"] == 0
    assert numbers["loss_on_pseudo_labels"] < 1e-6


def test_joints_that_are_not_accepted_teach_nothing(take_step, batch):
    nothing = {"confidence": 1e9}
    _, after, numbers = take_step(batch, **nothing)
    assert numbers["loss_on_pseudo_labels"] == 0
    assert numbers["pseudo_accepted"][0] == 0
    assert not equal(after.params, take_step(batch)[1].params)


@pytest.fixture
def semi_run(config):
    config.data.labels_per_species = 1
    config.semi.batch_size = 8
    config.semi.ramp_up_steps = 0
    config.semi.confidence = 0.0
    config.semi.agreement = 10.0
    config.batch_size = 8
    config.eval.splits = "validation"
    return config


class Killed(BaseException):
    """Stands for a kill: nobody catches it."""


def test_a_run_is_scored_by_its_teacher_and_a_killed_one_goes_on_to_the_bit(
    semi_run, tmp_path, monkeypatch
):
    run.run(semi_run, tmp_path / "whole")
    with monkeypatch.context() as patch:
        close, calls = run_log.Window.close, iter(range(100))

        def killed(window):
            if next(calls) == 1:  # in the second epoch
                raise Killed
            return close(window)

        patch.setattr(run_log.Window, "close", killed)
        with pytest.raises(Killed):
            run.run(semi_run, tmp_path / "run")
    assert len(checkpoint.saved_in(tmp_path / "run")) == 1
    run.run(semi_run, tmp_path / "run")

    parts = []
    for name in ("whole", "run"):
        step = checkpoint.saved_in(tmp_path / name)[-1].step
        folder = tmp_path / name / "checkpoints" / str(step)
        parts.append(
            {
                part: checkpoint.ocp.load(folder, checkpointable_name=part)
                for part in ("variables", "student", "optimizer")
            }
        )
        assert (tmp_path / name / "pseudo_labels.png").stat().st_size > 5000
    jax.tree.map(np.testing.assert_array_equal, *parts)
    # the teacher is neither the student nor the start
    assert not equal(parts[0]["variables"], parts[0]["student"])
    results = [(tmp_path / name / "results.json").read_text() for name in ("whole", "run")]
    assert results[0] == results[1]

    module, variables, _ = checkpoint.load(tmp_path / "whole")
    best = checkpoint.best(checkpoint.saved_in(tmp_path / "whole")).step
    stored = tmp_path / "whole" / "checkpoints" / str(best)
    teacher = checkpoint.ocp.load(stored, checkpointable_name="variables")
    jax.tree.map(np.testing.assert_array_equal, variables, teacher)
    animals = Animals.open("ap10k/split1", "validation", data_dir=semi_run.data.dir)
    step = inference.make_predict_step(module, sharding.shardings())
    rows = evaluate.predict(step, variables, animals, semi_run, name="validation")
    scores = evaluate.score(animals, rows, sigmas="corrected")
    assert scores["AP"] == pytest.approx(json.loads(results[0])["validation"]["AP"], abs=1e-6)


def test_few_labels_are_written_down_and_hide_the_rest(semi_run, tmp_path):
    training = run_data.open_animals(semi_run, "train", "", {})
    labelled, hidden = run_data.few_labels(semi_run, tmp_path, training)
    chosen = json.loads((tmp_path / "labels.json").read_text())
    assert len(labelled) + len(hidden) == len(training)
    images = [{a.annotation(i)["image_id"] for i in range(len(a))} for a in (labelled, hidden)]
    assert images == [set(chosen["labelled"]), set(chosen["hidden"])]
    assert not images[0] & images[1]
    species = {a["category_id"] for a in training.ground_truth()["annotations"]}
    assert len(images[0]) == len(species)
    semi_run.seed = 1
    other = subsets.few_labels(training, images=1, seed=1)
    assert other["labelled"] != chosen["labelled"]
    with pytest.raises(errors.UserError, match="names other images"):
        run_data.few_labels(semi_run, tmp_path, training)
    semi_run.data.labels_per_species = 1000
    with pytest.raises(errors.UserError, match="labels_per_species=1000: no species has more"):
        run_data.few_labels(semi_run, tmp_path / "new", training)


def test_without_animals_without_labels_there_is_nothing_to_do(config, tmp_path):
    config.semi.batch_size = 8
    with pytest.raises(errors.UserError, match=r"semi.batch_size=8: .* no animals without labels"):
        run.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("semi.batch_size", 12, "number of devices, 8"),
        ("semi.weight", -1.0, "at least 0"),
        ("semi.weight", float("nan"), "at least 0"),
        ("semi.confidence", -0.5, "at least 0"),
        ("semi.ema_decay", 1.0, "at most 0.999999"),
        ("semi.agreement", 0.0, "at least 1e-06"),
        ("semi.ramp_up_steps", -1, "at least 0"),
        ("data.labels_per_species", -5, "at least 0"),
        ("draw.images", 140, "config.draw.images chooses"),
        ("batch_parts", 2, "1 where config.semi.batch_size is set"),
        ("model.remat", True, "False where config.semi.batch_size is set"),
        ("data.input", "device", "not device where config.semi.batch_size is set"),
    ],
)
def test_a_value_that_cannot_work_is_named(field, value, message):
    config = semi_config.get_config("5")
    *section, name = field.split(".")
    (config[section[0]] if section else config)[name] = value
    with pytest.raises(errors.UserError) as error:
        settings.check(config, device_count=8)
    assert message in str(error.value)


def test_the_configs_are_in_order():
    for arguments in ("5", "25,quickstart"):
        for module in (few_label, semi_config):
            config = module.get_config(arguments)
            settings.check(config, device_count=8)
            assert config.data.labels_per_species == int(arguments.partition(",")[0])
            assert bool(config.semi.batch_size) == (module is semi_config)
    assert semi_config.get_config("all").data.labels_per_species == 0
    with pytest.raises(ValueError, match="a number of photographs"):
        few_label.get_config("5,slowstart")
