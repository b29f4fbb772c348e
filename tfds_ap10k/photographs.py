"""Look at the bytes of a photograph: is it whole, and how big is it? Hardly any is decoded for
that, so ten thousand photographs are checked in the time it takes to read them.
"""

import io
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from tfds_ap10k import sources

MAX_BYTES = 100 << 20
MAX_PIXELS = 200_000_000
# OpenCV, with which the training loader decodes, reads all of these whatever the file is called.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP")

_START_OF_IMAGE, _START_OF_SCAN, _END_OF_IMAGE = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"


class Photograph(NamedTuple):
    """Stored size in pixels (EXIF rotation is ignored: annotations are in stored pixels)."""

    width: int
    height: int
    is_jpeg: bool


def find(folder: sources.Root, name: str) -> Photograph:
    """The photograph of this name in a folder. Raises ValueError with the reason if there is none
    that can be used.
    """
    path = folder / name
    if sources.leads_outside(path, folder):
        raise ValueError("a link out of the folder of photographs")
    return inspect(sources.read(path, max_bytes=MAX_BYTES))


def inspect(data: bytes) -> Photograph:
    """What the file says of itself. Raises ValueError with the reason when it is unusable."""
    if not data:
        raise ValueError("the file is empty")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
    except Exception as error:  # on broken bytes Pillow raises nearly every kind of exception
        raise ValueError("not a readable photograph") from error
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width}x{height} pixels are more than {MAX_PIXELS}")
    is_jpeg = data.startswith(_START_OF_IMAGE)
    if is_jpeg and not _is_whole(data):
        raise ValueError("the file is cut short")
    return Photograph(width, height, is_jpeg)


def _is_whole(jpeg: bytes) -> bool:
    """Whether the picture ends: FF is escaped within picture data, so its end marker is unique."""
    end = jpeg.rfind(_END_OF_IMAGE)
    if end > jpeg.rfind(_START_OF_SCAN):
        return True
    # Either there is no end, or a thumbnail in the header or something appended has markers too.
    if end < jpeg.find(_START_OF_SCAN):
        return False
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_8) is not None
