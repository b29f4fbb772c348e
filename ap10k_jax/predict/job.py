"""A job of prediction over many files: found, read, predicted, and kept so that it can go on.

Results go to `results.jsonl`, a line for a photograph or a frame of a video as soon as it is done:

    {"file": "a/fox.jpg", "width": 640, "height": 480, "animals": [
        {"box": [x, y, w, h], "score": 0.8, "keypoints": [[x, y, score], ...], "category": 1}]}
    {"file": "run.mp4", "frame": 12, "width": 1920, ...}      a frame, counted from 0
    {"file": "run.mp4", "frames": 300}                        the video is done
    {"file": "b.jpg", "problems": ["b.jpg: cannot be decoded as an image (0 bytes)"]}

The first line holds the settings. A job that is started again keeps what is there, and tries again
what had a problem.
"""

import collections
import glob
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np

from ap10k_jax import box_files, images
from ap10k_jax.predict import video
from ap10k_jax.runtime import errors, files

PHOTOGRAPHS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
THREADS = 2  # that decode photographs while the network computes
Piece = tuple[dict, list[dict]]  # a record without its animals, and their crops


class JobError(errors.UserError):
    """The job cannot run at all; the message says why."""


class Results:
    """The file of results: what it holds at the start, and what is added to it."""

    def __init__(self, path: Path, settings: dict):
        """Opens the file, or begins it. Raises JobError where other settings wrote it."""
        self.path = path
        self.records = []
        if path.exists():
            have, self.records = _read(path)
            differing = [k for k in settings if have.get(k) != settings[k]]
            if differing:
                lines = [f"  {k}: {have.get(k)} there, {settings[k]} now" for k in differing]
                raise JobError(
                    f"{path} was written with other settings; choose another --out, or delete it:\n"
                    + "\n".join(lines)
                )
        # Without what is to be tried again, and without a last line that was cut off.
        mend = {r["file"] for r in self.records if "problems" in r}
        self.records = [
            r
            for r in self.records
            if "problems" not in r and not ("frames" in r and r["file"] in mend)
        ]
        with files.replacing(path) as part, part.open("w") as file:
            file.writelines(_line(r) for r in ({"settings": settings}, *self.records))
        self._file = path.open("a")

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._file.close()

    def add(self, records: Sequence[dict]) -> None:
        """Append records; they are on the disk when this returns."""
        self._file.writelines(_line(record) for record in records)
        self._file.flush()
        os.fsync(self._file.fileno())
        self.records += records

    def done(self) -> tuple[set[str], dict[str, set[int]]]:
        """The files that are done, and of unfinished videos the frames that are."""
        frames = collections.defaultdict(set)
        for record in self.records:
            if "frame" in record:
                frames[record["file"]].add(record["frame"])
        return {r["file"] for r in self.records if "frame" not in r}, frames

    def problems(self) -> list[str]:
        """The problems met so far, a line each."""
        return [problem for record in self.records for problem in record.get("problems", ())]


def find(inputs: Sequence[str]) -> list[str]:
    """The files that paths, folders and globs stand for, each once and in order.

    Of a folder all photographs and videos in it and below; a path that is not there is kept, so
    that it is reported.
    """
    files = []
    for given in inputs:
        path = Path(given).expanduser()
        if path.is_dir():
            inside = (p for p in sorted(path.rglob("*")) if p.is_file())
            files += [p for p in inside if p.suffix.lower() in (*PHOTOGRAPHS, *video.ENDINGS)]
        elif not path.exists() and glob.has_magic(given):
            files += [Path(p) for p in sorted(glob.glob(str(path), recursive=True))]
        else:
            files.append(path)
    return list(dict.fromkeys(os.path.normpath(path) for path in files))


def is_video(file: str) -> bool:
    return Path(file).suffix.lower() in video.ENDINGS


def fingerprint(variables: dict) -> str:
    """A short digest of a network's weights."""
    digest = hashlib.sha256()
    for path, value in jax.tree.leaves_with_path(variables):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()[:16]


def pictures(files: Sequence[str], results: Results) -> int:
    """Number of photographs and frames still to do, as far as the videos declare it."""
    done, frames_done = results.done()
    count = 0
    for file in files:
        if file in done:
            continue
        try:
            left = video.info(file).frames - len(frames_done[file]) if is_video(file) else 1
        except (OSError, ValueError):
            left = 0  # will be reported when it is read
        count += max(left, 0)
    return count


def run(
    predictor: Callable,
    files: Sequence[str],
    results: Results,
    *,
    boxes: box_files.BoxFile | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> None:
    """Predict what is not done yet; `progress` is told how many photographs and frames are.

    `predictor` is a `predict.Predictor`. What goes wrong with a file, a frame or a box is noted in
    its record and does not stop the job.
    """
    done, frames_done = results.done()
    todo = [file for file in files if file not in done]
    pieces = itertools.chain(
        _photographs([file for file in todo if not is_video(file)], predictor, boxes),
        *(_frames(file, frames_done[file], predictor, boxes) for file in todo if is_video(file)),
    )
    for group in grouped(pieces, predictor.batch_sizes[-1]):
        animals = iter(predictor.predict_crops([crop for _, crops in group for crop in crops]))
        results.add(
            [with_animals(record, [next(animals) for _ in crops]) for record, crops in group]
        )
        progress(len(group))


def grouped(pieces: Iterable[Piece], crops: int) -> Iterator[list[Piece]]:
    """Pieces in groups of about so many crops, and of not many more pieces."""
    group, number = [], 0
    for piece in pieces:
        group.append(piece)
        number += len(piece[1])
        if number >= crops or len(group) >= 4 * crops:
            yield group
            group, number = [], 0
    if group:
        yield group


def with_animals(record: dict, animals: Sequence) -> dict:
    """A record with what was predicted in place of what was known of its boxes."""
    if "animals" not in record:
        return record
    filled = [
        {
            "box": [round(float(v), 2) for v in animal.box],
            "score": round(animal.score, 4),
            "keypoints": [[round(float(v), 3) for v in joint] for joint in animal.keypoints],
            **known,
        }
        for known, animal in zip(record["animals"], animals, strict=True)
    ]
    return record | {"animals": filled}


def _photographs(
    files: Sequence[str], predictor: Callable, boxes: box_files.BoxFile | None
) -> Iterator[Piece]:
    """The pieces of photographs in order, decoded a few ahead."""
    with ThreadPoolExecutor(THREADS) as pool:
        waiting, rest = collections.deque(), iter(files)
        for file in itertools.islice(rest, 2 * THREADS):
            waiting.append(pool.submit(_photograph, file, predictor, boxes))
        while waiting:
            piece = waiting.popleft().result()
            for file in itertools.islice(rest, 1):
                waiting.append(pool.submit(_photograph, file, predictor, boxes))
            yield piece


def _photograph(file: str, predictor: Callable, boxes: box_files.BoxFile | None) -> Piece:
    try:
        _check_name(file)
        chosen = _boxes_of(file, boxes)
        pixels = images.decode(images.read(file), file)
        # MegaDetector's boxes are the only ones that care how the photograph is shown
        turned = _orientation(file) if chosen and chosen[0].displayed else 1
    except (OSError, ValueError, box_files.BoxFileError) as error:
        return _failed({"file": _printable(file)}, error), []
    return _piece({"file": file}, pixels, chosen, predictor, turned)


def _frames(
    file: str, done: set[int], predictor: Callable, boxes: box_files.BoxFile | None
) -> Iterator[Piece]:
    """The pieces of a video's frames that are not done, then one that says it is."""
    lost = []
    try:
        _check_name(file)
        chosen = _boxes_of(file, boxes)
        count = video.info(file).frames
        start = next(i for i in itertools.count() if i not in done)
        for index, pixels in video.read(file, start=start):
            count = max(count, index + 1)
            if pixels is None:
                lost.append(index)
            elif index not in done:
                own = None if chosen is None else box_files.in_frame(chosen, index)
                yield _piece({"file": file, "frame": index}, pixels, own, predictor)
    except (OSError, ValueError, box_files.BoxFileError) as error:
        yield _failed({"file": _printable(file)}, error), []
        return
    record = {"file": file, "frames": count}
    if lost:
        which = ", ".join(f"{a}" if a == b else f"{a} to {b}" for a, b in spans(lost))
        record["problems"] = [f"{file}: {len(lost)} frames cannot be decoded: {which}"]
    yield record, []


def spans(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Sorted whole numbers as stretches (first, last)."""
    numbers = np.asarray(numbers)
    breaks = np.flatnonzero(np.diff(numbers) > 1) + 1
    return [(int(part[0]), int(part[-1])) for part in np.split(numbers, breaks)]


def _piece(
    record: dict,
    pixels: np.ndarray,
    boxes: Sequence[box_files.Box] | None,
    predictor: Callable,
    orientation: int = 1,
) -> Piece:
    """Crops of an image's boxes, of the whole of it where there is no file of boxes."""
    height, width = pixels.shape[:2]
    if boxes is None:
        boxes = [box_files.Box((0, 0, width, height))]
    known, crops, problems = [], [], []
    where = record["file"] + (f", frame {record['frame']}" if "frame" in record else "")
    for box in boxes:
        try:
            crops += predictor.crops(pixels, box.pixels(width, height, orientation))
        except ValueError as error:
            problems.append(f"{where}: {error}")
            continue
        more = {"category": box.category, "box_score": box.score, "track": box.track}
        known.append({name: value for name, value in more.items() if value is not None})
    record = record | {"width": width, "height": height, "animals": known}
    return record | ({"problems": problems} if problems else {}), crops


def _boxes_of(file: str, boxes: box_files.BoxFile | None) -> Sequence[box_files.Box] | None:
    if boxes is None:
        return None
    found = boxes.boxes(file)
    if found is None:
        raise ValueError(f"{file}: {boxes.path} has no entry for it")
    return found


def _orientation(file: str) -> int:
    """EXIF's orientation of a photograph; 1 is as it is stored."""
    try:
        return images.orientation(file)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _check_name(file: str) -> None:
    """Names that are no text could not be written into any result, nor found there again."""
    if _printable(file) != file:
        raise ValueError(f"{_printable(file)}: the name is not UTF-8; rename the file")


def _printable(file: str) -> str:
    return file.encode(errors="backslashreplace").decode()


def _failed(record: dict, error: Exception) -> dict:
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{record['file']}: {error.strerror}"
    return record | {"problems": [text]}


def _line(record: dict) -> str:
    return json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"


def _read(path: Path) -> tuple[dict, list[dict]]:
    """Settings and records of a file whose last line may be cut off."""
    lines = path.read_text().split("\n")[:-1]
    try:
        first, *rest = [json.loads(line) for line in lines]
        return first["settings"], rest
    except (ValueError, KeyError, TypeError) as error:
        raise JobError(
            f"{path} is not a file of results: {error!r}; choose another --out"
        ) from error
