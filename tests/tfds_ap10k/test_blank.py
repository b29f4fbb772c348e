"""The tables of photographs and joints are read as people write them, or what is wrong is said."""

import json
import sys

import commands
import cv2
import numpy as np
import pytest

from tfds_ap10k import annotations, blank

SPECIES = "file,species,family\na.jpg,fox,Canidae\nsub/b.png, roe deer ,\n"
JOINTS = "joint,connected_to\nnose,\nleft_ear,nose\nright_ear,nose\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "photos" / "sub").mkdir(parents=True)
    for name, size in (("a.jpg", (30, 40, 3)), ("sub/b.png", (50, 20, 3))):
        assert cv2.imwrite(str(tmp_path / "photos" / name), np.zeros(size, np.uint8))
    return tmp_path


def run(monkeypatch, folder, *more, species=SPECIES, joints=JOINTS):
    (folder / "species.csv").write_text(species)
    (folder / "joints.csv").write_text(joints)
    tables = (f"--species={folder}/species.csv", f"--joints={folder}/joints.csv")
    out = folder / "blank.json"
    words = ["blank", str(folder / "photos"), *tables, f"--out={out}", *more]
    monkeypatch.setattr(sys, "argv", words)
    status = commands.status(blank.main)
    return status, json.loads(out.read_text()) if out.exists() else None


def test_tables_become_a_sound_file(folder, monkeypatch, capsys):
    status, coco = run(monkeypatch, folder)
    assert status == 0
    assert annotations.check(coco, file="")[1] == []
    assert "2 photographs (0 more were dropped as duplicates), 2 animals of 2" in (
        capsys.readouterr().out
    )
    assert [(i["file_name"], i["width"], i["height"]) for i in coco["images"]] == [
        ("a.jpg", 40, 30),
        ("sub/b.png", 20, 50),
    ]
    kinds = [(c["name"], c["supercategory"], c["skeleton"]) for c in coco["categories"]]
    limbs = [[2, 1], [3, 1]]
    # without a family a species is one of its own
    assert kinds == [("fox", "Canidae", limbs), ("roe deer", "roe deer", limbs)]
    assert [a["bbox"] for a in coco["annotations"]] == [[0, 0, 40, 30], [0, 0, 20, 50]]
    assert run(monkeypatch, folder)[0] == 1  # nothing is overwritten


def test_boxes_of_a_detector_are_the_animals(folder, monkeypatch):
    boxes = folder / "boxes.csv"
    boxes.write_text("file,x,y,width,height\na.jpg,1,2,10,12\na.jpg,5,6,7.126,8\nsub/b.png,,,,\n")
    status, coco = run(monkeypatch, folder, f"--boxes={boxes}")
    assert status == 0
    assert [a["bbox"] for a in coco["annotations"]] == [[1, 2, 10, 12], [5, 6, 7.13, 8]]
    assert {a["image_id"] for a in coco["annotations"]} == {1}
    assert len(coco["images"]) == 2


@pytest.mark.parametrize(
    ("tables", "text"),
    [
        (
            {"species": SPECIES.replace("species", "kind")},
            "no column species; there are file, kind",
        ),
        ({"species": SPECIES + "c.jpg,fox,Canidae\n"}, "c.jpg: the file is missing"),
        ({"species": SPECIES + "a.jpg,fox,Canidae\n"}, "line 4: a.jpg is there twice"),
        ({"species": SPECIES + "c.jpg,,\n"}, "line 4: a file and a species are needed"),
        ({"species": SPECIES + "c.jpg,fox,Felidae\n"}, "line 4: fox is of 'Felidae', but of"),
        ({"species": "file,species\na.jpg,fox\n"}, "sub/b.png has no line"),
        ({"joints": JOINTS.replace("nose\nright", "chin\nright")}, "line 3: 'chin' is no joint"),
        ({"joints": JOINTS + "nose,\n"}, "'nose' names more than one keypoint"),
        ({"joints": "joint\n"}, "declares no keypoints"),
    ],
)
def test_a_mistake_in_a_table_is_named_and_nothing_is_written(
    folder, monkeypatch, capsys, tables, text
):
    assert run(monkeypatch, folder, **tables) == (1, None)
    assert text in capsys.readouterr().err


def test_a_joint_without_its_counterpart_is_pointed_out(folder, monkeypatch, capsys):
    assert run(monkeypatch, folder, joints=JOINTS.replace("right_ear", "rigth_ear"))[0] == 0
    assert "left_ear has no counterpart" in capsys.readouterr().out
