"""Every rule finds the mistake that is planted for it, in the right place, and no other."""

import csv
import json
import sys

import commands
import cv2
import numpy as np
import pytest
import tiny_ap10k
from golden_files import shared

from ap10k_jax import keypoints
from tfds_ap10k import checks, rules

NAMES = keypoints.AP10K.names

# An animal that looks at us with its head at the upper right, in a box of 100 x 80.
POSE = {
    **{"left_eye": (84, 12), "right_eye": (76, 12), "nose": (80, 20), "neck": (70, 25)},
    **{"root_of_tail": (15, 25), "left_shoulder": (68, 36), "left_elbow": (70, 50)},
    **{"left_front_paw": (71, 70), "right_shoulder": (60, 35), "right_elbow": (58, 50)},
    **{"right_front_paw": (57, 69), "left_hip": (27, 36), "left_knee": (30, 51)},
    **{"left_back_paw": (31, 71), "right_hip": (18, 34), "right_knee": (16, 50)},
    **{"right_back_paw": (13, 69)},
}


def animal(identity: int, pose: dict, *, image: int = 1, species: int = 8, box=(5, 5, 90, 70)):
    points = [(*pose[name], 2) if name in pose else (0, 0, 0) for name in NAMES]
    return {
        **{"id": identity, "image_id": image, "category_id": species, "bbox": list(box)},
        **{"area": box[2] * box[3], "iscrowd": 0, "num_keypoints": len(pose)},
        "keypoints": [value for point in points for value in point],
    }


def herd(*others: dict, count: int = 30) -> dict:
    """Sound animals of slightly different limbs, each on its photograph, and the others."""
    rng = np.random.default_rng(0)
    animals = []
    for i in range(1, count + 1):
        pose = {name: tuple(np.add(xy, rng.normal(0, 0.7, 2))) for name, xy in POSE.items()}
        animals.append(animal(i, pose, image=i))
    images = [
        {"id": i, "file_name": f"{i}.jpg", "width": 120, "height": 90} for i in range(1, count + 2)
    ]
    categories = tiny_ap10k.contents()["train"]["categories"]
    return {"images": images, "annotations": [*animals, *others], "categories": categories}


def swapped(*names: str) -> dict:
    left, right = (f"{side}_{name}" for name in names for side in ("left", "right"))
    return POSE | {left: POSE[right], right: POSE[left]}


MISTAKES = {
    "outside_box": (POSE | {"left_back_paw": (31, 85)}, "left_back_paw"),
    "coincident": (POSE | {"right_elbow": (60.2, 35)}, "right_shoulder+right_elbow"),
    "eyes_swapped": (swapped("eye"), "left_eye+right_eye"),
    "limbs_cross": (
        POSE | {"left_elbow": (74, 50), "right_elbow": (52, 50)}
        | {"left_front_paw": (52, 62), "right_front_paw": (74, 62)},
        "left_front_paw+right_front_paw",
    ),
    "body_twisted": (
        POSE | {"left_hip": (20, 19), "right_hip": (20, 40), "left_shoulder": (66, 40)}
        | {"right_shoulder": (66, 20)},
        "left_shoulder+right_shoulder+left_hip+right_hip",
    ),
    "limb_too_long": (POSE | {"left_knee": (55, 60)}, "left_hip+left_knee"),
    "box_too_large": (POSE, ""),
    "unlabelled_beside": ({}, ""),
}  # fmt: skip


def mistaken(rule: str) -> dict:
    box = (0, 0, 240, 170) if rule == "box_too_large" else (5, 5, 90, 70)
    image = 1 if rule == "unlabelled_beside" else 31
    return animal(100, MISTAKES[rule][0], image=image, box=box)


def test_there_is_a_planted_mistake_for_every_rule_and_none_without():
    assert set(MISTAKES) == set(rules.RULES)
    assert checks.check(herd()) == []
    assert checks.check(herd() | {"annotations": []}) == []


@pytest.mark.parametrize("rule", MISTAKES)
def test_a_planted_mistake_is_found_where_it_is(rule):
    findings = [f for f in checks.check(herd(mistaken(rule))) if f.rule == rule]
    assert {f.annotation_id for f in findings} == {100}
    assert MISTAKES[rule][1] in {f.joint for f in findings}
    file = "1.jpg" if rule == "unlabelled_beside" else "31.jpg"
    assert {f.file for f in findings} == {file}


@pytest.mark.parametrize("rule", set(MISTAKES) - {"box_too_large", "unlabelled_beside"})
def test_findings_do_not_depend_on_size_or_place(rule):
    def moved(coco: dict) -> dict:
        animals = []
        for one in coco["annotations"]:
            points = 7 * np.reshape(one["keypoints"], (-1, 3)) + [300, 200, 0]
            points[np.reshape(one["keypoints"], (-1, 3))[:, 2] == 0] = 0
            x, y, width, height = one["bbox"]
            box = [7 * x + 300, 7 * y + 200, 7 * width, 7 * height]
            animals.append(one | {"keypoints": points.ravel().tolist(), "bbox": box})
        return coco | {"annotations": animals}

    coco = herd(mistaken(rule))
    for one, other in zip(checks.check(coco), checks.check(moved(coco)), strict=True):
        assert one[:-1] == other[:-1]
        assert one.value == pytest.approx(other.value)


def test_turning_an_animal_over_does_not_swap_its_eyes():
    upside_down = {name: (100 - x, 80 - y) for name, (x, y) in POSE.items()}
    found = checks.check(herd(animal(100, upside_down, image=31)))
    assert not [finding for finding in found if finding.rule == "eyes_swapped"]
    mirrored = {name: (100 - x, y) for name, (x, y) in POSE.items()}  # without renaming the sides
    found = checks.check(herd(animal(100, mirrored, image=31)))
    assert [finding.annotation_id for finding in found if finding.rule == "eyes_swapped"] == [100]


def test_a_distant_animal_may_stay_unlabelled():
    beside = animal(100, {}, image=1, box=(60, 40, 40, 30))
    assert [f.rule for f in checks.check(herd(beside))] == ["unlabelled_beside"]
    assert checks.check(herd(animal(100, {}, image=1, box=(60, 40, 12, 9)))) == []
    assert checks.check(herd(animal(100, {}, image=31))) == []  # nobody is beside it


def test_a_rare_species_is_measured_by_all():
    rare = animal(100, MISTAKES["limb_too_long"][0], image=31, species=24)
    found = [finding for finding in checks.check(herd(rare)) if finding.rule == "limb_too_long"]
    assert {finding.annotation_id for finding in found} == {100}


def test_joints_that_are_not_ap10ks_are_checked_as_far_as_they_go():
    names = ["left_wing", "right_wing", "beak"]
    coco = herd(count=1)
    coco["categories"] = [{"id": 8, "name": "bird", "keypoints": names, "skeleton": [[1, 3]]}]
    points = [10, 10, 2, 10.1, 10, 2, 150, 40, 2]
    coco["annotations"] = [coco["annotations"][0] | {"keypoints": points, "num_keypoints": 3}]
    found = {(finding.rule, finding.joint) for finding in checks.check(coco)}
    assert found == {("coincident", "left_wing+right_wing"), ("outside_box", "beak")}


def run(monkeypatch, *arguments) -> int:
    monkeypatch.setattr(sys, "argv", ["checks", *map(str, arguments)])
    return commands.status(checks.main)


def test_the_command_counts_lists_and_shows(tmp_path, monkeypatch, capsys):
    coco = herd(mistaken("eyes_swapped"))
    (tmp_path / "a.json").write_text(json.dumps(coco))
    report, sheet = tmp_path / "a.csv", tmp_path / "a.png"
    flags = (tmp_path / "a.json", f"--report={report}", f"--sheet={sheet}", f"--images={tmp_path}")
    assert run(monkeypatch, *flags) == 0
    said = capsys.readouterr().out
    assert "of 31" in said
    assert "No photograph of a finding" in said
    with report.open() as file:
        (row,) = csv.DictReader(file)
    wanted = {"rule": "eyes_swapped", "file": "31.jpg", "image_id": "31", "annotation_id": "100"}
    assert wanted.items() <= row.items()
    assert row["joint"] == "left_eye+right_eye"
    assert float(row["value"]) == pytest.approx(-0.8, abs=0.01)
    cv2.imwrite(str(tmp_path / "31.jpg"), np.zeros((90, 120, 3), np.uint8))
    assert run(monkeypatch, *flags) == 0
    drawn = cv2.imread(str(sheet))[..., ::-1].astype(int)
    assert (np.abs(drawn - checks.ALARM).sum(axis=2) < 30).sum() > 40  # two rings
    cv2.imwrite(str(tmp_path / "31.jpg"), np.zeros((9, 12, 3), np.uint8))
    assert run(monkeypatch, *flags) == 1
    assert "is not of the 120x90 pixels" in capsys.readouterr().err


def test_few_official_annotations_are_strange():
    coco = json.loads(shared("data/ap10k_real/ap10k-train-split1.json").read_text())
    findings = checks.check(coco)
    counts = {name: sum(f.rule == name for f in findings) for name in rules.RULES}
    assert counts["outside_box"] == counts["unlabelled_beside"] == 0
    assert (counts["coincident"], counts["eyes_swapped"], counts["limbs_cross"]) == (14, 21, 29)
    assert len({f.annotation_id for f in findings}) < 0.05 * len(coco["annotations"])
