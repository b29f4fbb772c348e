"""Photographs without annotations become a split of their own, and none is lost in silence."""

import json
import sys
import zipfile

import commands
import numpy as np
import pytest
import tensorflow_datasets as tfds
import tiny_ap10k

from ap10k_jax.data.animals import read_annotations
from tfds_ap10k import annotations, build, records, sources, taxonomy, unlabeled
from tfds_ap10k.describe import __main__ as describe

RAW = {"image": tfds.decode.SkipDecoding()}
CATEGORIES = {s.id: (s.name, s.family) for s in taxonomy.SPECIES}
PHOTOGRAPHS = ("Bovidae/argali_sheep/b.jpg", "Canidae/dog/a b.jpg", "Canidae/dog/c.jpeg")


def write(root, names=PHOTOGRAPHS):
    for i, name in enumerate(names):
        path = root / "unlabeled" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tiny_ap10k.jpeg(100 + i, width=50 + i))
    return root


@pytest.fixture(scope="module")
def manual_dir(tmp_path_factory):
    root = write(tiny_ap10k.write(tmp_path_factory.mktemp("manual") / "ap-10k"))
    (root / "unlabeled/Canidae/.DS_Store").write_text("x")
    return root


@pytest.fixture(scope="module")
def builder(tmp_path_factory, manual_dir):
    return build.build("split1", manual_dir, tmp_path_factory.mktemp("built"))


def problems(root, split="split1"):
    with pytest.raises(annotations.AnnotationError) as error:
        build.build(split, root, root.parent / "built")
    assert not list((root.parent / "built").rglob("*array_record*"))
    return [str(problem) for problem in error.value.problems]


def test_a_photograph_is_a_record_with_its_species_and_no_animals(builder, manual_dir):
    source = builder.as_data_source("unlabeled", decoders=RAW)
    assert [r["file_name"].decode() for r in source] == list(PHOTOGRAPHS)
    features = builder.info.features
    names = [(features["species"].names[r["species"]], len(r["animals"]["id"])) for r in source]
    assert names == [("argali sheep", 0), ("dog", 0), ("dog", 0)]
    assert [features["family"].names[r["family"]] for r in source] == [
        *("Bovidae", "Canidae", "Canidae")
    ]
    assert [(r["width"], r["height"]) for r in source] == [(50 + i, 30) for i in range(3)]
    for record in source:
        path = manual_dir / "unlabeled" / record["file_name"].decode()
        assert record["image"] == path.read_bytes()


def test_ids_are_of_no_annotated_photograph(builder):
    ids = [
        image["id"]
        for coco in builder.info.metadata["annotations"].values()
        for image in coco["images"]
    ]
    assert len(ids) == len(set(ids)) == 10


def test_the_other_splits_are_what_they_are_without_it(builder, tmp_path):
    alone = build.build("split1", tiny_ap10k.write(tmp_path / "ap-10k"), tmp_path / "built")
    assert set(alone.info.splits) == {"train", "validation", "test"}
    prints, report = alone.info.metadata["fingerprints"], alone.info.metadata["report"]
    assert {s: builder.info.metadata["fingerprints"][s] for s in prints} == prints
    more = {k: v for k, v in builder.info.metadata["report"].items() if k not in report}
    assert more == {
        "unlabeled_without_species": 0,
        "unlabeled_not_jpeg": 0,
        "unlabeled_files_passed_over": 1,  # .DS_Store
    }
    assert set(read_annotations(builder)) == set(prints)  # nobody trains on it by mistake
    content = builder.info.metadata["annotations"]["unlabeled"]
    assert builder.info.metadata["fingerprints"]["unlabeled"] == records.fingerprint(content)


def test_all_problems_are_listed_at_once(tmp_path):
    files = tiny_ap10k.contents()
    files["test"]["annotations"][0]["bbox"] = [0, 0, 0, 0]
    root = write(
        tiny_ap10k.write(tmp_path / "ap-10k", files),
        (
            *("loose.jpg", "Canidae/loose.jpg", "Canidae/dog/deeper/a.jpg", "Canidae/dog/good.jpg"),
            *("Canidae/cow/a.jpg", "Canidae/cow/b.jpg", "Dragons/red/a.jpg", "canidae/dog/a.jpg"),
        ),
    )
    (root / "unlabeled/Canidae/dog/cut.jpg").write_bytes(tiny_ap10k.jpeg(1)[:-50])
    (root / "unlabeled/Canidae/dog/notes.txt").write_text("read me")
    found = problems(root)
    for wanted in (
        "annotation 70: bbox",
        ": loose.jpg: photographs lie in unlabeled/<Family>/<species>/",
        "Canidae/loose.jpg: photographs lie in",
        "Canidae/dog/deeper/: photographs lie in",
        "Canidae/cow/: no species of Canidae: it has arctic fox, dog",
        "Dragons/: no family of this data set",
        "canidae/: no family of this data set",
        "Canidae/dog/cut.jpg: the file is cut short",
        "Canidae/dog/notes.txt: not a readable photograph",
    ):
        assert sum(wanted in text for text in found) == 1, wanted
    assert len(found) == 9  # good.jpg is none


def test_an_empty_folder_is_said(tmp_path):
    root = tiny_ap10k.write(tmp_path / "ap-10k")
    (root / "unlabeled").mkdir()
    assert problems(root) == ["unlabeled/: there are no photographs in it"]


def coco(**changes):
    image = {"id": 901, "file_name": "a/x.jpg", "width": 50, "height": 30} | changes
    second = {"id": 902, "file_name": "y.jpg", "width": 51, "height": 30, "category_id": 8}
    return {"images": [image, second], "annotations": [], "categories": []}


def with_file(root, content):
    write(root, ("a/x.jpg", "y.jpg", "more.jpg"))
    (root / "unlabeled.json").write_text(json.dumps(content))
    return root


def test_a_coco_file_without_annotations_says_what_there_is(tmp_path):
    root = with_file(tiny_ap10k.write(tmp_path / "ap-10k"), coco())
    built = build.build("split2", root, tmp_path / "built")
    source = built.as_data_source("unlabeled", decoders=RAW)
    found = [(int(r["image_id"]), int(r["species"]), int(r["family"])) for r in source]
    dogs = taxonomy.FAMILIES.index("Canidae")
    assert found == [(901, -1, -1), (902, taxonomy.id_of("dog") - 1, dogs)]
    report = built.info.metadata["report"]
    assert report["unlabeled_without_species"] == 1
    assert report["unlabeled_files_passed_over"] == 1  # more.jpg, which the file does not name


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (coco(id=1), "image 1: id: is also that of an annotated photograph"),
        (coco(id=902), "image 902: id: used more than once"),
        (coco(id="x"), "images[0]: id: not a whole number"),
        (coco(width=49), "image 901: width, height: 49x30, but a/x.jpg has 50x30 pixels"),
        (coco(file_name="../x.jpg"), "image 901: file_name: leads outside"),
        (coco(file_name="y.jpg"), "image 902: file_name: used more than once"),
        (coco(file_name="none.jpg"), "none.jpg: the file is missing"),
        (coco(category_id=99), "image 901: category_id: unknown category"),
        (coco() | {"annotations": [{"id": 1}]}, "annotations: there are some"),
        (coco() | {"categories": [{"id": 8, "name": "cat"}]}, "is no species of this data set"),
        (coco() | {"images": None}, "images: missing or not a list"),
        ([], "images: missing or not a list"),
        (coco() | {"images": []}, "images: there are none"),
    ],
)
def test_what_a_coco_file_has_wrong_is_named(tmp_path, content, text):
    root = with_file(tmp_path, content)
    contents = tiny_ap10k.contents()
    with pytest.raises(annotations.AnnotationError) as error:
        unlabeled.beside(root, lambda: (contents, {}), CATEGORIES)
    assert text in str(error.value)


def test_a_zip_file_is_read_in_place(tmp_path, manual_dir):
    with zipfile.ZipFile(tmp_path / "ap-10k.zip", "w") as archive:
        for path in sorted(manual_dir.rglob("*")):
            if path.is_file():
                archive.write(path, f"ap-10k/{path.relative_to(manual_dir)}")
    root = sources.find(tmp_path)
    assert unlabeled.present(root)
    found = unlabeled.listed(root, CATEGORIES)
    assert [image["file_name"] for image in found.images] == list(PHOTOGRAPHS)
    assert (found.problems, found.ignored) == ([], 1)
    contents = tiny_ap10k.contents()
    splits, _ = unlabeled.beside(root, lambda: (contents, {}), CATEGORIES)
    assert [image["width"] for image in splits["unlabeled"]["images"]] == [50, 51, 52]


def test_the_builds_summary_and_describe_count_it(
    builder, manual_dir, capsys, monkeypatch, tmp_path
):
    build._print_summary("ap10k/split1", builder, built_before=False)
    assert "4 train, 1 validation, 2 test, 3 unlabeled photographs" in capsys.readouterr().out
    out = tmp_path / "counts.json"
    monkeypatch.setattr(sys, "argv", ["describe", str(manual_dir), f"--json={out}"])
    assert commands.status(describe.main) == 0
    text = capsys.readouterr().out
    assert "3 photographs without annotations, of 2 species (0 of unknown species)" in text
    counts = json.loads(out.read_text())
    assert counts["images"] == 7
    assert counts["unlabeled"]["per_family"] == {
        "Canidae": {"dog": 2},
        "Bovidae": {"argali sheep": 1},
    }


def test_own_data_has_it_too_with_species_of_its_own(tmp_path):
    root = tiny_ap10k.write(tmp_path / "pets")
    for part in ("train", "val", "test"):
        (root / f"annotations/ap10k-{part}-split1.json").rename(root / f"annotations/{part}.json")
    for path in root.glob("annotations/ap10k*"):
        path.unlink()
    write(root)
    built = build.build("pets", root, tmp_path / "built", dataset="own")
    again = tfds.builder("own/pets", data_dir=tmp_path / "built")
    assert again.info.splits["unlabeled"].num_examples == 3
    (root / "unlabeled/Canidae/dragon").mkdir()
    (root / "unlabeled/Canidae/dragon/a.jpg").write_bytes(tiny_ap10k.jpeg(3))
    with pytest.raises(annotations.AnnotationError, match="no species of Canidae"):
        build.build("pets", root, tmp_path / "built", dataset="own", overwrite=True)
    assert built.info.splits["unlabeled"].num_examples == 3


def test_decoded_records_have_the_pixels(builder):
    record = builder.as_data_source("unlabeled")[1]
    assert record["image"].shape == (30, 51, 3)
    assert record["image"].dtype == np.uint8
