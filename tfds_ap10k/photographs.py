"""Checks of a photograph's bytes: whether it is complete and can be decoded, and its size.

It is decoded at an eighth of its size, which takes about 3 ms for a megapixel. A photograph that
cannot be decoded would otherwise end a training run in the middle of an epoch.
"""

import hashlib
from typing import NamedTuple

import cv2
import numpy as np

from ap10k_jax import images
from tfds_ap10k import sources

MAX_BYTES = images.MAX_BYTES
# OpenCV, with which the training loader decodes, reads all of these whatever the file is called.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP")

_START_OF_IMAGE, _START_OF_SCAN, _END_OF_IMAGE = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"


class Photograph(NamedTuple):
    """A photograph's stored size in pixels; EXIF rotation is ignored, as annotations ignore it."""

    width: int
    height: int
    is_jpeg: bool
    sha256: str = ""  # of the file; empty where only a header was looked at


def find(folder: sources.Root, name: str) -> Photograph:
    """Find and check the photograph of this name in a folder; it is decoded once.

    Raises ValueError with the reason where it cannot be used.
    """
    path = folder / name
    if sources.leads_outside(path, folder):
        raise ValueError("a link out of the folder of photographs")
    data = sources.read(path, max_bytes=MAX_BYTES)
    found = inspect(data)
    if not _decodes(data):
        raise ValueError("cannot be decoded")
    return found._replace(sha256=hashlib.sha256(data).hexdigest())


def inspect(data: bytes) -> Photograph:
    """Read size and format from the header. Raises ValueError where the file cannot be used."""
    found = images.header(data)
    if found.format not in FORMATS:
        raise ValueError(f"a {found.format}, but only {', '.join(FORMATS)} can be used")
    is_jpeg = found.format == "JPEG"
    if is_jpeg and not _is_whole(data):
        raise ValueError("the file is cut short")
    return Photograph(found.width, found.height, is_jpeg)


def _is_whole(jpeg: bytes) -> bool:
    """True if the JPEG has its end marker, which is unique as FF is escaped in picture data."""
    end = jpeg.rfind(_END_OF_IMAGE)
    if end > jpeg.rfind(_START_OF_SCAN):
        return True
    # Either there is no end, or a thumbnail in the header or something appended has markers too.
    if end < jpeg.find(_START_OF_SCAN):
        return False
    return _decodes(jpeg)


def _decodes(data: bytes) -> bool:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_REDUCED_COLOR_8) is not None
    except cv2.error:
        return False
