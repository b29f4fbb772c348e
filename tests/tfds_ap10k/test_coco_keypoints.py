"""COCO's people become a data set; what is left out is counted, what is flawed is listed."""

import json
import shutil
from pathlib import Path

import commands
import numpy as np
import pytest
import tensorflow_datasets as tfds
import tiny_ap10k
from golden_files import shared

import tfds_ap10k  # noqa: F401  registers the builders
from ap10k_jax import keypoints
from tfds_ap10k import annotations, build

NAME = "coco_keypoints/2017"


def person(annotation_id: int, image_id: int, **changes) -> dict:
    """A person with nose and left eye labelled, the eye hidden; floats as COCO has them."""
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": 1,
        "bbox": [2.25, 3.5, 20.5, 10.25],
        "area": 100.625,
        "iscrowd": 0,
        "num_keypoints": 2,
        "keypoints": [5, 6, 2, 7, 8, 1] + [0] * 45,
        "segmentation": [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]],
    } | changes


def content(ids: list[int]) -> dict:
    return {
        "info": {},
        "licenses": [],
        "images": [
            {
                "license": 4,
                "id": i,
                "file_name": f"{i:012d}.jpg",
                "width": tiny_ap10k.WIDTH,
                "height": tiny_ap10k.HEIGHT,
                "coco_url": "http://images.cocodataset.org/",
            }
            for i in ids
        ],
        "annotations": [person(10 * i, i) for i in ids],
        "categories": [
            {
                "id": 1,
                "name": "person",
                "supercategory": "person",
                "keypoints": list(keypoints.COCO_PERSON.names),
                "skeleton": [[16, 14], [14, 12]],
            }
        ],
    }


def write(folder: Path, **files) -> Path:
    """The official layout; four photographs, two of them in each of train and val."""
    files = {"train2017": content([4, 3]), "val2017": content([1, 2])} | files
    (folder / "annotations").mkdir(parents=True)
    for part, coco in files.items():
        (folder / "annotations" / f"person_keypoints_{part}.json").write_text(json.dumps(coco))
        (folder / part).mkdir()
        for image in coco["images"]:
            (folder / part / image["file_name"]).write_bytes(tiny_ap10k.jpeg(image["id"]))
    # COCO's zip of annotations has other files as well.
    (folder / "annotations/instances_train2017.json").write_text("not looked at")
    return folder


def built(manual_dir: Path, data_dir: Path):
    build.build("2017", manual_dir, data_dir, dataset="coco_keypoints")
    return tfds.builder(NAME, data_dir=data_dir)


def test_people_are_stored_as_the_file_says(tmp_path):
    builder = built(write(tmp_path / "COCO").parent, tmp_path / "built")
    assert list(builder.info.splits) == ["train", "validation"]
    source = builder.as_data_source("train", decoders={"image": tfds.decode.SkipDecoding()})
    assert [record["image_id"] for record in source] == [4, 3]
    record = source[0]
    assert record["image"] == tiny_ap10k.jpeg(4)
    assert record["file_name"] == b"train2017/000000000004.jpg"
    np.testing.assert_array_equal(record["animals"]["box"], [[2.25, 3.5, 20.5, 10.25]])
    points = record["animals"]["keypoints"][0]
    assert points.shape == (17, 3)
    assert points[:2].tolist() == [[5, 6, 2], [7, 8, 1]]  # hidden stays 1
    assert record["animals"]["area"] == [100.625]  # of the outline, not of the box
    assert builder.info.features["species"].names == ["person"]
    assert "lin2014coco" in repr(builder.info)


def test_crowds_people_without_keypoints_and_empty_photographs_are_counted(tmp_path):
    train = content([4, 3, 5, 6])
    train["annotations"][2:] = [
        person(50, 5, iscrowd=1, segmentation={"counts": [1], "size": [30, 40]}),
        person(51, 5, num_keypoints=0, keypoints=[0] * 51),
        person(52, 4, num_keypoints=0, keypoints=[0] * 51),
    ]
    builder = built(write(tmp_path / "a", train2017=train), tmp_path / "built")
    coco = builder.info.metadata["annotations"]["train"]
    assert [image["id"] for image in coco["images"]] == [4, 3]
    assert [animal["id"] for animal in coco["annotations"]] == [40, 30]
    report = builder.info.metadata["report"]
    assert report["left_out_crowds"] == 1
    assert report["left_out_people_without_keypoints"] == 2
    assert report["left_out_images_without_people"] == 2
    assert report["left_out_flawed_people"] == []


@pytest.mark.parametrize(
    ("field", "value"),
    [("bbox", [5, 5, 0, 10]), ("bbox", [5, 5, 10, 0.5]), ("bbox", [60, 5, 9, 9]), ("area", 0)],
)
def test_a_person_that_cannot_be_cropped_is_listed_and_the_rest_is_built(tmp_path, field, value):
    val = content([1, 2])
    val["annotations"][1][field] = value
    builder = built(write(tmp_path / "a", val2017=val), tmp_path / "built")
    assert len(builder.as_data_source("validation")) == 1
    (text,) = builder.info.metadata["report"]["left_out_flawed_people"]
    assert text.startswith(f"validation: annotation 20: {field}: ")


def test_the_summary_tells_what_was_left_out(tmp_path, monkeypatch, capsys):
    val = content([1, 2])
    val["annotations"][1]["bbox"] = [5, 5, 0, 10]
    folder = write(tmp_path / "a", val2017=val)
    flags = [f"--manual-dir={folder}", f"--data-dir={tmp_path}/built", "--dataset=coco_keypoints"]
    monkeypatch.setattr("sys.argv", ["build", *flags])
    assert commands.status(build.main) == 0
    text = capsys.readouterr().out
    assert "coco_keypoints/2017 is built: 2 train, 1 validation photographs" in text
    assert "left out flawed people: 1 (validation: annotation 20: bbox: has no extent" in text


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("image_id", 99, "annotation 10: image_id: there is no such image: 99"),
        ("image_id", [1], "annotation 10: image_id: there is no such image"),
        ("category_id", [2], "annotation 10: category_id: unknown category"),
        ("keypoints", [1, 2, 2], "annotation 10: keypoints: 3 numbers in place of 51"),
        ("num_keypoints", 5, "annotation 10: num_keypoints: 5, but 2 keypoints are labelled"),
        ("num_keypoints", None, "annotation 10: num_keypoints: None, but 2"),
        ("id", "ten", "annotations[0]: id: not a whole number"),
    ],
)
def test_other_flaws_refuse_the_data(tmp_path, field, value, text):
    val = content([1, 2])
    val["annotations"][0][field] = value
    with pytest.raises(annotations.AnnotationError) as error:
        built(write(tmp_path / "a", val2017=val), tmp_path / "built")
    assert f"person_keypoints_val2017.json: {text}" in str(error.value)


@pytest.mark.parametrize("table", ["images", "annotations", "categories"])
@pytest.mark.parametrize("value", [None, {}, [None], [{"id": 1}], [{}], 3])
def test_no_content_makes_the_selection_stumble(tmp_path, table, value):
    folder = write(tmp_path / "a")
    path = folder / "annotations/person_keypoints_val2017.json"
    path.write_text(json.dumps(content([1]) | {table: value}))
    with pytest.raises(annotations.AnnotationError):
        built(folder, tmp_path / "built")


def test_missing_data_is_answered_with_the_official_page(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        "sys.argv", ["build", "--dataset=coco_keypoints", f"--manual-dir={tmp_path}"]
    )
    assert commands.status(build.main) == 1
    text = capsys.readouterr().err
    assert "https://cocodataset.org/#download" in text
    assert "annotations_trainval2017.zip" in text


def test_a_config_of_another_data_set_is_refused(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["build", "--dataset=coco_keypoints", "--config=split1"])
    with pytest.raises(SystemExit, match="2"):
        build.main()
    assert "coco_keypoints has 2017" in capsys.readouterr().err


def test_real_records_in_the_official_layout_are_built(tmp_path):
    path = shared("data/coco_person/test_coco.json")
    coco = json.loads(path.read_text())
    (tmp_path / "coco/annotations").mkdir(parents=True)
    kept = {}
    for part, images in (("train2017", coco["images"][:2]), ("val2017", coco["images"][2:])):
        ids = {image["id"] for image in images}
        people = [a for a in coco["annotations"] if a["image_id"] in ids]
        kept[part] = [a["id"] for a in people if a["num_keypoints"] and not a["iscrowd"]]
        file = tmp_path / f"coco/annotations/person_keypoints_{part}.json"
        file.write_text(json.dumps(coco | {"images": images, "annotations": people}))
        (tmp_path / "coco" / part).mkdir()
        for image in images:
            shutil.copy(path.parent / image["file_name"], tmp_path / "coco" / part)
    builder = built(tmp_path, tmp_path / "built")
    metadata = builder.info.metadata["annotations"]
    stored = [[a["id"] for a in metadata[split]["annotations"]] for split in metadata]
    assert stored == list(kept.values())
    assert sum(map(len, stored)) == 12
    assert builder.info.metadata["report"]["left_out_people_without_keypoints"] == 2
    record = builder.as_data_source("validation")[0]
    assert record["image"].shape == (record["height"], record["width"], 3)
