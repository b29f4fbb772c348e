"""Results in the formats that other tools read: COCO, CSV, DeepLabCut, pictures, videos.

`records` are those of `job`, one a photograph or a frame of a video; those without `animals` say
something else and are passed over. Keypoints are (x, y, score) in pixels of the stored image; a
joint whose score is not above 0 was not found and has no place: its cells are empty.
"""

import csv
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath

import numpy as np
from jaxtyping import Float

from ap10k_jax import box_files, images, visualize
from ap10k_jax import keypoints as joints
from ap10k_jax.predict import video
from ap10k_jax.runtime import files


def write_coco(
    folder: Path,
    records: Sequence[dict],
    *,
    keypoint_set: joints.KeypointSet,
    box_file: box_files.BoxFile | None = None,
) -> list[Path]:
    """COCO keypoint results, and the images that their ids stand for.

    `COCO("coco-images.json").loadRes("coco-keypoints.json")` reads them. Ids are those of the
    file of boxes where it has any. Each animal's box stands beside as `box` (xywh): a key `bbox`
    would make pycocotools take the rows for detections.
    """
    known = {} if box_file is None else box_file.image_ids
    free = (number for number in itertools.count(1) if number not in set(known.values()))
    images, rows = [], []
    for record in _predicted(records):
        name = box_file.find(record["file"]) if known else None
        number = known[name] if name in known and "frame" not in record else next(free)
        image = {"id": number, "file_name": record["file"]}
        image |= {"width": record["width"], "height": record["height"]}
        if "frame" in record:
            image |= {"file_name": frame_name(record), "frame_id": record["frame"]}
            image["video"] = record["file"]
        images.append(image)
        for animal in record["animals"]:
            row = {"image_id": number, "category_id": animal["category"]}
            row["keypoints"] = [value for joint in animal["keypoints"] for value in joint]
            rows.append(row | {"score": animal["score"], "box": animal["box"]})
    category = {"name": "animal", "supercategory": "animal", "keypoints": keypoint_set.names}
    category["skeleton"] = [[a + 1, b + 1] for a, b in keypoint_set.skeleton]
    numbers = sorted({row["category_id"] for row in rows} | {1})
    paths = [folder / "coco-keypoints.json", folder / "coco-images.json"]
    files.write_text(paths[0], json.dumps(rows))
    context = {"info": {}, "images": images, "annotations": []}
    context["categories"] = [{"id": number, **category} for number in numbers]
    files.write_text(paths[1], json.dumps(context))
    return paths


def write_csv(
    folder: Path, records: Sequence[dict], *, keypoint_set: joints.KeypointSet
) -> list[Path]:
    """A row a joint: file, frame, animal, animal_score, joint, x, y, score."""
    path = folder / "keypoints.csv"
    with files.replacing(path) as part, part.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "frame", "animal", "animal_score", "joint", "x", "y", "score"))
        for start, animal in _animals(records):
            for name, joint in zip(keypoint_set.names, animal["keypoints"], strict=True):
                writer.writerow([*start, animal["score"], name, *_cells(joint)])
    return [path]


def write_csv_wide(
    folder: Path, records: Sequence[dict], *, keypoint_set: joints.KeypointSet
) -> list[Path]:
    """A row an animal: file, frame, animal, animal_score, its box, then three columns a joint."""
    path = folder / "keypoints-wide.csv"
    columns = [f"{name}_{c}" for name in keypoint_set.names for c in ("x", "y", "score")]
    with files.replacing(path) as part, part.open("w", newline="") as file:
        writer = csv.writer(file)
        box = ("box_x", "box_y", "box_width", "box_height")
        writer.writerow(("file", "frame", "animal", "animal_score", *box, *columns))
        for start, animal in _animals(records):
            cells = itertools.chain.from_iterable(_cells(joint) for joint in animal["keypoints"])
            writer.writerow([*start, animal["score"], *animal["box"], *cells])
    return [path]


def write_dlc(
    folder: Path, records: Sequence[dict], *, keypoint_set: joints.KeypointSet, scorer: str
) -> list[Path]:
    """DeepLabCut's tables, CSV and HDF5: one a video, by frame; one of all photographs, by name.

    Columns have the levels scorer, individuals, bodyparts, coords (x, y, likelihood), as those of
    its projects with several animals. An individual is a track where the boxes name tracks, else
    only the animal's place in its frame. Needs pandas and pytables, the extra `dlc`.
    """
    import pandas as pd

    folder = folder / "dlc"
    folder.mkdir(exist_ok=True)
    paths = []
    for file, group in _tables(records).items():
        people = list(dict.fromkeys(who for r in group for who in individuals(r)))
        columns = pd.MultiIndex.from_product(
            [[scorer], people or ["animal1"], keypoint_set.names, ["x", "y", "likelihood"]],
            names=["scorer", "individuals", "bodyparts", "coords"],
        )
        # Who is not there has likelihood 0, not NaN: below any threshold. And pandas would take a
        # first row without any number for the index's name.
        absent = [[np.nan, np.nan, 0.0]] * len(keypoint_set)
        values = np.tile(absent, (len(group), max(len(people), 1), 1, 1))
        for row, record in zip(values, group, strict=True):
            for who, animal in zip(individuals(record), record["animals"], strict=True):
                row[people.index(who)] = _found(animal["keypoints"])
        index = [r["frame"] if "frame" in r else r["file"] for r in group]
        table = pd.DataFrame(values.reshape(len(group), -1), columns=columns, index=index)
        stem = folder / f"{safe_path(file).as_posix().replace('/', '-')}-{scorer}"
        paths += [stem.with_name(stem.name + ending) for ending in (".csv", ".h5")]
        with files.replacing(paths[-2]) as part:
            table.to_csv(part)
        with files.replacing(paths[-1]) as part, pd.HDFStore(part, mode="w") as store:
            store.put("df_with_missing", table, format="table", track_times=False)
            # The format's version, which pandas 3 leaves out and pandas 1 and 2 cannot read without
            store.get_storer("df_with_missing").attrs.pandas_version = "0.15.2"
    return paths


def draw(
    folder: Path,
    records: Sequence[dict],
    *,
    keypoint_set: joints.KeypointSet,
    threshold: float,
    pictures: bool = True,
    videos: bool = True,
) -> list[Path]:
    """Photographs and videos with the joints above the threshold drawn in, in `drawn/`.

    They keep their names and folders; a video becomes an .mp4 without sound.
    """
    paths = []
    for file, group in _by_file(records).items():
        is_video = "frame" in group[0]
        if not (videos if is_video else pictures):
            continue
        path = folder / "drawn" / safe_path(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        if is_video:
            paths.append(path.with_name(path.name + ".mp4"))
            _draw_video(paths[-1], file, group, keypoint_set, threshold)
        else:
            paths.append(path)
            pixels = images.decode(images.read(file), file)
            visualize.save(path, _drawn(pixels, group[0], keypoint_set, threshold))
    return paths


def smoothed(records: Sequence[dict]) -> list[dict]:
    """The records with the keypoints of videos smoothed over time, animal by animal.

    Raises ValueError for a video in which animals have no tracks and a frame has several: nobody
    knows then who is who.
    """
    result = []
    for file, group in _by_file(records).items():
        if "frame" not in group[0]:
            result += group
            continue
        if any(len(r["animals"]) > 1 and _untracked(r) for r in group):
            raise ValueError(
                f"{file}: cannot smooth several animals in a frame without tracks; give boxes "
                "with a column 'track'"
            )
        paths = {}
        for i, record in enumerate(group):
            for j, who in enumerate(individuals(record)):
                paths.setdefault(who, []).append((i, j))
        group = [r | {"animals": [dict(animal) for animal in r["animals"]]} for r in group]
        for path in paths.values():
            points = np.array([group[i]["animals"][j]["keypoints"] for i, j in path])
            frames = np.array([group[i]["frame"] for i, _ in path])
            for (i, j), k in zip(path, video.smooth(points, frames), strict=True):
                group[i]["animals"][j]["keypoints"] = np.round(k, 3).tolist()
        result += group
    return result


def individuals(record: dict) -> list[str]:
    """Names of the animals of a record: by track, or by their place in the frame.

    An animal whose track another one of the frame has already is called by its place too.
    """
    called = []
    for place, animal in enumerate(record["animals"], 1):
        who = animal.get("track") or f"animal{place}"
        called.append(f"animal{place}" if who in called else who)
    return called


def safe_path(file: str) -> Path:
    """The path below an output folder that stands for a file anywhere."""
    path = PurePath(file)
    parts = [part for part in path.parts if part != path.anchor]
    return Path(*("up" if part == ".." else part for part in parts))


def frame_name(record: dict) -> str:
    """A frame's name among photographs: fox.mp4/000012."""
    return f"{record['file']}/{record['frame']:06d}"


def _predicted(records: Sequence[dict]) -> list[dict]:
    """Records with animals, or with none found, by file and frame."""
    chosen = [record for record in records if "animals" in record]
    return sorted(chosen, key=lambda r: (r["file"], r.get("frame", -1)))


def _by_file(records: Sequence[dict]) -> dict[str, list[dict]]:
    groups = itertools.groupby(_predicted(records), key=lambda record: record["file"])
    return {file: list(group) for file, group in groups}


def _tables(records: Sequence[dict]) -> dict[str, list[dict]]:
    """Records by DeepLabCut's tables: a video each, and the photographs together."""
    tables = {}
    for record in _predicted(records):
        tables.setdefault(record["file"] if "frame" in record else "photographs", []).append(record)
    return tables


def _animals(records: Sequence[dict]) -> Iterator[tuple[tuple, dict]]:
    for record in _predicted(records):
        for who, animal in zip(individuals(record), record["animals"], strict=True):
            yield (record["file"], record.get("frame", ""), who), animal


def _untracked(record: dict) -> bool:
    return any(animal.get("track") is None for animal in record["animals"])


def _cells(joint: Sequence[float]) -> list:
    """x, y and score; a joint that was not found has its score only."""
    return list(joint) if joint[2] > 0 else ["", "", joint[2]]


def _found(keypoints: Sequence[Sequence[float]]) -> Float[np.ndarray, "k 3"]:
    """Keypoints with NaN for x and y of joints that were not found."""
    values = np.array(keypoints, float)
    values[values[:, 2] <= 0, :2] = np.nan
    return values


def _drawn(
    pixels: np.ndarray, record: dict, keypoint_set: joints.KeypointSet, threshold: float
) -> np.ndarray:
    for animal in record["animals"]:
        points = np.array(animal["keypoints"])
        pixels = visualize.draw_skeleton(
            pixels, points, keypoint_set=keypoint_set, threshold=threshold
        )
    return pixels


def _draw_video(
    path: Path, file: str, records: list[dict], keypoint_set: joints.KeypointSet, threshold: float
) -> None:
    """The frames that can be decoded, in the video's own rate; undrawn where nothing is known."""
    about = video.info(file)
    of_frame = {record["frame"]: record for record in records}
    size = (records[0]["width"], records[0]["height"])
    with video.Writer(path, rate=about.rate, size=size) as writer:
        for index, pixels in video.read(file):
            if pixels is not None and index in of_frame:
                pixels = _drawn(pixels, of_frame[index], keypoint_set, threshold)
            if pixels is not None:
                writer.write(pixels)
