"""Files are divided in the official layout, with the decisions on duplicates heeded."""

import json
import sys

import commands
import tiny_ap10k

from tfds_ap10k import annotations, divide, splits


def test_the_command_writes_the_official_layout(tmp_path, monkeypatch, capsys):
    files = tiny_ap10k.contents()
    root = tiny_ap10k.write(tmp_path / "a", files)
    (tmp_path / "d.csv").write_text(
        "group,file,decision\n1,data/000000000001.jpg,keep\n1,data/000000000002.jpg,keep\n"
        "2,data/000000000003.jpg,keep\n2,data/000000000004.jpg,drop\n"
    )
    paths = [root / f"annotations/ap10k-{part}-split1.json" for part in splits.PARTS]
    out = tmp_path / "out"
    flags = [*paths, f"--out={out}", f"--groups={tmp_path}/d.csv", "--few=1"]
    monkeypatch.setattr(sys, "argv", ["divide", *map(str, flags)])
    assert commands.status(divide.main) == 0
    for split in divide.SPLITS:
        parts = {
            part: json.loads((out / f"annotations/ap10k-{part}-split{split}.json").read_text())
            for part in splits.PARTS
        }
        ids = {part: {image["id"] for image in coco["images"]} for part, coco in parts.items()}
        assert set.union(*ids.values()) == {1, 2, 3, 5, 6, 7}
        assert any({1, 2} <= side for side in ids.values())
        few = json.loads((out / f"few1/annotations/ap10k-train-split{split}.json").read_text())
        assert len(few["images"]) <= 2
        annotations.read({part: out / f"annotations/ap10k-{part}-split1.json" for part in parts})
    assert commands.status(divide.main) == 1  # nothing is overwritten
    assert "exists" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--leave-out=dodo"])
    assert commands.status(divide.main) == 1
    assert "dodo is neither" in capsys.readouterr().err


def test_a_data_set_of_ones_own_gets_its_own_layout(tmp_path, monkeypatch):
    files = tiny_ap10k.contents()
    root = tiny_ap10k.write(tmp_path / "a", files)
    paths = [root / f"annotations/ap10k-{part}-split1.json" for part in splits.PARTS]
    out = tmp_path / "out"
    flags = [*paths, f"--out={out}", "--dataset=own", "--few=1"]
    monkeypatch.setattr(sys, "argv", ["divide", *map(str, flags)])
    assert commands.status(divide.main) == 0
    names = {"annotations/train.json", "annotations/val.json", "annotations/test.json"}
    names |= {f"few1/{name}" for name in names}
    assert {p.relative_to(out).as_posix() for p in out.rglob("*.json")} == names
    parts = [json.loads((out / f"annotations/{part}.json").read_text()) for part in splits.PARTS]
    assert sum(len(part["images"]) for part in parts) == sum(
        len(coco["images"]) for coco in files.values()
    )
    few = json.loads((out / "few1/annotations/test.json").read_text())
    assert few == parts[2]
