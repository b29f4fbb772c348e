"""The reader refuses what is wrong, all of it at once, and counts what is odd."""

import io
import json
import os
import zipfile
from pathlib import Path

import cv2
import pytest
import tiny_ap10k
from PIL import Image

from ap10k_jax import keypoints
from tfds_ap10k import annotations, oddities, taxonomy

SHARED = Path(__file__).parents[3] / "shared/data/ap10k_real"
DECLARED = {
    "categories": {species.id: (species.name, species.family) for species in taxonomy.SPECIES},
    "keypoint_names": keypoints.AP10K.names,
}


def read(root):
    files = {part: root / "annotations" / f"ap10k-{part}-split1.json" for part in tiny_ap10k.SIZES}
    return annotations.read(files, folder=root / "data", **DECLARED)


def problems_of(root):
    with pytest.raises(annotations.AnnotationError) as caught:
        read(root)
    return caught.value.problems


def test_a_good_data_set_passes_with_its_records_as_they_were(tmp_path):
    files = tiny_ap10k.contents()
    given = tiny_ap10k.contents()
    given["train"]["annotations"][0]["segmentation"] = [
        [1, 2, 3]
    ]  # not read, not checked, not kept
    splits, report = read(tiny_ap10k.write(tmp_path, given))
    for part, coco in splits.items():
        for table in ("images", "annotations", "categories"):
            assert coco[table] == files[part][table]
    assert len(report.pop("species_without_animals")) == 52
    assert len(report.pop("families_without_animals")) == 21
    assert not any(report.values())


def edit(table, **fields):
    """A change of the first record of a table of the train file: image 4, annotation 40."""
    return lambda train: train[table][0].update(fields)


def drop(table, field):
    return lambda train: train[table][0].pop(field)


def clone(table, **fields):
    return lambda train: train[table].append({**train[table][0], **fields})


def keypoints_with(position, value):
    def change(train):
        train["annotations"][0]["keypoints"][position] = value

    return change


FLAWS = [
    # what is done to the train file, the record and the field that are named
    (lambda train: train.pop("images"), "", "images"),
    (lambda train: train.update(annotations={}), "", "annotations"),
    (lambda train: train["images"].append(7), "images[4]", "id"),
    (drop("images", "id"), "images[0]", "id"),
    (edit("images", id="4"), "images[0]", "id"),
    (edit("annotations", id=1.5), "annotations[0]", "id"),
    (edit("annotations", id=2**63), "annotations[0]", "id"),
    (clone("images", file_name="x.jpg"), "image 4", "id"),
    (clone("annotations"), "annotation 40", "id"),
    (clone("categories"), "category 1", "id"),
    (clone("images", id=99), "image 99", "file_name"),
    (clone("images", id=99, file_name="./000000000004.jpg"), "image 99", "file_name"),
    (edit("images", file_name="../x.jpg"), "image 4", "file_name"),
    (edit("images", file_name="a/../../x.jpg"), "image 4", "file_name"),
    (edit("images", file_name="/etc/passwd"), "image 4", "file_name"),
    (edit("images", file_name="..\\x.jpg"), "image 4", "file_name"),
    (edit("images", file_name="C:x.jpg"), "image 4", "file_name"),
    (edit("images", file_name=""), "image 4", "file_name"),
    (edit("images", file_name="a\0.jpg"), "image 4", "file_name"),
    (edit("images", file_name="\x1b[2J.jpg"), "image 4", "file_name"),
    (edit("images", file_name="\ud800.jpg"), "image 4", "file_name"),
    (edit("images", file_name=["x.jpg"]), "image 4", "file_name"),
    (edit("images", width="40"), "image 4", "width"),
    (edit("images", height=0), "image 4", "height"),
    (edit("images", width=41), "image 4", "width, height"),
    (edit("images", background="grass"), "image 4", "background"),
    (edit("annotations", image_id=77), "annotation 40", "image_id"),
    (edit("annotations", image_id=[4]), "annotation 40", "image_id"),
    (edit("annotations", category_id=55), "annotation 40", "category_id"),
    (edit("annotations", category_id="dog"), "annotation 40", "category_id"),
    (drop("annotations", "bbox"), "annotation 40", "bbox"),
    (edit("annotations", bbox=[1, 2, 3]), "annotation 40", "bbox"),
    (edit("annotations", bbox=[1, 2, 3, "4"]), "annotation 40", "bbox"),
    (edit("annotations", bbox=[1, 2, 3, float("nan")]), "annotation 40", "bbox"),
    (edit("annotations", bbox=[1, 2, 0, 5]), "annotation 40", "bbox"),
    (edit("annotations", bbox=[9, 9, -5, 5]), "annotation 40", "bbox"),
    (edit("annotations", bbox=[38.5, 3, 5, 5]), "annotation 40", "bbox"),
    (edit("annotations", bbox=[1, 2, 0.5, 5]), "annotation 40", "bbox"),
    (edit("annotations", bbox=[40, 3, 5, 5]), "annotation 40", "bbox"),
    (edit("annotations", bbox=[3, -9, 5, 9]), "annotation 40", "bbox"),
    (edit("annotations", area=0), "annotation 40", "area"),
    (edit("annotations", area=float("inf")), "annotation 40", "area"),
    (edit("annotations", iscrowd=2), "annotation 40", "iscrowd"),
    (edit("annotations", keypoints=[1, 2, 2] * 16), "annotation 40", "keypoints"),
    (edit("annotations", keypoints=[[1, 2, 2]] * 17), "annotation 40", "keypoints"),
    (edit("annotations", keypoints=None), "annotation 40", "keypoints"),
    (keypoints_with(0, "5"), "annotation 40", "keypoints"),
    (keypoints_with(0, float("nan")), "annotation 40", "keypoints"),
    (keypoints_with(1, 10**400), "annotation 40", "keypoints"),
    (keypoints_with(2, 3), "annotation 40", "keypoints"),
    (keypoints_with(2, True), "annotation 40", "keypoints"),
    (edit("annotations", num_keypoints=3), "annotation 40", "num_keypoints"),
    (edit("categories", name="unicorn"), "category 1", "name"),
    (edit("categories", supercategory="Felidae"), "category 1", "name"),
    (edit("categories", id=55), "category 55", "name"),
    (edit("categories", keypoints=["nose"]), "category 1", "keypoints"),
    (edit("categories", skeleton=[[0, 1]]), "category 1", "skeleton"),
    (edit("categories", sigmas=[0.1] * 16 + [0]), "category 1", "sigmas"),
    (edit("categories", sigmas=[0.1] * 16), "category 1", "sigmas"),
]


@pytest.mark.parametrize(("change", "record", "field"), FLAWS)
def test_a_flaw_is_found_and_named(tmp_path, change, record, field):
    root = tiny_ap10k.write(tmp_path)
    path = root / "annotations/ap10k-train-split1.json"
    train = json.loads(path.read_text())
    change(train)
    path.write_text(json.dumps(train))
    if field != "width, height":  # that takes a look at the photograph; the rest does not
        _, alone = annotations.check(train, file="x.json", **DECLARED)
        assert (record, field) in [problem[1:3] for problem in alone]
    found = problems_of(root)
    # Records that refer to a flawed one may be named besides it.
    assert ("ap10k-train-split1.json", record, field) in [problem[:3] for problem in found]
    assert len(found) == 1 or record == "" or field in ("id", "file_name")


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([1, 2, 0, 5], "has no extent"),
        ([40, 2, 5, 5], "lies outside the image of 40x30"),
        ([38.5, 2, 5, 5], "lies outside the image of 40x30"),  # but for half a pixel
        ([38, 2, 5, 5], None),
        ([-4, -4, 100, 100], None),
    ],
)
def test_a_box_may_stick_out_but_must_have_a_pixel_inside(tmp_path, box, expected):
    files = tiny_ap10k.contents()
    files["train"]["annotations"][0]["bbox"] = box
    root = tiny_ap10k.write(tmp_path, files)
    if expected:
        (problem,) = problems_of(root)
        assert expected in problem.text
    else:
        assert read(root)[1]["boxes_partly_outside"] == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "not valid JSON"),
        ('{"images": [', "not valid JSON"),
        ("[]", "not a JSON object"),
        ("[" * 100_000, "nested too deeply"),
        ('{"images": ' + "9" * 10_000 + "}", "digits"),
        (b"\xff\xfe\x00", "not valid JSON"),
        ('{"images": [], "annotations": [], "categories": []}', "there are none"),
        (None, "the file is missing"),
    ],
)
def test_a_file_that_is_no_annotation_file_is_one_problem(tmp_path, text, expected):
    root = tiny_ap10k.write(tmp_path)
    path = root / "annotations/ap10k-val-split1.json"
    path.unlink()
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    (problem,) = problems_of(root)
    assert problem.file == path.name
    assert expected in problem.text


JUNK = (None, True, -1, 2**64, 10**400, 1e308, float("nan"), "", "\udcff", "../x", [], [[]], {})


def test_no_value_anywhere_makes_the_reader_stumble():
    def places(value):  # every (container, key) within a JSON value
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            if isinstance(value[key], dict | list):
                yield from places(value[key])

    content = tiny_ap10k.contents()["val"]
    content["categories"] = content["categories"][:24]
    content["categories"] = [content["categories"][i] for i in (7, 23)]
    tried = 0
    for container, key in list(places(content)):
        original = container[key]
        for junk in JUNK:
            container[key] = junk
            tables, problems = annotations.check(content, file="x.json", **DECLARED)
            str(annotations.AnnotationError(problems)).encode()
            if not problems:  # what is let through can be counted, stored and read again
                oddities.count({"val": tables})
                assert json.loads(json.dumps(tables)) == tables
            tried += 1
        container[key] = original
    assert tried > 1000
    assert annotations.check(content, file="x.json", **DECLARED)[1] == []


@pytest.mark.parametrize("field", ["id", "file_name"])
def test_an_image_in_two_splits_is_refused(tmp_path, field):
    files = tiny_ap10k.contents()
    files["test"]["images"][0][field] = files["train"]["images"][0][field]
    files["test"]["annotations"][0]["image_id"] = files["test"]["images"][0]["id"]
    (problem,) = problems_of(tiny_ap10k.write(tmp_path, files))
    assert problem.file == "ap10k-test-split1.json"
    assert problem.field == field
    assert "is also in ap10k-train-split1.json" in problem.text


def with_thumbnail(jpeg):
    """The JPEG with another, small one in an application segment of its header."""
    thumbnail = tiny_ap10k.jpeg(0, width=8, height=8)
    segment = b"\xff\xe5" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    return jpeg[:2] + segment + jpeg[2:]


PHOTOGRAPHS = [
    (b"", "empty"),
    (b"a text, not a photograph", "not a readable photograph"),
    (tiny_ap10k.jpeg(4)[:200], "not a readable photograph"),  # ends within the header
    (tiny_ap10k.jpeg(4)[:900], "cut short"),  # ends within the picture
    (tiny_ap10k.jpeg(4)[:900] + bytes(900), "cut short"),  # as sparse downloads end
    (tiny_ap10k.jpeg(4)[:-2], "cut short"),  # OpenCV 5 does not decode these
    (with_thumbnail(tiny_ap10k.jpeg(4))[:-500], "cut short"),  # but the thumbnail has its end
    (tiny_ap10k.jpeg(4, width=30, height=40), "30x40 pixels"),
    (None, "missing"),
]


@pytest.mark.parametrize(("data", "expected"), PHOTOGRAPHS)
def test_an_unusable_photograph_is_found(tmp_path, data, expected):
    root = tiny_ap10k.write(tmp_path)
    path = root / "data/000000000004.jpg"
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    (problem,) = problems_of(root)
    assert problem.record == "image 4"
    assert expected in problem.text


def test_a_link_out_of_the_folder_is_refused_and_one_within_is_not(tmp_path):
    root = tiny_ap10k.write(tmp_path / "data set")
    photograph = root / "data/000000000004.jpg"
    for home, problems in ((root / "data/kept.jpg", 0), (tmp_path / "elsewhere.jpg", 1)):
        home.write_bytes(tiny_ap10k.jpeg(4))
        photograph.unlink()
        photograph.symlink_to(home)
        if problems:
            (problem,) = problems_of(root)
            assert "link out of the folder" in problem.text
        else:
            read(root)


def test_paths_that_the_system_stumbles_over_are_problems(tmp_path):
    files = tiny_ap10k.contents()
    root = tiny_ap10k.write(tmp_path, files)
    (root / "data/000000000004.jpg").unlink()
    (root / "data/000000000004.jpg").symlink_to(root / "data/000000000004.jpg")  # in a circle
    files["train"]["images"][1]["file_name"] = "x" * 300 + ".jpg"  # longer than a name may be
    (root / "annotations/ap10k-train-split1.json").write_text(json.dumps(files["train"]))
    assert [problem.record for problem in problems_of(root)] == ["image 4", "image 3"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_named_pipe_is_no_photograph(tmp_path):
    root = tiny_ap10k.write(tmp_path)
    (root / "data/000000000004.jpg").unlink()
    os.mkfifo(root / "data/000000000004.jpg")  # reading it would wait for ever
    (problem,) = problems_of(root)
    assert "missing" in problem.text


def test_size_is_that_of_the_stored_pixels_whatever_exif_says(tmp_path):
    root = tiny_ap10k.write(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees to show"
    rotated = io.BytesIO()
    Image.open(io.BytesIO(tiny_ap10k.jpeg(4))).save(rotated, "JPEG", exif=exif)
    (root / "data/000000000004.jpg").write_bytes(rotated.getvalue())
    read(root)


def test_a_readable_photograph_of_another_kind_is_counted(tmp_path):
    root = tiny_ap10k.write(tmp_path)
    pixels = cv2.imread(str(root / "data/000000000003.jpg"))
    (root / "data/000000000003.jpg").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    _, report = read(root)
    assert report["photographs_not_jpeg"] == 1


@pytest.mark.parametrize("appended", [b"", b"some text", b"\xff\xda and more"])
def test_a_whole_photograph_may_have_a_thumbnail_and_something_appended(tmp_path, appended):
    root = tiny_ap10k.write(tmp_path)
    whole = with_thumbnail(tiny_ap10k.jpeg(4)) + appended
    (root / "data/000000000004.jpg").write_bytes(whole)
    read(root)


def test_all_problems_come_together_and_the_message_stays_short(tmp_path):
    root = tiny_ap10k.write(tmp_path)
    for part in tiny_ap10k.SIZES:
        path = root / f"annotations/ap10k-{part}-split1.json"
        content = json.loads(path.read_text())
        for animal in content["annotations"]:
            animal.update(bbox=[0, 0, 0, 0], area=-1, category_id=0, num_keypoints=9)
        content["annotations"] += [{**content["annotations"][0], "id": 1000 + i} for i in range(20)]
        path.write_text(json.dumps(content))
    (root / "data/000000000001.jpg").unlink()
    with pytest.raises(annotations.AnnotationError) as caught:
        read(root)
    assert len(caught.value.problems) == (7 + 60) * 4 + 1
    lines = str(caught.value).splitlines()
    assert len(lines) == 1 + annotations.MAX_LISTED + 1
    assert lines[0] == "The annotations have 269 problems:"
    assert lines[-1] == "  ... and 219 more"


def test_a_missing_folder_of_photographs_is_one_problem(tmp_path):
    root = tiny_ap10k.write(tmp_path)
    (root / "data").rename(root / "images")
    (problem,) = problems_of(root)
    assert str(problem) == "data/: the folder of photographs is missing"


def test_what_is_odd_is_counted(tmp_path):
    files = tiny_ap10k.contents()
    train = files["train"]
    train["images"][0]["background"] = 88
    train["images"][1]["background"] = 0
    del train["images"][2]["background"]
    del train["annotations"][3]
    train["annotations"].append(tiny_ap10k.animal(500, 4, 8))  # image 4 has a cat already
    train["annotations"][0]["bbox"] = [30, 20, 11, 5]
    train["annotations"][1].update(keypoints=[0] * 51, num_keypoints=0)
    train["annotations"][2]["keypoints"][0] = -1
    train["annotations"][2]["iscrowd"] = 1
    files["val"]["annotations"][0]["category_id"] = 5  # a cow, beside dogs and cats
    _, report = read(tiny_ap10k.write(tmp_path, files))
    assert len(report["species_without_animals"]) == 51
    assert "Bovidae" not in report["families_without_animals"]
    assert report["undocumented_backgrounds"] == {"0": 1, "88": 1, "none": 1}
    assert report["images_without_animals"] == 1
    assert report["images_of_several_species"] == 1
    assert report["boxes_partly_outside"] == 1
    assert report["animals_without_keypoints"] == 1
    assert report["keypoints_outside"] == 1
    assert report["crowds"] == 1
    described = oddities.describe(report)
    assert "undocumented backgrounds: 0 (1 times), 88 (1 times), none (1 times)" in described


def test_a_zip_file_is_read_as_its_folder_is(tmp_path):
    root = tiny_ap10k.write(tmp_path / "ap-10k")
    archive = tmp_path / "ap-10k.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(root.rglob("*.*")):
            file.write(path, path.relative_to(tmp_path))
    assert read(zipfile.Path(archive, "ap-10k/")) == read(root)


def test_a_damaged_zip_entry_is_an_unreadable_photograph(tmp_path):
    root = tiny_ap10k.write(tmp_path / "ap-10k")
    archive = tmp_path / "ap-10k.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(root.rglob("*.*")):
            file.write(path, path.relative_to(tmp_path))
    data = archive.read_bytes()
    photograph = tiny_ap10k.jpeg(4)
    at = data.index(photograph) + len(photograph) // 2
    archive.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    (problem,) = problems_of(zipfile.Path(archive, "ap-10k/"))
    assert problem.record == "image 4"
    assert "cannot be read (BadZipFile)" in problem.text


def test_the_set_of_keypoints_may_be_any(tmp_path):
    names = [f"joint_{i}" for i in range(9)]
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 40, "height": 30}],
        "annotations": [{**tiny_ap10k.animal(1, 1, 5), "keypoints": [1, 1, 2, 2, 2, 1] + [0] * 21}],
        "categories": [{"id": 5, "name": "okapi", "keypoints": names}],
    }
    path = tmp_path / "own.json"
    path.write_text(json.dumps(content))
    splits, _ = annotations.read({"all": path})
    assert splits == {"all": content}
    other = {**content, "images": [{**content["images"][0], "id": 2, "file_name": "b.jpg"}]}
    other["annotations"] = []
    other["categories"] = [{**content["categories"][0], "name": "zebra"}]
    (tmp_path / "other.json").write_text(json.dumps(other))
    with pytest.raises(annotations.AnnotationError, match="'zebra', but 'okapi' in own"):
        annotations.read({"train": path, "test": tmp_path / "other.json"})
    content["annotations"][0]["keypoints"].pop()
    path.write_text(json.dumps(content))
    with pytest.raises(annotations.AnnotationError, match="26 numbers in place of 27"):
        annotations.read({"all": path})


@pytest.mark.skipif(not SHARED.exists(), reason="the official annotation file is not at hand")
def test_the_official_train_split_has_exactly_its_known_oddities():
    splits, report = annotations.read({"train": SHARED / "ap10k-train-split1.json"}, **DECLARED)
    assert len(splits["train"]["images"]) == 7023
    assert len(splits["train"]["annotations"]) == 9122
    odd = {name: value for name, value in report.items() if value}
    assert odd == {
        "species_without_animals": ["arctic fox", "orangutan", "mole", "bat"],
        "families_without_animals": ["Talpidae", "Vespertilionidae"],
        "undocumented_backgrounds": {"88": 1, "9": 1},
    }
