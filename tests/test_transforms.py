"""Boxes become crops as in the reference, and points lead there and back."""

import subprocess
import sys

import numpy as np
import pytest
from golden_files import copy, shared, whole
from noise import example

from ap10k_jax import images, keypoints, transforms

PAIRS = keypoints.AP10K.pairs
PREPROCESS = copy("preprocess.npz")
PLAIN = [i for i, udp in enumerate(PREPROCESS["udp"]) if not udp]


# --- geometry, against the reference


@pytest.mark.parametrize("i", range(8))
def test_center_and_scale_agree_with_the_reference(i):
    golden = {name: values[i] for name, values in PREPROCESS.items()}
    center, scale = transforms.box_to_center_scale(golden["bbox_xywh"], golden["image_size"])
    if golden["flip"]:
        center[0] = golden["image_size"][0] - 1 - center[0]
    np.testing.assert_allclose(center, golden["center"], atol=1e-3)
    np.testing.assert_allclose(scale * golden["scale_factor"], golden["scale"], atol=1e-3)


@pytest.mark.parametrize("i", PLAIN)
def test_keypoints_move_as_in_the_reference(i):
    golden = {name: values[i] for name, values in PREPROCESS.items()}
    points = golden["keypoints_in"]
    if golden["flip"]:
        image = np.empty((1, golden["image_size"][0], 3), np.uint8)
        _, points, _ = transforms.flip(image, points, golden["center"], pairs=PAIRS)
    matrix = transforms.affine_matrix(
        golden["center"], golden["scale"], rotation=golden["rotation"]
    )
    moved = transforms.apply_affine(points[:, :2], matrix)
    np.testing.assert_allclose(moved, golden["keypoints_out"], atol=1e-3)


@pytest.mark.parametrize("i", PLAIN)
def test_pixels_agree_with_the_reference(i):
    golden = {name: values[i] for name, values in whole("preprocess.npz").items()}
    path = shared(f"data/ap10k_real/{golden['file_name']}")
    image = images.decode(path.read_bytes())
    crop, _ = transforms.crop(
        image,
        golden["center"],
        golden["scale"],
        rotation=golden["rotation"],
        mirror=bool(golden["flip"]),
    )
    difference = np.abs(crop.astype(int) - golden["crop"])
    assert np.mean(difference <= 1) >= 0.999


# Box (xywh), image size, and the clipped, unpadded box's center and sides.
CLIPPED = [
    ((10, 20, 30, 40), (100, 100), (25, 40), (30, 40)),  # inside: as it is
    ((-10, -20, 30, 40), (100, 100), (10, 10), (20, 20)),  # left and above
    ((80, 90, 50, 50), (100, 100), (89.5, 94.5), (19, 9)),  # right and below: pixel 99 is the last
    ((-5, -5, 999, 999), (101, 51), (50, 25), (100, 50)),  # larger than the image
]


@pytest.mark.parametrize(("box", "size", "center", "sides"), CLIPPED)
def test_boxes_are_clipped_to_the_image(box, size, center, sides):
    got_center, scale = transforms.box_to_center_scale(box, size, padding=1)
    assert got_center.tolist() == list(center)
    assert scale.tolist() == [max(sides)] * 2


def test_scale_is_padded_then_widened_to_the_aspect():
    _, scale = transforms.box_to_center_scale((0, 0, 40, 80), (200, 200), aspect=0.75)
    assert scale.tolist() == [75, 100]  # 50 x 100 is too narrow
    _, scale = transforms.box_to_center_scale((0, 0, 80, 40), (200, 200), aspect=0.75)
    np.testing.assert_allclose(scale, [100, 400 / 3], rtol=1e-6)  # 100 x 50 is too flat


@pytest.mark.parametrize("box", [(150, 10, 20, 20), (10, 10, 0, 20), (np.nan, 0, 9, 9)])
def test_box_without_area_in_the_image_is_refused(box):
    with pytest.raises(ValueError, match="no area inside the 100x80 image"):
        transforms.box_to_center_scale(box, (100, 80))


@pytest.mark.parametrize("axis", [0, 1])
def test_a_box_thinner_than_a_hundredth_of_a_pixel_is_refused(axis):
    sides = [20, 20]
    for sides[axis] in (0.02, 1):
        transforms.box_to_center_scale((10, 10, *sides), (100, 80))
    sides[axis] = 0.009
    with pytest.raises(ValueError, match="no area"):
        transforms.box_to_center_scale((10, 10, *sides), (100, 80))


def test_points_are_mapped_in_double_precision():
    # as `frame` gives its matrix: float32
    matrix = transforms.affine_matrix((1e4, 1e4), (90, 90), rotation=37).astype(np.float32)
    points = np.random.default_rng(0).uniform(9900, 9999, (50, 2)).astype(np.float32)
    wide, exact = points.astype(float), matrix.astype(float)
    expected = (wide @ exact[:, :2].T + exact[:, 2]).astype(np.float32)
    moved = transforms.apply_affine(points, matrix)
    assert moved.dtype == np.float32
    np.testing.assert_array_equal(moved, expected)
    np.testing.assert_array_equal(transforms.apply_affine(points.tolist(), matrix), expected)


def test_the_views_corners_become_the_crops():
    # Also where the crop is no square: the width decides, the height follows from it.
    center, scale = np.array([31, 47]), np.array([80, 60])
    corners = center + scale / 2 * [[-1, -1], [1, -1], [1, 1], [-1, 1]]
    matrix = transforms.affine_matrix(center, scale, size=(64, 48))
    moved = transforms.apply_affine(corners, matrix)
    np.testing.assert_allclose(moved, [[0, 0], [64, 0], [64, 48], [0, 48]], atol=1e-4)
    back = transforms.crop_to_image(moved, center, scale, size=(64, 48))
    np.testing.assert_allclose(back, corners, atol=1e-4)
    matrix = transforms.affine_matrix(center, np.array([80, 999]), size=(64, 48))
    np.testing.assert_allclose(transforms.apply_affine(corners, matrix), moved, atol=1e-4)


def test_inverse_leads_back():
    matrix = transforms.affine_matrix((31, 47), (80, 80), rotation=37, size=(64, 64))
    points = np.random.default_rng(0).uniform(0, 64, (5, 2))
    back = transforms.apply_affine(points, transforms.invert_affine(matrix))
    np.testing.assert_allclose(transforms.apply_affine(back, matrix), points, atol=1e-4)


# --- pixels


def test_mirrored_crop_equals_the_crop_of_the_mirrored_image():
    # To the byte, rotated or not: only then does folding the mirror into the warp change nothing.
    photo = example()
    for rotation in (0, 30, -77):
        image, _, center = transforms.flip(
            photo["image"], photo["keypoints"], np.array([140.0, 90.0]), pairs=PAIRS
        )
        settings = {"rotation": rotation, "size": (64, 64)}
        expected, _ = transforms.crop(np.ascontiguousarray(image), center, (150, 150), **settings)
        got, _ = transforms.crop(photo["image"], center, (150, 150), mirror=True, **settings)
        np.testing.assert_array_equal(got, expected)


def test_crop_at_scale_one_copies_pixels_and_is_black_beyond():
    image = example(size=(50, 40))["image"]
    crop, _ = transforms.crop(image, (32, 32), (64, 64), size=(64, 64))
    np.testing.assert_array_equal(crop[:40, :50], image)
    assert not crop[40:].any()
    assert not crop[:, 50:].any()


def test_crop_far_outside_the_image_is_black():
    image = np.full((20, 20, 3), 255, np.uint8)
    # 65,546 is 10 in 16 bits, the type in which OpenCV takes positions
    around = ((65546, 65546), (-65526, 10), (10, -65526))
    for center in ((-1e5, 10), (1e5, 1e5), *around):
        crop, _ = transforms.crop(image, center, (20, 20), size=(32, 32))
        assert not crop.any()


def test_crops_do_not_depend_on_the_opencv_version():
    # Where positions fall between 1/32 pixels, OpenCV 4 and 5 interpolate differently. Values
    # worked out by hand: position 0.51 reads at 16/32, so halfway between 0 and 200.
    image = np.zeros((4, 4, 3), np.uint8)
    image[:, 1:] = 200
    crop, _ = transforms.crop(image, (2.51, 2), (4, 4), size=(4, 4))
    assert crop[2, 0, 0] == 100


# Where a pixel is read, in 1/1024, and the 1/32 to which that is rounded: to the nearest, .5 up.
@pytest.mark.parametrize(("position", "read_at"), [(495, 15), (496, 16), (527, 16), (528, 17)])
def test_positions_are_rounded_to_the_nearest_32nd_of_a_pixel(position, read_at):
    image = np.zeros((8, 8, 3), np.uint8)
    image[:, 4:] = 64
    for picture, turned in ((image, False), (image.swapaxes(0, 1).copy(), True)):
        center = np.array([4 + position / 1024, 4])
        crop, _ = transforms.crop(picture, center[::-1] if turned else center, (8, 8), size=(8, 8))
        assert crop[*((3, 2) if turned else (2, 3)), 0] == 2 * read_at


def test_flip_twice_is_identity():
    photo = example()
    center = np.array([100.0, 50.0], np.float32)
    once = transforms.flip(photo["image"], photo["keypoints"], center, pairs=PAIRS)
    assert not np.array_equal(once[1], photo["keypoints"])
    image, points, center_again = transforms.flip(*once, pairs=PAIRS)
    np.testing.assert_array_equal(image, photo["image"])
    np.testing.assert_allclose(points, photo["keypoints"], atol=1e-4)
    np.testing.assert_array_equal(center_again, center)


def test_flip_exchanges_left_and_right_with_their_visibility():
    points = np.zeros((17, 3), np.float32)
    points[5] = 10, 20, 2  # left shoulder
    image, flipped, _ = transforms.flip(
        np.zeros((50, 100, 3), np.uint8), points, np.zeros(2), pairs=PAIRS
    )
    assert flipped[8].tolist() == [89, 20, 2]  # right shoulder
    assert flipped[5, 2] == 0
    assert image.shape == (50, 100, 3)


def test_boxes_are_taken_in_double_precision():
    rng = np.random.default_rng(0)
    for box in rng.uniform(10, 90, (50, 4)).astype(np.float32):
        got = transforms.box_to_center_scale(box, (4000, 3000))
        expected = transforms.box_to_center_scale(box.astype(float), (4000, 3000))
        np.testing.assert_array_equal(got, expected)


def test_transforms_imports_no_jax():
    code = "import sys, ap10k_jax.transforms; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
