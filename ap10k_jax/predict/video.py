"""Videos: frames in, frames out, and keypoints that are smooth over time."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from scipy.signal import savgol_filter

from ap10k_jax import images

ENDINGS = (".mp4", ".avi", ".mov", ".mkv", ".m4v", ".webm", ".mpg", ".mpeg", ".wmv")
# A quarter of a second at 30 frames a second; a parabola keeps the turning points of a stride.
SMOOTHING_FRAMES = 7
SMOOTHING_ORDER = 2
SMOOTHING = f"savgol-{SMOOTHING_FRAMES}-{SMOOTHING_ORDER}"  # its name in outputs
# So many frames in a row that cannot be decoded are the end of a file that was cut off.
PATIENCE = 100
MOST_FRAMES = 10**7  # four days at 30 frames a second
COUNT_TOLERANCE = 2


class Frame(NamedTuple):
    """A frame, counted from 0; `image` is None where it cannot be decoded."""

    index: int
    image: UInt8[np.ndarray, "H W 3"] | None


class VideoInfo(NamedTuple):
    frames: int  # as the file declares; 0 where it does not
    rate: float  # frames a second
    width: int
    height: int


def info(path: str | Path) -> VideoInfo:
    """The properties that a video file declares. Raises ValueError for a file that is no video."""
    with _Capture(path) as capture:
        return _info(path, capture)


def read(path: str | Path, *, start: int = 0) -> Iterator[Frame]:
    """The frames of a video in RGB, from number `start`, turned as the file says to show them.

    A frame that cannot be decoded comes without an image; so do those that a file which was cut
    off has lost. Raises ValueError for a file that is no video.
    """
    with _Capture(path) as capture:
        declared = _info(path, capture).frames
        index, lost = 0, []
        while len(lost) <= PATIENCE:
            # grab and not seek: seeking by number is inexact in most formats
            ok = capture.grab()
            if ok and index >= start:
                ok, image = capture.retrieve()
            if ok:
                yield from (Frame(i, None) for i in lost if i >= start)
                lost = []
                if index >= start:
                    yield Frame(index, cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
            elif index >= declared:
                break
            else:
                lost.append(index)
            index += 1
    missing = range(max(start, index - len(lost)), declared)
    # where a file holds no index its count of frames is an estimate
    if len(missing) > COUNT_TOLERANCE:
        yield from (Frame(i, None) for i in missing)


class Writer:
    """Writes RGB frames of one size as MPEG-4; use as a context. Raises OSError if it cannot."""

    def __init__(self, path: str | Path, *, rate: float, size: tuple[int, int]):
        self._size = size
        codec = cv2.VideoWriter_fourcc(*"mp4v")
        self._writer = cv2.VideoWriter(str(path), codec, rate, size)
        if not self._writer.isOpened():
            raise OSError(f"{path}: cannot write a video there")

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._writer.release()

    def write(self, image: UInt8[np.ndarray, "H W 3"]) -> None:
        if image.shape[1::-1] != self._size:  # OpenCV would drop it without a word
            raise ValueError(f"a frame of {image.shape[1::-1]} in a video of {self._size}")
        self._writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))


def smooth(
    keypoints: Float[np.ndarray, "t k 3"], frames: Float[np.ndarray, " t"]
) -> Float[np.ndarray, "t k 3"]:
    """One animal's keypoints with x and y smoothed over consecutive frames; scores stay.

    A Savitzky-Golay filter along each stretch of frames, without a gap, in which the joint was
    found (score above 0). A stretch shorter than the filter stays as it is.
    """
    keypoints = np.array(keypoints, float)
    smoothed = keypoints.copy()
    for k in range(keypoints.shape[1]):
        found = np.flatnonzero(keypoints[:, k, 2] > 0)
        breaks = np.flatnonzero(np.diff(np.asarray(frames)[found]) != 1) + 1
        for stretch in np.split(found, breaks):
            if len(stretch) >= SMOOTHING_FRAMES:
                smoothed[stretch, k, :2] = savgol_filter(
                    keypoints[stretch, k, :2], SMOOTHING_FRAMES, SMOOTHING_ORDER, axis=0
                )
    return smoothed


class _Capture:
    """An open video that is closed at the end."""

    def __init__(self, path: str | Path):
        if not Path(path).is_file():
            raise FileNotFoundError(f"{path}: no such file")
        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise ValueError(
                f"{path}: cannot be read as a video ({Path(path).stat().st_size} bytes)"
            )

    def __enter__(self) -> cv2.VideoCapture:
        return self._capture

    def __exit__(self, *exception):
        self._capture.release()


def _info(path: str | Path, capture: cv2.VideoCapture) -> VideoInfo:
    size = [round(capture.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)]
    rate = capture.get(cv2.CAP_PROP_FPS)
    frames = max(0, round(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
    if frames > MOST_FRAMES:  # each would be looked for
        raise ValueError(f"{path}: declares {frames} frames, more than {MOST_FRAMES}")
    if math.prod(size) > images.MAX_PIXELS or max(size) > images.MAX_SIDE:
        raise ValueError(f"{path}: frames of {size[0]}x{size[1]} pixels are too large")
    return VideoInfo(frames, rate if rate > 0 else 25.0, *size)
