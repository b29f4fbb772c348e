"""What has been built is what the annotation files and photographs were."""

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
import tiny_ap10k

import tfds_ap10k
from tfds_ap10k import annotations, records, taxonomy
from tfds_ap10k.build import build

ANIMAL_POSE = Path(__file__).parents[3] / "shared/data/animalpose_ap10k"
RAW = {"image": tfds.decode.SkipDecoding()}


@pytest.fixture(scope="module")
def files():
    """The tiny data set, with an image of two dogs and a cat, one of no animal, and odd places."""
    files = tiny_ap10k.contents()
    train = files["train"]
    train["images"][0]["background"] = 88
    train["annotations"][0]["category_id"] = 24
    train["annotations"] += [tiny_ap10k.animal(500 + i, 4, 8) for i in range(2)]
    train["annotations"] = [a for a in train["annotations"] if a["image_id"] != 1]
    return files


@pytest.fixture(scope="module")
def manual_dir(tmp_path_factory, files):
    return tiny_ap10k.write(tmp_path_factory.mktemp("manual") / "ap-10k", files)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory, manual_dir):
    folder = tmp_path_factory.mktemp("built")
    build("split1", manual_dir, folder)
    return folder


@pytest.fixture
def builder(data_dir):
    return tfds.builder("ap10k/split1", data_dir=data_dir)


def test_records_follow_the_order_of_the_annotation_file(builder, files):
    assert builder.info.disable_shuffling  # for those who read with TensorFlow
    for split, part in (("train", "train"), ("validation", "val"), ("test", "test")):
        source = builder.as_data_source(split, decoders=RAW)
        assert [record["image_id"] for record in source] == [i["id"] for i in files[part]["images"]]


def test_photographs_are_stored_to_the_byte(builder, manual_dir):
    for record in builder.as_data_source("train", decoders=RAW):
        path = manual_dir / "data" / record["file_name"].decode()
        assert record["image"] == path.read_bytes()


def test_a_record_says_what_the_file_says(builder, files):
    source = builder.as_data_source("train")
    # tfds.data_source reads a sequence of dicts as a dict of lists
    record, animals = source[1], source[1]["animals"]
    image, annotation = files["train"]["images"][1], files["train"]["annotations"][1]
    assert record["image"].shape == (image["height"], image["width"], 3)
    assert record["file_name"].decode() == image["file_name"]
    assert (record["width"], record["height"]) == (image["width"], image["height"])
    label = builder.info.features["background"].int2str(record["background"])
    assert label == taxonomy.BACKGROUNDS[image["background"]]
    assert [int(i) for i in animals["id"]] == [annotation["id"]]
    np.testing.assert_array_equal(animals["box"], [annotation["bbox"]])
    np.testing.assert_array_equal(
        animals["keypoints"], np.reshape(annotation["keypoints"], (1, 17, 3)).astype(np.float32)
    )
    assert [float(area) for area in animals["area"]] == [annotation["area"]]
    assert [int(n) for n in animals["num_keypoints"]] == [2]
    assert [int(species) for species in animals["species"]] == [annotation["category_id"] - 1]
    assert record["species"] == annotation["category_id"] - 1
    assert taxonomy.FAMILIES[record["family"]] == "Canidae"


def test_the_most_frequent_species_labels_an_image_of_several(builder):
    record = builder.as_data_source("train")[0]
    assert [int(label) + 1 for label in record["animals"]["species"]] == [24, 8, 8]
    assert record["species"] + 1 == 8
    assert builder.info.metadata["report"]["images_of_several_species"] == 1


def test_an_image_without_animals_is_labelled_minus_one(builder):
    record = builder.as_data_source("train")[3]
    assert record["image_id"] == 1
    assert (record["species"], record["family"]) == (-1, -1)
    assert len(record["animals"]["id"]) == 0
    assert builder.info.metadata["report"]["images_without_animals"] == 1


def test_an_undocumented_background_is_unknown(builder):
    record = builder.as_data_source("train")[0]
    label = builder.info.features["background"].int2str(record["background"])
    assert label == "unknown"
    assert builder.info.metadata["report"]["undocumented_backgrounds"] == {"88": 1}


def test_labels_have_the_names_of_the_taxonomy(builder):
    features = builder.info.features
    assert features["species"].names == [species.name for species in taxonomy.SPECIES]
    assert features["family"].names == list(taxonomy.FAMILIES)
    assert features["animals"].feature["species"].names == features["species"].names


def test_the_metadata_holds_the_annotation_files_themselves(builder, files):
    for split, part in (("train", "train"), ("validation", "val"), ("test", "test")):
        coco = builder.info.metadata["annotations"][split]
        for table in ("images", "annotations", "categories"):
            # as text: 5 and 5.0 are different here
            assert json.dumps(coco[table]) == json.dumps(files[part][table])
        assert builder.info.metadata["fingerprints"][split] == records.fingerprint(coco)


def test_the_metadata_is_the_same_before_and_after_it_is_stored(tmp_path, manual_dir, builder):
    built_now = build("split1", manual_dir, tmp_path)
    for key in ("annotations", "fingerprints", "photographs", "report"):
        assert built_now.info.metadata[key] == builder.info.metadata[key]


def test_the_metadata_tells_other_photographs_apart(tmp_path, manual_dir, builder, monkeypatch):
    other = tmp_path / "other"
    shutil.copytree(manual_dir, other)
    path = other / "data" / builder.info.metadata["annotations"]["train"]["images"][-1]["file_name"]
    path.write_bytes(path.read_bytes() + b"\0")
    monkeypatch.setattr(records, "SHARD", 3)  # the last photograph of four is in a file of its own
    digests = [
        build("split1", folder, tmp_path / f"built{i}").info.metadata["photographs"]
        for i, folder in enumerate((manual_dir, other))
    ]
    assert digests[0] == builder.info.metadata["photographs"]
    assert {s for s, digest in digests[0].items() if digest != digests[1][s]} == {"train"}
    assert digests[0].keys() == {"train", "validation", "test"}


def test_the_fingerprint_depends_on_content_not_on_layout(files):
    coco = files["train"]
    turned = {key: coco[key] for key in reversed(coco)}
    assert records.fingerprint(turned) == records.fingerprint(coco)
    changed = json.loads(json.dumps(coco))
    changed["annotations"][0]["keypoints"][0] += 1
    assert records.fingerprint(changed) != records.fingerprint(coco)


def test_the_info_stays_readable(builder):
    text = repr(builder.info)
    assert len(text.splitlines()) < 80
    assert "left_eye" not in text
    assert "CC-BY-4.0" in text
    assert "yu2021ap10k" in text


def test_a_builder_travels_to_loader_processes(builder):
    source = builder.as_data_source("train", decoders=RAW)
    again = pickle.loads(pickle.dumps(source))
    assert again[2]["image"] == source[2]["image"]


def test_flawed_annotations_leave_no_data_set(tmp_path, files):
    flawed = json.loads(json.dumps(files))
    flawed["test"]["annotations"][0]["bbox"] = [0, 0, 0, 0]
    manual_dir = tiny_ap10k.write(tmp_path / "manual", flawed)
    builder = tfds_ap10k.Ap10k(config="split2", data_dir=tmp_path / "built")
    config = tfds.download.DownloadConfig(manual_dir=manual_dir)
    with pytest.raises(annotations.AnnotationError, match="annotation 70: bbox"):
        builder.download_and_prepare(download_config=config)
    assert not list((tmp_path / "built").rglob("*array_record*"))
    assert not list((tmp_path / "built/ap10k/split2").iterdir())


def test_the_order_holds_across_files(tmp_path, manual_dir, files, monkeypatch):
    monkeypatch.setattr(records, "SHARD", 3)
    builder = build("split1", manual_dir, tmp_path)
    assert [builder.info.splits[name].num_shards for name in ("train", "test")] == [2, 1]
    source = builder.as_data_source("train", decoders=RAW)
    assert [record["image_id"] for record in source] == [i["id"] for i in files["train"]["images"]]


def test_an_unbuilt_set_defaults_to_array_record_and_a_built_one_keeps_its_own(tmp_path):
    assert tfds.builder("ap10k", data_dir=tmp_path).info.file_format.value == "array_record"
    assert tfds.builder("ap10k/split3", data_dir=tmp_path).builder_config.name == "split3"
    chosen = tfds.builder("ap10k", data_dir=tmp_path, file_format="tfrecord")
    assert chosen.info.file_format.value == "tfrecord"


def test_building_and_reading_need_no_tensorflow(tmp_path, manual_dir):
    code = f"""
import sys
import tensorflow_datasets as tfds
from tfds_ap10k.build import build
build("split2", {str(manual_dir)!r}, {str(tmp_path)!r})
source = tfds.data_source("ap10k/split2", split="train", data_dir={str(tmp_path)!r})
assert source[0]["image"].shape == (30, 40, 3)
assert not {{"tensorflow", "apache_beam", "jax"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


@pytest.mark.skipif(not ANIMAL_POSE.exists(), reason="the real photographs are not at hand")
@pytest.mark.parametrize("config", ["split1", "split2", "split3"])
def test_real_photographs_build_to_the_known_counts(tmp_path, config):
    builder = build(config, ANIMAL_POSE, tmp_path)
    counts = {split: info.num_examples for split, info in builder.info.splits.items()}
    assert counts == {"train": 1307, "validation": 187, "test": 373}
    images = builder.info.metadata["annotations"]["test"]["images"]
    for position in (0, 100, 372):
        record = builder.as_data_source("test")[position]
        assert record["image_id"] == images[position]["id"]
        assert record["image"].shape[:2] == (record["height"], record["width"])
