"""The paper's Tables 3 to 11: which runs each number comes from, and where in their results it is.

A cell is one training (or scoring) run; a number is read from one cell or from several, over which
it has a mean and a deviation. Tables share cells: the 210 epochs of Table 4 are Table 3's.
"""

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tfds_ap10k import taxonomy

REPEATS = (1, 2, 3)  # the paper's three random splits; for Table 10 three drawings of images

TITLES = {
    3: "Supervised learning: five models, from scratch and from ImageNet (validation AP)",
    4: "Longer training: HRNet-w32 for 210, 420 and 630 epochs (validation AP)",
    5: "Transfer from human pose: HRNet-w32 from COCO (validation)",
    6: "Generalization within Bovidae: row held out of training, column tested (test AP)",
    7: "Generalization within Canidae: row held out of training, column tested (test AP)",
    8: "Generalization within Felidae: row held out of training, column tested (test AP)",
    9: "Generalization between families: row tested, column trained on (test AP)",
    10: "From Bovidae to other species: as it is, few-shot, transfer (AP on the images not drawn)",
    11: "Between AP-10K and Animal-Pose: HRNet-w32 on the 17 common joints (test AP)",
}

MODELS = {
    "hrnet_w32": "hrnet_w32",
    "hrnet_w48": "hrnet_w48",
    "resnet50": "simplebaseline_resnet50",
    "resnet101": "simplebaseline_resnet101",
    "hourglass": "hourglass52",
}
INITIAL = {"scratch": "", "imagenet": "imagenet"}


class Cell(NamedTuple):
    name: str  # its run directory, below the one of all runs
    config: str  # a file of configs/, perhaps with an argument
    overrides: dict  # fields of the config
    after: str = ""  # the cell whose best weights this one starts from


class Number(NamedTuple):
    table: int
    row: str
    column: str
    cells: tuple[Cell, ...]  # one for each split or seed
    # Where the number is in results.json. Of several the mean is taken, and their deviation.
    reads: tuple[tuple[str, ...], ...]
    paper: tuple[float, ...]  # mean and, except in Table 11, deviation


@functools.cache
def paper() -> dict:
    """The numbers as printed: table -> {"metric", "rows"}."""
    return json.loads((Path(__file__).parent / "paper_tables.json").read_text())


def numbers(table: int) -> list[Number]:
    """The numbers of a table in the paper's order."""
    rows = paper()[str(table)]["rows"]
    return {
        3: supervised,
        4: longer,
        5: from_human_pose,
        **dict.fromkeys((6, 7, 8), functools.partial(within_family, table)),
        9: between_families,
        10: to_other_species,
        11: between_data_sets,
    }[table](rows)


def cells(wanted: Sequence[Number]) -> list[Cell]:
    """The runs behind these numbers, each once and after the run that it starts from."""
    ordered = {}

    def add(cell: Cell) -> None:
        if cell.after:
            add(predecessors()[cell.after])
        ordered[cell.name] = cell

    for number in wanted:
        for cell in number.cells:
            add(cell)
    return list(ordered.values())


def predecessors() -> dict[str, Cell]:
    """The cells that others start from, by name."""
    first = [one_family("Bovidae", repeat) for repeat in REPEATS]
    first += [sl("hrnet_w32", "imagenet", 210, 1), animal_pose()]
    return {cell.name: cell for cell in first}


def cell(name: str, config: str, *, after: str = "", **fields: object) -> Cell:
    """A cell; `fields` have __ in place of the dot."""
    # The vector that the paper's own tables were made with; results.json has the AP by both.
    overrides = {"eval.sigmas": "paper"}
    overrides |= {field.replace("__", "."): value for field, value in fields.items()}
    return Cell(name, config, overrides, after)


def sl(model: str, initial: str, epochs: int, split: int) -> Cell:
    return cell(
        f"sl/{MODELS[model]}-{initial}-{epochs}-split{split}",
        "sl.py",
        model__name=MODELS[model],
        init_from=INITIAL[initial],
        epochs=epochs,
        data__name=f"ap10k/split{split}",
    )


def supervised(rows: dict) -> list[Number]:
    read = (("validation", "AP"),)
    return [
        Number(3, row, model, tuple(sl(model, row, 210, n) for n in REPEATS), read, tuple(value))
        for row, columns in rows.items()
        for model, value in columns.items()
    ]


def longer(rows: dict) -> list[Number]:
    read = (("validation", "AP"),)
    return [
        Number(
            *(4, row, f"{epochs} epochs"),
            *(tuple(sl("hrnet_w32", row, int(epochs), n) for n in REPEATS), read, tuple(value)),
        )
        for row, columns in rows.items()
        for epochs, value in columns.items()
    ]


def from_human_pose(rows: dict) -> list[Number]:
    def runs(epochs: str) -> tuple[Cell, ...]:
        return tuple(
            cell(
                f"cdtl/coco-{epochs}-split{n}",
                "cdtl.py",
                epochs=int(epochs),
                data__name=f"ap10k/split{n}",
            )
            for n in REPEATS
        )

    return [
        Number(5, f"{epochs} epochs", name, runs(epochs), (("validation", name),), tuple(value))
        for epochs, columns in rows.items()
        for name, value in columns.items()
    ]


def within_family(table: int, rows: dict) -> list[Number]:
    """Tables 6 to 8. The average is over the species seen in training, the held-out one aside, and
    so is its deviation (that reproduces the paper's own averages from its columns).
    """
    result = []
    for held_out, columns in rows.items():
        runs = tuple(
            cell(
                f"dg_intra/without-{held_out.replace(' ', '_')}-split{n}",
                f"dg_intra.py:{held_out}",
                data__name=f"ap10k/split{n}",
            )
            for n in REPEATS
        )
        seen = [name for name in columns if name not in (held_out, "average")]
        for column, value in columns.items():
            names = seen if column == "average" else [column]
            reads = tuple(("test", "per_species", name) for name in names)
            result.append(Number(table, held_out, column, runs, reads, tuple(value)))
    return result


def one_family(family: str, split: int) -> Cell:
    return cell(
        f"dg_inter/{family}-split{split}",
        f"dg_inter.py:{family}",
        data__name=f"ap10k/split{split}",
    )


def between_families(rows: dict) -> list[Number]:
    result = []
    for trained, parts in rows.items():
        runs = tuple(one_family(trained.capitalize(), n) for n in REPEATS)
        groups = [parts["train"], *parts["test"].values()]
        for name, value in [item for group in groups for item in group.items()]:
            family = name.capitalize() in taxonomy.FAMILIES
            row = name.capitalize() if family else name
            read = ("test", "per_family" if family else "per_species", row)
            result.append(
                Number(9, row, f"from {trained.capitalize()}", runs, (read,), tuple(value))
            )
    return result


def to_other_species(rows: dict) -> list[Number]:
    """Table 10: drawing n goes on from the Bovidae run of split n."""

    def runs(species: str, kind: str) -> tuple[Cell, ...]:
        return tuple(
            cell(
                f"transfer/{species}-{kind}-seed{n}",
                f"transfer.py:{species},{kind}",
                after=one_family("Bovidae", n).name,
                draw__seed=n,
            )
            for n in REPEATS
        )

    return [
        Number(10, species, kind, runs(species, kind), (("test", "AP"),), tuple(value))
        for species, columns in rows.items()
        for kind, value in columns.items()
    ]


def animal_pose() -> Cell:
    return cell("cross_dataset/animal_pose-train", "cross_dataset.py:animal_pose")


def between_data_sets(rows: dict) -> list[Number]:
    """Table 11; the paper says neither which split nor how it finetuned: `test`, and as SL."""
    trained = {"ap10k": sl("hrnet_w32", "imagenet", 210, 1), "animal_pose": animal_pose()}
    result = []
    for row, columns in rows.items():
        source, target = row.split(" to ")
        runs = {
            "train": trained[target],
            "direct": cell(
                f"cross_dataset/{target}-direct",
                f"cross_dataset.py:{target}",
                after=trained[source].name,
                epochs=0,
                eval__splits="test",
            ),
            "finetune": cell(
                f"cross_dataset/{target}-finetune",
                f"cross_dataset.py:{target}",
                after=trained[source].name,
            ),
        }
        for column, value in columns.items():
            read = (("test", "AP"),)
            result.append(Number(11, row, column, (runs[column],), read, tuple(value)))
    return result
