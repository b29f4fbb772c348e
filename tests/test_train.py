"""A step is the same on any number of devices, a run the same however often it was stopped."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from ap10k_jax import (
    checkpoint,
    inference,
    models,
    run,
    run_log,
    settings,
    train,
    train_loop,
)
from ap10k_jax import optimizer as optimizers
from ap10k_jax.configs import base, cdtl
from ap10k_jax.runtime import sharding

TIMES = {"images_per_second", "waiting_for_data"}


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (16, 64, 64, 3), dtype=np.uint8),
        "keypoints": rng.uniform(0, 64, (16, 17, 2)).astype(np.float32),
        "weights": (rng.random((16, 17)) < 0.8).astype(np.float32),
    }


@pytest.fixture(scope="module")
def setup(nano):
    module, optimizer = models.build(nano), optax.adam(1e-3)
    variables = models.init(module, jax.random.key(0), image_size=(64, 64))
    return module, optimizer, variables


def steps(setup, batch, shardings, count):
    module, optimizer, variables = setup
    state = train.copy_to_devices(train.init_state(variables, optimizer), shardings)
    step = train.make_train_step(module, optimizer, shardings)
    numbers = []
    for _ in range(count):
        state, values = step(state, batch)
        numbers.append(jax.device_get(values))
    return jax.device_get(state), numbers


def test_there_are_eight_devices():
    assert jax.device_count() == 8


def test_one_and_eight_devices_take_the_same_steps(setup, batch, one_device):
    alone, numbers_alone = steps(setup, batch, one_device, 2)
    shared, numbers_shared = steps(setup, batch, sharding.shardings(), 2)
    # Adam's first steps are +-lr per weight whatever the gradient's size: where a gradient is all
    # rounding they may differ by that much, so the statistics and the loss are compared tightly and
    # the parameters by their distance.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        alone.batch_stats,
        shared.batch_stats,
    )
    moved = optax.tree.norm(jax.tree.map(jnp.subtract, alone.params, setup[2]["params"]))
    apart = optax.tree.norm(jax.tree.map(jnp.subtract, alone.params, shared.params))
    assert apart < 0.01 * moved
    # so the second loss is of slightly other parameters
    for a, b, within in zip(numbers_alone, numbers_shared, (1e-6, 1e-4), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=within)


def test_statistics_are_of_the_whole_batch_and_not_of_a_devices_share(setup, batch):
    # the second half is much brighter: per-device statistics would differ from the batch's
    uneven = batch | {"image": batch["image"].copy()}
    uneven["image"][8:] = 255 - uneven["image"][8:] // 8
    module, _, variables = setup
    state, _ = steps(setup, uneven, sharding.shardings(), 1)
    _, whole = module.apply(
        variables, inference.normalize(uneven["image"]), train=True, mutable=["batch_stats"]
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        state.batch_stats,
        whole["batch_stats"],
    )


def test_a_batch_can_be_learnt_by_heart(setup, batch, one_device):
    module, _, variables = setup
    _, numbers = steps((module, optax.adam(1e-2), variables), batch, one_device, 60)
    assert numbers[-1]["loss"] < 0.7 * numbers[5]["loss"]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16])
def test_one_compiled_step_serves_every_rate(setup, batch, one_device, dtype):
    module, _, variables = setup
    optimizer = optimizers.make_optimizer(jnp.dtype(dtype))
    step = train.make_train_step(module, optimizer, one_device)
    for rate in (1e-3, 1e-5):
        state = train.copy_to_devices(train.init_state(variables, optimizer), one_device)
        state, _ = step(optimizers.with_learning_rate(state, rate), batch)
        # Adam's first step is the rate itself wherever the gradient is not nothing
        moved, _ = ravel_pytree(jax.tree.map(jnp.subtract, state.params, variables["params"]))
        assert float(jnp.median(jnp.abs(moved))) == pytest.approx(rate, rel=0.02)
    assert step._cache_size() == 1


def test_joints_without_weight_teach_nothing(setup, batch, one_device):
    moved = batch | {"keypoints": batch["keypoints"] + 9 * (batch["weights"] == 0)[..., None]}
    a, _ = steps(setup, batch, one_device, 1)
    b, _ = steps(setup, moved, one_device, 1)
    jax.tree.map(np.testing.assert_array_equal, a.params, b.params)


def test_every_stack_of_a_stacked_net_is_supervised(batch):
    class TwoStacks:
        def apply(self, variables, images, *, train, mutable):
            heat = jnp.zeros((len(images), 16, 16, 17)) + variables["params"]["a"]
            return [heat, heat + variables["params"]["b"]], {"batch_stats": {}}

    params = {"a": jnp.float32(0), "b": jnp.float32(0)}
    optimizer = optax.sgd(1.0)
    state = train.TrainState(jnp.int32(0), params, {}, optimizer.init(params))
    new, _ = train.train_step(state, batch, module=TwoStacks(), optimizer=optimizer)
    np.testing.assert_allclose(new.params["a"], 2 * new.params["b"], rtol=1e-5)
    assert new.params["b"] > 0  # toward the targets
    assert int(new.step) == 1


@pytest.mark.parametrize(
    ("step", "share"),
    [
        (0, 0.001),  # the warm-up starts at a thousandth
        (250, 0.001 + 0.999 / 2),
        (500, 1.0),
        (170 * 143 - 1, 1.0),
        (170 * 143 + 1, 0.1),
        (200 * 143 + 1, 0.01),
    ],
)
def test_the_rate_is_the_papers(step, share):
    schedule = optimizers.learning_rate(base.get_config(), 143)
    assert schedule(step) == pytest.approx(5e-4 * share, rel=1e-5)


def test_the_longer_schedules_fall_in_proportion():
    config = base.get_config()
    config.epochs = 420
    schedule = optimizers.learning_rate(config, 143)
    assert schedule(340 * 143 - 1) == pytest.approx(5e-4, rel=1e-5)
    assert schedule(340 * 143 + 1) == pytest.approx(5e-5, rel=1e-5)


def test_the_rate_of_transfer_from_human_pose_is_fixed_after_the_warm_up():
    schedule = optimizers.learning_rate(cdtl.get_config(), 143)
    rates = [float(schedule(step)) for step in (0, 250, 500, 10_000, 30_029)]
    assert rates == pytest.approx([1e-7, 5.005e-5, 1e-4, 1e-4, 1e-4])


def lines(workdir):
    """The metrics of a run, times aside."""
    return [
        {name: value for name, value in line.items() if name not in TIMES}
        for line in run_log.read(workdir / "metrics.jsonl")
    ]


def final(workdir):
    step = checkpoint.saved_in(workdir)[-1].step
    return checkpoint.load(workdir / "checkpoints" / str(step))[1]


class Killed(BaseException):
    """Stands for a kill: nobody catches it."""


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory, synthetic_dir, config_of):
    """A run that nobody interrupted."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    config = config_of(synthetic_dir)
    run.run(config, workdir)
    return config, workdir


def test_a_run_leaves_everything_that_it_promises(whole_run):
    config, workdir = whole_run
    assert {p.name for p in workdir.iterdir()} == {
        "config.json",
        "environment.json",
        "keypoints.json",
        "metrics.jsonl",
        "tensorboard",
        "checkpoints",
        "results.json",
        "predictions-validation.json",
        "predictions-test.json",
        "animals-validation.png",
        "animals-test.png",
    }
    results = json.loads((workdir / "results.json").read_text())
    assert 0 <= results["validation"]["AP"] <= 1
    assert results["validation"]["per_species"]
    assert results["test"]["per_family"]
    (start,) = json.loads((workdir / "environment.json").read_text())
    assert set(start["fingerprints"]) == {"train", "validation", "test"}
    assert start["packages"]["jax"] == jax.__version__
    assert start["input"] == "decoded"
    assert json.loads((workdir / "config.json").read_text()) == json.loads(config.to_json())
    per_epoch = start["animals"]["train"] // 16
    logged = [line["step"] for line in lines(workdir) if line["kind"] == "train"]
    assert logged[-1] == 2 * per_epoch
    scored = [line["step"] for line in lines(workdir) if line["kind"] == "validation"]
    assert scored == [per_epoch, 2 * per_epoch]


@pytest.mark.parametrize("moment", ["in the second epoch", "between scoring and saving"])
def test_a_killed_and_resumed_run_equals_an_uninterrupted_one(
    whole_run, tmp_path, monkeypatch, moment
):
    config, whole = whole_run
    with monkeypatch.context() as patch:
        if moment == "in the second epoch":
            close = run_log.Window.close
            calls = iter(range(100))

            def killed(window):
                if next(calls) == 1:
                    raise Killed
                return close(window)

            patch.setattr(run_log.Window, "close", killed)
        else:
            save = checkpoint.Checkpoints.save

            def killed(self, step, parts, *, ap):
                if self.saved():
                    raise Killed
                save(self, step, parts, ap=ap)
                self._checkpointer.wait()

            patch.setattr(checkpoint.Checkpoints, "save", killed)
        with pytest.raises(Killed):
            run.run(config, tmp_path / "run")
    assert len(checkpoint.saved_in(tmp_path / "run")) == 1
    run.run(config, tmp_path / "run")

    assert lines(tmp_path / "run") == lines(whole)
    jax.tree.map(np.testing.assert_array_equal, final(tmp_path / "run"), final(whole))
    assert (tmp_path / "run" / "results.json").read_text() == (whole / "results.json").read_text()


def test_a_finished_run_started_again_takes_no_step(whole_run, monkeypatch):
    config, workdir = whole_run
    before = lines(workdir), (workdir / "results.json").read_text()

    def fail(*args):
        raise AssertionError("took a step")

    monkeypatch.setattr(train_loop, "next_batch", fail)
    run.run(config, workdir)
    assert (lines(workdir), (workdir / "results.json").read_text()) == before


def test_a_run_can_start_from_another_ones_weights(whole_run, tmp_path):
    config, workdir = whole_run
    config = config.copy_and_resolve_references()
    config.init_from = str(workdir)
    variables = run.initial_variables(config, checkpoint.build_module(config))
    jax.tree.map(np.testing.assert_array_equal, variables, checkpoint.load(workdir)[1])
    config.model.name = "hrnet_tiny"
    with pytest.raises(ValueError, match="another model than hrnet_tiny"):
        run.initial_variables(config, checkpoint.build_module(config))


def test_a_loss_that_is_not_a_number_stops_the_run_and_names_the_photographs(
    config, tmp_path, monkeypatch
):
    config.optimizer.learning_rate = float("inf")
    config.optimizer.warmup_steps = 0
    monkeypatch.setattr(settings, "check", lambda *_, **__: None)  # which refuses such a rate
    with pytest.raises(run_log.NonFiniteLoss, match=r"step \d+; its batch: .*\.jpg"):
        run.run(config, tmp_path / "run")
    assert not checkpoint.saved_in(tmp_path / "run")
