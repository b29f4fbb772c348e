"""Animal-Pose's own file becomes an AP-10K-like data set; what is wrong with it is told first."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
import tiny_ap10k
from golden_files import shared

import tfds_ap10k  # noqa: F401  registers the builders
from ap10k_jax import keypoints, run_data
from ap10k_jax.configs import cross_dataset
from ap10k_jax.data.animals import open_builder, read_annotations
from tfds_ap10k import annotations, build, records, taxonomy
from tfds_ap10k.animal_pose import conversion

RAW = {"image": tfds.decode.SkipDecoding()}
NAMES = [name.replace("tail_base", "tailbase") for name in keypoints.ANIMAL_POSE.names]
SPECIES = ("dog", "cat", "sheep", "horse", "cow")


def contents(photographs: int = 50) -> dict:
    """A file as the authors write it; photograph i has one animal, of category 1 + i % 5."""
    return {
        "images": {str(i): f"photo_{i}.jpg" for i in range(1, photographs + 1)},
        "annotations": [animal(i, 1 + i % 5) for i in range(1, photographs + 1)],
        "categories": [
            {"id": i + 1, "name": name, "supercategory": "animal", "keypoints": list(NAMES)}
            for i, name in enumerate(SPECIES)
        ],
        "info": {"description": "tiny"},
    }


def animal(image_id: int, category_id: int) -> dict:
    """Box from (2, 3) to (22, 13); the first two joints labelled, a third only looks like it."""
    points = [[5, 6, 1], [7, 8, 1], [9, 9, 0]] + [[0, 0, 0] for _ in range(17)]
    return {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [2, 3, 22, 13],
        "num_keypoints": 20,
        "keypoints": points,
    }


def write(folder: Path, content) -> Path:
    (folder / "images").mkdir(parents=True)
    (folder / "keypoints.json").write_text(json.dumps(content))
    for i, name in content["images"].items():
        (folder / "images" / name).write_bytes(tiny_ap10k.jpeg(int(i)))
    return folder


def read(folder: Path, seed: int = 1):
    return conversion.read(folder / "keypoints.json", folder / "images", seed=[seed])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("manual") / "Animal-Pose", contents())


def by_id(splits: dict, table: str) -> dict[int, dict]:
    return {record["id"]: record for coco in splits.values() for record in coco[table]}


def test_an_animal_is_converted_to_the_form_of_ap10k(folder):
    splits, _ = read(folder)
    converted = by_id(splits, "annotations")[12]  # the twelfth of the file
    assert converted == {
        "id": 12,
        "image_id": 12,
        "category_id": taxonomy.id_of("sheep"),
        "bbox": [2, 3, 20, 10],
        "area": 200,
        "iscrowd": 0,
        "num_keypoints": 2,
        "keypoints": [5, 6, 2, 7, 8, 2] + [0] * 54,
    }
    image = by_id(splits, "images")[12]
    assert (image["file_name"], image["width"], image["height"]) == ("photo_12.jpg", 40, 30)


def test_species_have_ap10k_names_families_and_ids(folder):
    splits, _ = read(folder)
    expected = {s.id: (s.name, s.family) for s in taxonomy.SPECIES if s.name in SPECIES}
    for coco in splits.values():
        found = {c["id"]: (c["name"], c["supercategory"]) for c in coco["categories"]}
        assert found == expected
    animals = by_id(splits, "annotations")
    for number, raw in enumerate(contents()["annotations"], start=1):
        name = SPECIES[raw["category_id"] - 1]
        assert taxonomy.name_of(animals[number]["category_id"]) == name


def test_splits_are_disjoint_7_1_2_in_every_species_and_differ_by_config(folder):
    tests = []
    for seed in (1, 2, 3):
        splits, _ = read(folder, seed)
        assert list(splits) == ["train", "validation", "test"]
        ids = {split: {image["id"] for image in coco["images"]} for split, coco in splits.items()}
        assert len(set().union(*ids.values())) == sum(len(part) for part in ids.values()) == 50
        for species in SPECIES:
            counts = [
                sum(a["category_id"] == taxonomy.id_of(species) for a in coco["annotations"])
                for coco in splits.values()
            ]
            assert counts == [7, 1, 2]
        tests.append(frozenset(ids["test"]))
    assert len(set(tests)) == 3


def test_one_built_data_set_is_opened_with_either_neck(tmp_path):
    content = contents()
    for record in content["annotations"]:
        record["keypoints"][NAMES.index("throat")] = [10, 12, 1]
        record["keypoints"][NAMES.index("withers")] = [14, 16, 1]
    write(tmp_path / "manual" / "animal_pose", content)
    build.build("split1", tmp_path / "manual", tmp_path, dataset="animal_pose")
    builder = open_builder("animal_pose/split1", tmp_path)
    throat, midpoint = (read_annotations(builder, neck) for neck in ("throat", "midpoint"))
    assert read_annotations(builder) == throat  # as before there was a choice
    for arguments, coco in (("animal_pose", throat), ("animal_pose,midpoint", midpoint)):
        config = cross_dataset.get_config(arguments)
        config.data.dir = str(tmp_path)
        opened = run_data.open_animals(config, "test", "", {})
        assert opened.ground_truth()["annotations"] == coco["test"]["annotations"]
    neck = keypoints.AP10K.names.index("neck")
    a, b = (x["train"]["annotations"][0]["keypoints"][3 * neck :][:3] for x in (throat, midpoint))
    assert (list(a), list(b)) == ([10, 12, 2], [12, 14, 2])


def test_the_data_set_is_built_and_read_like_ap10k(tmp_path, folder):
    built = build.build("split2", folder.parent, tmp_path, dataset="animal_pose")
    builder = tfds.builder("animal_pose/split2", data_dir=tmp_path)
    assert builder.info.metadata["annotations"] == built.info.metadata["annotations"]
    splits, report = read(folder, seed=2)
    assert builder.info.metadata["annotations"] == splits
    assert builder.info.metadata["report"] == report
    assert builder.info.features["species"].names == [s.name for s in taxonomy.SPECIES]
    for split, coco in splits.items():
        assert builder.info.metadata["fingerprints"][split] == records.fingerprint(coco)
        source = builder.as_data_source(split, decoders=RAW)
        assert [record["image_id"] for record in source] == [i["id"] for i in coco["images"]]
    record = builder.as_data_source("test", decoders=RAW)[0]
    assert record["image"] == (folder / "images" / record["file_name"].decode()).read_bytes()
    assert record["animals"]["keypoints"][0].shape == (20, 3)
    assert record["species"] == splits["test"]["annotations"][0]["category_id"] - 1
    assert "cao2019cross" in repr(builder.info)


def refuses(tmp_path, content, text):
    folder = write(tmp_path, contents(3))
    (folder / "keypoints.json").write_text(json.dumps(content))
    with pytest.raises(annotations.AnnotationError) as error:
        read(folder)
    lines = [str(problem) for problem in error.value.problems]
    assert any(line.startswith(text) for line in lines), lines
    return lines


FLAWS = [
    # field of the second animal, its value, what is said of it
    ("category_id", 9, "annotation 2: category_id: unknown category: 9"),
    ("category_id", True, "annotation 2: category_id: unknown category: True"),
    ("image_id", 77, "annotation 2: image_id: there is no such image: 77"),
    ("bbox", [2, 3, 22], "annotation 2: bbox: not four numbers x1, y1, x2, y2: [2, 3, 22]"),
    ("bbox", [22, 3, 2, 13], "annotation 2: bbox: x1, y1 is not the upper left corner"),
    ("bbox", [2, 3, 2.5, 13], "annotation 2: bbox: has no extent of a pixel"),
    ("bbox", [50, 3, 60, 13], "annotation 2: bbox: lies outside the image of 40x30"),
    ("bbox", [0, 0, 10**400, 1.5], "annotation 2: bbox: not four numbers"),
    ("keypoints", [[1, 2, 1]], "annotation 2: keypoints: not a list of 20 keypoints"),
    ("keypoints", [[1, 2, 3]] * 20, "annotation 2: keypoints: visibility is neither 0 nor 1"),
    ("keypoints", [[1, "2", 1]] * 20, "annotation 2: keypoints: not three numbers"),
]


@pytest.mark.parametrize(("field", "value", "text"), FLAWS)
def test_a_flawed_animal_is_named(tmp_path, field, value, text):
    content = contents(3)
    content["annotations"][1][field] = value
    lines = refuses(tmp_path, content, f"keypoints.json: {text}")
    assert len(set(lines)) == 1


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        (("images",), [], "keypoints.json: images: missing or not an object"),
        (("images", "two"), "a.jpg", "keypoints.json: image 'two': id: not a whole number"),
        (("images", "2"), "../2.jpg", "keypoints.json: image 2: file_name: leads outside"),
        (("images", "2"), "no.jpg", "keypoints.json: image '2': file_name: 'no.jpg': the file is"),
        (("images", "2"), ["a"], "keypoints.json: image 2: file_name: not a text"),
        (("images", "2"), "photo_1.jpg", "keypoints.json: image 2: file_name: 'photo_1.jpg' is al"),
        (("images", "02"), "photo_3.jpg", "keypoints.json: image 2: id: used more than once"),
        (("annotations",), None, "keypoints.json: annotations: missing or not a list"),
        (("annotations", 0), 5, "keypoints.json: annotation 1: not an object: 5"),
        (("categories", 0), [], "keypoints.json: categories[0]: id: not an object"),
        (("categories", 0, "name"), "tapir", "keypoints.json: categories[0]: name: not one of"),
        (("categories", 1, "name"), "dog", "keypoints.json: categories[1]: id, name: used more"),
        (("categories", 1, "keypoints"), NAMES[::-1], "keypoints.json: categories[1]: keypoints"),
    ],
)
def test_a_flawed_file_is_refused(tmp_path, path, value, text):
    content = contents(3)
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    refuses(tmp_path, content, text)


@pytest.mark.parametrize("content", [[], None, 3, {}])
def test_what_is_no_annotation_file_is_one_problem(tmp_path, content):
    assert len(refuses(tmp_path, content, "keypoints.json: not a JSON object")) == 1


def test_missing_photographs_are_one_problem(tmp_path):
    folder = write(tmp_path / "a", contents(3))
    for path in (folder / "images").iterdir():
        path.unlink()
    (folder / "images").rmdir()
    with pytest.raises(annotations.AnnotationError) as error:
        read(folder)
    assert [str(p) for p in error.value.problems] == [
        "images/: the folder of photographs is missing"
    ]


def test_nothing_is_built_from_a_flawed_file(tmp_path):
    content = contents(3)
    content["annotations"][0]["bbox"] = []
    folder = write(tmp_path / "manual", content)
    with pytest.raises(annotations.AnnotationError):
        build.build("split1", folder, tmp_path / "built", dataset="animal_pose")
    assert not list((tmp_path / "built").rglob("*array_record*"))


def test_missing_data_is_answered_with_the_official_page(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"sites\.google\.com/view/animal-pose"):
        build.build("split1", tmp_path, tmp_path, dataset="animal_pose")


@pytest.fixture(scope="module")
def real():
    """The real file with its photographs, as three splits, and the report."""
    file = shared("data/animal_pose/keypoints.json")
    return conversion.read(file, shared("data/animalpose_ap10k/data"), seed=[1])


def test_the_real_data_set_has_its_known_animals(real):
    splits, report = real
    animals = by_id(splits, "annotations").values()
    assert len(by_id(splits, "images")) == 1867
    assert len(animals) == 2825
    counts = {
        species: sum(a["category_id"] == taxonomy.id_of(species) for a in animals)
        for species in SPECIES
    }
    assert counts == {"dog": 480, "cat": 459, "sheep": 749, "horse": 543, "cow": 594}
    assert report["images_of_several_species"] == 17
    assert report["animals_without_keypoints"] == 29


def test_the_real_data_set_is_divided_7_1_2_in_every_species(real):
    splits, _ = real
    assert [len(coco["images"]) for coco in splits.values()] == [1307, 187, 373]
    assert len(by_id(splits, "images")) == 1867  # disjoint
    photographs = {}
    for split, coco in splits.items():
        first = {}
        for animal in coco["annotations"]:
            first.setdefault(animal["image_id"], []).append(animal["category_id"])
        for species in first.values():
            main = max(species, key=species.count)
            photographs.setdefault(main, dict.fromkeys(splits, 0))[split] += 1
    assert {taxonomy.name_of(i) for i in photographs} == set(SPECIES)
    for counts in photographs.values():
        whole = sum(counts.values())
        assert abs(counts["validation"] - 0.1 * whole) < 1
        assert abs(counts["test"] - 0.2 * whole) < 1


def test_the_real_splits_are_what_they_were_when_first_published(real):
    splits, _ = real
    ids = json.dumps([image["id"] for image in splits["test"]["images"]])
    assert hashlib.sha256(ids.encode()).hexdigest().startswith("883dbb15588af8b8")


def test_remapped_real_annotations_agree_with_those_made_independently(real):
    # The other folder was made from the same labels by other hands, before they were rounded to
    # whole pixels; its neck is the midpoint of throat and withers.
    theirs = {}
    for part in ("train", "val", "test"):
        path = shared(f"data/animalpose_ap10k/annotations/ap10k-{part}-split1.json")
        for animal in json.loads(path.read_text())["annotations"]:
            theirs.setdefault(animal["image_id"], []).append(animal)
    ours = {}
    for coco in real[0].values():
        mapping = keypoints.animal_pose_mapping("midpoint")
        for animal in keypoints.remap_annotations(coco, mapping)["annotations"]:
            ours.setdefault(animal["image_id"], []).append(animal)
    assert ours.keys() == theirs.keys()
    apart, labels, boxes = [], 0, []
    for image_id, animals in ours.items():
        others = sorted(theirs[image_id], key=lambda a: a["id"])
        assert len(animals) == len(others)
        for mine, other in zip(animals, others, strict=True):
            assert mine["category_id"] == other["category_id"]
            boxes.append(np.abs(np.subtract(mine["bbox"], other["bbox"])).max())
            a, b = (np.reshape(x["keypoints"], (17, 3)) for x in (mine, other))
            np.testing.assert_array_equal(a[:, 2], b[:, 2])
            seen = a[:, 2] > 0
            labels += seen.sum()
            apart.append(np.abs(a[seen, :2] - b[seen, :2]).max(initial=0))
    assert labels > 25_000
    assert max(apart) < 0.51
    assert max(boxes) < 1.01  # both corners are rounded
