"""The Predictor sees what the evaluation sees, however its images come."""

import functools
import json

import cv2
import jax
import lively
import numpy as np
import pytest

from ap10k_jax import checkpoint, evaluate, inference, keypoints
from ap10k_jax.data.animals import Animals, decode_example
from ap10k_jax.predict import Predictor, predictor
from ap10k_jax.runtime import sharding


@pytest.fixture(scope="module")
def animals(synthetic_dir):
    return Animals.open("ap10k/split1", "train", data_dir=synthetic_dir)


@pytest.fixture(scope="module")
def photographs(animals):
    """Pixels and boxes of the first animals."""
    examples = [decode_example(animals[i]) for i in range(min(len(animals), 5))]
    return [e["image"] for e in examples], [e["box"] for e in examples]


def test_predictions_are_the_evaluations(checkpoint_dir, predictor, animals, config):
    module, variables, _ = checkpoint.load(checkpoint_dir)
    step = inference.make_predict_step(module, sharding.shardings())
    rows = evaluate.predict(step, variables, animals, config, name="test")
    images = [decode_example(animals[i])["image"] for i in range(len(animals))]
    boxes = [animals.annotation(i)["bbox"] for i in range(len(animals))]
    found = predictor(images, boxes)
    assert len(found) == len(rows) > 8  # more than one batch, the last not full
    for (animal,), row in zip(found, rows, strict=True):
        np.testing.assert_allclose(animal.keypoints, row["keypoints"], atol=1e-3)
    # not all the same, as they would be if the network saw nothing
    assert np.std([animal.keypoints[:, 0] for (animal,) in found]) > 1


@pytest.mark.parametrize(("flip_test", "decode"), [(False, "default"), (True, "dark")])
def test_mirror_and_decoding_can_be_chosen(checkpoint_dir, photographs, flip_test, decode):
    module, variables, _ = checkpoint.load(checkpoint_dir)
    chosen = Predictor.load(checkpoint_dir, flip_test=flip_test, decode=decode)
    image, box = photographs[0][0], photographs[1][0]
    (animal,) = chosen(image, box)
    (crop,) = chosen.crops(image, box)
    step = functools.partial(inference.predict_crops, module=module, pairs=keypoints.AP10K.pairs)
    step = jax.jit(functools.partial(step, flip_test=flip_test, decode=decode))
    expected = step(variables, crop["image"][None])
    batch = {name: value[None] for name, value in crop.items()}
    expected = inference.to_image(np.asarray(expected), batch)[0]
    # DARK divides by a curvature that may be almost 0: where it is, rounding decides
    np.testing.assert_allclose(animal.keypoints, expected, rtol=1e-3, atol=1e-2)
    usual = Predictor.load(checkpoint_dir)(image, box)[0]
    assert np.abs(animal.keypoints - usual.keypoints).max() > 0.1


def test_a_config_without_evaluation_means_the_protocols(checkpoint_dir, tmp_path):
    _, variables, _ = checkpoint.load(checkpoint_dir)
    plain = {name: lively.CONFIG[name] for name in ("model", "data")}
    checkpoint.export(tmp_path / "plain", variables, plain)
    loaded = Predictor.load(tmp_path / "plain")
    assert (loaded.flip_test, loaded.decode, loaded.image_size) == (True, "default", 64)


def test_one_image_or_many_one_box_or_many(predictor, photographs):
    images, boxes = photographs
    whole = (0, 0, images[0].shape[1], images[0].shape[0])
    alone = predictor(images[0], boxes[0])
    assert len(alone) == 1
    assert alone[0].keypoints.shape == (17, 3)
    np.testing.assert_array_equal(alone[0].box, np.float32(boxes[0]))
    several = predictor(images[0], [boxes[0], whole, boxes[0]])
    assert len(several) == 3
    np.testing.assert_allclose(several[2].keypoints, alone[0].keypoints, atol=1e-3)
    assert np.abs(several[1].keypoints - alone[0].keypoints).max() > 1
    lists = predictor(images, [None, np.zeros((0, 4)), [boxes[2], boxes[2]], boxes[3], []])
    assert [len(its) for its in lists] == [1, 0, 2, 1, 0]
    np.testing.assert_allclose(lists[0][0].keypoints, several[1].keypoints, atol=1e-3)
    np.testing.assert_allclose(
        lists[3][0].keypoints, predictor(images[3], boxes[3])[0].keypoints, atol=1e-3
    )
    assert predictor([]) == []


def test_pixels_count_not_how_they_are_handed_over(predictor, photographs, tmp_path):
    image, box = photographs[0][0], photographs[1][0]
    path = tmp_path / "an ünusual näme.png"
    path.write_bytes(cv2.imencode(".png", image[..., ::-1])[1].tobytes())
    expected = predictor(image, box)[0].keypoints
    alpha = np.dstack([image, np.full(image.shape[:2], 7, np.uint8)])
    mirrored_twice = image[:, ::-1].copy()[:, ::-1]  # negative strides
    for same in (path, str(path), alpha, mirrored_twice):
        np.testing.assert_array_equal(predictor(same, box)[0].keypoints, expected)
    grey = image[..., 0]
    as_colour = predictor(np.dstack([grey] * 3), box)[0].keypoints
    for same in (grey, grey[..., None]):
        np.testing.assert_array_equal(predictor(same, box)[0].keypoints, as_colour)


def test_a_moved_photograph_moves_its_keypoints(predictor, photographs):
    # the box's own frame decides what is seen; the way back must add its place
    image = photographs[0][0]
    wide = np.pad(image, ((50, 50), (80, 80), (0, 0)))
    whole = [0, 0, image.shape[1], image.shape[0]]
    here = predictor(image, whole)[0].keypoints
    there = predictor(wide, [80, 50, *whole[2:]])[0].keypoints
    # the last row and column count as outside in the one and not in the other
    size = max(image.shape)
    moved = there - [80, 50, 0] - here
    assert np.median(np.abs(moved)) < 0.02 * size


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([10, 10, 0, 20], "no area"),
        ([10, 10, -5, 20], "no area"),
        ([5000, 10, 30, 30], "no area"),  # wholly outside
        ([np.nan, 10, 30, 30], "no area"),
        ([1, 2, 3], "xywh"),
        ([[[1, 2, 3, 4]]], "xywh"),
    ],
)
def test_a_box_that_cannot_be_is_refused(predictor, photographs, box, message):
    with pytest.raises(ValueError, match=message):
        predictor(photographs[0][0], box)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 8, 3)), "float64"),
        (np.zeros((8, 8, 2), np.uint8), r"\(8, 8, 2\)"),
        (np.zeros((0, 8, 3), np.uint8), r"\(0, 8, 3\)"),
        (np.zeros((2, 8, 8, 3), np.uint8), r"\(2, 8, 8, 3\)"),  # a stack is not a list
    ],
)
def test_what_is_no_image_is_refused(predictor, image, message):
    with pytest.raises(ValueError, match=message):
        predictor(image)


def test_files_that_cannot_be_read_are_named(predictor, tmp_path):
    empty, text = tmp_path / "empty.jpg", tmp_path / "text.jpg"
    empty.touch()
    text.write_text("no photograph")
    for path in (empty, text):
        with pytest.raises(ValueError, match=path.name):
            predictor(path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        predictor(tmp_path / "nowhere.jpg")


def test_as_many_boxes_as_images_are_wanted(predictor, photographs):
    with pytest.raises(ValueError, match="5 images, but boxes for 1"):
        predictor(photographs[0], [None])


def test_weights_that_are_not_finite_are_said(checkpoint_dir, photographs):
    module, variables, _ = checkpoint.load(checkpoint_dir)
    broken = jax.tree.map(lambda x: x * np.nan, variables)
    with pytest.raises(FloatingPointError, match="not finite"):
        Predictor(module, broken, image_size=64)(photographs[0][0])


def test_each_batch_size_is_compiled_once(checkpoint_dir, photographs):
    counted = Predictor.load(checkpoint_dir, batch_sizes=(1, 8))
    image, box = photographs[0][0], photographs[1][0]
    for number in (1, 3, 5, 8, 9, 13, 17):
        assert len(counted(image, [box] * number)) == number
    assert counted._step._cache_size() == 2


@pytest.mark.parametrize("count", range(0, 150, 7))
@pytest.mark.parametrize("sizes", [(1, 8, 64), (1,), (8,), (4, 16)])
def test_batches_cover_all_crops_with_little_filling(count, sizes):
    plan = predictor.batches(count, sizes)
    covered = [i for start, stop, _ in plan for i in range(start, stop)]
    assert covered == list(range(count))
    assert all(size in sizes and stop - start <= size for start, stop, size in plan)
    wasted = sum(size - (stop - start) for start, stop, size in plan)
    assert wasted <= max(count, sizes[0])


def test_a_network_of_unknown_joints_is_refused():
    config = json.loads(json.dumps(lively.CONFIG))
    config["model"]["num_keypoints"] = 20
    with pytest.raises(ValueError, match="20 joints"):
        predictor.keypoint_set(config)
    config["data"]["name"] = "animal_pose"
    assert predictor.keypoint_set(config) is keypoints.ANIMAL_POSE


def test_a_network_trained_on_animal_pose_here_has_ap10ks_joints():
    config = json.loads(json.dumps(lively.CONFIG))
    config["data"]["name"] = "animal_pose/split1"
    assert predictor.keypoint_set(config) is keypoints.AP10K
