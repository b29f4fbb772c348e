"""Look at the bytes of a photograph: is it whole, and how big is it? Nothing is decoded in full
unless the file looks cut short, so that ten thousand photographs are checked in seconds.
"""

import io
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

MAX_BYTES = 100 << 20
MAX_PIXELS = 200_000_000
# OpenCV, with which the training loader decodes, reads all of these whatever the file is called.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP")


class Photograph(NamedTuple):
    """Stored size in pixels (EXIF rotation is ignored: annotations are in stored pixels)."""

    width: int
    height: int
    is_jpeg: bool
    has_end: bool  # whether the JPEG ends with its end marker; True for other formats


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
    is_jpeg = data.startswith(b"\xff\xd8")
    # FF D9 cannot occur in entropy-coded data (FF is stuffed there). It may in a thumbnail inside
    # the header, hence the start of scan, FF DA, that must come before; the last one is ours.
    has_end = not is_jpeg or data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda") > 0
    if not has_end and _ends_in_filling(data):
        raise ValueError("the file is cut short")
    return Photograph(width, height, is_jpeg, has_end)


def _ends_in_filling(data: bytes) -> bool:
    """Whether a JPEG without end marker lacks picture data too, not the marker alone.

    libjpeg fills what is missing with one colour, so the last rows of blocks are uniform.
    """
    image = cv2.imdecode(
        np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION
    )
    return image is None or np.ptp(image[-8:]) == 0
