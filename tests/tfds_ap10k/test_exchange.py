"""What goes to CVAT or Label Studio comes back as it was; what was spoilt there is refused."""

import copy
import json
import sys
from xml.etree import ElementTree

import commands
import pytest

from ap10k_jax import keypoints
from tfds_ap10k import annotations
from tfds_ap10k.exchange import __main__ as exchange
from tfds_ap10k.exchange import coco_json, corrections, cvat, label_studio
from tfds_ap10k.synthetic import dataset


@pytest.fixture(scope="module")
def coco() -> dict:
    """Eight drawings; one joint is hidden (visibility 1), one animal has no joints at all."""
    drawn = [dataset.draw(0, i) for i in range(8)]
    whole = dataset.coco([(image, records) for _, image, records, _ in drawn])
    whole = json.loads(json.dumps(whole))
    first, last = whole["annotations"][0], whole["annotations"][-1]
    place = next(i for i in range(2, 51, 3) if first["keypoints"][i])
    first["keypoints"][place] = 1
    last |= {"keypoints": [0] * 51, "num_keypoints": 0}
    first["bbox"][0] += 0.25
    first["area"] = first["bbox"][2] * first["bbox"][3]
    sound, problems = annotations.check(whole, file="a.json")
    assert not problems
    return sound


def there_and_back(tool: str, coco: dict, reference: dict | None = None) -> dict:
    if tool == "cvat":
        return cvat.fetch(cvat.export(coco), reference or coco)
    tasks = json.loads(json.dumps(label_studio.export(coco, "http://host/a b/")))
    return label_studio.fetch(tasks, reference or coco)


@pytest.mark.parametrize("tool", ["cvat", "label_studio"])
def test_what_goes_there_comes_back_as_it_was(tool, coco):
    back = there_and_back(tool, coco)
    assert back == coco
    assert annotations.check(back, file="back.json") == (coco, [])


@pytest.mark.parametrize("tool", ["cvat", "label_studio"])
def test_a_crowd_comes_back_as_a_crowd(tool, coco):
    crowded = copy.deepcopy(coco)
    crowded["annotations"][1]["iscrowd"] = 1
    assert there_and_back(tool, crowded) == crowded


@pytest.mark.parametrize("tool", ["cvat", "label_studio"])
def test_fractions_of_pixels_come_back_to_a_hundredth(tool, coco):
    fine = copy.deepcopy(coco)
    values = fine["annotations"][0]["keypoints"]
    place = next(i for i in range(0, 51, 3) if values[i + 2])
    values[place] = 33.333333
    back = there_and_back(tool, fine)["annotations"][0]["keypoints"]
    assert back[place] == 33.33


@pytest.mark.parametrize("tool", ["cvat", "label_studio"])
def test_joints_of_any_names_are_exchanged(tool):
    joints = keypoints.COCO_PERSON
    category = {"id": 3, "name": "person", "supercategory": "x", "keypoints": list(joints.names)}
    points = [value for i in range(17) for value in (10 + i, 20 + i, 2)]
    animal = {
        **{"id": 9, "image_id": 1, "category_id": 3, "bbox": [1, 2, 50, 60], "area": 3000},
        **{"iscrowd": 0, "num_keypoints": 17, "keypoints": points},
    }
    images = [{"id": 1, "file_name": "sub/ü 1.jpg", "width": 100, "height": 90}]
    coco = {"images": images, "annotations": [animal], "categories": [category]}
    assert there_and_back(tool, coco) == coco


@pytest.mark.parametrize("tool", ["cvat", "label_studio"])
def test_new_animals_get_new_ids_and_a_part_of_the_photographs_is_enough(tool, coco):
    part = copy.deepcopy(coco)
    part["images"] = part["images"][2:5]
    ids = {image["id"] for image in part["images"]}
    part["annotations"] = [a for a in part["annotations"] if a["image_id"] in ids]
    extra = copy.deepcopy(part["annotations"][0]) | {"id": 7_000_000}
    part["annotations"].append(extra)
    back = there_and_back(tool, part, coco)
    assert back["images"] == part["images"]
    known = {a["id"] for a in coco["annotations"]}
    (new,) = [a for a in back["annotations"] if a["id"] not in known]
    assert new["id"] == max(known) + 1
    assert new["keypoints"] == extra["keypoints"]


def test_cvat_gets_what_its_reader_needs(coco):
    root = ElementTree.fromstring(cvat.export(coco).encode())
    assert root.tag == "annotations"
    assert root.find("version").text == "1.1"
    assert [int(image.get("id")) for image in root.iter("image")] == list(range(8))
    for skeleton in root.iter("skeleton"):
        assert skeleton.get("label")
        points = skeleton.findall("points")
        assert [point.get("label") for point in points] == list(keypoints.AP10K.names)
        for point in points:
            assert {point.get("outside"), point.get("occluded")} <= {"0", "1"}
            x, y = map(float, point.get("points").split(","))
            assert x >= 0 <= y


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><name>t</name></task></meta>
  <image id="0" name="photos/a.jpg" width="100" height="80">
    <skeleton label="dog" source="manual" z_order="0">
      <points label="nose" source="manual" outside="0" occluded="0" points="50.00,40.00"></points>
      <points label="neck" source="manual" outside="0" occluded="1" points="20.50,30.00"></points>
      <points label="left_eye" source="manual" outside="1" occluded="0" points="1.0,1.0"></points>
      <attribute name="sure">yes</attribute>
    </skeleton>BOX
  </image>
</annotations>"""
BOX = '<box label="box" occluded="0" xtl="10" ytl="20" xbr="60" ybr="55" z_order="0"></box>'


def small() -> dict:
    names = {"keypoints": list(keypoints.AP10K.names)}
    return {
        "images": [{"id": 5, "file_name": "a.jpg", "width": 100, "height": 80, "background": 3}],
        "annotations": [],
        "categories": [{"id": 8, "name": "dog", "supercategory": "Canidae", **names}],
    }


def test_what_was_drawn_in_cvat_is_understood():
    (animal,) = cvat.fetch(CVAT.replace("BOX", BOX), small())["annotations"]
    assert (animal["id"], animal["image_id"], animal["category_id"]) == (1, 5, 8)
    assert animal["bbox"] == [10, 20, 50, 35]
    assert animal["num_keypoints"] == 2
    assert animal["keypoints"][6:12] == [50, 40, 2, 20.5, 30, 1]
    assert animal["keypoints"][:6] == [0] * 6
    (animal,) = cvat.fetch(CVAT.replace("BOX", ""), small())["annotations"]
    assert animal["bbox"] == [17.55, 27.05, 35.4, 15.9]  # around both, a tenth wider on each side


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("photos/a.jpg", "b.jpg", "no photograph of the reference"),
        ('width="100"', 'width="640"', "640x80 pixels, but 100x80"),
        ('label="dog"', 'label="cat"', "unknown species 'cat'"),
        ('label="nose"', 'label="tongue"', "unknown joint 'tongue'"),
        ("50.00,40.00", "nan,1", "is not a coordinate"),
        ("50.00,40.00", "50.00", "not enough values"),
        ("BOX", BOX * 2, "two boxes"),
        ("</annotations>", "", "not XML"),
        ("<annotations>", "<!DOCTYPE a><annotations>", "document type"),
    ],
)
def test_spoilt_xml_is_refused_and_says_why(old, new, said):
    with pytest.raises(corrections.ExchangeError, match=said):
        cvat.fetch(CVAT.replace(old, new).replace("BOX", BOX), small())


def task() -> dict:
    """As Label Studio exports it after an upload, with what it adds."""
    common = {"original_width": 100, "original_height": 80, "image_rotation": 0, "to_name": "image"}
    box = {"x": 10.0, "y": 25.0, "width": 50.0, "height": 43.75, "rotation": 0}
    point = {"x": 50.0, "y": 50.0, "width": 0.6}
    rectangle = {"id": "rXy_1", "type": "rectanglelabels", "from_name": "label", **common}
    nose = {"id": "kQ_2", "type": "keypointlabels", "from_name": "keypoint", **common}
    results = [
        nose | {"value": point | {"keypointlabels": ["nose"]}, "origin": "manual"},
        rectangle | {"value": box | {"rectanglelabels": ["dog"]}},
    ]
    done = [
        {"id": 1, "was_cancelled": False, "result": results},
        {"id": 2, "was_cancelled": True, "result": []},
    ]
    return {"id": 4, "data": {"image": "/data/upload/1/0a1b2c3d-a.jpg"}, "annotations": done}


def test_what_was_drawn_in_label_studio_is_understood():
    (animal,) = label_studio.fetch([task()], small())["annotations"]
    assert animal["bbox"] == [10, 20, 50, 35]
    assert animal["keypoints"][6:9] == [50, 40, 2]
    local = task() | {"data": {"image": "/data/local-files/?d=photos/a.jpg"}}
    assert label_studio.fetch([local], small())["annotations"] == [animal]
    local["annotations"] = []
    assert label_studio.fetch([local], small())["annotations"] == []


def changed(**values) -> dict:
    one = task()
    nose, rectangle = one["annotations"][0]["result"]
    for name, value in values.items():
        place = rectangle if name in ("rectanglelabels", "rotation") else nose
        (place["value"] if name in place["value"] else place)[name] = value
    return one


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        ([changed(keypointlabels=["tongue"])], "unknown joint 'tongue'"),
        ([changed(rectanglelabels=["cat"])], "unknown species 'cat'"),
        ([changed(rotation=5)], "rotated rectangle"),
        ([changed(original_width=50)], "50x80 pixels, but 100x80"),
        ([changed(x="far")], "could not convert"),
        ([task(), task()], "there twice"),
        ([{"data": {}}], "has no 'image'"),
        (["text"], "task 1"),
    ],
)
def test_spoilt_tasks_are_refused_and_say_why(tasks, said):
    with pytest.raises(corrections.ExchangeError, match=said):
        label_studio.fetch(tasks, small())


def test_a_keypoint_that_may_be_of_two_animals_is_refused():
    one = task()
    results = one["annotations"][0]["result"]
    results.append(results[1] | {"id": "other"})
    with pytest.raises(corrections.ExchangeError, match="nose belongs to no rectangle"):
        label_studio.fetch([one], small())
    results[0]["parentID"] = "other"
    back = label_studio.fetch([one], small())["annotations"]
    assert [animal["num_keypoints"] for animal in back] == [0, 1]


def test_the_labelling_interface_has_every_label_in_order(coco):
    root = ElementTree.fromstring(label_studio.interface(coco))
    labels = [label.get("value") for label in root.find("KeyPointLabels")]
    assert labels == list(keypoints.AP10K.names)
    assert len(root.find("RectangleLabels")) == len(coco["categories"])


@pytest.mark.parametrize("tool", ["cvat", "label_studio"])
def test_the_command_writes_and_reads(tool, coco, tmp_path, monkeypatch, capsys):
    def run(*arguments) -> int:
        monkeypatch.setattr(sys, "argv", ["exchange", str(tmp_path / "a.json"), *arguments])
        return commands.status(exchange.main)

    (tmp_path / "a.json").write_text(json.dumps(coco))
    assert run(f"--to_{tool}={tmp_path}/there") == 0
    assert run(f"--from_{tool}={tmp_path}/there", f"--out={tmp_path}/b.json") == 0
    assert json.loads((tmp_path / "b.json").read_text()) == coco
    (tmp_path / "there").write_text("{")
    assert run(f"--from_{tool}={tmp_path}/there", f"--out={tmp_path}/c.json") == 1
    assert capsys.readouterr().err
    assert not (tmp_path / "c.json").exists()


def as_a_tool_writes(coco: dict) -> dict:
    """Other ids, folders before names, joints in another order, no families."""
    other = copy.deepcopy(coco)
    for image in other["images"]:
        image |= {"id": image["id"] + 70_000, "file_name": f"task_1/{image['file_name']}"}
    for category in other["categories"]:
        category |= {"id": category["id"] + 300, "keypoints": category["keypoints"][::-1]}
        del category["supercategory"]
    for animal in other["annotations"]:
        points = [animal["keypoints"][i : i + 3] for i in range(0, 51, 3)]
        animal |= {"keypoints": [value for point in points[::-1] for value in point]}
        animal["image_id"] += 70_000
        animal["category_id"] += 300
    return other


def test_coco_of_any_tool_comes_back_by_name(coco):
    back = coco_json.fetch(json.loads(json.dumps(as_a_tool_writes(coco))), coco)
    assert (back["images"], back["categories"]) == (coco["images"], coco["categories"])
    without_ids = [[a | {"id": 0} for a in one["annotations"]] for one in (back, coco)]
    assert without_ids[0] == without_ids[1]
    assert not {a["id"] for a in back["annotations"]} & {a["id"] for a in coco["annotations"]}
    assert annotations.check(back, file="back.json")[1] == []


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda c: c["images"][0].update(file_name="x.jpg"), "x.jpg: no photograph of the ref"),
        (lambda c: c["images"][0].update(width=7), "pixels, but"),
        (lambda c: c["categories"][0]["keypoints"].__setitem__(0, "wing"), "unknown joint 'wing'"),
        (lambda c: c["annotations"][0]["keypoints"].pop(), "50 numbers in place of 51"),
        (lambda c: c["annotations"][0]["keypoints"].__setitem__(0, float("nan")), "coordinate"),
        (lambda c: c["annotations"][0].pop("category_id"), "not a COCO keypoint file: KeyError"),
        (lambda c: c.pop("images"), "not a COCO keypoint file: KeyError"),
    ],
)
def test_coco_that_does_not_fit_is_refused(coco, spoil, text):
    spoilt = as_a_tool_writes(coco)
    kind = spoilt["annotations"][0]["category_id"]
    spoilt["categories"].sort(key=lambda category: category["id"] != kind)
    spoilt["annotations"][0]["keypoints"][2] = 2
    spoil(spoilt)
    with pytest.raises(corrections.ExchangeError, match=text):
        coco_json.fetch(spoilt, coco)
