"""A user's own animals with joints of their own become a data set; mistakes are told first."""

import json
import shutil
import sys
from pathlib import Path

import commands
import numpy as np
import pytest
import tensorflow_datasets as tfds
import tiny_ap10k

from tfds_ap10k import Own, annotations, build, records, sources
from tfds_ap10k.own import folder, own_dataset_builder

RAW = {"image": tfds.decode.SkipDecoding()}
NAMES = ["nose", "left_ear", "right_ear", "tail"]
SKELETON = [[1, 2], [1, 3], [1, 4]]


def category(number: int, name: str, family: str = "Canidae", **more) -> dict:
    joints = {"keypoints": list(NAMES), "skeleton": [list(limb) for limb in SKELETON]}
    return {"id": number, "name": name, "supercategory": family, **joints, **more}


def animal(image_id: int, category_id: int, joints: int = 4) -> dict:
    return {
        "id": 100 + image_id,
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [2, 3, 20, 10],
        "area": 200,
        "iscrowd": 0,
        "num_keypoints": 2,
        "keypoints": [5, 6, 2, 7.5, 8, 1] + [0, 0, 0] * (joints - 2),
    }


def coco(ids) -> dict:
    """Image i has one animal, a red fox (7) or a tapir (3)."""
    return {
        "images": [{"id": i, "file_name": f"{i}.jpg", "width": 40, "height": 30} for i in ids],
        "annotations": [animal(i, 7 if i % 2 else 3) for i in ids],
        "categories": [category(7, "red fox"), category(3, "tapir", "Tapiridae")],
    }


def contents() -> dict[str, dict]:
    return {"train": coco([4, 1, 2]), "val": coco([5]), "test": coco([7, 6])}


def write(root: Path, files: dict[str, dict], photographs: str = "images") -> Path:
    """The files in annotations/, or one that is called annotations in the folder itself."""
    (root / photographs).mkdir(parents=True)
    (root / "annotations").mkdir()
    for part, content in files.items():
        place = root if part == "annotations" else root / "annotations"
        (place / f"{part}.json").write_text(json.dumps(content))
        for image in content.get("images", []):
            path = root / photographs / image["file_name"]
            path.write_bytes(tiny_ap10k.jpeg(image["id"]))
    return root


def run(monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", ["build", "--dataset=own", *map(str, flags)])
    return commands.status(build.main)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The data directory of own/foxes; the folder it was built from is gone."""
    data_dir = tmp_path_factory.mktemp("built")
    root = write(tmp_path_factory.mktemp("manual") / "foxes", contents())
    build.build("foxes", root, data_dir, dataset="own")
    shutil.rmtree(root)
    return data_dir


def test_a_built_data_set_needs_nothing_of_what_it_was_built_from(built):
    builder = tfds.builder("own/foxes", data_dir=built)
    assert builder.info.features["species"].names == ["tapir", "red fox"]  # by ascending id
    assert builder.info.features["family"].names == ["Canidae", "Tapiridae"]
    assert builder.info.features["animals"].feature["species"].names == ["tapir", "red fox"]
    expected = {"train": contents()["train"], "validation": contents()["val"]}
    expected["test"] = contents()["test"]
    assert builder.info.metadata["annotations"] == expected
    for split, content in expected.items():
        assert builder.info.metadata["fingerprints"][split] == records.fingerprint(content)
        source = builder.as_data_source(split, decoders=RAW)
        assert [record["image_id"] for record in source] == [i["id"] for i in content["images"]]
    record = builder.as_data_source("train", decoders=RAW)[1]
    assert record["image"] == tiny_ap10k.jpeg(1)
    assert record["species"] == 1
    assert record["family"] == 0
    expected = np.reshape(animal(1, 7)["keypoints"], (4, 3))
    np.testing.assert_array_equal(record["animals"]["keypoints"][0], expected)


def test_the_class_opens_it_too_and_knows_what_is_not_built(built):
    builder = Own(config="foxes", data_dir=built)
    assert builder.info.features["species"].names == ["tapir", "red fox"]
    assert len(builder.as_data_source("train")) == 3
    assert Own.open("wolves", built) is None
    for opened in (tfds.builder, lambda name, data_dir: Own(config=name[4:], data_dir=data_dir)):
        with pytest.raises(sources.DataNotFound, match="own/wolves has not been built"):
            opened("own/wolves", data_dir=built)


def test_one_file_is_divided_7_1_2_within_every_species_and_always_alike(tmp_path):
    whole = coco(range(1, 41))
    root = write(tmp_path / "manual", {"annotations": whole}, "data")
    splits, _ = folder.read(root)
    assert {split: len(part["images"]) for split, part in splits.items()} == {
        "train": 28,
        "validation": 4,
        "test": 8,
    }
    for part in splits.values():
        species = [a["category_id"] for a in part["annotations"]]
        assert species.count(3) == species.count(7)
    ids = [image["id"] for part in splits.values() for image in part["images"]]
    assert sorted(ids) == list(range(1, 41))
    assert folder.read(root)[0] == splits
    builder = build.build("one", root, tmp_path / "built", dataset="own")
    assert builder.info.metadata["annotations"] == splits
    assert len(builder.as_data_source("test")) == 8


def test_a_test_file_may_be_absent(tmp_path):
    files = contents()
    del files["test"]
    assert list(folder.read(write(tmp_path, files))[0]) == ["train", "validation"]


def test_what_annotation_tools_leave_empty_is_filled_and_sigmas_stay(tmp_path):
    files = contents()
    for content in files.values():
        content["categories"][0] |= {"supercategory": "", "sigmas": [0.02, 0.03, 0.03, 0.1]}
        del content["categories"][1]["supercategory"]
        content["categories"][1]["sigmas"] = [0.02, 0.03, 0.03, 0.1]
    root = write(tmp_path, files)
    splits, _ = folder.read(root)
    families = {c["name"]: c["supercategory"] for c in splits["train"]["categories"]}
    assert families == {"red fox": "red fox", "tapir": "tapir"}
    assert splits["test"]["categories"][0]["sigmas"] == [0.02, 0.03, 0.03, 0.1]
    assert folder.declared(root).joints.sigmas == (0.02, 0.03, 0.03, 0.1)


def test_a_joint_without_its_counterpart_is_reported(tmp_path):
    files = contents()
    for content in files.values():
        for one in content["categories"]:
            one["keypoints"][2] = "rigth_ear"
    _, report = folder.read(write(tmp_path, files))
    assert report["keypoints_of_one_side"] == ["left_ear"]
    assert "undocumented_backgrounds" not in report


def disagreeing(part: str, position: int, **change):
    def break_it(files):
        files[part]["categories"][position] |= change

    return break_it


def without(part: str, field: str):
    def break_it(files):
        del files[part][field]

    return break_it


EARS = ["nose", "left_ear", "right_ear"]
FLAWS = [
    (
        disagreeing("train", 1, keypoints=EARS, skeleton=[]),
        "train.json: category 3: keypoints: 3, but 4 in category 7 of train.json",
    ),
    (
        disagreeing("val", 0, keypoints=[*EARS, "hip"]),
        "val.json: category 7: keypoints: 'hip' in place of 'tail' in category 7 of train.json",
    ),
    (
        disagreeing("test", 1, skeleton=[[1, 2]]),
        "test.json: category 3: skeleton: other limbs than in category 7 of train.json",
    ),
    (
        disagreeing("train", 1, sigmas=[0.1] * 4),
        "train.json: category 3: sigmas: others than in category 7 of train.json",
    ),
    (
        disagreeing("train", 0, keypoints=[]),
        "train.json: category 7: keypoints: declares no keypoints (a list of their names)",
    ),
    (
        disagreeing("val", 1, keypoints=["nose", "tail", "ear", "tail"]),
        "val.json: category 3: keypoints: 'tail' names more than one keypoint",
    ),
    (
        disagreeing("val", 1, keypoints=["nose", "left_ear", "l_ear", "tail"]),
        "val.json: category 3: keypoints: 'left_ear' and 'l_ear' name the same keypoint",
    ),
    (
        disagreeing("train", 0, skeleton=[[0, 1]]),
        "train.json: category 7: keypoints: the skeleton is not of pairs of keypoint numbers "
        "from 1 to 4",
    ),
    (
        disagreeing("val", 0, supercategory="Felidae"),
        "val.json: category 7: name, supercategory: ('red fox', 'Felidae'), but "
        "('red fox', 'Canidae') elsewhere",
    ),
    (
        disagreeing("train", 1, name="red fox"),
        "train.json: category 3: name: 'red fox' is also that of category 7",
    ),
    (disagreeing("test", 0, name=5), "test.json: category 7: name: not a text: 5"),
    (
        disagreeing("test", 0, id="7"),
        "test.json: categories[0]: id: not an object whose id is a whole number: {'id': '7'",
    ),
    (without("val", "categories"), "val.json: categories: missing, or not a list of species"),
]


@pytest.mark.parametrize(("break_it", "text"), FLAWS, ids=[text[:40] for _, text in FLAWS])
def test_categories_that_cannot_be_used_are_one_problem_each(tmp_path, break_it, text):
    files = contents()
    break_it(files)
    root = write(tmp_path / "manual", files)
    for attempt in (
        lambda: folder.read(root),
        lambda: build.build("foxes", root, tmp_path / "built", dataset="own"),
    ):
        with pytest.raises(annotations.AnnotationError) as error:
            attempt()
        lines = [str(problem) for problem in error.value.problems]
        assert [line[: len(text)] for line in lines] == [text]
    assert not (tmp_path / "built").exists()


def test_animals_are_checked_as_those_of_ap10k_are(tmp_path):
    files = contents()
    files["val"]["annotations"][0] = animal(5, 7, joints=17)
    with pytest.raises(annotations.AnnotationError) as error:
        folder.read(write(tmp_path, files))
    (problem,) = error.value.problems
    assert str(problem) == (
        "val.json: annotation 105: keypoints: 51 numbers in place of 12 (4 x, y, v)"
    )


@pytest.mark.parametrize(("photographs", "animals"), [(3, 3), (20, 1)])
def test_too_few_animals_to_divide_are_refused(tmp_path, photographs, animals):
    content = coco(range(1, photographs + 1))
    content["annotations"] = content["annotations"][:animals]
    root = write(tmp_path, {"annotations": content})
    text = f"{photographs} photographs leave no animal for (train, )?val"
    with pytest.raises(annotations.AnnotationError, match=text):
        folder.read(root)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda root: (root / "annotations.json").write_text("{}"), "annotations.json: is there"),
        (lambda root: (root / "data").mkdir(), "data/ or images/: only one of them"),
        (lambda root: shutil.rmtree(root / "images"), "data/ or images/: the folder of photo"),
        (lambda root: (root / "annotations/val.json").unlink(), "val.json: the file is missing"),
        (lambda root: (root / "annotations/val.json").write_text("{"), "val.json: not valid JSON"),
        (lambda root: (root / "images/5.jpg").unlink(), "val.json: image 5: file_name: '5.jpg'"),
    ],
)
def test_a_folder_that_is_not_clear_is_refused(tmp_path, change, text):
    root = write(tmp_path, contents())
    change(root)
    with pytest.raises(annotations.AnnotationError) as error:
        folder.read(root)
    assert [str(problem)[: len(text)] for problem in error.value.problems] == [text]


def test_the_command_takes_the_folders_name_and_does_not_build_twice(tmp_path, monkeypatch, capsys):
    root = write(tmp_path / "My Foxes!", contents())
    flags = [f"--manual-dir={root}", f"--data-dir={tmp_path}/built"]
    assert run(monkeypatch, *flags) == 0
    text = capsys.readouterr().out
    assert "own/my_foxes is built: 3 train, 1 validation, 2 test photographs" in text
    assert run(monkeypatch, "--config=my_foxes", f"--data-dir={tmp_path}/built") == 0
    assert "own/my_foxes is built already" in capsys.readouterr().out
    assert run(monkeypatch, *flags, "--config=other") == 0
    assert tfds.builder("own/other", data_dir=tmp_path / "built").info.initialized


def test_overwriting_takes_other_species_and_joints_but_only_sound_ones(tmp_path, monkeypatch):
    root = write(tmp_path / "foxes", contents())
    flags = [f"--manual-dir={root}", f"--data-dir={tmp_path}/built", "--overwrite"]
    assert run(monkeypatch, *flags) == 0
    files = contents()
    for content in files.values():
        content["categories"] = [
            category(7, "fennec", keypoints=[*NAMES, "hip"]),
            category(3, "kulan", "Equidae", keypoints=[*NAMES, "hip"]),
        ]
        content["annotations"] = [animal(a["image_id"], 7, 5) for a in content["annotations"]]
    for sound in (False, True):
        files["val"]["categories"][0]["name"] = "fennec" if sound else "caracal"
        for part, content in files.items():
            (root / f"annotations/{part}.json").write_text(json.dumps(content))
        assert run(monkeypatch, *flags) == (0 if sound else 1)
        features = tfds.builder("own/foxes", data_dir=tmp_path / "built").info.features
        shape = features["animals"].feature["keypoints"].shape
        assert (features["species"].names, shape) == (
            (["kulan", "fennec"], (5, 3)) if sound else (["tapir", "red fox"], (4, 3))
        )


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ([], "which of your data sets?"),
        (["--config=a/b"], "'a/b' cannot name a data set"),
        (["--manual-dir=/"], "'' cannot name a data set"),
    ],
)
def test_a_data_set_without_a_name_is_refused(monkeypatch, capsys, flags, text):
    assert run(monkeypatch, *flags) == 2
    assert text in capsys.readouterr().err


def test_a_folder_without_annotations_is_answered_with_how_it_should_look(
    tmp_path, monkeypatch, capsys
):
    for flags in ([f"--manual-dir={tmp_path}"], ["--config=foxes"]):
        assert run(monkeypatch, *flags, f"--data-dir={tmp_path}/built") == 1
        text = capsys.readouterr().err
        assert own_dataset_builder.INSTRUCTIONS in text
        assert "Traceback" not in text
