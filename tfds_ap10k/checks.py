"""Find keypoint annotations that a second person should review, and draw them.

    python -m tfds_ap10k.checks ANNOTATIONS.json --report=findings.csv
    python -m tfds_ap10k.checks ANNOTATIONS.json --images=PHOTOGRAPHS --sheet=findings.png

`annotations` refuses data that no program can use. The rules of `rules` find values that a program
can use but a person probably did not intend. A finding is a reason to look, not a proof of a
mistake.
"""

import csv
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from ap10k_jax import images, keypoints, visualize
from ap10k_jax.runtime import command_line, errors
from tfds_ap10k import annotations, photographs, rules, sheets, sources

PADDING = 1.4  # of a picture on the sheet
ALARM = (230, 30, 40)


class Finding(NamedTuple):
    rule: str
    file: str
    image_id: int
    annotation_id: int
    joint: str  # the joints' names, with + between them; empty if it is about the whole animal
    value: float  # what the rule measured; the farther from its limit, the stranger


def check(coco: Mapping) -> list[Finding]:
    """Apply all rules to a validated COCO dict: findings by rule, the strangest first."""
    if not coco["annotations"]:
        return []
    animals = rules.arrays(coco)
    files = {image["id"]: image["file_name"] for image in coco["images"]}
    findings = []
    for name, rule in rules.RULES.items():
        found = sorted(rule(animals), key=lambda one: -abs(one[2]))
        if name in rules.SMALLEST_FIRST:
            found.reverse()
        for i, joints, value in found:
            animal = coco["annotations"][i]
            where = "+".join(animals.joints.names[k] for k in joints)
            image = animal["image_id"]
            findings.append(Finding(name, files[image], image, animal["id"], where, float(value)))
    return findings


def draw(
    coco: Mapping, findings: Sequence[Finding], folder: sources.Root, per_rule: int, columns: int
) -> np.ndarray | None:
    """Draw a sheet with the strangest findings of every rule, their joints ringed.

    Findings whose photograph is missing are left out; None if there are no others.
    """
    joints = keypoints.of_annotations(coco)
    animals = {animal["id"]: animal for animal in coco["annotations"]}
    sizes = {image["id"]: (image["width"], image["height"]) for image in coco["images"]}
    by_rule, shown = defaultdict(list), set()
    for finding in findings:
        key = finding.rule, finding.annotation_id
        if len(by_rule[finding.rule]) < per_rule and key not in shown:
            path = folder / finding.file
            if path.is_file():
                shown.add(key)
                animal, size = animals[finding.annotation_id], sizes[finding.image_id]
                by_rule[finding.rule].append(_tile(finding, animal, path, size, joints))
    rows = [row for tiles in by_rule.values() for row in sheets.wrap(tiles, columns) if tiles]
    return sheets.grid(rows) if rows else None


def _tile(
    finding: Finding,
    animal: Mapping,
    path: sources.Root,
    size: tuple[int, int],
    joints: keypoints.KeypointSet,
) -> np.ndarray:
    data = sources.read(path, max_bytes=photographs.MAX_BYTES)
    image = images.decode(data, finding.file)
    if image.shape[1::-1] != size:
        raise ValueError(f"{finding.file} is not of the {size[0]}x{size[1]} pixels of its record")
    points = np.reshape(np.array(animal["keypoints"], float), (-1, 3))
    labelled = points[points[:, 2] > 0, :2]
    x, y, width, height = animal["bbox"]
    corners = np.concatenate([labelled, [[x, y], [x + width, y + height]]])
    center = (corners.min(axis=0) + corners.max(axis=0)) / 2
    half = PADDING / 2 * np.maximum(np.ptp(corners, axis=0), 8)
    start = np.clip(center - half, 0, np.array(size) - 1).astype(int)
    stop = np.clip(center + half, start + 1, size).astype(int)
    part = image[start[1] : stop[1], start[0] : stop[0]]
    zoom = 300 / max(part.shape[:2])
    part = cv2.resize(part, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
    moved = points.copy()
    # half-pixel centres: OpenCV's resize maps x to zoom * (x + 0.5) - 0.5
    moved[:, :2] = zoom * (points[:, :2] - start + 0.5) - 0.5
    part = visualize.draw_skeleton(part, moved, keypoint_set=joints, threshold=0, width=2)
    upper, lower = zoom * (np.array([[x, y], [x + width, y + height]]) - start)
    frame = [tuple(corner.round().astype(int).tolist()) for corner in (upper, lower)]
    cv2.rectangle(part, *frame, visualize.COLORS["middle"], 1, cv2.LINE_AA)
    for name in filter(None, finding.joint.split("+")):
        place = moved[joints.names.index(name), :2].round().astype(int).tolist()
        cv2.circle(part, tuple(place), 9, ALARM, 2, cv2.LINE_AA)
    captions = [f"{finding.rule} {finding.value:.2f}: {finding.joint}"]
    captions.append(f"{finding.file} animal {finding.annotation_id}")
    return sheets.tile(part, captions, size=(300, 240))


def main() -> int:
    """The command line; returns the exit status."""
    parser = command_line.Parser("tfds_ap10k.checks", __doc__)
    parser.add_argument("annotations", metavar="ANNOTATIONS", type=Path)
    parser.add_argument("--images", type=Path, help="the folder of photographs (default: ../data)")
    parser.add_argument("--report", type=Path, help="write all findings: FILE.csv")
    parser.add_argument("--sheet", type=Path, help="draw the strangest findings: FILE.png")
    parser.add_argument("--examples", type=int, default=12, help="of a rule on the sheet (12)")
    flags = parser.parse_args()
    if flags.examples < 1:
        parser.error("--examples must be at least 1")
    with errors.reported(ValueError):
        contents, _ = annotations.read({"": flags.annotations})
        findings = check(contents[""])
        print(text(findings, len(contents[""]["annotations"])))
        if flags.report:
            with flags.report.open("w", newline="", encoding="utf-8") as file:
                table = csv.writer(file)
                table.writerow(Finding._fields)
                table.writerows((*row[:-1], f"{row.value:.4g}") for row in findings)
        if flags.sheet:
            folder = flags.images or flags.annotations.parent.parent / "data"
            sheet = draw(contents[""], findings, folder, flags.examples, columns=4)
            if sheet is None:
                print(f"No photograph of a finding is in {folder}; --images=FOLDER")
            else:
                visualize.save(flags.sheet, sheet)
    return 0


def text(findings: Sequence[Finding], animals: int) -> str:
    """A readable summary: counts of findings and of the animals they concern."""
    lines = [f"{'rule':20}{'findings':>9}{'animals':>9}  of {animals:,}"]
    for name in rules.RULES:
        found = [finding for finding in findings if finding.rule == name]
        concerned = len({finding.annotation_id for finding in found})
        lines.append(f"{name:20}{len(found):9,}{concerned:9,}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
