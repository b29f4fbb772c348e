"""Heatmaps and back: against the reference, and against what the words promise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_files import copy, whole

from ap10k_jax import codec, keypoints

PAIRS = keypoints.AP10K.pairs
encode = jax.jit(codec.encode, static_argnames=("size", "stride", "sigma"))
decode = jax.jit(codec.decode, static_argnames=("stride", "method"))


def peak(x, y, value=1.0, size=64):
    """A heatmap of one joint with a single cell."""
    return jnp.zeros((size, size, 1)).at[y, x, 0].set(value)


@pytest.mark.parametrize("source", [copy, whole])
def test_targets_agree_with_the_reference(source):
    golden = source("targets.npz")
    heatmaps, weights = encode(golden["keypoints"], golden["visible"])
    np.testing.assert_allclose(heatmaps, golden["msra_heatmaps"], atol=1e-6)
    np.testing.assert_array_equal(weights, golden["msra_weights"])


@pytest.mark.parametrize("method", ["default", "dark"])
@pytest.mark.parametrize("source", [copy, whole])
def test_decoding_agrees_with_the_reference(source, method):
    golden = source("decode.npz")
    points, scores = decode(golden["heatmaps"], method=method)
    np.testing.assert_allclose(points, golden[f"{method}_keypoints"], atol=1e-4)
    np.testing.assert_array_equal(scores, golden[f"{method}_scores"])


@pytest.mark.parametrize(
    ("shift", "name"), [(False, "flipped_back"), (True, "flipped_back_shifted")]
)
@pytest.mark.parametrize("source", [copy, whole])
def test_flip_back_agrees_with_the_reference(source, shift, name):
    golden = source("decode.npz")
    heatmaps = golden["heatmaps"][: len(golden[name])]
    flipped = codec.flip_back(heatmaps, pairs=PAIRS, shift=shift)
    np.testing.assert_array_equal(flipped, golden[name])


@pytest.mark.parametrize("method", ["default", "dark"])
def test_decode_inverts_encode(method):
    # The target peaks at a whole cell, so up to half a cell (2 px) is lost, and no more: its equal
    # neighbours leave both decoders at the cell. (Near the border DARK smooths in the dark beyond.)
    rng = np.random.default_rng(0)
    points = rng.uniform(44, 210, (5, 17, 2)).astype(np.float32)
    heatmaps, weights = encode(points, jnp.ones((5, 17)))
    decoded, scores = decode(heatmaps, method=method)
    cells = 4 * np.trunc(points / 4 + 0.5)
    np.testing.assert_allclose(decoded, cells, atol=1e-3)
    assert np.all(np.abs(decoded - points) <= 2 + 1e-3)
    np.testing.assert_array_equal(scores, 1)
    np.testing.assert_array_equal(weights, 1)


def test_dark_finds_the_peak_between_cells_and_default_comes_within_a_quarter():
    # Targets are drawn at whole cells, but a trained network peaks between them.
    true = np.random.default_rng(1).uniform(20, 40, (17, 2)).astype(np.float32)
    y, x = np.mgrid[:64, :64][..., None]
    heatmaps = np.exp(-((x - true[:, 0]) ** 2 + (y - true[:, 1]) ** 2) / 8).astype(np.float32)
    dark, default = (decode(heatmaps, method=method)[0] / 4 for method in ("dark", "default"))
    assert np.abs(dark - true).max() < 0.02
    assert 0.05 < np.abs(default - true).max() <= 0.25 + 1e-3


def test_dark_finds_the_peak_of_slanting_ellipses():
    # Their logarithm has a mixed derivative, which round ones lack.
    true = np.random.default_rng(2).uniform(25, 35, (17, 2)).astype(np.float32)
    y, x = np.mgrid[:64, :64][..., None] - true.T[::-1, None, None]
    heatmaps = np.exp(-(x**2 + 2 * y**2 + 1.6 * x * y) / 18).astype(np.float32)
    points, _ = decode(heatmaps, stride=1, method="dark")
    assert np.abs(points - true).max() < 0.05


def test_decoding_treats_both_sides_and_both_axes_alike():
    # Near the border, where DARK does not find the very peak, and with unequal sides.
    y, x = np.mgrid[:20, :32][..., None]
    points = np.array([[2.3, 9.2], [14.8, 17.3], [28.7, 2.2], [16.4, 8.8]], np.float32)
    heatmaps = np.exp(-((x - points[:, 0]) ** 2 + (y - points[:, 1]) ** 2) / 8).astype(np.float32)
    for method in ("default", "dark"):
        found = np.asarray(decode(heatmaps, stride=1, method=method)[0])
        mirrored, _ = decode(heatmaps[:, ::-1], stride=1, method=method)
        np.testing.assert_allclose(mirrored, found * [-1, 1] + [31, 0], atol=1e-4)
        turned, _ = decode(heatmaps.swapaxes(0, 1), stride=1, method=method)
        np.testing.assert_allclose(turned, found[:, ::-1], atol=1e-4)


# Where a Gaussian peaks on each axis, and whether DARK moves from the cell there.
@pytest.mark.parametrize(("at", "moves"), [(1.3, False), (2.3, True), (61.3, True), (62.3, False)])
def test_dark_stays_at_two_cells_from_the_border(at, moves):
    cells = np.exp(-np.square(np.arange(64) - np.array([[at], [30.3]])) / 8).astype(np.float32)
    for axis in (0, 1):
        rows, columns = cells if axis == 1 else cells[::-1]
        points, _ = decode(np.outer(rows, columns)[..., None], stride=1, method="dark")
        assert (points[0, axis] != round(at)) == moves
        assert (points[0, 1 - axis] != 30) == moves


# Where the peak is, where the higher neighbours are, and what decoding makes of it, in cells.
QUARTER_STEPS = [
    ((10, 20), [(11, 20)], (10.25, 20)),  # toward the right neighbour
    ((10, 20), [(9, 20)], (9.75, 20)),  # toward the left
    ((10, 20), [(10, 21), (9, 20)], (9.75, 20.25)),  # both axes
    ((10, 20), [(9, 20), (11, 20)], (10, 20)),  # equal neighbours: stay
    ((1, 20), [(2, 20)], (1, 20)),  # column 1 stays, as in the reference
    ((2, 20), [(3, 20)], (2.25, 20)),  # column 2 moves
    ((62, 20), [(63, 20)], (62.25, 20)),  # so does the last column but one
    ((63, 20), [(62, 20)], (63, 20)),  # the last column stays
    ((20, 0), [(21, 0)], (20, 0)),  # a peak in the first row moves on neither axis
    ((0, 20), [(0, 21)], (0, 20)),  # nor does one in the first column
    ((20, 63), [(21, 63)], (20.25, 63)),  # in the last row it still moves sideways
    ((63, 20), [(63, 21)], (63, 20.25)),  # and in the last column down
    ((20, 1), [(21, 1), (20, 2)], (20.25, 1)),  # row 1 stays, yet moves sideways
    ((1, 20), [(2, 20), (1, 21)], (1, 20.25)),  # as column 1 moves down
    ((20, 2), [(20, 3)], (20, 2.25)),
    ((20, 62), [(20, 63)], (20, 62.25)),
    ((20, 63), [(20, 62)], (20, 63)),
    ((62, 63), [(61, 63)], (61.75, 63)),  # the last cell of all is a neighbour, too
]


@pytest.mark.parametrize(("at", "neighbours", "expected"), QUARTER_STEPS)
def test_default_moves_a_quarter_cell_toward_the_higher_neighbour(at, neighbours, expected):
    heatmap = peak(*at)
    for x, y in neighbours:
        heatmap = heatmap.at[y, x, 0].set(0.5)
    points, _ = decode(heatmap, stride=1)
    assert tuple(points[0].tolist()) == expected


def test_first_of_equal_maxima_in_reading_order_counts():
    # Were the map read column by column, (3, 9) would come first.
    heatmap = peak(30, 5) + peak(3, 9)
    points, _ = decode(heatmap, stride=1)
    assert points[0].tolist() == [30, 5]


@pytest.mark.parametrize("method", ["default", "dark"])
@pytest.mark.parametrize("value", [0.0, -0.1])
def test_no_positive_maximum_means_no_keypoint(method, value):
    points, scores = decode(jnp.full((64, 64, 2), value), method=method)
    np.testing.assert_array_equal(points, -4)
    np.testing.assert_allclose(scores, value)


def test_unknown_method_is_refused():
    with pytest.raises(ValueError, match=r"'bilinear': one of default, dark"):
        codec.decode(jnp.zeros((8, 8, 1)), method="bilinear")


# Crop pixel x of a joint at y = 100, and the weight it keeps.
ON_OR_OFF = [
    (0, 1),
    (-27, 1),  # cell -6: the patch reaches column 0
    (-31, 1),  # cell -7: patch empty, weight kept, as in the reference
    (-34, 0),  # cell -8
    (255, 1),  # cell 64: beyond the map, but its patch is not
    (277, 1),  # cell 69
    (278, 0),  # cell 70
]


@pytest.mark.parametrize(("x", "weight"), ON_OR_OFF)
def test_joint_counts_while_its_patch_may_touch_the_map(x, weight):
    # once as x and once as y
    heatmaps, weights = encode(jnp.array([[x, 100.0], [100.0, x]]), jnp.ones(2))
    assert weights.tolist() == [weight] * 2
    assert np.any(heatmaps, axis=(0, 1)).tolist() == [weight == 1 and x != -31] * 2


def test_unlabelled_joint_has_an_empty_map_and_no_weight():
    heatmap, weights = encode(jnp.full((2, 2), 100.0), jnp.array([0.0, 1.0]))
    assert not np.any(heatmap[..., 0])
    assert weights.tolist() == [0, 1]


def test_target_is_cut_to_13_cells():
    heatmap, _ = encode(jnp.array([[128.0, 128.0]]), jnp.ones(1))
    rows, columns = np.nonzero(heatmap[..., 0])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (26, 38, 26, 38)
    assert heatmap[32, 32, 0] == 1
    assert heatmap[32, 34, 0] == pytest.approx(np.exp(-0.5))


def test_size_is_width_by_height():
    heatmaps, _ = encode(jnp.array([[100.0, 20.0]]), jnp.ones(1), size=(48, 16))
    assert heatmaps.shape == (16, 48, 1)
    points, _ = decode(heatmaps)
    assert points[0].tolist() == [100, 20]


@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_leading_axes_are_batch_axes(batch):
    points = np.random.default_rng(2).uniform(20, 230, (*batch, 17, 2)).astype(np.float32)
    heatmaps, weights = encode(points, jnp.ones((*batch, 17)))
    assert heatmaps.shape == (*batch, 64, 64, 17)
    assert weights.shape == (*batch, 17)
    for method in ("default", "dark"):
        decoded, scores = decode(heatmaps, method=method)
        assert decoded.shape == (*batch, 17, 2)
        assert scores.shape == (*batch, 17)
    assert codec.flip_back(heatmaps, pairs=PAIRS).shape == heatmaps.shape


def test_flip_back_twice_is_identity_without_the_shift():
    heatmaps = np.random.default_rng(3).normal(size=(2, 8, 8, 17)).astype(np.float32)
    flip = functools.partial(codec.flip_back, pairs=PAIRS, shift=False)
    np.testing.assert_array_equal(flip(flip(heatmaps)), heatmaps)


def test_flip_back_shifts_unless_it_is_told_not_to():
    heatmaps = np.random.default_rng(4).normal(size=(4, 6, 17)).astype(np.float32)
    np.testing.assert_array_equal(
        codec.flip_back(heatmaps, pairs=PAIRS), codec.flip_back(heatmaps, pairs=PAIRS, shift=True)
    )


def test_shift_brings_the_mirrored_view_back_to_where_it_was():
    # A perfect network on the mirrored crop sees x at 255 - x; flipped back that is 0.75 cells
    # too far left, and with the shift 0.25 too far right.
    points = np.array([[[100.0, 100.0]]], np.float32)
    seen, _ = encode(points * [-1, 1] + [255, 0], jnp.ones((1, 1)), size=(256, 256), stride=1)
    fine = codec.flip_back(seen, pairs=(), shift=False)
    assert decode(fine, stride=1)[0][0, 0].tolist() == [100, 100]  # no error at stride 1
    seen, _ = encode(points * [-1, 1] + [255, 0], jnp.ones((1, 1)))
    errors = {
        shift: float(decode(codec.flip_back(seen, pairs=(), shift=shift))[0][0, 0, 0]) - 100
        for shift in (False, True)
    }
    assert errors == {False: -4, True: 0}  # 38.75 rounds to cell 39


def test_gradients_of_the_loss_reach_the_prediction_and_are_finite():
    # The targets sit inside the jitted step: nothing in them may produce nan, on or off the map.
    points = jnp.array([[-1e6, 3.0], [1e6, 3.0], [100.0, 100.0]])

    def total(scale):
        heatmaps, _ = codec.encode(points * scale, jnp.ones(3))
        return jnp.sum(heatmaps)

    assert np.isfinite(jax.jit(jax.grad(total))(1.0))
