"""The drawn data set has the official shape, tells the truth about its pictures, and repeats."""

import json
import subprocess
import sys
from collections import Counter

import cv2
import numpy as np
import pytest

from ap10k_jax import keypoints
from tfds_ap10k import annotations, splits, taxonomy
from tfds_ap10k.synthetic import dataset

IMAGES = 48  # three of every species
FILES = sorted(
    f"ap10k-{part}-split{k}.json" for part in ("train", "val", "test") for k in (1, 2, 3)
)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return dataset.generate(tmp_path_factory.mktemp("drawn") / "set", images=IMAGES, seed=3)


@pytest.fixture(scope="module")
def scenes():
    """Picture, image record, annotations and owner mask of many images, without writing them."""
    return [dataset.draw(0, i) for i in range(160)]


def read(directory, part, split=1):
    return json.loads((directory / "annotations" / f"ap10k-{part}-split{split}.json").read_text())


def labelled(record):
    """Joint numbers and (n, 2) integer x, y of the labelled joints."""
    points = np.array(record["keypoints"]).reshape(17, 3)
    joints = np.flatnonzero(points[:, 2])
    return joints, points[joints, :2]


def test_nine_files_have_the_official_shape(drawn):
    assert sorted(p.name for p in (drawn / "annotations").iterdir()) == FILES
    for name in FILES:
        content = json.loads((drawn / "annotations" / name).read_text())
        assert list(content) == ["info", "licenses", "images", "annotations", "categories"]
        image, record, category = (content[k][0] for k in ("images", "annotations", "categories"))
        assert list(image) == ["license", "id", "file_name", "width", "height", "background"]
        assert sorted(record) == sorted(
            [
                "id",
                "image_id",
                "category_id",
                "bbox",
                "area",
                "iscrowd",
                "num_keypoints",
                "keypoints",
            ]
        )
        assert list(category) == ["id", "name", "supercategory", "keypoints", "skeleton"]
        assert [c["id"] for c in content["categories"]] == list(range(1, 55))
        assert category["skeleton"][0] == [1, 2]  # 1-based, as in the official files


def test_every_record_keeps_the_rules_of_the_official_files(drawn):
    for record in read(drawn, "train")["annotations"]:
        _, _, w, h = record["bbox"]
        assert all(isinstance(value, int) for value in (*record["bbox"], *record["keypoints"]))
        assert w > 0
        assert h > 0
        assert record["area"] == w * h
        assert record["iscrowd"] == 0
        points = np.array(record["keypoints"]).reshape(17, 3)
        assert set(points[:, 2]) <= {0, 2}
        assert not points[points[:, 2] == 0].any()
        assert record["num_keypoints"] == np.count_nonzero(points[:, 2]) >= 4


def test_validation_for_the_real_data_finds_nothing_to_complain_about(drawn):
    for split in (1, 2, 3):
        files = {
            part: drawn / "annotations" / f"ap10k-{part}-split{split}.json"
            for part in ("train", "val", "test")
        }
        categories = {s.id: (s.name, s.family) for s in taxonomy.SPECIES}
        read_back, _ = annotations.read(
            files,
            folder=drawn / "data",
            keypoint_names=keypoints.AP10K.names,
            categories=categories,
        )
        assert sum(len(coco["images"]) for coco in read_back.values()) == IMAGES


def test_three_splits_divide_the_same_images_differently(drawn):
    tests = []
    for split in (1, 2, 3):
        parts = [{i["id"] for i in read(drawn, p, split)["images"]} for p in splits.PARTS]
        assert sum(len(p) for p in parts) == len(set.union(*parts)) == IMAGES
        tests.append(frozenset(parts[2]))
    assert len(set(tests)) == 3


def test_species_are_balanced_and_families_many(scenes):
    counts = Counter(records[0]["category_id"] for _, _, records, _ in scenes)
    assert set(counts.values()) == {160 // 16}
    assert len({taxonomy.family_of(taxonomy.name_of(i)) for i in counts}) >= 8
    assert {image["background"] for _, image, _, _ in scenes} == set(range(1, 9))
    assert max(len(records) for _, _, records, _ in scenes) > 1


def test_same_seed_gives_the_same_bytes_and_another_seed_others(drawn, tmp_path):
    again = dataset.generate(tmp_path / "again", images=IMAGES, seed=3)
    other = dataset.generate(tmp_path / "other", images=16, seed=4)
    names = sorted(p.relative_to(drawn) for p in drawn.rglob("*.*"))
    assert len(names) == IMAGES + 9 + 1
    assert all((again / name).read_bytes() == (drawn / name).read_bytes() for name in names)
    # Another order of the same pictures would not do: sizes are drawn before any animal.
    sizes = [
        {(i["width"], i["height"]) for p in splits.PARTS for i in read(made, p)["images"]}
        for made in (drawn, other)
    ]
    assert len(sizes[1] & sizes[0]) < len(sizes[1]) / 2


def test_an_image_does_not_depend_on_how_many_there_are(drawn):
    # Nor on the process: `drawn` made 48 pictures before and after these.
    records = {a["id"]: a for p in splits.PARTS for a in read(drawn, p)["annotations"]}
    for i in (41, 7):
        picture, image, expected, _ = dataset.draw(3, i)
        assert all(records[record["id"]] == record for record in expected)
        stored = cv2.imread(str(drawn / "data" / image["file_name"]))[..., ::-1]
        assert stored.shape == (image["height"], image["width"], 3)
        assert np.abs(stored.astype(int) - picture).mean() < 6  # JPEG


def test_boxes_are_tight_inside_the_picture_and_contain_the_joints(scenes):
    for _, image, records, owner in scenes:
        for k, record in enumerate(records, 1):
            x, y, w, h = record["bbox"]
            ys, xs = np.nonzero(owner == k)
            assert (x, y) == (xs.min(), ys.min())
            assert (x + w - 1, y + h - 1) == (xs.max(), ys.max())
            assert 0 <= x < x + w <= image["width"]
            assert 0 <= y < y + h <= image["height"]
            _, points = labelled(record)
            # A joint counts as seen when animal is within two pixels of it.
            assert (points >= [x - 2, y - 2]).all()
            assert (points < [x + w + 2, y + h + 2]).all()
            assert (points >= 0).all()
            assert (points < [image["width"], image["height"]]).all()


def test_labelled_joints_lie_on_their_own_animal(scenes):
    hits = [
        owner[y, x] == k
        for _, _, records, owner in scenes
        for k, record in enumerate(records, 1)
        for x, y in labelled(record)[1]
    ]
    assert np.mean(hits) > 0.97


def test_eyes_and_noses_are_where_the_picture_is_dark(scenes):
    """The label marks something drawn, not only a place in the model: the pupil or the nose."""
    darker = []
    for picture, _, records, _ in scenes:
        if taxonomy.name_of(records[0]["category_id"]) == "panda":  # light pupils in dark rings
            continue
        grey = picture.mean(-1)
        for record in records:
            for joint, (x, y) in zip(*labelled(record), strict=True):
                if joint <= 2:
                    near = grey[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].min()
                    around = np.median(grey[max(y - 8, 0) : y + 9, max(x - 8, 0) : x + 9])
                    darker.append(near < 0.75 * around)
    assert np.mean(darker) > 0.9


def profiles(scenes):
    """Labels and facing (-1 left, +1 right) of animals clearly seen from the side."""
    for _, _, records, _ in scenes:
        for record in records:
            points = np.array(record["keypoints"]).reshape(17, 3)
            if points[[2, 3, 4], 2].all():
                ahead = points[3, 0] - points[4, 0]  # neck before root of tail
                if abs(ahead) > 0.4 * record["bbox"][2]:
                    yield points, np.sign(ahead)


def test_the_eye_that_is_seen_is_on_the_near_side(scenes):
    right = []
    for points, facing in profiles(scenes):
        left_eye, right_eye = points[:2, 2] > 0
        if left_eye != right_eye and (points[2, 0] - points[3, 0]) * facing > 0:
            right.append(left_eye == (facing < 0))  # facing left shows us the left side
    assert len(right) > 50
    assert np.mean(right) > 0.9  # the rest look over their shoulder at us


def test_near_legs_hide_far_ones_and_never_the_other_way(scenes):
    for near, far in (((5, 8), (8, 5)), ((11, 14), (14, 11))):
        seen = [
            (points[near[int(facing > 0)], 2] > 0, points[far[int(facing > 0)], 2] > 0)
            for points, facing in profiles(scenes)
        ]
        close, away = np.mean(seen, axis=0)
        assert close > 0.85
        assert away < 0.25


def test_most_joints_are_labelled_but_not_all(scenes):
    counts = [record["num_keypoints"] for _, _, records, _ in scenes for record in records]
    assert 9 < np.mean(counts) < 14
    assert len(set(counts)) > 6


def test_interruption_leaves_nothing_that_looks_complete(tmp_path, monkeypatch):
    draw = dataset.draw

    def interrupted(seed, i):
        if i == 3:
            raise KeyboardInterrupt
        return draw(seed, i)

    monkeypatch.setattr(dataset, "draw", interrupted)
    with pytest.raises(KeyboardInterrupt):
        dataset.generate(tmp_path / "set", images=5)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    assert len(list((dataset.generate(tmp_path / "set", images=5) / "data").iterdir())) == 5


def test_what_a_killed_run_leaves_is_not_taken_for_complete(tmp_path):
    (tmp_path / "set.unfinished-1" / "data").mkdir(parents=True)
    made = dataset.generate(tmp_path / "set", images=2)
    assert made == tmp_path / "set"
    (made / dataset.STAMP).unlink()
    with pytest.raises(ValueError, match="not made here"):
        dataset.generate(made, images=2)


def test_complete_data_set_is_left_as_it_is(drawn, monkeypatch, capsys):
    monkeypatch.setattr(dataset, "draw", None)  # drawing anything would fail
    assert dataset.generate(drawn, images=IMAGES, seed=3) == drawn
    assert "nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize(("images", "seed"), [(IMAGES + 1, 3), (IMAGES, 4)])
def test_other_arguments_for_the_same_folder_are_refused(drawn, images, seed):
    with pytest.raises(ValueError, match="holds drawings made with"):
        dataset.generate(drawn, images=images, seed=seed)


def test_lost_pictures_are_noticed(tmp_path):
    made = dataset.generate(tmp_path / "set", images=2)
    (made / "data" / "000000000002.jpg").unlink()
    with pytest.raises(ValueError, match="lost files"):
        dataset.generate(made, images=2)


def test_a_folder_with_other_things_is_never_touched(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="not empty"):
        dataset.generate(tmp_path, images=2)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "empty").mkdir()
    assert (dataset.generate(tmp_path / "empty", images=2) / dataset.STAMP).exists()


def test_command_line_draws_and_explains_refusals(tmp_path):
    command = [sys.executable, "-m", "tfds_ap10k.synthetic", str(tmp_path / "set")]
    done = subprocess.run([*command, "--images=2"], capture_output=True, text=True, check=True)
    assert "2 pictures" in done.stdout
    refused = subprocess.run([*command, "--images=3"], capture_output=True, text=True)
    assert refused.returncode == 1
    assert "another folder" in refused.stderr
    assert "Traceback" not in refused.stderr
