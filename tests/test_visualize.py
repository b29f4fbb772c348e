"""Pictures show what they are given, in readable colours, at any size."""

import cv2
import numpy as np
import pytest

from ap10k_jax import keypoints, visualize

# A standing animal seen from its left, in a square of side 1.
POSE = np.array(
    [
        *([0.12, 0.25], [0.16, 0.24], [0.08, 0.3], [0.25, 0.35], [0.85, 0.3]),
        *([0.3, 0.5], [0.28, 0.7], [0.27, 0.9], [0.38, 0.5], [0.4, 0.7], [0.42, 0.9]),
        *([0.75, 0.5], [0.8, 0.7], [0.78, 0.9], [0.85, 0.5], [0.9, 0.7], [0.92, 0.9]),
    ]
)


def pose(side, score=1.0):
    return np.column_stack([POSE * side, np.full(17, score)])


def has_color(image, color):
    return bool(np.any(np.all(image == np.array(color), axis=-1)))


@pytest.mark.parametrize("side", [200, 1000, 6000])
def test_skeleton_covers_about_the_same_share_at_every_size(side):
    image = np.full((side, side, 3), 120, np.uint8)
    drawn = visualize.draw_skeleton(image, pose(side))
    assert 0.02 < np.mean(np.any(drawn != image, axis=-1)) < 0.15


@pytest.mark.parametrize("background", [0, 255])
def test_left_right_and_outline_show_on_any_background(background):
    image = np.full((400, 400, 3), background, np.uint8)
    drawn = visualize.draw_skeleton(image, pose(400))
    for color in (*visualize.COLORS.values(), visualize.OUTLINE):
        assert has_color(drawn, color)


def test_left_joints_have_the_left_colour():
    # Were sides confused, every picture of every report would be wrong without anyone noticing.
    assert visualize.COLORS["left"] == (255, 140, 0)  # orange, as the documentation says
    image = np.zeros((400, 400, 3), np.uint8)
    for index, name in enumerate(keypoints.AP10K.names):
        one = pose(400, score=0)
        one[index, 2] = 1
        drawn = visualize.draw_skeleton(image, one)
        x, y = np.round(one[index, :2]).astype(int)
        side = name.split("_")[0] if name.startswith(("left", "right")) else "middle"
        assert tuple(drawn[y, x]) == visualize.COLORS[side], name


def test_image_is_not_drawn_on():
    image = np.zeros((100, 100, 3), np.uint8)
    visualize.draw_skeleton(image, pose(100))
    visualize.draw_comparison(image, pose(100), pose(100), (10, 10, 50, 50))
    assert not image.any()


def test_joints_at_or_below_the_threshold_are_not_drawn():
    image = np.zeros((100, 100, 3), np.uint8)
    assert not visualize.draw_skeleton(image, pose(100, score=0.2)).any()
    assert visualize.draw_skeleton(image, pose(100, score=0.2), threshold=0.1).any()


# Joints where a network or a record may put them: nowhere, or very far away.
@pytest.mark.parametrize("wild", [np.nan, np.inf, -1e9, 1e9])
def test_wild_joints_do_no_harm(wild):
    animal = pose(100)
    animal[7, :2] = wild
    drawn = visualize.draw_skeleton(np.zeros((100, 100, 3), np.uint8), animal)
    assert has_color(drawn, visualize.COLORS["left"])
    assert np.mean(np.any(drawn > 0, axis=-1)) < 0.35  # lines did not swell


def test_comparison_shows_prediction_left_and_truth_right():
    image = np.zeros((100, 120, 3), np.uint8)
    gone = pose(100, score=0)
    with_prediction = visualize.draw_comparison(image, pose(100), gone)
    with_truth = visualize.draw_comparison(image, gone, pose(100))
    assert with_prediction[:, :120].any()
    assert not with_prediction[:, -120:].any()
    assert not with_truth[:, :120].any()
    assert with_truth[:, -120:].any()


def test_sheet_holds_every_panel():
    panels = [
        visualize.Panel(np.full((64, 64, 3), 40 + i, np.uint8), pose(64), pose(64), f"dog {i}")
        for i in range(5)
    ]
    sheet = visualize.contact_sheet(panels, columns=2, side=80)
    for i in range(5):
        assert has_color(sheet, [40 + i] * 3)
    assert sheet.shape[0] > 3 * 80
    assert sheet.shape[1] > 2 * 2 * 80


def test_sheet_takes_crops_of_other_shapes_and_long_captions():
    panels = [
        visualize.Panel(
            np.zeros((96, 48, 3), np.uint8), pose(48), pose(48), "noisy night monkey " * 9
        ),
        visualize.Panel(np.zeros((48, 96, 3), np.uint8), pose(48), pose(48), ""),
    ]
    assert visualize.contact_sheet(panels).ndim == 3


def test_sheet_without_panels_is_refused():
    with pytest.raises(ValueError, match="at least one panel"):
        visualize.contact_sheet([])


def test_keypoints_grow_with_the_crop_they_are_drawn_on():
    # One joint in the middle of a bright cell of a small crop stays there when it is enlarged.
    image = np.zeros((32, 32, 3), np.uint8)
    one = np.zeros((17, 3))
    one[2] = 20, 8, 1  # the nose: drawn white
    sheet = visualize.contact_sheet([visualize.Panel(image, one, one * 0, "")], columns=1, side=320)
    picture = sheet[38 : 38 + 320, 8 : 8 + 320]
    center = np.argwhere(np.all(picture == visualize.COLORS["middle"], axis=-1)).mean(axis=0)
    np.testing.assert_allclose(center, [84.5, 204.5], atol=1)  # 10 (y + 0.5) - 0.5


# Number of animals, group size, and the places (in order of similarity) that are shown.
GROUPS = [
    (9, 3, [0, 1, 2, 3, 4, 5, 6, 7, 8]),
    (11, 1, [0, 5, 10]),
    (100, 2, [0, 1, 49, 50, 98, 99]),
    (7, 3, [0, 1, 2, 3, 5, 6]),  # groups of 2
    (2, 3, [0, 1]),
    (0, 3, []),
]


@pytest.mark.parametrize(("number", "count", "places"), GROUPS)
def test_best_median_and_worst_are_chosen_without_repetition(number, count, places):
    similarity = np.random.default_rng(0).permutation(number) / 100
    chosen = visualize.best_median_worst(similarity, count)
    order = np.argsort(-similarity)
    assert chosen == [int(order[place]) for place in places]


def test_saved_picture_keeps_its_colours(tmp_path):
    image = np.zeros((8, 8, 3), np.uint8)
    image[..., 0] = 255
    visualize.save(tmp_path / "red.png", image)
    assert cv2.imread(str(tmp_path / "red.png"))[0, 0].tolist() == [0, 0, 255]


def test_an_uncertain_joint_is_a_ring_and_its_limbs_are_thin():
    image = np.full((400, 400, 3), 120, np.uint8)
    sure = pose(400)
    doubtful = sure.copy()
    doubtful[:, 2] = 0.99 * visualize.SURE
    drawings = [visualize.draw_skeleton(image, k) for k in (sure, doubtful)]
    x, y = np.round(sure[7, :2]).astype(int)  # left front paw
    assert [tuple(d[y, x]) for d in drawings] == [visualize.COLORS["left"], visualize.OUTLINE]
    x, y = np.round(sure[[6, 7], :2].mean(axis=0)).astype(int)  # in the middle of a limb
    widths = [np.sum(np.all(d[y] == visualize.COLORS["left"], axis=-1)) for d in drawings]
    assert widths[0] > widths[1] > 0


def test_heat_is_shown_where_the_heatmap_has_it():
    crop = np.full((128, 128, 3), 90, np.uint8)
    heatmaps = np.zeros((32, 32, 17), np.float32)
    peaks = [(1 + k, 30 - k) for k in range(17)]
    for k, (x, y) in enumerate(peaks):
        heatmaps[y, x, k] = 0.5
    sheet = visualize.draw_heatmaps(crop, heatmaps, columns=6, side=128)
    bar = sheet.shape[0] // 3 - 128  # three rows of pictures, each above its text
    for k, (x, y) in enumerate(peaks):
        row, column = divmod(k, 6)
        tile = sheet[row * (128 + bar) :][:128, column * 128 :][:, :128].sum(axis=-1, dtype=int)
        # cell i lies on pixel 4 i of the crop
        assert np.unravel_index(tile.argmax(), tile.shape) == (4 * y, 4 * x)


def test_no_heat_no_light():
    crop = np.full((128, 128, 3), 90, np.uint8)
    sheet = visualize.draw_heatmaps(crop, np.full((32, 32, 17), -0.5), columns=17, side=128)
    assert len(np.unique(sheet[:128])) == 1
