"""Search photographs for near-duplicates, show them for a decision, and act on the decisions.

    python -m tfds_ap10k.dedup PHOTOGRAPHS --out=FOUND
    python -m tfds_ap10k.dedup PHOTOGRAPHS --out=FOUND --apply --move-to=ASIDE
    python -m tfds_ap10k.dedup AP10K/data ANIMAL_POSE/images --between --out=FOUND

The first writes FOUND/decisions.csv with a proposal (keep the largest of every group) and sheets
FOUND/sheet-001.png, ... for the manual pass: look, and change keep and drop in the file. The second
lists what is dropped, and moves it to a folder if one is given. The third is the leakage check of a
test across data sets: only pairs of photographs from different folders count. Nothing is ever
deleted. Needs `pip install "ap10k_jax[curate]"`.
"""

import argparse
import csv
import shutil
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import tqdm

from ap10k_jax import images, visualize
from ap10k_jax.runtime import command_line, errors
from tfds_ap10k import hashes, photographs, sheets, sources

KEEP, DROP = "keep", "drop"
FIELDS = ("group", "file", "decision", "reason")
FRAMES = {KEEP: (40, 140, 60), DROP: (190, 50, 40)}
ROWS, COLUMNS = 20, 6  # groups and photographs of a group on a sheet


class Decision(NamedTuple):
    """A line of the decisions file; with a single folder, `file` is relative to it."""

    group: int
    file: str
    decision: str
    reason: str


class Match(NamedTuple):
    """The same picture in two folders, as paths relative to them."""

    first: str
    second: str
    bits: int  # in which the average hashes differ, of 256
    similarity: float


class DecisionError(errors.UserError, ValueError):
    """A decisions file that cannot be acted on; the text says where and why."""


def between(
    first: Path, second: Path, *, cache: Path | None = None, max_bits: int = hashes.MAX_BITS
) -> list[Match]:
    """Find the photographs that two folders share, which a test across data sets must not have.

    Unreadable photographs are skipped.
    """
    left, right = (
        hashes.fingerprints(hashes.find_photographs(folder), cache)[0] for folder in (first, second)
    )
    return [
        Match(
            left.files[pair.first].relative_to(first).as_posix(),
            right.files[pair.second].relative_to(second).as_posix(),
            pair.bits,
            pair.similarity,
        )
        for pair in hashes.near(left, right, max_bits=max_bits)
    ]


def group(pairs: Iterable[hashes.Pair], count: int) -> list[list[int]]:
    """The connected components of more than one of `count` photographs, each in ascending order."""
    parent = list(range(count))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]  # path halving
            i = parent[i]
        return i

    for pair in pairs:
        a, b = sorted((root(pair.first), root(pair.second)))
        parent[b] = a
    members = defaultdict(list)
    for i in range(count):
        members[root(i)].append(i)
    return [found for found in members.values() if len(found) > 1]


def propose(
    groups: Sequence[Sequence[int]],
    pairs: Iterable[hashes.Pair],
    found: hashes.Fingerprints,
    names: Sequence[str],
) -> list[Decision]:
    """Propose to keep the largest photograph of every group and to drop the others.

    The first of equally large ones is kept. It comes first in the result.
    """
    nearest = {}
    for pair in pairs:
        for one in (pair.first, pair.second):
            if one not in nearest or pair.similarity > nearest[one].similarity:
                nearest[one] = pair
    pixels = found.sizes.prod(axis=1)
    rows = []
    for number, members in enumerate(groups, start=1):
        kept, *others = sorted(members, key=lambda i: (-pixels[i], names[i]))
        width, height = found.sizes[kept]
        rows.append(Decision(number, names[kept], KEEP, f"the largest, {width}x{height}"))
        for i in others:
            pair = nearest[i]
            twin = names[pair.second if pair.first == i else pair.first]
            width, height = found.sizes[i]
            reason = f"{width}x{height}, {pair.bits} bits and {pair.similarity:.2f} from {twin}"
            rows.append(Decision(number, names[i], DROP, reason))
    return rows


def write(path: Path, decisions: Iterable[Decision]) -> None:
    """Write a CSV line for each decision. Raises FileExistsError: the file may have been edited."""
    with path.open("x", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(FIELDS)
        table.writerows(decisions)


def read(path: Path) -> list[Decision]:
    """Read and check a file of decisions, which people edit. Raises DecisionError."""
    try:
        return _read(path)
    except DecisionError:
        raise
    except (ValueError, csv.Error) as error:  # bytes that are no text, a cell without end
        raise DecisionError(f"{path.name}: not a table as was written there ({error})") from error


def _read(path: Path) -> list[Decision]:
    decisions, problems, seen = [], [], set()
    with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets write a mark
        table = csv.DictReader(file)
        missing = set(FIELDS[:3]) - set(table.fieldnames or ())
        if missing:
            raise DecisionError(f"{path.name} has no column {', '.join(sorted(missing))}")
        for row in table:
            where = f"line {table.line_num}"
            name, decision = (row["file"] or "").strip(), (row["decision"] or "").strip().lower()
            number = (row["group"] or "").strip()
            if decision not in (KEEP, DROP):
                problems.append(f"{where}: {decision!r} is neither {KEEP} nor {DROP}")
            if not number.isdecimal():
                problems.append(f"{where}: {number!r} is not the number of a group")
            if not name or name in seen:
                problems.append(f"{where}: {name!r} is no file, or named twice")
            seen.add(name)
            if not problems:
                decisions.append(Decision(int(number), name, decision, row.get("reason") or ""))
    if problems:
        raise DecisionError(f"{path.name}:\n  " + "\n  ".join(problems[:20]))
    return decisions


def draw(decisions: Sequence[Decision], folder: Mapping[str, Path], out: Path) -> list[Path]:
    """Draw sheets with a row for every group: green to keep, red to drop; returns their paths."""
    rows = defaultdict(list)
    for decision in decisions:
        rows[decision.group].append(decision)
    written, numbers = [], list(rows)
    for page, start in enumerate(range(0, len(numbers), ROWS), start=1):
        lines = []
        for number in numbers[start : start + ROWS]:
            shown = rows[number][:COLUMNS]
            more = len(rows[number]) - len(shown)
            note = f" (and {more} more)" if more else ""
            lines.append([_tile(d, folder[d.file], note) for d in shown])
        written.append(out / f"sheet-{page:03}.png")
        visualize.save(written[-1], sheets.grid(lines))
    return written


def _tile(decision: Decision, path: Path, note: str) -> np.ndarray:
    data = sources.read(path, max_bytes=photographs.MAX_BYTES)
    image = images.decode(data, path.name)
    shrink = max(1, max(image.shape[:2]) // 480)
    image = cv2.resize(image, None, fx=1 / shrink, fy=1 / shrink, interpolation=cv2.INTER_AREA)
    title = f"{decision.group}{note}: {decision.decision} {decision.file}"
    color = FRAMES[decision.decision]
    return sheets.tile(image, [title, decision.reason], color=color)


def main() -> int:
    """The command line; returns the exit status."""
    parser = command_line.Parser("tfds_ap10k.dedup", __doc__)
    parser.add_argument("folders", metavar="FOLDER", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="for the cache and the results")
    parser.add_argument("--between", action="store_true", help="only pairs from different folders")
    parser.add_argument(
        "--max-bits",
        type=int,
        default=hashes.MAX_BITS,
        help=f"in which average hashes may differ, of 256 (default: {hashes.MAX_BITS})",
    )
    parser.add_argument("--apply", action="store_true", help="act on OUT/decisions.csv")
    parser.add_argument("--move-to", type=Path, help="with --apply: move what is dropped there")
    flags = parser.parse_args()
    if flags.between and len(flags.folders) < 2:
        parser.error("--between needs two folders or more")
    if flags.move_to and not flags.apply:
        parser.error("--move-to goes with --apply")
    for folder in flags.folders:
        if not folder.is_dir():
            parser.error(f"{folder} is not a folder")
    with errors.reported():
        try:
            return _apply(flags) if flags.apply else _search(flags)
        except ImportError as error:
            raise errors.UserError(
                f'{error}; install it with: pip install "ap10k_jax[curate]"'
            ) from error


def _search(flags: argparse.Namespace) -> int:
    table = flags.out / "decisions.csv"
    if table.exists():
        hint = "add --apply to act on it, or move it away to search anew"
        print(f"{table} exists and may have been edited: {hint}.", file=sys.stderr)
        return 1
    flags.out.mkdir(parents=True, exist_ok=True)
    homes = {path: folder for folder in flags.folders for path in hashes.find_photographs(folder)}
    found, unreadable = hashes.fingerprints(
        list(homes),
        flags.out / "hashes.sqlite",
        progress=lambda paths: tqdm.tqdm(paths, "hashing", unit=" photographs"),
    )
    for path, reason in unreadable:
        print(f"left out: {path}: {reason}", file=sys.stderr)
    pairs = hashes.near(found, max_bits=flags.max_bits)
    if flags.between:
        home = [homes[path] for path in found.files]
        pairs = [pair for pair in pairs if home[pair.first] != home[pair.second]]
    alone = len(flags.folders) == 1
    names = [
        (path.relative_to(flags.folders[0]) if alone else path).as_posix() for path in found.files
    ]
    groups = group(pairs, len(names))
    decisions = propose(groups, pairs, found, names)
    write(table, decisions)
    drawn = draw(decisions, dict(zip(names, found.files, strict=True)), flags.out)
    print(
        f"{len(names):,} photographs ({len(unreadable)} more cannot be read), {len(pairs)} pairs "
        f"of the same picture, in {len(groups)} groups"
    )
    print(f"{table} proposes to drop {len(decisions) - len(groups)} of them; look at")
    print("\n".join(f"  {path}" for path in drawn) or "  nothing: there are no duplicates")
    return 0


def _apply(flags: argparse.Namespace) -> int:
    decisions = read(flags.out / "decisions.csv")
    dropped = [decision.file for decision in decisions if decision.decision == DROP]
    base = flags.folders[0] if len(flags.folders) == 1 else Path()
    for name in dropped:
        print(name)
        if flags.move_to and (base / name).is_file():  # moved before, if it is not there
            target = flags.move_to / Path(name).relative_to(Path(name).anchor)
            if ".." in target.parts:
                raise DecisionError(f"{name} leads outside the folder")
            if target.exists():
                raise DecisionError(f"{target} exists already; nothing is overwritten")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(base / name, target)
    done = f"moved to {flags.move_to}" if flags.move_to else "to be dropped; --move-to moves them"
    print(f"{len(dropped)} {done}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
