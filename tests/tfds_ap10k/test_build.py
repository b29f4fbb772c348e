"""The command that builds: what it finds, what it says, and that it never half-does it."""

import json
import sys
import zipfile
from pathlib import Path

import commands
import pytest
import tiny_ap10k

from tfds_ap10k import Ap10k, annotations, build, records, sources


def run(monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", ["build", *map(str, flags)])
    return commands.status(build.main)


def zipped(root: Path, archive: Path, prefix: str) -> None:
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(f"__MACOSX/{prefix}annotations/._ap10k-train-split1.json", "not this one")
        for path in sorted(root.rglob("*.*")):
            file.write(path, prefix + str(path.relative_to(root)))


LAYOUTS = [
    # where the folder of annotations/ and data/ is, below the one that is named
    "",
    "ap-10k",
    "ap10k",
    "AP-10K",
    "ap-10k/ap-10k",  # unzip -d ap-10k
    "ap-10k-full",
]


@pytest.mark.parametrize("place", LAYOUTS)
def test_the_usual_folders_are_found(tmp_path, place):
    root = tiny_ap10k.write(tmp_path / place)
    assert sources.find(tmp_path) == root


def test_annotations_of_something_else_are_not_taken(tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/instances_train2017.json").write_text("{}")
    root = tiny_ap10k.write(tmp_path / "ap-10k")
    assert sources.find(tmp_path) == root


@pytest.mark.parametrize("name", ["ap-10k.zip", "AP10K.ZIP", "ap-10k (1).zip"])
@pytest.mark.parametrize("prefix", ["", "ap-10k/", "downloads/ap-10k/"])
def test_a_zip_file_is_found_with_what_is_in_it(tmp_path, name, prefix):
    root = tiny_ap10k.write(tmp_path / "made")
    (tmp_path / "manual").mkdir()
    zipped(root, tmp_path / "manual" / name, prefix)
    found = sources.find(tmp_path / "manual")
    assert (found / "data" / "000000000004.jpg").read_bytes() == tiny_ap10k.jpeg(4)
    assert (found / "annotations" / "ap10k-train-split1.json").is_file()


def test_a_zip_file_builds_what_its_folder_builds(tmp_path):
    root = tiny_ap10k.write(tmp_path / "made")
    (tmp_path / "manual").mkdir()
    zipped(root, tmp_path / "manual/ap-10k.zip", "ap-10k/")
    from_zip = build.build("split1", tmp_path / "manual", tmp_path / "a")
    from_folder = build.build("split1", root, tmp_path / "b")
    assert from_zip.info.metadata["annotations"] == from_folder.info.metadata["annotations"]
    images = [builder.as_data_source("train")[0]["image"] for builder in (from_zip, from_folder)]
    assert (images[0] == images[1]).all()


def test_missing_data_is_answered_with_instructions(tmp_path, monkeypatch, capsys):
    (tmp_path / "ap-10k.zip").write_bytes(b"<html>too many downloads</html>")
    looked_into = f"--manual-dir={tmp_path}"
    for flags in ([], [looked_into], [f"--manual-dir={tmp_path}/nowhere"]):
        assert run(monkeypatch, *flags, f"--data-dir={tmp_path}/built") == 1
        text = capsys.readouterr().err
        assert "drive.google.com" in text
        assert "pan.baidu.com" in text
        assert "python -m tfds_ap10k.synthetic" in text
        assert "Traceback" not in text
        assert ("ap-10k.zip is not a whole zip file" in text) == (flags == [looked_into])
    assert not (tmp_path / "built").exists()


def test_problems_are_told_without_a_traceback_and_nothing_is_built(tmp_path, monkeypatch, capsys):
    files = tiny_ap10k.contents()
    files["train"]["annotations"][0]["category_id"] = 99
    files["test"]["images"][0]["file_name"] = "../1.jpg"
    root = tiny_ap10k.write(tmp_path / "manual", files)
    flags = [f"--manual-dir={root}", f"--data-dir={tmp_path}/built"]
    assert run(monkeypatch, *flags) == 1
    text = capsys.readouterr().err
    assert "ap10k-train-split1.json: annotation 40: category_id: unknown category: 99" in text
    assert "ap10k-test-split1.json: image 7: file_name: leads outside" in text
    assert "Traceback" not in text
    assert not list((tmp_path / "built").rglob("*array_record*"))


def test_a_build_is_summed_up_and_not_done_twice(tmp_path, monkeypatch, capsys):
    root = tiny_ap10k.write(tmp_path / "manual")
    flags = [f"--manual-dir={root}", f"--data-dir={tmp_path}/built", "--config=all"]
    assert run(monkeypatch, *flags) == 0
    text = capsys.readouterr().out
    assert "ap10k/split3 is built: 4 train, 1 validation, 2 test photographs" in text
    assert "species without animals: 52 (antelope, " in text
    built = {path: path.stat().st_mtime_ns for path in (tmp_path / "built").rglob("*-of-*")}
    assert len(built) == 9
    assert run(monkeypatch, f"--data-dir={tmp_path}/built", "--config=all") == 0
    assert "ap10k/split1 is built already" in capsys.readouterr().out
    assert all(path.stat().st_mtime_ns == time for path, time in built.items())


def test_overwriting_builds_again_but_only_from_sound_data(tmp_path, monkeypatch):
    root = tiny_ap10k.write(tmp_path / "manual")
    flags = [f"--manual-dir={root}", f"--data-dir={tmp_path}/built", "--overwrite"]
    assert run(monkeypatch, *flags) == 0
    path = root / "annotations/ap10k-train-split1.json"
    train = json.loads(path.read_text())
    for background, sound in ((3, True), ("grass", False)):
        train["images"][0]["background"] = background
        path.write_text(json.dumps(train))
        assert run(monkeypatch, *flags) == (0 if sound else 1)
        builder = Ap10k(config="split1", data_dir=tmp_path / "built")
        assert builder.info.metadata["annotations"]["train"]["images"][0]["background"] == 3
        assert len(builder.as_data_source("train")) == 4


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("no space left on device")])
def test_an_interrupted_build_is_no_build(tmp_path, monkeypatch, capsys, error):
    root = tiny_ap10k.write(tmp_path / "manual")
    flags = [f"--manual-dir={root}", f"--data-dir={tmp_path}/built"]
    examples = records.examples

    def stops(coco, folder, images):
        yield from list(examples(coco, folder, images))[:1]
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(records, "examples", stops)
        assert run(monkeypatch, *flags) != 0
    assert "Traceback" not in capsys.readouterr().err
    assert Ap10k.open("split1", tmp_path / "built") is None
    assert run(monkeypatch, *flags) == 0
    assert Ap10k.open("split1", tmp_path / "built") is not None


def test_what_a_killed_or_damaged_build_leaves_is_built_anew(tmp_path):
    root = tiny_ap10k.write(tmp_path / "manual")
    # A process killed while it writes cannot tidy up: TFDS's unfinished folder stays.
    unfinished = tmp_path / "built/ap10k/split1/incomplete.ABC123_1.0.0"
    unfinished.mkdir(parents=True)
    damaged = tmp_path / "built/ap10k/split1/1.0.0"
    damaged.mkdir()
    (damaged / "ap10k-train.array_record-00000-of-00001").write_bytes(b"half")
    builder = build.build("split1", root, tmp_path / "built")
    assert len(builder.as_data_source("train")) == 4
    assert [path.name for path in unfinished.parent.iterdir()] == ["1.0.0"]


def test_help_teaches(monkeypatch, capsys):
    assert run(monkeypatch, "--help") == 0
    text = capsys.readouterr().out
    assert "--manual-dir=~/data" in text
    assert "drive.google.com" in text


def test_build_raises_for_its_callers(tmp_path):
    with pytest.raises(sources.DataNotFound):
        build.build("split1", None, tmp_path)
    root = tiny_ap10k.write(tmp_path / "manual")
    (root / "data/000000000001.jpg").unlink()
    with pytest.raises(annotations.AnnotationError):
        build.build("split1", root, tmp_path)
