"""A job over many files stops for nothing, loses nothing, and says what went wrong."""

import json

import commands
import cv2
import numpy as np
import pytest

from ap10k_jax import visualize
from ap10k_jax.predict import Predictor, job, video
from ap10k_jax.predict import __main__ as predict_command


def picture(seed, size=(60, 80)):
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(small, size[::-1], interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder with three photographs, a broken one, an empty one, a video and a text."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    visualize.save(folder / "a.jpg", picture(0))
    visualize.save(folder / "b.PNG", picture(1, (90, 50)))
    visualize.save(folder / "deep" / "c.jpg", picture(2))
    (folder / "deep" / "empty.jpg").touch()
    content = (folder / "a.jpg").read_bytes()
    (folder / "noise.jpg").write_bytes(content[:20] + bytes(100))
    (folder / "notes.txt").write_text("not a photograph")
    with video.Writer(folder / "run.mp4", rate=10, size=(80, 60)) as writer:
        for i in range(20):
            writer.write(picture(10 + i))
    return folder


def command(checkpoint_dir, *arguments):
    return commands.status(predict_command.main, [str(checkpoint_dir), *map(str, arguments)])


def records_in(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def by_picture(records):
    return {(r["file"], r.get("frame")): r for r in records if "animals" in r}


def test_folders_globs_and_files_each_once(photos):
    assert job.find(["photos"]) == [
        "photos/a.jpg",
        "photos/b.PNG",
        "photos/deep/c.jpg",
        "photos/deep/empty.jpg",
        "photos/noise.jpg",
        "photos/run.mp4",
    ]
    assert job.find(["photos/*.jpg", "./photos/a.jpg", "photos/nowhere.jpg"]) == [
        "photos/a.jpg",
        "photos/noise.jpg",
        "photos/nowhere.jpg",
    ]
    assert job.find(["photos/**/c.*"]) == ["photos/deep/c.jpg"]
    odd = photos / "a[1].jpg"  # a name that looks like a glob
    visualize.save(odd, picture(0))
    assert job.find([str(odd)]) == [str(odd)]


def test_the_whole_way(checkpoint_dir, predictor, photos, tmp_path, capsys):
    out = tmp_path / "out"
    status = command(checkpoint_dir, "photos", "photos/nowhere.jpg", "--out", out)
    assert status == 1
    printed = capsys.readouterr().out
    assert "23 animals in 23 pictures" in printed
    problems = (out / "problems.txt").read_text().splitlines()
    assert sorted(line.split(":")[0] for line in problems) == [
        "photos/deep/empty.jpg",
        "photos/noise.jpg",
        "photos/nowhere.jpg",
    ]
    assert all(line in printed for line in problems)
    found = by_picture(records_in(out / "results.jsonl"))
    assert len(found) == 23
    # the same as the Predictor's own, for a photograph and for a frame
    frames = {f.index: f.image for f in video.read(photos / "run.mp4")}
    for file, frame, image in (
        ("photos/a.jpg", None, photos / "a.jpg"),
        ("photos/run.mp4", 7, frames[7]),
    ):
        (expected,) = predictor(image)
        np.testing.assert_allclose(
            found[file, frame]["animals"][0]["keypoints"], expected.keypoints, atol=2e-3
        )
    assert {p.name for p in out.iterdir()} == {
        "results.jsonl",
        "problems.txt",
        "coco-keypoints.json",
        "coco-images.json",
        "keypoints.csv",
    }


def test_a_job_without_problems_says_so_by_its_status(checkpoint_dir, photos, tmp_path):
    assert command(checkpoint_dir, "photos/a.jpg", "--out", tmp_path / "out") == 0
    assert (tmp_path / "out" / "problems.txt").read_text() == ""


def test_an_interrupted_job_goes_on_where_it_was(checkpoint_dir, photos, tmp_path, capsys):
    whole, again = tmp_path / "whole", tmp_path / "again"
    command(checkpoint_dir, "photos", "--out", whole)
    again.mkdir()
    lines = (whole / "results.jsonl").read_text().splitlines(keepends=True)
    # killed in the middle of the video, while it wrote a line
    (again / "results.jsonl").write_text("".join(lines[:12]) + lines[12][:30])
    command(checkpoint_dir, "photos", "--out", again)
    assert "going on after" in capsys.readouterr().err
    one, two = (by_picture(records_in(d / "results.jsonl")) for d in (whole, again))
    assert one.keys() == two.keys()
    for key in one:
        np.testing.assert_allclose(
            one[key]["animals"][0]["keypoints"], two[key]["animals"][0]["keypoints"], atol=2e-3
        )
    assert len(records_in(again / "results.jsonl")) == len(lines)  # nothing twice


def test_what_is_done_is_not_done_again_and_what_failed_is(
    checkpoint_dir, photos, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    assert command(checkpoint_dir, "photos", "--out", out) == 1
    calls = []
    monkeypatch.setattr(
        Predictor, "predict_crops", lambda self, crops: calls.append(len(crops)) or []
    )
    assert command(checkpoint_dir, "photos", "--out", out) == 1
    assert sum(calls) == 0
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    for name in ("deep/empty.jpg", "noise.jpg"):
        visualize.save(photos / name, picture(5))
    assert command(checkpoint_dir, "photos", "--out", out) == 0
    found = by_picture(records_in(out / "results.jsonl"))
    assert len(found) == 25
    assert (out / "problems.txt").read_text() == ""


def test_results_of_other_settings_are_not_mixed(checkpoint_dir, photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert command(checkpoint_dir, "photos/a.jpg", "--out", out) == 0
    before = (out / "results.jsonl").read_text()
    assert command(checkpoint_dir, "photos", "--out", out, "--no-mirror") == 1
    assert "mirror_test: True there, False now" in capsys.readouterr().err
    assert (out / "results.jsonl").read_text() == before


def test_boxes_are_used_and_bad_ones_are_reported(checkpoint_dir, predictor, photos, tmp_path):
    boxes = tmp_path / "boxes.csv"
    boxes.write_text(
        "file,x,y,width,height,track\n"
        "photos/a.jpg,10,10,30,40,\n"
        "photos/a.jpg,5,5,0,40,\n"
        "photos/a.jpg,500,5,20,40,\n"
        "photos/a.jpg,20,0,30,40,Anna\n"
        "photos/b.PNG,,,,\n"
    )
    out = tmp_path / "out"
    status = command(
        checkpoint_dir,
        *("photos/a.jpg", "photos/b.PNG", "photos/deep/c.jpg"),
        *("--out", out, "--boxes", boxes),
    )
    assert status == 1
    found = by_picture(records_in(out / "results.jsonl"))
    animals = found["photos/a.jpg", None]["animals"]
    expected = predictor(photos / "a.jpg", [[10, 10, 30, 40], [20, 0, 30, 40]])
    for animal, wanted in zip(animals, expected, strict=True):
        np.testing.assert_allclose(animal["keypoints"], wanted.keypoints, atol=2e-3)
        np.testing.assert_allclose(animal["box"], wanted.box)
    assert [animal.get("track") for animal in animals] == [None, "Anna"]
    assert found["photos/b.PNG", None]["animals"] == []  # nobody there: no problem
    problems = (out / "problems.txt").read_text()
    assert problems.count("no area inside") == 2
    assert "photos/deep/c.jpg: " in problems
    assert "has no entry for it" in problems
    assert len(problems.splitlines()) == 3


def test_boxes_of_a_rotated_photograph_by_megadetector(checkpoint_dir, predictor, photos, tmp_path):
    from PIL import Image

    image = Image.fromarray(picture(3))
    exif = image.getexif()
    exif[0x0112] = 6  # to be shown a quarter turn clockwise
    image.save(photos / "turned.png", exif=exif)
    # displayed 60 wide and 80 high; stored 80 wide and 60 high
    detection = {"category": "1", "conf": 0.9, "bbox": [0.5, 0.25, 0.25, 0.5]}
    content = {
        "detection_categories": {"1": "animal"},
        "images": [{"file": "turned.png", "detections": [detection]}],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    out = tmp_path / "out"
    boxes = tmp_path / "boxes.json"
    assert command(checkpoint_dir, "photos/turned.png", "--out", out, "--boxes", boxes) == 0
    (record,) = by_picture(records_in(out / "results.jsonl")).values()
    np.testing.assert_allclose(record["animals"][0]["box"], [20, 15, 40, 15])
    (expected,) = predictor(picture(3), [20, 15, 40, 15])
    np.testing.assert_allclose(record["animals"][0]["keypoints"], expected.keypoints, atol=2e-3)


def test_a_broken_frame_is_reported_and_the_others_are_predicted(checkpoint_dir, photos, tmp_path):
    writer = cv2.VideoWriter("photos/v.avi", cv2.VideoWriter_fourcc(*"MJPG"), 10, (80, 60))
    for i in range(6):
        writer.write(picture(i))
    writer.release()
    content = bytearray((photos / "v.avi").read_bytes())
    begin = [
        i for i in range(content.index(b"movi"), len(content)) if content[i : i + 4] == b"00dc"
    ]
    content[begin[3] + 8 : begin[4]] = bytes(begin[4] - begin[3] - 8)
    (photos / "v.avi").write_bytes(content)
    out = tmp_path / "out"
    assert command(checkpoint_dir, "photos/v.avi", "--out", out) == 1
    found = by_picture(records_in(out / "results.jsonl"))
    assert [frame for _, frame in found] == [0, 1, 2, 4, 5]
    assert (out / "problems.txt").read_text() == ("photos/v.avi: 1 frames cannot be decoded: 3\n")


def test_smoothing_is_named_and_the_raw_results_stay(checkpoint_dir, photos, tmp_path):
    pd = pytest.importorskip("pandas", reason="the extra dlc")
    pytest.importorskip("tables", reason="the extra dlc")
    out = tmp_path / "out"
    command(checkpoint_dir, "photos/run.mp4", "--out", out, "--write", "dlc,csv")
    raw = (out / "results.jsonl").read_text()
    command(checkpoint_dir, "photos/run.mp4", "--out", out, "--write=dlc,csv", "--smooth")
    assert (out / "results.jsonl").read_text() == raw
    plain = pd.read_hdf(out / "dlc" / "photos-run.mp4-ap10k_jax_nano.h5")
    (path,) = (out / "smoothed" / "dlc").glob("*.h5")
    smooth = pd.read_hdf(path)
    assert set(smooth.columns.get_level_values("scorer")) == {"ap10k_jax_nano_savgol-7-2"}
    assert plain.shape == smooth.shape == (20, 51)
    moved = np.nanmean(np.abs(plain.to_numpy() - smooth.to_numpy()))
    assert moved > 0.1
    roughness = [np.nanmean(np.abs(np.diff(t.to_numpy(), 2, axis=0))) for t in (plain, smooth)]
    assert roughness[1] < 0.7 * roughness[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{c}/nowhere", "photos"], "is no checkpoint"),
        (["{c}", "photos/deep/*.gif"], "no photograph or video"),
        (["{c}", "photos", "--boxes=none.csv"], "none.csv"),
        (["{c}", "photos", "--boxes=photos/notes.txt"], "neither JSON nor CSV"),
    ],
)
def test_what_cannot_start_says_why(checkpoint_dir, photos, capsys, arguments, message):
    assert (
        commands.status(predict_command.main, [a.format(c=checkpoint_dir) for a in arguments]) == 1
    )
    assert message in capsys.readouterr().err


def test_an_unknown_format_is_refused_with_the_known_ones(capsys):
    with pytest.raises(SystemExit) as stop:
        predict_command.main(["checkpoint", "photos", "--write=coco,xls"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert "'xls'" in error
    assert all(name in error for name in predict_command.FORMATS)


def test_help_names_every_format_and_file(capsys):
    with pytest.raises(SystemExit) as stop:
        predict_command.main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for word in (*predict_command.FORMATS, "MegaDetector", "EXIF", "results.jsonl", "Exit status"):
        assert word in text


def test_spans():
    assert job.spans([1, 2, 3, 7, 9, 10]) == [(1, 3), (7, 7), (9, 10)]
