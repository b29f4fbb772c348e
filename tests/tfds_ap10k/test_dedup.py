"""Copies of a photograph are found, different photographs are not, and nothing is lost."""

import io
import sys

import commands
import cv2
import numpy as np
import pytest
from golden_files import shared
from PIL import Image

from tfds_ap10k import dedup, divide, hashes, synthetic

pytest.importorskip("imagehash", reason="near-duplicates need the extra `curate`")
pytest.importorskip("faiss", reason="near-duplicates need the extra `curate`")


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    """Twelve drawings, of as many species."""
    return [synthetic.draw(3, i)[0] for i in range(12)]


def write(path, picture, quality=92):
    path.parent.mkdir(parents=True, exist_ok=True)
    written = cv2.imwrite(str(path), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert written


def cut(picture):
    height, width = picture.shape[:2]
    return picture[: round(0.97 * height), round(0.02 * width) :]


COPIES = {
    "half.jpg": lambda p: cv2.resize(p, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "twice.jpg": lambda p: cv2.resize(p, None, fx=2, fy=2),
    "cut.jpg": cut,
    "bright.jpg": lambda p: np.clip(1.2 * p, 0, 255).astype(np.uint8),
    "dark.jpg": lambda p: (0.8 * p).astype(np.uint8),
    "again.png": lambda p: p,
}


def run(monkeypatch, *arguments) -> int:
    monkeypatch.setattr(sys, "argv", ["dedup", *map(str, arguments)])
    return commands.status(dedup.main)


@pytest.mark.parametrize("name", COPIES)
def test_all_copies_are_found_and_hardly_anything_else(tmp_path, pictures, name):
    for i, picture in enumerate(pictures):
        write(tmp_path / "a" / f"{i}.jpg", picture)
        write(tmp_path / "b" / f"{i}-{name}", COPIES[name](picture), quality=50)
    matches = dedup.between(tmp_path / "a", tmp_path / "b")
    found = {(match.first, match.second) for match in matches}
    planted = {(f"{i}.jpg", f"{i}-{name}") for i in range(len(pictures))}
    assert planted <= found
    assert len(found - planted) <= 2  # of 132 pairs; drawings share their backgrounds
    assert all(match.similarity > hashes.MIN_SIMILARITY for match in matches)


def test_a_photograph_stored_on_its_side_is_the_upright_one(pictures):
    upright, lying = io.BytesIO(), io.BytesIO()
    image = Image.fromarray(pictures[0])
    image.save(upright, "JPEG")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to the right to see it
    image.transpose(Image.Transpose.ROTATE_90).save(lying, "JPEG", exif=exif)
    one, other = (hashes.fingerprint(data.getvalue()) for data in (upright, lying))
    assert one[2] == other[2] == image.size
    bits = np.bitwise_count(np.frombuffer(one[0], np.uint8) ^ np.frombuffer(other[0], np.uint8))
    assert bits.sum() < 8


def test_search_of_hashes_is_that_of_all_pairs():
    rng = np.random.default_rng(0)
    left = rng.integers(0, 256, (70, 32), np.uint8)
    right = left[rng.permutation(70)[:50]] ^ (1 << rng.integers(0, 8, (50, 32))).astype(np.uint8)
    for limit in (0, 31, 32, 120):
        apart = np.bitwise_count(left[:, None] ^ right).sum(axis=2)
        expected = {(a, b, apart[a, b]) for a, b in zip(*np.nonzero(apart <= limit), strict=True)}
        found = [zip(*rows, strict=True) for rows in hashes.similar_hashes(left, right, limit)]
        assert {tuple(map(int, row)) for rows in found for row in rows} == expected
        assert bool(expected) == (limit >= 32)


def test_a_picture_of_one_colour_is_like_no_other():
    flat, other = np.full((32, 32), 90, np.uint8), np.full((32, 32), 91, np.uint8)
    assert hashes.similarity(flat, other, (0, 0, 0)) < 0.1


def test_groups_are_connected_components():
    pairs = [hashes.Pair(a, b, 0, 1.0) for a, b in ((4, 5), (0, 2), (5, 1), (2, 3))]
    assert dedup.group(pairs, 8) == [[0, 2, 3], [1, 4, 5]]
    assert dedup.group([], 3) == []


@pytest.fixture
def folder(tmp_path, pictures):
    """Four pictures, a larger and a smaller copy of the first, one of the second, a broken file."""
    for i in range(4):
        write(tmp_path / "all" / f"{i}.jpg", pictures[i])
    write(tmp_path / "all" / "more" / "large.png", COPIES["twice.jpg"](pictures[0]))
    write(tmp_path / "all" / "small.jpg", COPIES["half.jpg"](pictures[0]))
    write(tmp_path / "all" / "1 copy.jpg", cut(pictures[1]))
    (tmp_path / "all" / "broken.jpg").write_bytes((tmp_path / "all" / "0.jpg").read_bytes()[:900])
    (tmp_path / "all" / "notes.txt").write_text("no photograph")
    return tmp_path / "all"


def test_proposals_keep_the_largest_and_show_all(folder, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    assert run(monkeypatch, folder, f"--out={out}") == 0
    said = capsys.readouterr()
    assert "7 photographs (1 more cannot be read)" in said.out
    assert "broken.jpg: the file is cut short" in said.err
    rows = [(row.group, row.file, row.decision) for row in dedup.read(out / "decisions.csv")]
    assert rows == [
        (1, "more/large.png", "keep"),
        (1, "0.jpg", "drop"),
        (1, "small.jpg", "drop"),
        (2, "1.jpg", "keep"),
        (2, "1 copy.jpg", "drop"),
    ]
    sheet = cv2.imread(str(out / "sheet-001.png"))[..., ::-1]
    for color in dedup.FRAMES.values():
        assert (sheet == color).all(axis=2).sum() > 1000


def test_edited_decisions_are_never_overwritten_and_nothing_is_deleted(
    folder, tmp_path, monkeypatch, capsys
):
    out, aside = tmp_path / "out", tmp_path / "aside"
    before = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert run(monkeypatch, folder, f"--out={out}") == 0
    table = out / "decisions.csv"
    table.write_text(table.read_text().replace("1,small.jpg,drop", "1,small.jpg, Keep "))
    edited = table.read_text()
    assert run(monkeypatch, folder, f"--out={out}") == 1
    assert "may have been edited" in capsys.readouterr().err
    assert run(monkeypatch, folder, f"--out={out}", "--apply") == 0
    assert capsys.readouterr().out.split("\n")[:-1] == ["0.jpg", "1 copy.jpg"]
    assert {path.name for path in folder.rglob("*") if path.is_file()} == set(before)
    for _ in range(2):  # again, there is nothing left to move
        assert run(monkeypatch, folder, f"--out={out}", "--apply", f"--move-to={aside}") == 0
    assert sorted(path.name for path in aside.iterdir()) == ["0.jpg", "1 copy.jpg"]
    now = [path for place in (folder, aside) for path in place.rglob("*") if path.is_file()]
    assert {path.name: path.read_bytes() for path in now} == before
    assert table.read_text() == edited


def test_a_file_in_the_way_is_not_overwritten(folder, tmp_path, monkeypatch, capsys):
    out, aside = tmp_path / "out", tmp_path / "aside"
    aside.mkdir()
    (aside / "0.jpg").write_text("mine")
    assert run(monkeypatch, folder, f"--out={out}") == 0
    assert run(monkeypatch, folder, f"--out={out}", "--apply", f"--move-to={aside}") == 1
    assert "nothing is overwritten" in capsys.readouterr().err
    assert (aside / "0.jpg").read_text() == "mine"
    assert (folder / "0.jpg").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("group,file\n", "no column decision"),
        ("group,file,decision\n1,a.jpg,maybe\n", "line 2: 'maybe' is neither keep nor drop"),
        ("group,file,decision\n1,a.jpg,keep\n1,a.jpg,drop\n", "line 3: 'a.jpg' is no file, or n"),
        ("group,file,decision\nx,a.jpg,keep\n", "'x' is not the number of a group"),
        ("group,file,decision\n1\n", "line 2"),
    ],
)
def test_a_flawed_decisions_file_is_refused(tmp_path, text, said):
    path = tmp_path / "decisions.csv"
    path.write_text(text)
    with pytest.raises(dedup.DecisionError, match=said):
        dedup.read(path)


def test_decisions_do_not_lead_out_of_the_folder(folder, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "mine.jpg").write_text("mine")
    (out / "decisions.csv").write_text("group,file,decision\n1,../mine.jpg,drop\n")
    assert run(monkeypatch, folder, f"--out={out}", "--apply", f"--move-to={tmp_path}/x/y") == 1
    assert "leads outside" in capsys.readouterr().err
    assert (tmp_path / "mine.jpg").exists()


def test_the_cache_saves_the_work_until_a_file_changes(folder, tmp_path, monkeypatch):
    files, cache = hashes.find_photographs(folder), tmp_path / "cache.sqlite"
    first, unreadable = hashes.fingerprints(files, cache)
    assert [path.name for path, _ in unreadable] == ["broken.jpg"]
    made = []
    make = hashes.fingerprint
    monkeypatch.setattr(hashes, "fingerprint", lambda data: made.append(data) or make(data))
    again, _ = hashes.fingerprints(files, cache)
    assert len(made) == 1  # only the broken one is looked at again
    assert again.files == first.files
    for one, other in zip(first[1:], again[1:], strict=True):
        np.testing.assert_array_equal(one, other)
    changed = folder / "0.jpg"
    changed.write_bytes((folder / "3.jpg").read_bytes())
    third, _ = hashes.fingerprints(files, cache)
    assert len(made) == 3
    place = third.files.index(changed)
    np.testing.assert_array_equal(third.hashes[place], third.hashes[third.files.index(files[-4])])


def test_an_interrupted_run_goes_on_where_it_was(folder, tmp_path, monkeypatch):
    files, cache = hashes.find_photographs(folder), tmp_path / "cache.sqlite"
    monkeypatch.setattr(hashes, "BATCH", 2)

    def interrupted(paths):
        yield from paths[:5]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hashes.fingerprints(files, cache, progress=interrupted)
    made = []
    make = hashes.fingerprint
    monkeypatch.setattr(hashes, "fingerprint", lambda data: made.append(data) or make(data))
    hashes.fingerprints(files, cache)
    assert len(made) <= len(files) - 4 + 1  # four were saved; the broken one may be among them


def test_between_folders_only_pairs_of_both_count(folder, tmp_path, pictures, monkeypatch, capsys):
    write(tmp_path / "other" / "same.jpg", pictures[3], quality=60)
    out = tmp_path / "out"
    arguments = (folder, tmp_path / "other", "--between", f"--out={out}")
    assert run(monkeypatch, *arguments) == 0
    rows = dedup.read(out / "decisions.csv")
    assert [row.file for row in rows] == [f"{folder}/3.jpg", f"{tmp_path}/other/same.jpg"]
    assert run(monkeypatch, folder, "--between", f"--out={out}") == 2


def test_groups_of_decisions_are_those_of_splits(folder, tmp_path, monkeypatch):
    assert run(monkeypatch, folder, f"--out={tmp_path}/out") == 0
    names = ["0.jpg", "1.jpg", "2.jpg", "large.png"]
    coco = {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(names)],
        "annotations": [],
        "categories": [],
    }
    kept, groups = divide.decided(coco, dedup.read(tmp_path / "out" / "decisions.csv"))
    assert [image["file_name"] for image in kept["images"]] == ["1.jpg", "2.jpg", "large.png"]
    assert groups == {"0.jpg": 1, "1.jpg": 2, "large.png": 1}


def test_the_five_doubles_of_animal_pose_are_found_with_few_false_alarms():
    folder = shared("data/animalpose_ap10k/data")
    wanted = {
        (f"{a}.jpg", f"{b}.jpg")
        for a, b in (
            *(("ca129", "ca146"), ("ca149", "ca58"), ("co15", "co3")),
            *(("sh16", "sh64"), ("sh30", "sh96")),
        )
    }
    found, unreadable = hashes.fingerprints(hashes.find_photographs(folder))
    assert (len(found.files), unreadable) == (1867, [])
    names = [path.name for path in found.files]
    pairs = {(names[pair.first], names[pair.second]) for pair in hashes.near(found)}
    assert wanted <= pairs
    assert len(pairs - wanted) <= 6
