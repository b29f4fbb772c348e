"""Boxes that a detector, or a person, has written to a file: COCO, MegaDetector, CSV.

All become `Box`es by file name. Boxes are xywh; in image pixels, or in shares of the image's width
and height where `relative`. The files are not trusted: what is no number, not finite or out of all
proportion refuses the file, with the place where it is.
"""

import csv
import dataclasses
import json
import reprlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Float

from ap10k_jax.runtime import errors

MAX_COORDINATE = 1e6  # pixels, as in tfds_ap10k.flaws; shares of an image are far below
MAX_FRAME = 10**7  # of a video: four days at 30 frames a second
CSV_COLUMNS = ("file", "x", "y", "width", "height")
ANIMAL = "animal"  # MegaDetector's name for what we look for


class BoxFileError(errors.UserError):
    """A file of boxes cannot be used; the message says why."""


@dataclasses.dataclass(frozen=True)
class Box:
    """One animal's box. `frame` is a video's, counted from 0; None: a photograph, or every frame.

    `until`: it holds for the frames from `frame` to before this one; None: for `frame` alone.
    `track` tells the same animal in other frames; `displayed`: the box refers to the image as EXIF
    says to show it, not as it is stored.
    """

    xywh: tuple[float, float, float, float]
    relative: bool = False
    displayed: bool = False
    score: float | None = None
    category: int = 1
    frame: int | None = None
    until: int | None = None
    track: str | None = None

    def pixels(self, width: int, height: int, orientation: int = 1) -> Float[np.ndarray, "4"]:
        """The box (xywh) in pixels of the stored image; `orientation` is EXIF's number, 1 to 8."""
        box = np.array(self.xywh, float)
        if self.displayed:
            box = _stored(box, orientation)
        return box * [width, height, width, height] if self.relative else box


class BoxFile:
    """The boxes of a file, looked up by the name of a photograph or video."""

    def __init__(
        self, path: Path, boxes: dict[str, list[Box]], image_ids: dict[str, int] | None = None
    ):
        self.path = path
        self.image_ids = image_ids or {}
        self._boxes = boxes
        self._by_name = defaultdict(list)
        for name in boxes:
            self._by_name[PurePosixPath(name).name].append(name)

    def __len__(self) -> int:
        return len(self._boxes)

    def find(self, file: str | Path) -> str | None:
        """The file's name as the box file spells it: the one path must end with the other."""
        wanted = _normal(str(file))
        fits = [
            name
            for name in self._by_name[PurePosixPath(wanted).name]
            if f"/{wanted}".endswith(f"/{name}") or f"/{name}".endswith(f"/{wanted}")
        ]
        if len(fits) > 1 and wanted not in fits:
            raise BoxFileError(f"{self.path}: {file} could be any of {', '.join(sorted(fits))}")
        return wanted if wanted in fits else fits[0] if fits else None

    def boxes(self, file: str | Path) -> list[Box] | None:
        """The boxes of a photograph or video; None where the file does not name it at all."""
        name = self.find(file)
        return None if name is None else self._boxes[name]


def read(
    path: str | Path,
    *,
    threshold: float = 0.2,
    categories: Sequence[str] = (),
    images: str | Path | None = None,
) -> BoxFile:
    """The boxes of a file whose score, where it has one, is at least the threshold.

    The format is recognised: CSV by the name's ending, MegaDetector's JSON by its
    `detection_categories`, else COCO. `categories` are names to keep; by default MegaDetector's
    animals, and everything of the others. `images` is the COCO file that names the images, for a
    file of COCO results, which holds their ids only. Raises BoxFileError.
    """
    path = Path(path)
    try:
        if path.suffix.lower() in (".csv", ".tsv"):
            return _threshold(read_csv(path), threshold)
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    # also ValueError: a number of thousands of digits; csv.Error: a cell without end
    except (ValueError, RecursionError, csv.Error) as error:
        raise BoxFileError(f"{path}: neither JSON nor CSV: {error}") from error
    try:
        if isinstance(content, dict) and "detection_categories" in content:
            found = _megadetector(path, content, set(categories or (ANIMAL,)))
        else:
            found = _coco(path, content, set(categories), images)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise BoxFileError(
            f"{path}: does not hold boxes as COCO or MegaDetector write them: {error!r}"
        ) from error
    return _threshold(found, threshold)


def read_csv(path: Path) -> BoxFile:
    """Boxes in image pixels from columns file, x, y, width, height.

    Optional ones are score, frame (of a video, from 0) and track (who it is, in any words). A row
    with the file's name only says that there is no animal.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        names = reader.fieldnames or ()
        missing = [name for name in CSV_COLUMNS if name not in names]
        if missing:
            raise BoxFileError(
                f"{path}: no column {', '.join(missing)}; a CSV of boxes has "
                f"{', '.join(CSV_COLUMNS)} and perhaps score, frame, track"
            )
        boxes = defaultdict(list)
        for row in reader:
            try:
                of_file = boxes[_normal(row["file"])]
                values = [row[name] for name in CSV_COLUMNS[1:]]
                if not any(values):
                    continue
                box = Box(
                    _xywh([_float(value) for value in values]),
                    score=_score(_float(row["score"])) if row.get("score") else None,
                    frame=_frame(int(row["frame"])) if row.get("frame") else None,
                    track=row.get("track") or None,
                )
            except (TypeError, ValueError) as error:
                raise BoxFileError(f"{path}, line {reader.line_num}: {error}") from error
            of_file.append(box)
    return BoxFile(path, dict(boxes))


def in_frame(boxes: Sequence[Box], frame: int) -> list[Box]:
    """The boxes of a frame of a video: its own, and those for every frame."""
    return [
        box
        for box in boxes
        if box.frame is None or box.frame <= frame < (box.until or box.frame + 1)
    ]


def _megadetector(path: Path, content: dict, wanted: set[str]) -> BoxFile:
    # {"detection_categories": {"1": "animal", "2": "person"}, "images": [
    #   {"file": "a.jpg", "detections": [{"category": "1", "conf": 0.9, "bbox": [x, y, w, h]}]},
    #   {"file": "b.mp4", "frames_processed": [0, 20], "detections": [{..., "frame_number": 0}]},
    #   {"file": "c.jpg", "failure": "Failure image access", "detections": null}]}
    names = content["detection_categories"]
    boxes = {}
    for image in content["images"]:
        if image.get("detections") is None:  # it failed there: as if it were not listed
            continue
        found = [
            Box(
                _xywh(detection["bbox"]),
                relative=True,
                # MegaDetector turns a photograph as EXIF says before it looks.
                displayed=True,
                score=_score(detection["conf"]),
                frame=_frame(detection.get("frame_number")),
            )
            for detection in image["detections"]
            # a category that is not listed counts as no detection, says the format
            if names.get(detection["category"]) in wanted
        ]
        looked_at = sorted({_frame(i) for i in image.get("frames_processed") or ()})
        boxes[_normal(image["file"])] = _hold(found, looked_at)
    return BoxFile(path, boxes)


def _hold(boxes: list[Box], looked_at: Sequence[int]) -> list[Box]:
    """Boxes of the frames that the detector looked at, kept until the next that it looked at.

    After the last it looked at they are kept for as long as it usually waits.
    """
    steps = np.diff(looked_at)
    usual = int(np.median(steps)) if len(steps) else 1
    until = dict(zip(looked_at, [*looked_at[1:], (looked_at or [0])[-1] + usual], strict=False))
    return [dataclasses.replace(box, until=until.get(box.frame)) for box in boxes]


def _coco(path: Path, content: dict | list, wanted: set[str], images: str | Path | None) -> BoxFile:
    # Annotations {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [
    #   {"image_id": 1, "category_id": 3, "bbox": [x, y, w, h]}], "categories": [...]} or results
    # [{"image_id": 1, "category_id": 3, "bbox": [x, y, w, h], "score": 0.9}]
    if isinstance(content, list):
        detections = content
        context = json.loads(Path(images).read_text(encoding="utf-8-sig")) if images else {}
    else:
        detections, context = content["annotations"], content
    if "images" not in context and any(not isinstance(d["image_id"], str) for d in detections):
        raise BoxFileError(f"{path}: names its images by number; which file says what they are?")
    names = {image["id"]: _normal(image["file_name"]) for image in context.get("images", ())}
    # results whose ids are file names need no such file
    names |= {d["image_id"]: _normal(d["image_id"]) for d in detections if _is_name(d, names)}
    categories = {c["id"]: c["name"] for c in context.get("categories", ())}
    boxes = {name: [] for name in names.values()}
    for d in detections:
        if d.get("iscrowd"):  # a group in one box, not an animal
            continue
        if wanted and categories.get(d["category_id"], str(d["category_id"])) not in wanted:
            continue
        if d["image_id"] not in names:
            raise BoxFileError(f"{path}: image {d['image_id']} is not among the images")
        boxes[names[d["image_id"]]].append(
            Box(
                _xywh(d["bbox"]),
                score=None if d.get("score") is None else _score(d["score"]),
                category=_category(d.get("category_id", 1)),
                track=str(d["track_id"]) if "track_id" in d else None,
            )
        )
    ids = {name: number for number, name in names.items() if isinstance(number, int)}
    return BoxFile(path, boxes, ids)


def _is_name(detection: dict, names: dict) -> bool:
    return isinstance(detection["image_id"], str) and detection["image_id"] not in names


def _xywh(values: Sequence) -> tuple[float, float, float, float]:
    if not (isinstance(values, list) and len(values) == 4 and all(map(_is_coordinate, values))):
        raise ValueError(f"a box is four numbers x, y, width, height, not {reprlib.repr(values)}")
    x, y, width, height = map(float, values)
    return x, y, width, height


def _is_coordinate(value: object) -> bool:
    return _is_number(value) and abs(value) <= MAX_COORDINATE


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _float(text: str | None) -> float:
    if text is None:
        raise ValueError("the line is too short")
    return float(text)


def _score(value: object) -> float:
    # NaN is neither above nor below a threshold: the box would be lost without a word
    if not (_is_number(value) and abs(value) <= MAX_COORDINATE):
        raise ValueError(f"a score is a number, not {reprlib.repr(value)}")
    return float(value)


def _frame(value: object) -> int | None:
    if value is not None and not (type(value) is int and 0 <= value <= MAX_FRAME):
        raise ValueError(f"a frame is a number from 0 to {MAX_FRAME}, not {reprlib.repr(value)}")
    return value


def _category(value: object) -> int:
    if not (type(value) is int and abs(value) < 2**63):
        raise ValueError(f"a category_id is a whole number, not {reprlib.repr(value)}")
    return value


def _threshold(found: BoxFile, threshold: float) -> BoxFile:
    kept = {
        name: [box for box in boxes if box.score is None or box.score >= threshold]
        for name, boxes in found._boxes.items()
    }
    return BoxFile(found.path, kept, found.image_ids)


def _stored(box: Float[np.ndarray, "4"], orientation: int) -> Float[np.ndarray, "4"]:
    """A relative box on the displayed image, on the stored one; mirrored ones are not turned.

    As MegaDetector's open_image, which knows EXIF's 3, 6 and 8 only.
    """
    x, y, width, height = box
    if orientation == 3:  # displayed upside down
        return np.array([1 - x - width, 1 - y - height, width, height])
    if orientation == 6:  # displayed a quarter turn clockwise
        return np.array([y, 1 - x - width, height, width])
    if orientation == 8:  # displayed a quarter turn counter-clockwise
        return np.array([1 - y - height, x, height, width])
    return box


def _normal(name: str) -> str:
    """A path with forward slashes and without a leading ./"""
    return str(PurePosixPath(name.strip().replace("\\", "/")))
