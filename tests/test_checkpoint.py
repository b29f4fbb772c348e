"""A checkpoint comes back as it was, the best one is kept, and a wrong one is refused."""

import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ap10k_jax import checkpoint, keypoints, models
from ap10k_jax.predict import predictor

CONFIG = {
    "model": {"name": "nano", "num_keypoints": 17, "dtype": "float32"},
    "data": {"image_size": 64},
}


@pytest.fixture(scope="module")
def variables(nano):
    module = models.build(nano)
    return models.init(module, jax.random.key(0), image_size=(64, 64))


def parts(variables, step):
    return {"variables": variables, "optimizer": {"step": jnp.int32(step)}}


def write_run(folder, variables, scores):
    """A run directory with a checkpoint a step; AP None where validation was not due."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    with checkpoint.Checkpoints(folder / "checkpoints") as checkpoints:
        for step, ap in scores.items():
            changed = jax.tree.map(lambda x, step=step: x + step, variables)
            checkpoints.save(step, parts(changed, step), ap=ap)
    return folder


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize(
    ("scores", "kept"),
    [
        ({1: 0.1, 2: 0.5, 3: 0.2, 4: None}, {2: 0.5, 4: None}),  # best and latest
        ({1: None, 2: None}, {2: None}),  # never scored
        ({1: 0.3, 2: 0.3}, {2: 0.3}),  # of equals the later
    ],
)
def test_the_best_and_the_latest_are_kept(tmp_path, variables, scores, kept):
    run = write_run(tmp_path / "run", variables, scores)
    assert {c.step: c.ap for c in checkpoint.saved_in(run)} == kept


def test_a_run_directory_gives_its_best_step_and_any_step_can_be_named(tmp_path, variables):
    run = write_run(tmp_path / "run", variables, {1: 0.5, 2: 0.2})
    module, best, config = checkpoint.load(run)
    assert_equal(best, jax.tree.map(lambda x: x + 1, variables))
    _, second, _ = checkpoint.load(run / "checkpoints" / "2")
    assert_equal(second, jax.tree.map(lambda x: x + 2, variables))
    assert config == CONFIG
    assert module.apply(best, jnp.zeros((1, 64, 64, 3))).shape == (1, 16, 16, 17)


def test_an_exported_checkpoint_comes_back_and_is_not_overwritten(tmp_path, variables):
    checkpoint.export(tmp_path / "out", variables, CONFIG)
    _, loaded, config = checkpoint.load(tmp_path / "out")
    assert_equal(loaded, variables)
    assert config == CONFIG
    with pytest.raises(FileExistsError, match="out"):
        checkpoint.export(tmp_path / "out", variables, CONFIG)


def test_a_checkpoint_cut_off_while_written_is_not_taken_for_a_whole_one(tmp_path, variables):
    run = write_run(tmp_path / "run", variables, {1: None})
    # what a killed writer leaves behind
    (run / "checkpoints" / "2.orbax-checkpoint-tmp" / "variables").mkdir(parents=True)
    assert [c.step for c in checkpoint.saved_in(run)] == [1]


@pytest.mark.parametrize("files", [0, 1, 3, 8])
@pytest.mark.parametrize("written_anew", [False, True])
def test_a_checkpoint_half_deleted_is_not_taken_for_a_whole_one(
    tmp_path, variables, monkeypatch, files, written_anew
):
    class Killed(BaseException):
        pass

    run = write_run(tmp_path / "run", variables, {1: 0.5, 2: None, 3: None})
    left, unlink = iter(range(files)), os.unlink

    def unlink_few(path, **options):
        if next(left, None) is None:
            raise Killed
        unlink(path, **options)

    def save_two(checkpoints):
        checkpoints.save(3 if written_anew else 4, parts(variables, 0), ap=0.6)
        checkpoints.save(5, parts(variables, 0), ap=None)

    checkpoints = checkpoint.Checkpoints(run / "checkpoints")
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", unlink_few)
        with pytest.raises(Killed):
            save_two(checkpoints)
    (listed,) = checkpoint.saved_in(run)
    assert listed.step == (1 if written_anew else 4)
    checkpoint.load(run / "checkpoints" / str(listed.step))

    with checkpoint.Checkpoints(run / "checkpoints") as checkpoints:
        checkpoints.save(5, parts(variables, 5), ap=0.4)
    left = {path.name for path in (run / "checkpoints").iterdir()}
    assert left == {str(listed.step), "5"}


def test_a_checkpoint_of_another_model_is_refused_by_name(tmp_path, variables):
    run = write_run(tmp_path / "run", variables, {1: None})
    other = CONFIG | {"model": CONFIG["model"] | {"num_keypoints": 20}}
    (run / "config.json").write_text(json.dumps(other))
    with pytest.raises(ValueError, match=r"(?s)does not fit.*head.*17.*20"):
        checkpoint.load(run)


@pytest.mark.parametrize("content", ["nothing", "an empty folder", "no checkpoint yet"])
def test_what_is_no_checkpoint_is_said(tmp_path, content):
    path = tmp_path / "run"
    if content != "nothing":
        path.mkdir()
    if content == "no checkpoint yet":
        (path / "checkpoints").mkdir()
        (path / "config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(FileNotFoundError, match="checkpoint"):
        checkpoint.load(path)


def test_the_joints_of_a_run_come_with_its_config_and_go_on_with_an_export(tmp_path, variables):
    run = write_run(tmp_path / "run", variables, {1: 0.5})
    assert "keypoints" not in checkpoint.load(run)[2]
    declared = keypoints.as_category(keypoints.COCO_PERSON)
    (run / "keypoints.json").write_text(json.dumps(declared))
    for path in (run, run / "checkpoints" / "1"):
        config = checkpoint.load(path)[2]
        assert predictor.keypoint_set(config) == keypoints.COCO_PERSON
    checkpoint.export(tmp_path / "exported", variables, config)
    assert checkpoint.load(tmp_path / "exported")[2]["keypoints"] == declared


def test_a_killed_export_is_no_checkpoint_and_does_not_stand_in_the_way(
    checkpoint_dir, tmp_path, monkeypatch
):
    class Killed(BaseException):
        pass

    def killed(self, target):
        raise Killed

    _, variables, config = checkpoint.load(checkpoint_dir)
    place = tmp_path / "exported"
    with monkeypatch.context() as patch:
        patch.setattr(type(place), "rename", killed)
        patch.setattr(checkpoint.shutil, "rmtree", lambda *args, **kwargs: None)
        with pytest.raises(Killed):
            checkpoint.export(place, variables, config)
    assert list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError):
        checkpoint.load(place)
    (tmp_path / "exported.unfinished.orbax-checkpoint-tmp").mkdir(exist_ok=True)
    checkpoint.export(place, variables, config)
    assert [path.name for path in tmp_path.iterdir()] == ["exported"]
