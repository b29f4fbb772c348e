"""Say what is in a data set, from its annotation files alone; with its photographs, show examples.

    python -m tfds_ap10k.describe ~/data/ap-10k --figure=species.png --sheet=examples.png
    python -m tfds_ap10k.describe ap10k-train-split1.json --json=counts.json --csv=species.csv

PATH is a COCO-style keypoint file (several are taken together), or a folder or zip file with
AP-10K, Animal-Pose or COCO as they are downloaded. A record that is flawed is left out, and that is
said.
"""

import csv
import json
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ap10k_jax.runtime import command_line, errors
from tfds_ap10k import AnimalPose, Ap10k, CocoKeypoints, annotations, sources, splits, unlabeled
from tfds_ap10k.animal_pose import conversion
from tfds_ap10k.coco_keypoints import selection
from tfds_ap10k.describe import figures, statistics

SHOWN_PROBLEMS = 5
LAYOUTS = (Ap10k.LAYOUT, AnimalPose.LAYOUT, CocoKeypoints.LAYOUT)


class Part(NamedTuple):
    """The sound records of one annotation file, and where its photographs may be."""

    coco: dict
    folders: tuple[sources.Root, ...]


class NothingToDescribe(errors.UserError, ValueError):
    """A path leads to no annotations that can be read; the text says why."""


def main() -> int:
    """The command line; returns the exit status."""
    parser = command_line.Parser("tfds_ap10k.describe", __doc__)
    parser.add_argument("paths", metavar="PATH", nargs="+", type=Path)
    parser.add_argument(
        "--split", type=int, default=1, choices=(1, 2, 3), help="of an AP-10K folder (default: 1)"
    )
    parser.add_argument(
        "--figure", type=Path, help="draw animals per species: FILE.png, .svg, .pdf"
    )
    parser.add_argument("--sheet", type=Path, help="draw annotated photographs: FILE.png")
    parser.add_argument("--images", type=Path, help="the photographs' folder, if not found beside")
    parser.add_argument("--examples", type=int, default=24, help="photographs on the sheet (24)")
    parser.add_argument("--seed", type=int, default=0, help="chooses other examples (0)")
    parser.add_argument("--json", type=Path, help="write all counts")
    parser.add_argument("--csv", type=Path, help="write family, species, images, animals")
    flags = parser.parse_args()
    if flags.examples < 1 or flags.seed < 0:
        parser.error("--examples must be at least 1 and --seed at least 0")
    with errors.reported(ValueError):
        parts, problems = gather(flags.paths, split=flags.split)
        report(problems)
        counts = statistics.count([part.coco for part in parts])
        others = unlabelled(flags.paths, split=flags.split)
        if others:
            counts["unlabeled"] = others
        title = " + ".join(path.name or str(path) for path in flags.paths)
        print(text(counts, title))
        if flags.json:
            flags.json.write_text(json.dumps(counts, indent=2) + "\n")
        if flags.csv:
            with flags.csv.open("w", newline="") as file:
                table = csv.writer(file)
                table.writerow(["family", "species", "images", "animals"])
                table.writerows(statistics.rows(counts))
        if flags.figure:
            figures.draw_species(counts, title).savefig(flags.figure)
        if flags.sheet:
            extra = (flags.images,) if flags.images else ()
            places = [(part.coco, (*extra, *part.folders)) for part in parts]
            figures.draw_examples(places, flags.examples, flags.seed).savefig(flags.sheet)
    return 0


def gather(
    paths: Sequence[Path], *, split: int = 1
) -> tuple[list[Part], list[annotations.Problem]]:
    """Read what the paths hold, each photograph once, and the problems of omitted records.

    Raises NothingToDescribe where no record is valid.
    """
    parts, problems = [], []
    for path in paths:
        for file in find_files(path, split=split):
            part, found = read(file)
            parts.append(part)
            problems += found
    # Three files of one split are a data set; the same photograph in two files is counted once.
    seen = set()
    for i, part in enumerate(parts):
        new = {
            image["id"]
            for image in part.coco["images"]
            if (image["id"], image["file_name"]) not in seen
        }
        seen |= {(image["id"], image["file_name"]) for image in part.coco["images"]}
        parts[i] = part._replace(coco=splits.with_images(part.coco, new))
    if not seen:
        reasons = "".join(f"\n  {problem}" for problem in problems[:SHOWN_PROBLEMS])
        raise NothingToDescribe(f"There is nothing sound to describe.{reasons}")
    return parts, problems


def find_files(path: Path, *, split: int) -> list[sources.Root]:
    """The annotation files that a path stands for. Raises NothingToDescribe if there are none."""
    path = path.expanduser()
    if path.is_file() and path.suffix.lower() != ".zip":
        return [path]
    if not path.exists():
        raise NothingToDescribe(f"{path} is missing.")
    find = sources.find if path.is_dir() else sources.find_in_zip
    for layout in LAYOUTS:
        try:
            root = find(path, layout)
        except sources.UNREADABLE:  # among them that nothing was found
            continue
        if root is not None:
            names = {
                Ap10k.LAYOUT: [
                    f"annotations/ap10k-{part}-split{split}.json"
                    for part in ("train", "val", "test")
                ],
                AnimalPose.LAYOUT: ["keypoints.json"],
                CocoKeypoints.LAYOUT: [
                    f"annotations/person_keypoints_{part}2017.json" for part in ("train", "val")
                ],
            }[layout]
            found = [root / name for name in names if (root / name).is_file()]
            if found:
                return found
    raise NothingToDescribe(
        f"{path} is no annotation file, and no folder or whole zip file with "
        f"{', '.join(layout.title for layout in LAYOUTS)}."
    )


def unlabelled(paths: Sequence[Path], *, split: int) -> dict:
    """Counts of the photographs without annotations that lie beside these, {} if none do."""
    files = [file for path in paths for file in find_files(path, split=split)]
    roots = {}
    for file in files:
        root = file.parent.parent if file.parent.name == "annotations" else file.parent
        roots.setdefault(str(root), (root, []))[1].append(file)
    images, categories = [], {}
    for root, beside in roots.values():
        if unlabeled.present(root):
            declared = [c for file in beside for c in read(file)[0].coco["categories"]]
            named = {c["id"]: (c["name"], c.get("supercategory") or c["name"]) for c in declared}
            found = unlabeled.listed(root, named)
            report(found.problems)
            images += found.images
            categories |= named
    return unlabeled.count(images, categories) if images else {}


def read(file: sources.Root) -> tuple[Part, list[annotations.Problem]]:
    """The sound records of a file of any of the three data sets, and what is wrong with others."""
    content, problems = annotations.parse(file)
    root = file.parent.parent if file.parent.name == "annotations" else file.parent
    folders = (root / "data", root / "images", file.parent, root)
    if isinstance(content, dict) and isinstance(content.get("images"), dict):
        sizes, _, more = conversion.measure(content["images"], root / "images", file=file.name)
        content, found = conversion.convert(content, sizes, file=file.name)
        problems += more + found
    elif file.name.startswith("person_keypoints_"):
        year = Path(file.name).stem.removeprefix("person_keypoints_")
        content = selection.Selection({"": year})("", content)
    if problems and not isinstance(content, dict):
        return Part({"images": [], "annotations": [], "categories": []}, folders), problems
    coco, more = annotations.check(content, file=file.name)
    sound = splits.with_images(coco, {image["id"] for image in coco["images"]})
    return Part(sound, folders), [*problems, *more]


def report(problems: Sequence[annotations.Problem]) -> None:
    """Tell on stderr how many records are left out, and why the first of them are."""
    if problems:
        print(f"Left out because of {len(problems)} problems:", file=sys.stderr)
        for problem in problems[:SHOWN_PROBLEMS]:
            print(f"  {problem}", file=sys.stderr)
        if len(problems) > SHOWN_PROBLEMS:
            print(f"  ... and {len(problems) - SHOWN_PROBLEMS} more", file=sys.stderr)


def text(counts: Mapping, title: str) -> str:
    """The counts for a reader."""
    animals = max(1, counts["animals"])
    lines = [
        title,
        f"{counts['images']:,} images, {counts['animals']:,} animals of "
        f"{counts['species_with_animals']} species in {counts['families_with_animals']} families "
        f"({counts['species']} and {counts['families']} are named)",
        "",
        f"{'family, species':28}{'images':>9}{'animals':>9}",
    ]
    for family, found in counts["per_family"].items():
        if found["animals"]:  # the others are named at the end
            lines.append(f"{family:28}{found['images']:9,}{found['animals']:9,}")
        lines += [
            f"  {name:26}{n['images']:9,}{n['animals']:9,}"
            for name, n in found["species"].items()
            if n["animals"]
        ]
    lines += ["", f"{'keypoint':28}{'labelled':>9}{'':4}of animals"]
    for name, n in counts["keypoints"].items():
        hidden = f"  ({n['hidden']:,} of them hidden)" if n["hidden"] else ""
        lines.append(f"{name:28}{n['labelled']:9,}{n['labelled'] / animals:14.1%}{hidden}")
    labelled = sum(n["labelled"] for n in counts["keypoints"].values())
    tail = counts["long_tail"]
    none = ", ".join(tail["species_without_animals"]) or "-"
    rare = f"species_with_fewer_than_{statistics.RARE}_animals"
    lines += [
        f"{labelled / animals:.1f} an animal; {counts['animals_without_keypoints']:,} animals "
        "have none",
        "",
        f"Animals per image: {_listed(counts['animals_per_image'])}",
        f"Image sizes: {_sizes(counts['image_sizes'])}",
        f"Box sizes: {_sizes(counts['box_sizes'])}",
        f"Animals by COCO's sizes: {_listed(counts['areas'])}",
        f"Backgrounds: {_listed(counts['backgrounds']) or 'not recorded'}",
        f"Long tail: {tail['species_with_half_of_the_animals']} species have half of the animals; "
        f"the ten largest have {tail['share_of_ten_largest']:.0%}; {tail[rare]} have fewer than "
        f"{statistics.RARE}",
        f"  most: {_listed(tail['largest'])}",
        f"  fewest: {_listed(tail['smallest'])}",
        f"  none: {textwrap.fill(none, 92, initial_indent=' ' * 8, subsequent_indent=' ' * 8)[8:]}",
    ]
    if "unlabeled" in counts:
        others = counts["unlabeled"]
        lines += [
            "",
            f"Besides {others['images']:,} photographs without annotations, of {others['species']} "
            f"species ({others['of_unknown_species']:,} of unknown species)",
        ]
        for family, species in others["per_family"].items():
            lines.append(f"{family:28}{sum(species.values()):9,}")
            lines += [f"  {name:26}{n:9,}" for name, n in species.items()]
    return "\n".join(lines)


def _listed(counts: Mapping) -> str:
    return ", ".join(f"{name}: {n:,}" for name, n in counts.items())


def _sizes(sizes: Mapping[str, Sequence[float]]) -> str:
    return ", ".join(f"{name} {width:g}x{height:g}" for name, (width, height) in sizes.items())


if __name__ == "__main__":
    sys.exit(main())
