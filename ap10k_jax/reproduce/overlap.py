"""Photographs that two built data sets share, and what they do to a test across data sets.

AP-10K holds photographs that are in Animal-Pose too. A network that was trained on one of them and
is tested on the other (Table 11, columns "direct" and "finetune") has seen part of the test. This
module finds the shared photographs in the built data sets, and gives the AP without them. They
count as seen if they were trained on, or if the checkpoint was chosen by them (validation). It
needs the extra `curate`, and no TensorFlow.
"""

import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import tensorflow_datasets as tfds
import tqdm

from ap10k_jax import metrics, run_data, run_directory
from ap10k_jax.data.animals import Animals, open_builder, open_records
from ap10k_jax.report import document
from ap10k_jax.reproduce import plan, tables
from tfds_ap10k import hashes

BATCH = 256  # photographs in memory at a time
INSTALL = 'pip install "ap10k_jax[curate]"'


class Photograph(NamedTuple):
    """A photograph of a built data set."""

    split: str
    image_id: int
    file_name: str


class Match(NamedTuple):
    """The same picture in two data sets."""

    first: Photograph
    second: Photograph
    bits: int  # in which the average hashes differ, of 256
    similarity: float


class NotChecked(Exception):
    """Two data sets could not be compared; the message is shown in the report."""


def between(first: str, second: str, data_dir: str | Path | None, cache: Path) -> list[Match]:
    """The photographs that two built data sets, such as ap10k/split1, share.

    The result is cached in the folder `cache`, for either order, until a data set or the search
    changes. Raises NotChecked if a data set is not built or the extra is missing.
    """
    if first > second:
        return [
            match._replace(first=match.second, second=match.first)
            for match in between(second, first, data_dir, cache)
        ]
    builders = {}
    for name in (first, second):
        builders[name] = open_builder(name, data_dir)
        if not builders[name].info.initialized:
            raise NotChecked(f"{name} is not built here")
    search = {
        "fingerprints": {
            name: dict(builder.info.metadata["fingerprints"]) for name, builder in builders.items()
        },
        "limits": hashes.limits(),
    }
    path = cache / f"{first}-{second}.json".replace("/", "_")
    known = json.loads(path.read_text()) if path.exists() else {}
    if {name: known.get(name) for name in search} != search:
        lacking = [name for name in hashes.PACKAGES if not importlib.util.find_spec(name)]
        if lacking:  # said before a minute of hashing, not after
            raise NotChecked(f"{' and '.join(lacking)} must be installed: {INSTALL}")
        matches = _search(builders[first], builders[second])
        known = search | {"matches": matches}
        cache.mkdir(parents=True, exist_ok=True)
        run_directory.write_json(path, known)
    return [
        Match(Photograph(*a), Photograph(*b), bits, similarity)
        for a, b, bits, similarity in known["matches"]
    ]


def _search(first: tfds.core.DatasetBuilder, second: tfds.core.DatasetBuilder) -> list[Match]:
    places, prints = zip(*map(_fingerprints, (first, second)), strict=True)
    return [
        Match(places[0][pair.first], places[1][pair.second], pair.bits, round(pair.similarity, 4))
        for pair in hashes.near(*prints)
    ]


def _fingerprints(
    builder: tfds.core.DatasetBuilder,
) -> tuple[list[Photograph], hashes.Fingerprints]:
    """All photographs of a data set and their fingerprints, in the same order.

    The builder has refused unreadable ones. A ValueError here means that files were damaged since.
    """
    places, made = [], []
    with ThreadPoolExecutor() as pool:
        for batch in _batches(builder):
            places += [Photograph(split, *record[:2]) for split, *record in batch]
            made += pool.map(hashes.fingerprint, [record[-1] for record in batch])
    return places, hashes.together([Path(place.file_name) for place in places], made)


def _batches(builder: tfds.core.DatasetBuilder) -> Iterator[list[tuple[str, int, str, bytes]]]:
    """Split, id, name and encoded bytes of all photographs, BATCH at a time."""
    batch = []
    for split, info in builder.info.splits.items():
        source = open_records(builder, split)
        title = f"hashing {builder.info.full_name.rpartition('/')[0]} {split}"
        for i in tqdm.trange(info.num_examples, desc=title, unit=" photographs"):
            record = source[i]
            name = record["file_name"]
            name = name.decode() if isinstance(name, bytes) else name
            batch.append((split, int(record["image_id"]), name, record["image"]))
            if len(batch) == BATCH:
                yield batch
                batch = []
    yield batch


TABLE = 11
COLUMNS = ("direct", "finetune")
TRAINED = ("train", "validation")
CACHE = "shared-photographs"  # below the directory of all runs
FIELDS = (
    *("trained_on", "split", "file", "tested_on", "test_split", "test_file"),
    *("bits", "similarity"),
)
READING = (
    "Photographs that both data sets hold, found by average hash and a closer look "
    "(tfds_ap10k.dedup). Seen: in train or validation of the data set that the network was trained "
    "on first. AP without them: of the same run, scored on the other test photographs alone."
)


class Exposure(NamedTuple):
    """Photographs that the network behind one number had seen in training."""

    name: str  # row and column
    source: str  # the data set trained on first
    target: str  # the one tested on
    matches: list[Match]  # of source and target
    seen: frozenset[int]  # ids of the test photographs that training had seen
    tested: int  # test photographs with animals
    ap: float | None  # None where there is no run, or no animal
    ap_without: float | None
    lack: str  # why there was no check


def exposures(workdir: Path, steps: Sequence[plan.Step]) -> list[Exposure]:
    """The exposure of every number whose network was trained on another data set."""
    by_name = {step.cell.name: step for step in steps}
    return [
        _exposure(number, by_name, workdir / CACHE)
        for number in tables.numbers(TABLE)
        if number.column in COLUMNS
    ]


def _exposure(number: tables.Number, steps: Mapping[str, plan.Step], cache: Path) -> Exposure:
    (cell,) = number.cells
    config = steps[cell.name].config
    source, target = steps[cell.after].config.data.name, config.data.name
    name = f"{number.row}, {number.column}"
    try:
        matches = between(source, target, config.data.dir, cache)
    except NotChecked as error:
        return Exposure(name, source, target, [], frozenset(), 0, None, None, str(error))
    animals = run_data.open_animals(config, "test", config.eval.species, {})
    ids = {animals.annotation(i)["image_id"] for i in range(len(animals))}
    seen = frozenset(
        match.second.image_id
        for match in matches
        if match.first.split in TRAINED and match.second.split == "test"
    )
    aps = (None, None)
    if steps[cell.name].state == plan.FINISHED:
        rows = json.loads((steps[cell.name].workdir / "predictions-test.json").read_text())
        aps = (_ap(animals, rows, chosen, config.eval.sigmas) for chosen in (ids, ids - seen))
    return Exposure(name, source, target, matches, seen & ids, len(ids), *aps, "")


def _ap(animals: Animals, rows: list[dict], ids: set[int], sigmas: str) -> float | None:
    """The AP on these photographs alone; None if there are none."""
    if not ids:
        return None
    truth = animals.ground_truth()
    truth["annotations"] = [a for a in truth["annotations"] if a["image_id"] in ids]
    chosen = [
        row | {"keypoints": [row["keypoints"][i : i + 3] for i in range(0, 51, 3)]}
        for row in rows
        if row["image_id"] in ids
    ]
    return metrics.evaluate(truth, chosen, sigmas=sigmas)["AP"]


def report_parts(exposures: Sequence[Exposure]) -> list[document.Part]:
    """The table beneath Table 11, and a list of the photographs."""
    header = (
        "",
        "test photographs",
        "seen in training",
        "AP",
        "AP without them",
        "pairs in all splits",
    )
    body = []
    for exposure in exposures:
        if exposure.lack:
            body.append([exposure.name, "", f"not checked: {exposure.lack}", "", "", ""])
        else:
            numbers = (
                "-" if ap is None else f"{ap:.3f}" for ap in (exposure.ap, exposure.ap_without)
            )
            counts = map(str, (exposure.tested, len(exposure.seen)))
            body.append([exposure.name, *counts, *numbers, str(len(exposure.matches))])
    found = rows(exposures)
    listed = [document.Table(FIELDS, found, "The photographs that they share")] if found else []
    return [document.Text(READING), document.Table(header, body), *listed]


def rows(exposures: Sequence[Exposure]) -> list[list[str]]:
    """One line for every shared photograph and direction of training."""
    unique = {}
    for exposure in exposures:
        for match in exposure.matches:
            first, second = match.first, match.second
            unique[exposure.source, exposure.target, first, second] = [
                *(exposure.source, first.split, first.file_name),
                *(exposure.target, second.split, second.file_name),
                *(str(match.bits), f"{match.similarity:.3f}"),
            ]
    return list(unique.values())
