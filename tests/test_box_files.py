"""Boxes from other people's files land on the animals they mean."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image

from ap10k_jax import box_files
from ap10k_jax.box_files import Box, BoxFileError

# As documented at lila.science/megadetector-output-format, version 1.6, without what is optional.
MEGADETECTOR = {
    "info": {"format_version": "1.6"},
    "detection_categories": {"1": "animal", "2": "person", "3": "vehicle"},
    "images": [
        {
            "file": "site1/IMG_0001.JPG",
            "detections": [
                {"category": "1", "conf": 0.926, "bbox": [0.25, 0.5, 0.5, 0.25]},
                {"category": "2", "conf": 0.99, "bbox": [0, 0, 1, 1]},
                {"category": "7", "conf": 0.99, "bbox": [0, 0, 1, 1]},  # not listed: no detection
                {"category": "1", "conf": 0.061, "bbox": [0.0451, 0.1849, 0.3642, 0.4636]},
            ],
        },
        {"file": "site2/IMG_0001.JPG", "detections": []},
        {"file": "site2\\IMG_0002.JPG", "detections": [], "failure": None},
        {"file": "site2/IMG_0003.JPG", "failure": "Failure image access", "detections": None},
        {
            "file": "film.mp4",
            "frame_rate": 20,
            "frames_processed": [0, 3, 6],
            "detections": [
                {"category": "1", "conf": 0.8, "bbox": [0.1, 0.2, 0.3, 0.4], "frame_number": 0},
                {"category": "1", "conf": 0.9, "bbox": [0.2, 0.2, 0.3, 0.4], "frame_number": 6},
            ],
        },
    ],
}
COCO = {
    "images": [
        {"id": 7, "file_name": "a/x.jpg", "width": 100, "height": 80},
        {"id": 9, "file_name": "y.jpg", "width": 100, "height": 80},
    ],
    "categories": [{"id": 16, "name": "cat"}, {"id": 1, "name": "person"}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 16, "bbox": [10, 20, 30, 40]},
        {"id": 2, "image_id": 7, "category_id": 1, "bbox": [0, 0, 50, 50]},
    ],
}


def write(folder, content, name="boxes.json"):
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_megadetectors_animals_above_the_threshold_in_pixels(tmp_path):
    found = box_files.read(write(tmp_path, MEGADETECTOR), threshold=0.2)
    (box,) = found.boxes("/photos/site1/IMG_0001.JPG")
    assert box.score == 0.926
    np.testing.assert_allclose(box.pixels(640, 480), [160, 240, 320, 120])
    low = box_files.read(write(tmp_path, MEGADETECTOR), threshold=0.05)
    assert len(low.boxes("site1/IMG_0001.JPG")) == 2
    people = box_files.read(write(tmp_path, MEGADETECTOR), categories=["person"])
    assert [box.score for box in people.boxes("site1/IMG_0001.JPG")] == [0.99]


def test_no_animal_a_failure_and_an_unknown_file_are_told_apart(tmp_path):
    found = box_files.read(write(tmp_path, MEGADETECTOR))
    assert found.boxes("site2/IMG_0001.JPG") == []
    assert found.boxes("site2/IMG_0002.JPG") == []  # written with a backslash
    assert found.boxes("site2/IMG_0003.JPG") is None  # the detector could not read it
    assert found.boxes("site2/IMG_0099.JPG") is None


def test_frames_keep_their_boxes_until_the_detector_looked_again(tmp_path):
    film = box_files.read(write(tmp_path, MEGADETECTOR)).boxes("film.mp4")
    scores = [[box.score for box in box_files.in_frame(film, i)] for i in range(10)]
    # frame 3 was looked at and empty; after the last, for as long as between two looks
    assert scores == [[0.8]] * 3 + [[]] * 3 + [[0.9]] * 3 + [[]]


@pytest.mark.parametrize(
    ("file", "entry"),
    [
        ("site1/IMG_0001.JPG", "site1/IMG_0001.JPG"),
        ("/any/where/site1/IMG_0001.JPG", "site1/IMG_0001.JPG"),
        ("./site1/IMG_0001.JPG", "site1/IMG_0001.JPG"),
        ("xsite1/IMG_0001.JPG", None),  # the end of a name is not the name
        ("/other/IMG_0001.JPG", None),
        ("film.mp4", "film.mp4"),
    ],
)
def test_a_file_is_known_by_the_end_of_its_path(tmp_path, file, entry):
    assert box_files.read(write(tmp_path, MEGADETECTOR)).find(file) == entry


def test_a_name_that_could_be_two_is_refused(tmp_path):
    found = box_files.read(write(tmp_path, MEGADETECTOR))
    with pytest.raises(BoxFileError, match=r"site1/IMG_0001.JPG, site2/IMG_0001.JPG"):
        found.boxes("IMG_0001.JPG")


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_boxes_on_the_displayed_photograph_are_turned_back(tmp_path, orientation):
    # An independent witness: PIL turns the photograph, as MegaDetector does, and we look where the
    # white patch is in either.
    stored = np.zeros((40, 60, 3), np.uint8)
    stored[5:15, 10:40] = 255
    turns = {1: 0, 3: 180, 6: 270, 8: 90}
    shown = Image.fromarray(stored).rotate(turns[orientation], expand=True)
    ys, xs = np.nonzero(np.asarray(shown)[..., 0])
    width, height = shown.size
    relative = (
        xs.min() / width,
        ys.min() / height,
        (np.ptp(xs) + 1) / width,
        (np.ptp(ys) + 1) / height,
    )
    box = Box(relative, relative=True, displayed=True)
    np.testing.assert_allclose(box.pixels(60, 40, orientation), [10, 5, 30, 10], atol=1e-9)


def test_coco_annotations(tmp_path):
    found = box_files.read(write(tmp_path, COCO))
    assert [box.xywh for box in found.boxes("photos/a/x.jpg")] == [
        (10, 20, 30, 40),
        (0, 0, 50, 50),
    ]
    assert [box.category for box in found.boxes("a/x.jpg")] == [16, 1]
    assert found.boxes("y.jpg") == []
    assert found.image_ids == {"a/x.jpg": 7, "y.jpg": 9}
    only = box_files.read(write(tmp_path, COCO), categories=["cat"])
    assert [box.category for box in only.boxes("a/x.jpg")] == [16]


def test_a_crowd_in_a_file_of_annotations_is_no_box_of_an_animal(tmp_path):
    first, second = COCO["annotations"]
    content = COCO | {"annotations": [first | {"iscrowd": 1}, second | {"iscrowd": 0}]}
    found = box_files.read(write(tmp_path, content))
    assert [box.category for box in found.boxes("a/x.jpg")] == [1]


def test_coco_results_need_the_images_unless_they_name_them(tmp_path):
    results = [{"image_id": 7, "category_id": 16, "bbox": [1, 2, 3, 4], "score": 0.9}]
    results.append(results[0] | {"score": 0.1})
    path = write(tmp_path, results)
    with pytest.raises(BoxFileError, match="by number"):
        box_files.read(path)
    images = write(tmp_path, COCO, "images.json")
    found = box_files.read(path, images=images)
    assert [box.score for box in found.boxes("a/x.jpg")] == [0.9]
    named = write(tmp_path, [results[0] | {"image_id": "z.jpg"}], "named.json")
    assert [box.xywh for box in box_files.read(named).boxes("z.jpg")] == [(1, 2, 3, 4)]
    with pytest.raises(BoxFileError, match="image 8 is not"):
        box_files.read(write(tmp_path, [results[0] | {"image_id": 8}]), images=images)


def test_csv_with_and_without_what_is_optional(tmp_path):
    plain = "file,x,y,width,height\na.jpg,1,2,3,4\na.jpg,5,6,7,8\nnone.jpg,,,,\n"
    found = box_files.read(write(tmp_path, plain, "b.csv"))
    assert [box.xywh for box in found.boxes("a.jpg")] == [(1, 2, 3, 4), (5, 6, 7, 8)]
    assert found.boxes("none.jpg") == []
    header = "\ufefftrack,file,height,width,y,x,score,frame"  # as Excel begins a file
    rich = f"{header}\nAnna,v.mp4,4,3,2,1,0.9,5\n,v.mp4,4,3,2,1,0.1,\n"
    (box,) = box_files.read(write(tmp_path, rich, "b.csv"), threshold=0.5).boxes("v.mp4")
    assert box == Box((1, 2, 3, 4), score=0.9, frame=5, track="Anna")
    every = box_files.read(write(tmp_path, rich, "b.csv"), threshold=0).boxes("v.mp4")
    assert [len(box_files.in_frame(every, i)) for i in (0, 5)] == [1, 2]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("b.csv", "file,x,y\n", "no column width, height"),
        ("b.csv", "file,x,y,width,height\na.jpg,1,2,three,4\n", "line 2: .*three"),
        ("b.csv", "file,x,y,width,height\na.jpg,1,2,,\n", "line 2"),
        ("b.csv", "", "no column file"),
        ("b.json", "{", "neither JSON nor CSV"),
        ("b.json", "[1, 2]", "does not hold boxes"),
        ("b.json", '{"a": 1}', "does not hold boxes"),
        ("b.json", '{"detection_categories": {}, "images": [{"detections": []}]}', "'file'"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, name, content, message):
    with pytest.raises(BoxFileError, match=message):
        box_files.read(write(tmp_path, content, name))


def test_a_binary_file_is_no_box_file(tmp_path):
    path = tmp_path / "boxes.json"
    path.write_bytes(cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes())
    with pytest.raises(BoxFileError, match="neither JSON nor CSV"):
        box_files.read(path)
