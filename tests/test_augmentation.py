"""Augmented crops vary as the paper says, and keypoints follow the pixels wherever they go."""

import dataclasses
import functools
import pickle
import subprocess
import sys

import cv2
import numpy as np
import pytest
from noise import example

from ap10k_jax import augmentation, keypoints, transforms

PAIRS = keypoints.AP10K.pairs
STILL = augmentation.Augmentation(
    flip_probability=0,
    half_body_probability=0,
    scale_sigma=0,
    rotation_probability=0,
    shift_probability=0,
)


def view_of(example):
    """The example as `augment` takes it: the plain view of its box."""
    center, scale = transforms.box_to_center_scale(
        example["box"], example["image"].shape[1::-1], aspect=example["box"][2] / example["box"][3]
    )
    view = {"center": center, "sides": scale, "rotation": 0.0, "mirror": False}
    return {**example, **view, "width": example["image"].shape[1]}


def draws(count=2000, labelled=17, **changes):
    """The views that augmentation makes of one animal."""
    settings = dataclasses.replace(augmentation.Augmentation(), **changes)
    view = view_of(example(labelled=labelled))
    rng = np.random.default_rng(1)
    return view, [augmentation.augment(view, rng, augmentation=settings) for _ in range(count)]


def test_keypoints_follow_the_pixels_through_every_augmentation():
    # A bright blob at one joint of a dark image: after augmentation it is where that joint is said
    # to be. Catches a wrong rotation sign, a mirror off by one, pixels and points apart.
    found = 0
    rng = np.random.default_rng(0)
    for seed in range(60):
        animal = example(seed)
        joint = seed % 17
        x, y = np.round(animal["keypoints"][joint, :2])
        animal["keypoints"][joint, :2] = x, y
        image = np.zeros_like(animal["image"])
        cv2.circle(image, (int(x), int(y)), 4, (255, 255, 255), cv2.FILLED)
        animal["image"] = cv2.GaussianBlur(image, (0, 0), 2)
        sample = augmentation.sample(animal, rng, size=(256, 256))
        # after a flip the blob belongs to the counterpart
        mirror = keypoints.mirror_order(PAIRS, 17)
        candidates = sample["keypoints"][[joint, mirror[joint]]]
        if not np.all((candidates > 20) & (candidates < 235)):
            continue
        weights = sample["image"][..., 0].astype(float)
        center = np.array([(weights.sum(axis) * np.arange(256)).sum() for axis in (0, 1)])
        error = np.linalg.norm(candidates - center / weights.sum(), axis=1).min()
        assert error < 0.6, f"seed {seed}: {error:.2f} pixels off"
        found += 1
    assert found > 25


def test_mirrored_sample_carries_the_counterparts_name():
    # The one above lets left and right be confused; here the flip is certain.
    animal = example()
    flip = dataclasses.replace(STILL, flip_probability=1)
    plain = augmentation.sample(animal, size=(128, 128))
    flipped = augmentation.sample(
        animal, np.random.default_rng(0), size=(128, 128), augmentation=flip
    )
    mirror = keypoints.mirror_order(PAIRS, 17)
    # u = 64 + z (x - cx) becomes 128 - u: the crop's middle is at 64, not 63.5
    expected = plain["keypoints"][mirror] * [-1, 1] + [128, 0]
    np.testing.assert_allclose(flipped["keypoints"], expected, atol=1e-3)
    # 1/32 pixel of rounding, which goes the other way in a mirror; noise itself differs by 85
    np.testing.assert_allclose(
        flipped["image"][:, 1:].astype(int), plain["image"][:, :0:-1], atol=10
    )


# --- samples


def test_a_sample_turns_pixels_and_joints_alike_and_as_its_frame():
    animal = example()
    turn = dataclasses.replace(STILL, rotation_probability=1)
    for seed in range(5):
        sample, frame = (
            draw(animal, np.random.default_rng(seed), size=(64, 64), augmentation=turn, **sizes)
            for draw, sizes in (
                (augmentation.sample, {}),
                (augmentation.frame, {"image_size": (300, 200)}),
            )
        )
        np.testing.assert_array_equal(sample["keypoints"], frame["keypoints"])
        rng = np.random.default_rng(seed)
        rotation = augmentation.augment(view_of(animal), rng, augmentation=turn)["rotation"]
        assert rotation
        image, _ = transforms.crop(
            animal["image"], sample["center"], sample["scale"], rotation=rotation, size=(64, 64)
        )
        np.testing.assert_array_equal(sample["image"], image)


def test_sample_without_rng_is_the_plain_crop():
    animal = example()
    center, scale = transforms.box_to_center_scale(animal["box"], (300, 200))
    image, matrix = transforms.crop(animal["image"], center, scale, size=(96, 96))
    sample = augmentation.sample(animal, size=(96, 96))
    np.testing.assert_array_equal(sample["image"], image)
    np.testing.assert_array_equal(
        sample["keypoints"], transforms.apply_affine(animal["keypoints"][:, :2], matrix)
    )
    np.testing.assert_array_equal(sample["center"], center)
    np.testing.assert_array_equal(sample["scale"], scale)


def test_sample_of_another_shape_is_the_plain_crop_of_that_shape():
    animal = example()
    sample = augmentation.sample(animal, size=(64, 48), padding=1.1)
    center, scale = transforms.box_to_center_scale(
        animal["box"], (300, 200), padding=1.1, aspect=64 / 48
    )
    np.testing.assert_array_equal(sample["center"], center)
    np.testing.assert_allclose(sample["scale"], scale, rtol=1e-6)
    back = transforms.crop_to_image(sample["keypoints"], center, scale, size=(64, 48))
    np.testing.assert_allclose(back, animal["keypoints"][:, :2], atol=1e-3)


def test_hidden_joints_are_labelled_joints():
    # COCO's visibility 1; AP-10K has none, other data sets do.
    animal = example()
    animal["keypoints"][:, 2] = np.arange(17) % 3
    weights = augmentation.sample(animal, size=(32, 32))["weights"]
    np.testing.assert_array_equal(weights, animal["keypoints"][:, 2] > 0)
    animal = view_of(example())
    always = dataclasses.replace(STILL, half_body_probability=1)
    views = []
    for visibility in (1, 2):
        animal["keypoints"][:, 2] = visibility
        rng = np.random.default_rng(0)
        views.append(augmentation.augment(animal, rng, augmentation=always))
    np.testing.assert_array_equal(views[0]["sides"], views[1]["sides"])
    assert not np.array_equal(views[0]["sides"], animal["sides"])


def test_sample_with_everything_switched_off_is_the_plain_crop():
    animal = example()
    still = augmentation.sample(animal, np.random.default_rng(0), size=(96, 96), augmentation=STILL)
    plain = augmentation.sample(animal, size=(96, 96))
    for name in plain:
        np.testing.assert_array_equal(still[name], plain[name])


def test_sample_changes_nothing_it_is_given_and_keeps_the_rest():
    animal = {**example(labelled=9), "index": 7}
    before = {name: np.array(value) for name, value in animal.items()}
    for seed in range(10):
        sample = augmentation.sample(animal, np.random.default_rng(seed), size=(32, 32))
        assert sample["index"] == 7
        assert sample["weights"].sum() == 9
    for name, value in before.items():
        np.testing.assert_array_equal(animal[name], value)


ONCE = dataclasses.replace(STILL, shift_probability=1, shift=0.16, shift_once=True)


def centers(settings, *, index=0, seed=0, crops=5, labelled=17):
    """The middles (crops, 2) of random crops of one animal."""
    animal = {**example(labelled=labelled), "index": np.int32(index)}
    options = {"size": (16, 16), "augmentation": settings, "shift_seed": seed}
    rngs = [np.random.default_rng(100 + i) for i in range(crops)]
    return np.array([augmentation.sample(animal, rng, **options)["center"] for rng in rngs])


def test_a_shift_once_is_the_same_in_every_crop_of_an_animal_and_follows_from_the_seed():
    first = centers(ONCE)
    plain = centers(STILL)[0]
    assert (first == first[0]).all()
    assert (first[0] != plain).all()
    assert (first[0] != centers(ONCE, index=1)[0]).any()
    assert (first[0] != centers(ONCE, seed=1)[0]).any()
    every = centers(dataclasses.replace(ONCE, shift_once=False))
    assert len(np.unique(every[:, 0])) == len(every)
    assert augmentation.Augmentation().shift_once is False


def test_a_shift_once_reaches_a_fifth_of_the_boxs_sides_in_three_animals_of_ten():
    three_tenths = dataclasses.replace(ONCE, shift_probability=0.3)
    moved = np.concatenate([centers(three_tenths, index=i, crops=1) for i in range(1000)])
    moved = np.abs(moved - centers(STILL)[0])
    assert 0.25 < np.mean(moved.any(axis=1)) < 0.35
    reach = moved.max(axis=0) / example()["box"][2:]
    assert np.all((reach > 0.19) & (reach <= 0.2001))


def test_a_shift_once_is_the_same_wherever_the_pixels_come_from():
    animal = {**example(), "index": 3}
    sample = augmentation.sample(animal, np.random.default_rng(0), augmentation=ONCE)
    np.testing.assert_array_equal(sample["center"], centers(ONCE, index=3, seed=0)[0])
    size = {"image_size": animal["image"].shape[1::-1]}
    for seed in ({}, {"shift_seed": 0}, {"shift_seed": 5}):
        options = {"augmentation": ONCE, **seed}
        frame = augmentation.frame(animal, np.random.default_rng(0), **size, **options)
        sample = augmentation.sample(animal, np.random.default_rng(0), **options)
        np.testing.assert_array_equal(frame["center"], sample["center"])


def test_half_bodies_have_no_shift_once():
    half = {"half_body_probability": 1, "half_body_upper_probability": 1}
    plain = centers(dataclasses.replace(STILL, **half))
    np.testing.assert_array_equal(centers(dataclasses.replace(ONCE, **half)), plain)
    every = centers(dataclasses.replace(ONCE, shift_once=False, **half))
    assert (every != plain).all()


def test_a_shift_once_is_mirrored_with_the_animal():
    width = example()["image"].shape[1]
    mirrored = centers(dataclasses.replace(ONCE, flip_probability=1))
    np.testing.assert_allclose(mirrored, centers(ONCE) * [-1, 1] + [width - 1, 0], atol=1e-3)


def test_sample_has_the_types_of_a_batch():
    moving = dataclasses.replace(augmentation.Augmentation(), shift_probability=1)
    rngs = [None, *(np.random.default_rng(seed) for seed in range(5))]
    for rng in rngs:
        sample = augmentation.sample(example(), rng, size=(64, 48), augmentation=moving)
        shapes = {name: (value.shape, value.dtype.name) for name, value in sample.items()}
        assert shapes["image"] == ((48, 64, 3), "uint8")
        assert shapes["keypoints"] == ((17, 2), "float32")
        assert shapes["weights"] == ((17,), "float32")
        assert shapes["center"] == shapes["scale"] == ((2,), "float32")


def test_views_are_float32_whatever_the_joints_are():
    animal = example()
    animal["keypoints"] = animal["keypoints"].astype(float)
    always = dataclasses.replace(STILL, half_body_probability=1)
    sample = augmentation.sample(
        animal, np.random.default_rng(0), size=(32, 32), augmentation=always
    )
    assert sample["center"].dtype == sample["scale"].dtype == np.float32
    view = augmentation.augment(view_of(example()), np.random.default_rng(0))
    assert view["center"].dtype == view["sides"].dtype == np.float32


def test_same_seed_same_sample_and_it_travels_to_workers():
    work = pickle.loads(pickle.dumps(functools.partial(augmentation.sample, size=(64, 64))))
    first, second, other = (work(example(), np.random.default_rng(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first["image"], second["image"])
    assert not np.array_equal(first["image"], other["image"])


# --- statistics of augmentation; 2,000 draws, so shares are known to about 0.02


def test_flips_half_of_the_time():
    _, views = draws()
    assert np.mean([view["mirror"] for view in views]) == pytest.approx(0.5, abs=0.04)


def test_scale_is_a_normal_clipped_not_truncated():
    view, views = draws(half_body_probability=0)
    factors = np.array([v["sides"][0] / view["sides"][0] for v in views])
    assert factors.min() == pytest.approx(0.5)
    assert factors.max() == pytest.approx(1.5)
    # Clipping heaps 16 % at each end; truncation (MMPose 1.x) would leave nothing there.
    for end in (0.5, 1.5):
        assert np.mean(np.abs(factors - end) < 1e-4) == pytest.approx(0.159, abs=0.03)
    assert np.mean((factors > 0.75) & (factors < 1.25)) == pytest.approx(0.383, abs=0.04)


def test_rotation_is_normal_clipped_and_given_to_three_in_five():
    _, views = draws()
    rotations = np.array([view["rotation"] for view in views])
    assert np.mean(rotations != 0) == pytest.approx(0.6, abs=0.04)
    turned = rotations[rotations != 0]
    assert np.abs(turned).max() == 80
    assert np.mean(np.abs(turned) == 80) == pytest.approx(0.0455, abs=0.02)
    assert np.mean(np.abs(turned) < 40) == pytest.approx(0.683, abs=0.04)
    assert np.mean(turned > 0) == pytest.approx(0.5, abs=0.05)


def test_rotations_are_as_often_to_the_left_as_to_the_right():
    # small ones, among which a mean of a degree would show
    _, views = draws(count=300, rotation_sigma=0.1, rotation_probability=1)
    assert np.mean([view["rotation"] > 0 for view in views]) == pytest.approx(0.5, abs=0.15)


def test_shift_is_uniform_up_to_a_fifth_of_the_boxs_sides():
    view, views = draws(flip_probability=0, half_body_probability=0)
    shifts = np.array([v["center"] - view["center"] for v in views]) / view["box"][2:]
    moved = shifts[np.any(shifts != 0, axis=1)]
    assert len(moved) / len(shifts) == pytest.approx(0.3, abs=0.04)
    assert np.all(np.abs(moved) <= 0.2 + 1e-6)
    assert np.all(np.abs(moved).max(axis=0) > 0.19)
    assert np.all(np.abs(np.abs(moved).mean(axis=0) - 0.1) < 0.015)
    assert abs(np.corrcoef(moved.T)[0, 1]) < 0.15  # each axis on its own


def half_body_shares(labelled):
    """How often a view is that of the upper and of the lower half."""
    quiet = {"flip_probability": 0, "scale_sigma": 0, "shift_probability": 0}
    view, views = draws(labelled=labelled, **quiet)
    visible = view["keypoints"][:, 2] > 0
    upper = visible & np.isin(np.arange(17), keypoints.AP10K.upper_body)
    shares = []
    for half in (upper, visible & ~upper):
        points = view["keypoints"][half, :2]
        sides = 1.5 * np.ptp(points, axis=0)
        shares.append(
            np.mean(
                [
                    np.allclose(v["center"], points.mean(axis=0)) and np.allclose(v["sides"], sides)
                    for v in views
                ]
            )
        )
    return shares


def test_half_body_is_shown_to_three_in_ten_and_mostly_the_upper():
    upper, lower = half_body_shares(labelled=17)
    assert upper == pytest.approx(0.3 * 0.7, abs=0.03)
    assert lower == pytest.approx(0.3 * 0.3, abs=0.03)


# Labelled joints: with 8 there is no half body, with 9 there is.
@pytest.mark.parametrize(("labelled", "share"), [(8, 0), (9, 0.3)])
def test_half_body_needs_more_than_eight_labelled_joints(labelled, share):
    assert sum(half_body_shares(labelled)) == pytest.approx(share, abs=0.04 if share else 0)


def test_half_with_too_few_joints_is_not_chosen():
    animal = view_of(example())
    animal["keypoints"][[4, 11, 12, 13, 14, 15, 16], 2] = 0  # lower body: joint 10 alone
    always = dataclasses.replace(STILL, half_body_probability=1)
    rng = np.random.default_rng(0)
    upper = animal["keypoints"][list(keypoints.AP10K.upper_body), :2].mean(axis=0)
    for _ in range(20):
        view = augmentation.augment(animal, rng, augmentation=always)
        np.testing.assert_allclose(view["center"], upper)


@pytest.mark.parametrize(("labelled", "shown"), [(2, False), (3, True)])
def test_half_of_three_joints_may_be_chosen(labelled, shown):
    animal = view_of(example())
    animal["keypoints"][[10, 11, 12, 13, 14, 15, 16, 4][labelled:], 2] = 0
    lower = animal["keypoints"][[10, 11, 12][:labelled], :2].mean(axis=0)
    always = dataclasses.replace(STILL, half_body_probability=1, half_body_upper_probability=0)
    view = augmentation.augment(animal, np.random.default_rng(0), augmentation=always)
    assert np.allclose(view["center"], lower) == shown


def test_joints_of_which_no_upper_body_is_known_have_no_half_body():
    animal = view_of(example())
    always = dataclasses.replace(STILL, half_body_probability=1)
    unknown = dataclasses.replace(keypoints.AP10K, upper_body=())
    for joints, halved in ((keypoints.AP10K, True), (unknown, False)):
        rng = np.random.default_rng(0)
        view = augmentation.augment(animal, rng, augmentation=always, keypoint_set=joints)
        assert (not np.array_equal(view["sides"], animal["sides"])) == halved


def test_joints_on_a_line_have_no_half_body():
    animal = view_of(example())
    animal["keypoints"][:, 1] = 70
    always = dataclasses.replace(STILL, half_body_probability=1)
    view = augmentation.augment(animal, np.random.default_rng(0), augmentation=always)
    np.testing.assert_array_equal(view["sides"], animal["sides"])


# --- what crops can show


def test_reach_of_a_still_view_is_the_view():
    # A square of 225 around (150, 100), a pixel more before and two behind, within the image.
    reach = augmentation.reach(example(), image_size=(300, 200), augmentation=STILL)
    assert reach.tolist() == [36, 0, 265 - 36, 200]
    # At aspect 2 the padded 225 x 150 becomes 300 x 150.
    reach = augmentation.reach(example(), image_size=(600, 200), augmentation=STILL, aspect=2)
    assert reach.tolist() == [0, 24, 302, 177 - 24]


@pytest.mark.parametrize("labelled", [8, 17])
def test_reach_holds_all_that_any_crop_shows(labelled):
    animal = example(size=(1200, 1000), box=(500, 400, 180, 120), labelled=labelled)
    x, y, width, height = augmentation.reach(animal, image_size=(1200, 1000))
    low, high = np.array([x, y]), np.array([x + width, y + height])
    rng, seen = np.random.default_rng(0), []
    for _ in range(1500):
        sample = augmentation.frame(animal, rng, image_size=(1200, 1000), size=(64, 64))
        corners = np.array([[0, 0], [0, 64], [64, 0], [64, 64]])
        seen.append(transforms.apply_affine(corners, sample["matrix"]))
    seen = np.concatenate(seen)
    assert np.all(seen > low)
    assert np.all(seen < high)
    # and the widest views come near its edges
    assert np.all(seen.min(axis=0) < low + 0.15 * (high - low))
    assert np.all(seen.max(axis=0) > high - 0.15 * (high - low))


def test_augmentation_imports_no_jax():
    code = "import sys, ap10k_jax.augmentation; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
