"""Keypoints are found where the network sees them, also through its mirrored view."""

import cv2
import jax.numpy as jnp
import numpy as np
import pytest

from ap10k_jax import inference, keypoints


class Brightest:
    """In place of a network: left joints are where red is brightest, right green, middle blue."""

    def apply(self, variables, images, *, train):
        assert not train
        small = images[:, 1::4, 1::4]  # the crop's pixel 4 i + 1 is cell i + 1/4
        channel = {"left": 0, "right": 1, "middle": 2}
        return jnp.stack([small[..., channel[keypoints.AP10K.side(k)]] for k in range(17)], axis=-1)


class Symmetric(Brightest):
    """A network that knows sides: in a mirrored animal it finds the left where the right was."""

    def apply(self, variables, images, *, train):
        plain, mirrored = jnp.split(images, 2)
        exchanged = mirrored[..., jnp.array([1, 0, 2])]
        return super().apply(variables, jnp.concatenate([plain, exchanged]), train=train)


def spots(left, right, middle):
    image = np.zeros((64, 64, 3), np.float32)
    for channel, (x, y) in enumerate((left, right, middle)):
        layer = np.zeros((64, 64), np.float32)
        layer[y, x] = 1
        image[..., channel] = cv2.GaussianBlur(layer, (0, 0), 6)
    return np.uint8(255 * image / image.max((0, 1)))


@pytest.mark.parametrize(("network", "flip_test"), [(Brightest, False), (Symmetric, True)])
def test_points_are_where_the_network_sees_them(network, flip_test):
    seen = {5: (13, 41), 8: (45, 17), 3: (29, 29)}  # left shoulder, right shoulder, neck
    image = spots(*seen.values())
    points = inference.predict_crops(
        {}, image[None], module=network(), pairs=keypoints.AP10K.pairs, flip_test=flip_test
    )[0]
    for joint, expected in seen.items():
        np.testing.assert_allclose(points[joint, :2], expected, atol=1.01)


def test_a_network_that_confuses_sides_in_the_mirror_is_not_confirmed_by_it():
    # Brightest takes the mirrored left for the left: the average has two places for it
    image = spots((13, 41), (45, 17), (29, 29))
    both = inference.predict_crops({}, image[None], module=Brightest(), pairs=keypoints.AP10K.pairs)
    alone = inference.predict_crops(
        {}, image[None], module=Brightest(), pairs=keypoints.AP10K.pairs, flip_test=False
    )
    assert both[0, 5, 2] < 0.8 * alone[0, 5, 2]


def test_normalize_is_imagenets():
    grey = np.full((1, 2, 2, 3), 128, np.uint8)
    expected = (128 / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(inference.normalize(grey)[0, 0, 0], expected, rtol=1e-5)
