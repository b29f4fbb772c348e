"""Photographs are decoded to the pixels as they are stored, or refused by name."""

import io

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image

from ap10k_jax import images


def test_decoding_gives_rgb():
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 2] = 255  # OpenCV writes BGR
    image = images.decode(cv2.imencode(".png", red)[1].tobytes())
    assert image[0, 0].tolist() == [255, 0, 0]


def test_decoding_ignores_exif_orientation():
    jpeg = cv2.imencode(".jpg", np.zeros((16, 32, 3), np.uint8))[1].tobytes()
    # APP1 with one big-endian TIFF entry: orientation (0x0112) = 6, a quarter turn.
    tiff = bytes.fromhex("4d4d002a00000008 0001 0112 0003 00000001 0006 0000 00000000")
    body = b"Exif\0\0" + tiff
    rotated = jpeg[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2) + body + jpeg[2:]
    assert cv2.imdecode(np.frombuffer(rotated, np.uint8), cv2.IMREAD_COLOR).shape == (32, 16, 3)
    assert images.decode(rotated).shape == (16, 32, 3)


def test_grey_photographs_become_rgb():
    grey = cv2.imencode(".jpg", np.full((8, 8), 90, np.uint8))[1].tobytes()
    assert images.decode(grey).shape == (8, 8, 3)


def jpeg(mode="RGB", **options):
    """A smooth picture of odd sides as JPEG."""
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    pixels = cv2.resize(noise, (203, 157), interpolation=cv2.INTER_CUBIC)
    Image.fromarray(pixels).convert(mode).save(file := io.BytesIO(), "JPEG", **options)
    return file.getvalue()


def opencv(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


@pytest.mark.parametrize(
    "data",
    [
        jpeg(subsampling=0),  # 4:4:4
        jpeg(subsampling=1),  # 4:2:2
        jpeg(subsampling=2),  # 4:2:0, what cameras write
        jpeg(progressive=True),
        jpeg(quality=10),
        jpeg("L"),
        jpeg("CMYK"),
        jpeg(keep_rgb=True),
        jpeg() + b"more",
    ],
)
def test_jpegs_are_decoded_as_opencv_does_to_the_bit(data):
    np.testing.assert_array_equal(images.decode(data), opencv(data))


def test_jpegs_are_decoded_without_opencv_which_takes_longer(monkeypatch):
    expected = opencv(jpeg())
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded by OpenCV"))
    np.testing.assert_array_equal(images.decode(jpeg()), expected)


def test_a_damaged_photograph_that_opencv_can_read_is_read():
    data = jpeg()
    damaged = data[:900] + b"\xff\xff\x00\x01" * 3 + data[912:]
    with pytest.raises(ValueError, match="Corrupt"):
        simplejpeg.decode_jpeg(damaged)
    np.testing.assert_array_equal(images.decode(damaged), opencv(damaged))


@pytest.mark.parametrize("data", [b"", b"not a photograph", jpeg()[:900], jpeg()[:2]])
def test_unreadable_photograph_is_named(data):
    named = r"^000000000071\.jpg: cannot be decoded as an image(: \w| \(\d+ bytes\)$)"
    with pytest.raises(ValueError, match=named):
        images.decode(data, "000000000071.jpg")
    with pytest.raises(ValueError, match=r"^image: "):
        images.decode(data)


def test_what_opencv_says_of_a_photograph_comes_with_its_name(monkeypatch):
    def refuse(*_):
        raise cv2.error("too many pixels")

    png = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    monkeypatch.setattr(cv2, "imdecode", refuse)
    message = r"^fox\.png: cannot be decoded as an image: .*too many pixels"
    with pytest.raises(ValueError, match=message):
        images.decode(png, "fox.png")
