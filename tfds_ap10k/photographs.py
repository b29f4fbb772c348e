"""Look at the bytes of a photograph: is it whole, can it be decoded, and how big is it?

It is decoded at an eighth of its size, in about 3 ms a megapixel: what could not be decoded would
otherwise end a training run, in the middle of an epoch.
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
    """Stored size in pixels (EXIF rotation is ignored: annotations are in stored pixels)."""

    width: int
    height: int
    is_jpeg: bool
    sha256: str = ""  # of the file; empty where only a header was looked at


def find(folder: sources.Root, name: str) -> Photograph:
    """The photograph of this name in a folder, decoded once to see that it can be.

    Raises ValueError with the reason if there is none that can be used.
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
    """What the file says of itself. Raises ValueError with the reason when it is unusable."""
    found = images.header(data)
    if found.format not in FORMATS:
        raise ValueError(f"a {found.format}, but only {', '.join(FORMATS)} can be used")
    is_jpeg = found.format == "JPEG"
    if is_jpeg and not _is_whole(data):
        raise ValueError("the file is cut short")
    return Photograph(found.width, found.height, is_jpeg)


def _is_whole(jpeg: bytes) -> bool:
    """Whether the picture ends: FF is escaped within picture data, so its end marker is unique."""
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
