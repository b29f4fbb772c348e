"""Write the COCO file that annotators start from: photographs, species, joints, no keypoints yet.

    python -m tfds_ap10k.blank PHOTOS --species=species.csv --joints=joints.csv --out=blank.json

species.csv has a line for every photograph, joints.csv one for every joint:

    file,species,family                     joint,connected_to
    fox1.jpg,red fox,Canidae                nose,
    roe/1.jpg,roe deer,Cervidae             left_ear,nose

`family` may be missing or empty, and so may `connected_to`, the joint that a line is drawn to in
pictures. Left and right are told by the names: left_ear and right_ear, ear_L and ear_R. --groups
names the decisions of `tfds_ap10k.dedup`: what was dropped there is left out.

Every photograph begins with one animal of its species, in a box around the whole picture; or with
one for every box of --boxes (MegaDetector's JSON, COCO, CSV). In the annotation tool the boxes are
drawn tight, animals added, and joints set. `tfds_ap10k.exchange` takes the file there and back.
"""

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ap10k_jax import box_files, keypoints
from ap10k_jax.runtime import command_line, errors
from tfds_ap10k import annotations, dedup, hashes, photographs

SPECIES_COLUMNS, JOINT_COLUMNS = ("file", "species"), ("joint",)


class TableError(errors.UserError, ValueError):
    """A table cannot be used; the message lists all mistakes that can be found."""

    def __init__(self, file: Path, problems: Sequence[str]):
        more = len(problems) - annotations.MAX_LISTED
        lines = list(problems[: annotations.MAX_LISTED]) + [f"... and {more} more"] * (more > 0)
        super().__init__("\n  ".join([f"{file}:", *lines]))


def read_species(path: Path) -> dict[str, tuple[str, str]]:
    """Read species and family of every file, in the table's order. Raises TableError."""
    problems, found, families = [], {}, {}
    for where, row in _rows(path, SPECIES_COLUMNS):
        name, species, family = (row.get(key, "") for key in ("file", "species", "family"))
        if not (name and species):
            problems.append(f"{where}: a file and a species are needed, not {name!r}, {species!r}")
        elif name in found:
            problems.append(f"{where}: {name} is there twice")
        elif families.setdefault(species, family) != family:
            problems.append(
                f"{where}: {species} is of {family!r}, but of {families[species]!r} above"
            )
        else:
            found[name] = species, family or species
    if problems:
        raise TableError(path, problems)
    return found


def read_joints(path: Path) -> dict:
    """Read the joints' table as the declaration of a COCO category. Raises TableError."""
    rows = list(_rows(path, JOINT_COLUMNS))
    names = [row["joint"] for _, row in rows]
    problems, limbs = [], []
    for number, (where, row) in enumerate(rows, start=1):
        other = row.get("connected_to", "")
        if other and other not in names:
            problems.append(f"{where}: {other!r} is no joint of the table")
        elif other:
            limbs.append([number, names.index(other) + 1])
    declared = {"keypoints": names, "skeleton": limbs}
    try:
        keypoints.from_category(declared)
    except ValueError as error:
        problems.append(str(error))
    if problems:
        raise TableError(path, problems)
    return declared


def _rows(path: Path, columns: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """The lines of a table, without spaces around entries, each with its number in the file."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets write a mark
            table = csv.DictReader(file)
            missing = [name for name in columns if name not in (table.fieldnames or ())]
            if missing:
                some = ", ".join(table.fieldnames or ()) or "none"
                raise TableError(path, [f"no column {', '.join(missing)}; there are {some}"])
            return [
                (f"line {table.line_num}", {k: (v or "").strip() for k, v in row.items() if k})
                for row in table
                if any(row.values())
            ]
    except UnicodeDecodeError as error:
        raise TableError(path, ["not text in UTF-8; save it as CSV UTF-8"]) from error


def blank(
    folder: Path,
    species: Mapping[str, tuple[str, str]],
    joints: Mapping,
    found: box_files.BoxFile | None = None,
) -> tuple[dict, list[str]]:
    """Make the COCO dict of these photographs, and list the problems."""
    categories = {}
    for name, family in species.values():
        category = {"id": len(categories) + 1, "name": name, "supercategory": family}
        categories.setdefault(name, category | joints)
    images, animals, problems = [], [], []
    for number, (name, (kind, _)) in enumerate(species.items(), start=1):
        try:
            photograph = photographs.find(folder, name)
        except (ValueError, OSError) as error:
            problems.append(f"{name}: {getattr(error, 'strerror', None) or error}")
            continue
        width, height = photograph.width, photograph.height
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        whole = box_files.Box((0, 0, width, height))
        listed = [whole] if found is None else found.boxes(name)
        if listed is None:
            problems.append(f"{name}: {found.path} does not name it")
        for box in listed or ():
            xywh = [round(float(side), 2) for side in box.pixels(width, height)]
            animals.append(
                {
                    **{"id": len(animals) + 1, "image_id": number, "bbox": xywh},
                    **{"category_id": categories[kind]["id"], "area": xywh[2] * xywh[3]},
                    **{"iscrowd": 0, "num_keypoints": 0},
                    "keypoints": [0] * (3 * len(joints["keypoints"])),
                }
            )
    coco = {"images": images, "annotations": animals, "categories": list(categories.values())}
    return coco, problems


def unnamed(folder: Path, names: set[str]) -> list[str]:
    """Photographs of the folder that are not among these names."""
    there = (path.relative_to(folder).as_posix() for path in hashes.find_photographs(folder))
    return [name for name in there if name not in names]


def main() -> int:
    """The command line; returns the exit status."""
    parser = command_line.Parser("tfds_ap10k.blank", __doc__)
    parser.add_argument("photographs", metavar="PHOTOS", type=Path)
    parser.add_argument("--species", type=Path, required=True, help="the table of photographs")
    parser.add_argument("--joints", type=Path, required=True, help="the table of joints")
    parser.add_argument("--out", type=Path, required=True, help="the COCO file, a new one")
    parser.add_argument("--groups", type=Path, help="decisions.csv of tfds_ap10k.dedup")
    parser.add_argument("--boxes", type=Path, help="where the animals are, if that is known")
    flags = parser.parse_args()
    if not flags.photographs.is_dir():
        parser.error(f"{flags.photographs} is not a folder")
    with errors.reported(ValueError):
        species, joints = read_species(flags.species), read_joints(flags.joints)
        missing = unnamed(flags.photographs, set(species))
        if missing:
            raise TableError(flags.species, [f"{name} has no line" for name in missing])
        dropped = set()
        if flags.groups:
            decisions = dedup.read(flags.groups)
            dropped = {one.file for one in decisions if one.decision == dedup.DROP} & set(species)
        kept = {name: kind for name, kind in species.items() if name not in dropped}
        found = box_files.read(flags.boxes) if flags.boxes else None
        coco, problems = blank(flags.photographs, kept, joints, found)
        if problems:
            raise TableError(flags.species, problems)
        annotations_of, problems = annotations.check(coco, file=flags.out.name)
        if problems:
            raise annotations.AnnotationError(problems)
        with flags.out.open("x", encoding="utf-8") as file:
            json.dump(annotations_of, file)
    animals, kinds = len(coco["annotations"]), len(coco["categories"])
    print(
        f"{len(coco['images'])} photographs ({len(dropped)} more were dropped as duplicates), "
        f"{animals} animals of {kinds} species, {len(joints['keypoints'])} joints: {flags.out}"
    )
    for name in keypoints.one_sided(keypoints.from_category(joints)):
        print(f"{name} has no counterpart on the other side: is the name right?")
    return 0


if __name__ == "__main__":
    sys.exit(main())
