"""Photographs: their files, their headers, their pixels.

A file of a few kilobytes can claim any number of pixels. So the header is read before anything is
decoded, and memory is bounded before it is taken. EXIF orientation is ignored everywhere.
"""

import importlib.metadata
import io
from pathlib import Path
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import (
    BmpImagePlugin,
    ExifTags,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

# Versions of the decoders, which determine the pixels of a photograph.
DECODERS = f"simplejpeg {importlib.metadata.version('simplejpeg')}, OpenCV {cv2.__version__}"
MAX_BYTES = 100 << 20  # of a file
MAX_PIXELS = 200_000_000  # 0.6 GB once decoded
MAX_SIDE = 32_766  # OpenCV's remap, with which crops are cut, counts pixels in int16

# The readers themselves, not Image.open: that has a limit of its own, which warns far below ours.
READERS = (
    (b"\xff\xd8\xff", "JPEG", JpegImagePlugin.JpegImageFile),
    (b"\x89PNG\r\n\x1a\n", "PNG", PngImagePlugin.PngImageFile),
    (b"RIFF", "WEBP", WebPImagePlugin.WebPImageFile),
    (b"BM", "BMP", BmpImagePlugin.BmpImageFile),
    (b"II*\0", "TIFF", TiffImagePlugin.TiffImageFile),
    (b"MM\0*", "TIFF", TiffImagePlugin.TiffImageFile),
)
FORMATS = tuple(dict.fromkeys(name for _, name, _ in READERS))

# The loader runs one image per thread or process; OpenCV's own pool would only fight it for cores.
cv2.setNumThreads(0)


class Header(NamedTuple):
    """Stored size in pixels, before any rotation that EXIF asks for."""

    format: str
    width: int
    height: int


def read(path: str | Path) -> bytes:
    """The bytes of a photograph's file, no more than `header` lets pass.

    Raises OSError where it cannot be read and ValueError where it is no regular file.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise ValueError(f"{path}: not a file")  # a pipe would be waited for, a device never ends
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def header(data: bytes) -> Header:
    """Format and size of a photograph that may be decoded. Raises ValueError with the reason."""
    if not data:
        raise ValueError("the file is empty (0 bytes)")
    if len(data) > MAX_BYTES:
        raise ValueError(f"the file is larger than {MAX_BYTES >> 20} MiB")
    for start, name, reader in READERS:
        if data.startswith(start):
            try:
                with reader(io.BytesIO(data)) as image:
                    found = Header(name, *image.size)
            except Exception as error:  # on broken bytes Pillow raises nearly every kind
                raise ValueError(
                    f"not a readable photograph ({name} of a broken header)"
                ) from error
            return _bounded(found)
    raise ValueError(f"not a readable photograph (no {', '.join(FORMATS)}; {len(data)} bytes)")


def orientation(file: str | Path | BinaryIO) -> int:
    """EXIF's number for how to turn a photograph to show it: 1 (as it is stored) to 8.

    Raises ValueError where the header is broken.
    """
    try:
        with Image.open(file) as image:
            return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception as error:  # on broken bytes Pillow raises nearly every kind of exception
        raise ValueError("its EXIF, which says how the boxes lie, is broken") from error


def decode(data: bytes, name: str = "image") -> UInt8[np.ndarray, "H W 3"]:
    """The RGB pixels of an encoded photograph; `name` is the file to name if it cannot be read.

    Its size is looked at before it is decoded, see `header`. EXIF orientation is ignored: the
    annotations refer to the pixels as they are stored.
    """
    try:
        format = header(data).format
    except ValueError as error:
        raise ValueError(f"{name}: cannot be decoded as an image: {error}") from error
    if format == "JPEG":
        try:
            # OpenCV's pixels to the bit, with less copying of them
            return simplejpeg.decode_jpeg(data, "RGB")
        except ValueError:
            pass  # OpenCV makes do with more kinds of damage
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ValueError(f"{name}: cannot be decoded as an image: {error}") from error
    if image is None:
        raise ValueError(f"{name}: cannot be decoded as an image ({len(data)} bytes)")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _bounded(found: Header) -> Header:
    if min(found.width, found.height) < 1:
        raise ValueError(f"{found.width}x{found.height} pixels are none")
    if found.width * found.height > MAX_PIXELS or max(found.width, found.height) > MAX_SIDE:
        raise ValueError(
            f"{found.width}x{found.height} pixels are too many: at most {MAX_PIXELS:,} are read, "
            f"and {MAX_SIDE:,} along a side"
        )
    return found
