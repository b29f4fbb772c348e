"""What we write is read back by the tools it is meant for."""

import csv
import json

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from ap10k_jax import box_files, images, visualize
from ap10k_jax import keypoints as joints
from ap10k_jax.predict import formats, video

NAMES = joints.AP10K.names


def animal(x=10.0, y=20.0, score=0.5, **more):
    """All joints along a line from (x, y); the last was not found."""
    keypoints = [[x + 3 * i, y + 2 * i, score] for i in range(16)]
    return {
        "box": [x, y, 60, 50],
        "score": score,
        "keypoints": [*keypoints, [-33.0, -44.0, 0.0]],
        "category": 1,
        **more,
    }


def photograph(file, *animals):
    return {"file": file, "width": 120, "height": 90, "animals": list(animals)}


def frame(index, *animals, file="run.mp4"):
    return photograph(file, *animals) | {"frame": index}


@pytest.fixture
def records():
    return [
        photograph("b/ö x.jpg", animal(), animal(x=30, score=0.9, category=16)),
        {"file": "run.mp4", "frames": 3},
        frame(2, animal(x=12)),
        frame(0, animal(x=10)),
        {"file": "gone.jpg", "problems": ["gone.jpg: No such file or directory"]},
        photograph("a.jpg"),
    ]


def test_coco_results_are_read_by_pycocotools(tmp_path, records):
    results, images = formats.write_coco(tmp_path, records, keypoint_set=joints.AP10K)
    truth = COCO(str(images))
    read = truth.loadRes(str(results))
    names = {image["id"]: image["file_name"] for image in truth.imgs.values()}
    assert list(names.values()) == ["a.jpg", "b/ö x.jpg", "run.mp4/000000", "run.mp4/000002"]
    found = {name: read.loadAnns(read.getAnnIds(imgIds=[i])) for i, name in names.items()}
    assert [len(rows) for rows in found.values()] == [0, 2, 1, 1]
    assert [row["score"] for row in found["b/ö x.jpg"]] == [0.5, 0.9]
    assert [row["category_id"] for row in found["b/ö x.jpg"]] == [1, 16]
    np.testing.assert_allclose(
        np.reshape(found["run.mp4/000002"][0]["keypoints"], (-1, 3)),
        records[2]["animals"][0]["keypoints"],
    )
    category = truth.loadCats(16)[0]
    assert tuple(category["keypoints"]) == NAMES
    limbs = {
        (category["keypoints"][a - 1], category["keypoints"][b - 1])
        for a, b in category["skeleton"]
    }
    assert ("neck", "root_of_tail") in limbs


def test_coco_ids_are_those_of_the_boxes_file(tmp_path, records):
    path = tmp_path / "boxes.json"
    file_names = {"ö x.jpg": 1, "elsewhere.jpg": 2}
    images = [{"id": i, "file_name": name} for name, i in file_names.items()]
    path.write_text(json.dumps({"images": images, "annotations": []}))
    box_file = box_files.read(path)
    _, images = formats.write_coco(tmp_path, records, keypoint_set=joints.AP10K, box_file=box_file)
    ids = {i["file_name"]: i["id"] for i in json.loads(images.read_text())["images"]}
    assert ids["b/ö x.jpg"] == 1
    assert len(set(ids.values())) == 4
    assert 2 not in ids.values()  # it is another image's


def test_csv_has_a_row_a_joint(tmp_path, records):
    (path,) = formats.write_csv(tmp_path, records, keypoint_set=joints.AP10K)
    rows = list(csv.DictReader(path.open(newline="")))
    assert len(rows) == 4 * 17
    assert list(rows[0]) == ["file", "frame", "animal", "animal_score", "joint", "x", "y", "score"]
    wanted = [r for r in rows if r["frame"] == "2" and r["joint"] == "nose"]
    assert [(float(r["x"]), float(r["y"]), float(r["score"])) for r in wanted] == [(18, 24, 0.5)]
    # a joint that was not found has no place
    lost = [r for r in rows if r["joint"] == "right_back_paw"]
    assert {(r["x"], r["y"], r["score"]) for r in lost} == {("", "", "0.0")}
    assert [r["animal"] for r in rows if r["joint"] == "nose"] == ["animal1", "animal2"] + [
        "animal1"
    ] * 2


def test_wide_csv_has_a_row_an_animal(tmp_path, records):
    (path,) = formats.write_csv_wide(tmp_path, records, keypoint_set=joints.AP10K)
    rows = list(csv.DictReader(path.open(newline="")))
    assert len(rows) == 4
    assert len(rows[0]) == 8 + 3 * 17
    second = rows[1]
    assert (second["file"], second["animal"]) == ("b/ö x.jpg", "animal2")
    numbers = ("animal_score", "box_x", "box_height", "neck_x", "neck_y", "neck_score")
    assert [float(second[name]) for name in numbers] == [0.9, 30, 50, 39, 26, 0.9]


def test_dlc_tables_are_read_by_pandas_as_deeplabcut_reads_them(tmp_path, records):
    pd = pytest.importorskip("pandas", reason="the extra dlc")
    pytest.importorskip("tables", reason="the extra dlc")
    paths = formats.write_dlc(tmp_path, records, keypoint_set=joints.AP10K, scorer="us")
    assert [p.name for p in paths] == [
        "photographs-us.csv",
        "photographs-us.h5",
        "run.mp4-us.csv",
        "run.mp4-us.h5",
    ]
    for path in paths:
        if path.suffix == ".csv":
            table = pd.read_csv(path, header=[0, 1, 2, 3], index_col=0)
        else:
            table = pd.read_hdf(path)
        assert table.columns.names == ["scorer", "individuals", "bodyparts", "coords"]
        assert list(dict.fromkeys(table.columns.get_level_values("bodyparts"))) == list(NAMES)
        assert set(table.columns.get_level_values("scorer")) == {"us"}
        if "run" in path.name:
            assert list(table.index) == [0, 2]
            nose = table["us"]["animal1"]["nose"].loc[2]
            assert nose[["x", "y", "likelihood"]].tolist() == [18.0, 24.0, 0.5]
            lost = table["us"]["animal1"]["right_back_paw"].loc[2]
            assert lost[["x", "y"]].isna().all()
            assert lost["likelihood"] == 0
        else:
            assert list(table.index) == ["a.jpg", "b/ö x.jpg"]
            second = table.xs("animal2", level="individuals", axis=1)
            nobody = second.loc["a.jpg"].unstack("coords")
            assert nobody[["x", "y"]].isna().all(axis=None)
            # not NaN: a comparison with a threshold must find it below
            assert (nobody["likelihood"] == 0).all()
            assert second.loc["b/ö x.jpg", ("us", "left_eye", "x")] == 30


def test_dlc_tables_say_their_version_as_older_pandas_wants_it(tmp_path, records):
    # pandas 2.1 cannot read without it what pandas 3 writes: tried by hand
    pytest.importorskip("pandas", reason="the extra dlc")
    tables = pytest.importorskip("tables", reason="the extra dlc")
    paths = formats.write_dlc(tmp_path, records, keypoint_set=joints.AP10K, scorer="us")
    for path in paths[1::2]:
        with tables.open_file(path) as file:
            assert file.root.df_with_missing._v_attrs.pandas_version == "0.15.2"


def test_dlc_takes_a_herd(tmp_path):
    # HDF5 keeps a table's column names in a header that is small by default
    pd = pytest.importorskip("pandas", reason="the extra dlc")
    pytest.importorskip("tables", reason="the extra dlc")
    herd = [frame(i, *(animal(x=j) for j in range(30))) for i in range(2)]
    _, path = formats.write_dlc(tmp_path, herd, keypoint_set=joints.AP10K, scorer="us")
    assert pd.read_hdf(path).shape == (2, 30 * 17 * 3)


def test_individuals_are_tracks_where_boxes_name_them(tmp_path):
    anna, otto = animal(track="Anna"), animal(x=50, track="Otto")
    assert formats.individuals(frame(0, otto, anna)) == ["Otto", "Anna"]
    assert formats.individuals(frame(0, animal(), anna)) == ["animal1", "Anna"]
    assert formats.individuals(frame(0, anna, anna)) == ["Anna", "animal2"]  # one must be wrong


def test_smoothing_takes_noise_away_and_keeps_who_is_who():
    rng = np.random.default_rng(0)
    frames = []
    for i in range(40):
        anna = animal(x=10 + 2 * i + rng.normal(0, 1), track="Anna")
        otto = animal(x=500 - 3 * i + rng.normal(0, 1), track="Otto")
        # the order in a frame says nothing
        frames.append(frame(i, *((anna, otto) if i % 2 else (otto, anna))))
    before = json.dumps(frames)
    smoothed = formats.smoothed(frames)
    assert json.dumps(frames) == before
    for track, start, speed in (("Anna", 10, 2), ("Otto", 500, -3)):
        errors = []
        for records in (frames, smoothed):
            x = [a["keypoints"][0][0] for r in records for a in r["animals"] if a["track"] == track]
            errors.append(np.std(np.array(x) - (start + speed * np.arange(40))))
        assert errors[1] < 0.7 * errors[0], track
    # a joint that was not found stays so
    assert all(a["keypoints"][16] == [-33, -44, 0] for r in smoothed for a in r["animals"])


def test_several_animals_without_tracks_are_not_smoothed():
    with pytest.raises(ValueError, match="without tracks"):
        formats.smoothed([frame(0, animal(), animal())])
    photographs = [photograph("a.jpg", animal(), animal())]
    assert formats.smoothed(photographs) == photographs


def test_drawn_pictures_keep_their_folders_and_show_skeletons(tmp_path):
    inside = tmp_path / "photos" / "a"
    inside.mkdir(parents=True)
    grey = np.full((90, 120, 3), 100, np.uint8)
    visualize.save(inside / "x.png", grey)
    records = [photograph(str(inside / "x.png"), animal())]
    (path,) = formats.draw(tmp_path, records, keypoint_set=joints.AP10K, threshold=0.2)
    assert path.parts[-3:] == ("photos", "a", "x.png")
    assert tmp_path in path.parents
    drawn = images.decode(path.read_bytes())
    expected = visualize.draw_skeleton(grey, np.array(animal()["keypoints"]))
    np.testing.assert_array_equal(drawn, expected)
    formats.draw(tmp_path, records, keypoint_set=joints.AP10K, threshold=0.6)
    np.testing.assert_array_equal(images.decode(path.read_bytes()), grey)


def test_a_drawn_video_has_every_frame_and_its_rate(tmp_path):
    source = tmp_path / "run.avi"
    with video.Writer(source, rate=12.5, size=(120, 90)) as writer:
        for _ in range(6):
            writer.write(np.full((90, 120, 3), 100, np.uint8))
    records = [frame(i, *([animal()] if i == 4 else []), file=str(source)) for i in range(6)]
    (path,) = formats.draw(tmp_path, records, keypoint_set=joints.AP10K, threshold=0.2)
    assert path.name == "run.avi.mp4"
    capture = cv2.VideoCapture(str(path))
    assert capture.get(cv2.CAP_PROP_FPS) == 12.5
    spread = []
    while True:
        ok, image = capture.read()
        if not ok:
            break
        spread.append(image.std())
    assert len(spread) == 6
    assert np.argmax(spread) == 4
    assert spread[4] > 5 * max(spread[:4])


@pytest.mark.parametrize("file", ["../x.jpg", "/etc/x.jpg", "a/../../x.jpg"])
def test_nothing_is_written_outside_the_output_folder(tmp_path, file):
    target = (tmp_path / formats.safe_path(file)).resolve()
    assert tmp_path in target.parents
