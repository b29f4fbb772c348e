"""The two views of an animal without labels, and where it comes from."""

import json

import cv2
import numpy as np
import pytest
import tiny_ap10k

from ap10k_jax import box_files, images, keypoints, semi
from ap10k_jax.augmentation import Augmentation
from ap10k_jax.data import unlabeled

DOTS = ((250, 20, 20), (20, 250, 20), (20, 20, 250))  # left, right, middle
JOINTS = keypoints.KeypointSet(
    names=("left_ear", "right_ear", "nose"),
    pairs=((0, 1),),
    skeleton=(),
    sigmas=(0.05,) * 3,
    upper_body=(0, 1, 2),
)
POINTS = np.array([[70, 60, 2], [110, 75, 2], [85, 115, 2]], np.float32)
CALM = unlabeled.Disturbance(contrast=0, brightness=0, patches=0)
LIVELY = Augmentation(half_body_min_joints=0, half_body_probability=1.0)


@pytest.fixture(scope="module")
def example():
    image = np.zeros((170, 190, 3), np.uint8)
    for (x, y, _), color in zip(POINTS.astype(int).tolist(), DOTS, strict=True):
        cv2.circle(image, (x, y), 5, color, -1)
    data = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
    return {
        "bytes": data,
        "file_name": "dots.png",
        "box": np.array([50, 40, 80, 95], np.float32),
        "keypoints": POINTS,
    }


def views(example, seed, weak=unlabeled.WEAK, strong=LIVELY, disturbance=CALM):
    return unlabeled.two_views(
        example,
        np.random.default_rng(seed),
        image_size=128,
        weak=weak,
        strong=strong,
        disturbance=disturbance,
        keypoint_set=JOINTS,
    )


def dot(crop, joint):
    """The middle of a joint's dot in a crop, or None where it is not whole."""
    near = np.abs(crop.astype(int) - DOTS[joint]).max(axis=-1) < 120
    near &= crop.argmax(axis=-1) == np.argmax(DOTS[joint])
    ys, xs = np.nonzero(near)
    inside = len(xs) and xs.min() > 3 and xs.max() < 124 and ys.min() > 3 and ys.max() < 124
    return np.array([xs.mean(), ys.mean()]) if inside else None


def test_the_matrix_leads_from_each_dot_of_the_weak_view_to_that_of_the_strong_one(example):
    order = keypoints.mirror_order(JOINTS.pairs, 3)
    seen = {(a, b): 0 for a in (False, True) for b in (False, True)}
    for seed in range(60):
        view = views(example, seed)
        moved, _ = semi.to_strong(
            view["truth"][None],
            np.ones((1, 3), bool),
            view["to_strong"][None],
            view["exchanged"][None],
            pairs=JOINTS.pairs,
        )
        # of the weak view it is seen on the dots whether it is mirrored: left is right of nothing
        weak = [dot(view["weak"], joint) for joint in range(3)]
        strong = [dot(view["strong"], joint) for joint in range(3)]
        if any(place is None for place in weak):
            continue
        mirrored = weak[0][0] > weak[1][0]
        turned = bool(mirrored ^ view["exchanged"])
        for joint in range(3):
            on = order[joint] if mirrored else joint
            np.testing.assert_allclose(view["truth"][joint], weak[on], atol=0.8)
            place = strong[order[joint] if turned else joint]
            if place is not None:
                np.testing.assert_allclose(moved[0, joint], place, atol=0.8)
                seen[bool(mirrored), turned] += 1
    assert min(seen.values()) > 5  # each view mirrored or not


def test_the_views_do_not_depend_on_the_hidden_labels(example):
    other = {**example, "keypoints": POINTS[::-1] * [0.5, 0.7, 1]}
    none = {**example, "keypoints": np.zeros_like(POINTS)}
    for seed in range(5):
        wanted = views(example, seed)
        for changed in (views(other, seed), views(none, seed)):
            for name in ("weak", "strong", "to_strong", "exchanged", "area"):
                np.testing.assert_array_equal(changed[name], wanted[name])
        assert not changed["truth_weights"].any()


def test_the_box_area_is_measured_in_the_weak_crop(example):
    still = Augmentation(0, 0, scale_sigma=0, rotation_probability=0, shift_probability=0)
    view = views(example, 0, weak=still, strong=still)
    # the higher side of the box, 95 pixels, fills a crop of 128 up to its padding
    zoom = 128 / (95 * 1.25)
    assert view["area"] == pytest.approx(80 * 95 * zoom**2, rel=1e-4)
    np.testing.assert_allclose(view["to_strong"], [[1, 0, 0], [0, 1, 0]], atol=1e-4)
    np.testing.assert_array_equal(view["weak"], view["strong"])


def test_disturbing_changes_light_and_hides_patches():
    rng = np.random.default_rng(0)
    crop = rng.integers(60, 190, (64, 64, 3), np.uint8)
    np.testing.assert_array_equal(unlabeled.disturb(crop, rng, CALM), crop)
    light = unlabeled.disturb(crop, rng, unlabeled.Disturbance(0.4, 0.2, patches=0))
    assert np.abs(light.astype(int) - crop).mean() > 2
    shares = []
    for _ in range(100):
        patched = unlabeled.disturb(crop, rng, unlabeled.Disturbance(0, 0, patches=2, patch=0.5))
        shares.append((patched != crop).any(axis=-1).mean())
    assert min(shares) == 0  # at times none
    assert 0.1 < max(shares) <= 0.5  # two patches of at most a quarter
    assert crop.min() >= 60  # the crop itself is left alone


IMAGES = [
    {"id": 5, "file_name": "Canidae/dog/a.jpg", "width": 40, "height": 30},
    {"id": 6, "file_name": "Canidae/dog/b.jpg", "width": 40, "height": 30},
    {"id": 7, "file_name": "Canidae/dog/c.jpg", "width": 40, "height": 30},
]
RECORDS = [{"image": tiny_ap10k.jpeg(i["id"]), "image_id": i["id"]} for i in IMAGES]


def photographs(detections=None):
    return unlabeled.Photographs(
        RECORDS, IMAGES, fingerprint="x", num_keypoints=17, detections=detections
    )


def test_a_photograph_without_boxes_is_one_animal_as_a_whole():
    source = photographs()
    assert len(source) == 3
    np.testing.assert_array_equal(source[1]["box"], [0, 0, 40, 30])
    assert source[1]["bytes"] == RECORDS[1]["image"]
    assert not source[1]["keypoints"].any()


def test_every_box_of_a_file_is_an_animal_and_what_has_none_is_counted(tmp_path):
    path = tmp_path / "boxes.csv"
    path.write_text(
        "file,x,y,width,height\n"
        "Canidae/dog/a.jpg,1,2,10,11\nCanidae/dog/a.jpg,20,3,9,8\nCanidae/dog/b.jpg,,,,\n"
    )
    source = photographs(box_files.read(path))
    assert [source[i]["box"].tolist() for i in range(len(source))] == [
        [1, 2, 10, 11],
        [20, 3, 9, 8],
    ]
    assert source.left_out == {"not in the box file": 1, "without a box": 1}


def test_a_detectors_boxes_on_a_turned_photograph_are_turned_back(tmp_path, monkeypatch):
    path = tmp_path / "detections.json"
    detections = [{"category": "1", "conf": 0.9, "bbox": [0.1, 0.2, 0.3, 0.4]}]
    content = {
        "detection_categories": {"1": "animal"},
        "images": [{"file": "dog/a.jpg", "detections": detections}],
    }
    path.write_text(json.dumps(content))
    source = photographs(box_files.read(path))
    np.testing.assert_allclose(source[0]["box"], [4, 6, 12, 12], rtol=1e-6)
    monkeypatch.setattr(images, "orientation", lambda file: 3)  # displayed upside down
    np.testing.assert_allclose(source[0]["box"], [24, 12, 12, 12], rtol=1e-6)


def test_a_pool_never_ends_and_is_shuffled_anew(example):
    source = [{**example, "box": example["box"] + i} for i in range(5)]
    batches = iter(
        unlabeled.batches(
            [source[:2], source[2:]],
            batch_size=4,
            seed=0,
            image_size=64,
            weak=unlabeled.WEAK,
            strong=LIVELY,
            keypoint_set=JOINTS,
            threads=1,
        )
    )
    first, state, *rest = next(batches), batches.get_state(), *(next(batches) for _ in range(4))
    assert set(first) == {
        *("weak", "strong", "to_strong", "exchanged", "truth", "truth_weights", "area")
    }
    assert first["weak"].shape == (4, 64, 64, 3)
    assert len(np.unique([batch["weak"].sum() for batch in (first, *rest)])) == 5
    batches.set_state(state)
    np.testing.assert_array_equal(next(batches)["strong"], rest[0]["strong"])
