"""How much of Table 11's tests the network had seen in training, and its AP without that.

The numbers "direct" and "finetune" are of a network that was trained on one data set and is tested
on another. Photographs that both have count as seen if they were trained on, or if the checkpoint
was chosen by them (validation).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ap10k_jax import data, leakage, main, metrics, page, plan, tables

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
    """Of one number of the table."""

    name: str  # row and column
    source: str  # the data set trained on first
    target: str  # the one tested on
    matches: list[leakage.Match]  # of source and target
    seen: frozenset[int]  # ids of the test photographs that training had seen
    tested: int  # test photographs with animals
    ap: float | None  # None where there is no run, or no animal
    ap_without: float | None
    lack: str  # why there was no check


def look(workdir: Path, steps: Sequence[plan.Step]) -> list[Exposure]:
    """What there is to know of every number of a network that was trained on another data set."""
    by_name = {step.cell.name: step for step in steps}
    return [
        _look(number, by_name, workdir / CACHE)
        for number in tables.numbers(TABLE)
        if number.column in COLUMNS
    ]


def _look(number: tables.Number, steps: Mapping[str, plan.Step], cache: Path) -> Exposure:
    (cell,) = number.cells
    config = steps[cell.name].config
    source, target = steps[cell.after].config.data.name, config.data.name
    name = f"{number.row}, {number.column}"
    try:
        matches = leakage.between(source, target, config.data.dir, cache)
    except leakage.NotChecked as error:
        return Exposure(name, source, target, [], frozenset(), 0, None, None, str(error))
    animals = main.open_animals(config, "test", config.eval.species, {})
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


def _ap(animals: data.Animals, rows: list[dict], ids: set[int], sigmas: str) -> float | None:
    """The AP on these photographs alone; None without any."""
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


def parts(exposures: Sequence[Exposure]) -> list[page.Part]:
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
    for one in exposures:
        if one.lack:
            body.append([one.name, "", f"not checked: {one.lack}", "", "", ""])
        else:
            numbers = ("-" if ap is None else f"{ap:.3f}" for ap in (one.ap, one.ap_without))
            counts = map(str, (one.tested, len(one.seen)))
            body.append([one.name, *counts, *numbers, str(len(one.matches))])
    found = rows(exposures)
    listed = [page.Table(FIELDS, found, "The photographs that they share")] if found else []
    return [page.Text(READING), page.Table(header, body), *listed]


def rows(exposures: Sequence[Exposure]) -> list[list[str]]:
    """A line for every shared photograph, once for every direction that training can take."""
    unique = {}
    for one in exposures:
        for match in one.matches:
            first, second = match.first, match.second
            unique[one.source, one.target, first, second] = [
                *(one.source, first.split, first.file_name),
                *(one.target, second.split, second.file_name),
                *(str(match.bits), f"{match.similarity:.3f}"),
            ]
    return list(unique.values())
