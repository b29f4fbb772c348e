"""Write annotation files of train, val and test, three times, and of tasks with fewer images.

    python -m tfds_ap10k.divide ANNOTATIONS.json --out=DIR --groups=decisions.csv
    python -m tfds_ap10k.divide ANNOTATIONS.json --out=DIR --leave-out=Felidae --few=5 --few=25
    python -m tfds_ap10k.divide ANNOTATIONS.json --out=DIR --dataset=own

DIR gets three splits in the official layout, annotations/ap10k-{train,val,test}-split1.json, ...;
put the photographs beside them, in DIR/data. With --dataset=own it gets one split in the layout of
`tfds_ap10k.build --dataset=own`, annotations/{train,val,test}.json, and the photographs go to
DIR/images. `--groups` names the decisions of `dedup`: photographs that were dropped are left out,
and the others of a group stay on one side. `--few` (the paper's outlook has 5, 10, 15, 20 and 25)
makes a data set DIR/few5 of its own, with fewer photographs in train and the same val and test.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ap10k_jax.runtime import command_line, errors
from tfds_ap10k import annotations, dedup, splits

SPLITS = (1, 2, 3)
LAYOUTS = {"ap10k": "ap10k-{part}-split{split}.json", "own": "{part}.json"}


def decided(coco: Mapping, decisions: Sequence[dedup.Decision]) -> tuple[dict, dict[str, int]]:
    """Drop photographs from a COCO dict by the decisions; also returns the groups by file name.

    A decision may name a longer path than the record does: `data/1.jpg` means `1.jpg`.
    """
    of_file = {decision.file: decision for decision in decisions}
    groups, dropped = {}, set()
    for image in coco["images"]:
        name = image["file_name"]
        found = of_file.get(name) or next(
            (d for file, d in of_file.items() if file.endswith(f"/{name}")), None
        )
        if found:
            groups[name] = found.group
            if found.decision == dedup.DROP:
                dropped.add(image["id"])
    return splits.with_images(coco, {image["id"] for image in coco["images"]} - dropped), groups


def main() -> int:
    """The command line; returns the exit status."""
    parser = command_line.Parser("tfds_ap10k.divide", __doc__)
    parser.add_argument("annotations", metavar="ANNOTATIONS", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="a new folder, or one to add to")
    parser.add_argument(
        "--dataset", choices=LAYOUTS, default="ap10k", help="which builder is to read it (ap10k)"
    )
    parser.add_argument("--groups", type=Path, help="decisions.csv of tfds_ap10k.dedup")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other splits (0)")
    parser.add_argument("--leave-out", help="a species or family that train and val do without")
    parser.add_argument(
        "--few", type=int, action="append", default=[], help="DIR/few5 with 5 images a species, ..."
    )
    flags = parser.parse_args()
    if flags.seed < 0 or any(few < 1 for few in flags.few):
        parser.error("--seed must be at least 0 and --few at least 1")
    with errors.reported():
        contents, _ = annotations.read({str(path): path for path in flags.annotations})
        coco, groups = splits.join(contents.values()), None
        coco["categories"].sort(key=lambda category: category["id"])
        if flags.groups:
            before = len(coco["images"])
            coco, groups = decided(coco, dedup.read(flags.groups))
            print(f"{before - len(coco['images'])} photographs were dropped as duplicates")
        for split in SPLITS if flags.dataset == "ap10k" else SPLITS[:1]:
            parts = splits.divide_coco(coco, [flags.seed, split], groups)
            if flags.leave_out:
                try:
                    parts = splits.leave_out(parts, flags.leave_out)
                except KeyError:
                    raise errors.UserError(
                        f"{flags.leave_out} is neither a species nor a family of the file"
                    ) from None
            write(flags.out, flags.dataset, split, parts)
            for few in flags.few:
                train = splits.few_labels(parts["train"], few, [flags.seed, split])
                write(flags.out / f"few{few}", flags.dataset, split, parts | {"train": train})
    return 0


def write(folder: Path, dataset: str, split: int, parts: Mapping[str, dict]) -> None:
    """Write the three files of a split in the layout of the data set. Raises FileExistsError."""
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    for part, coco in parts.items():
        name = LAYOUTS[dataset].format(part=part, split=split)
        with (folder / "annotations" / name).open("x") as file:
            json.dump(coco, file)
    counts = ", ".join(f"{len(coco['images'])} {part}" for part, coco in parts.items())
    print(f"{folder}: split {split}: {counts}")


if __name__ == "__main__":
    sys.exit(main())
