"""Photographs that were decoded once give the very crops of those that are decoded every time."""

import errno
import gc
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ap10k_jax import images
from ap10k_jax.data import batches, decoded_cache, pixel_file
from ap10k_jax.data.animals import Animals, decode_example
from ap10k_jax.runtime import file_lock, memory

SIZE = 64


@pytest.fixture(scope="module")
def animals(synthetic_dir):
    return Animals.open("ap10k/split1", "train", data_dir=synthetic_dir)


def read_batches(source, **options):
    options = {"batch_size": 8, "epochs": 2, "seed": 0, "image_size": SIZE} | options
    return list(batches.train_batches(source, **options))


def assert_same(some, others):
    for one, other in zip(some, others, strict=True):
        assert one.keys() == other.keys()
        for name, values in one.items():
            np.testing.assert_array_equal(values, other[name])


def count_decoded(monkeypatch):
    names, decode = [], images.decode

    def counted(content, name="image"):
        names.append(name)
        return decode(content, name)

    monkeypatch.setattr(images, "decode", counted)
    return names


@pytest.fixture
def streamed(animals):
    return read_batches(animals)


def missing(kept):
    return len(kept._missing())


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("between_marks", [1, 64, 10**6])
def test_crops_are_the_streamed_ones_and_photographs_are_decoded_once(
    animals, streamed, tmp_path, monkeypatch, threads, between_marks
):
    names = count_decoded(monkeypatch)
    monkeypatch.setattr(decoded_cache, "BETWEEN_MARKS", between_marks)
    kept = decoded_cache.DecodedPhotographs(animals, tmp_path)
    assert_same(read_batches(kept, threads=threads), streamed)
    images = {animals.image(i)["file_name"] for i in range(len(animals))}
    assert set(names) == images
    if between_marks == 1:
        # two threads may meet at the two animals of a photograph, but not in the second epoch
        assert len(names) <= (len(images) if threads == 1 else len(animals))
    names.clear()
    again = decoded_cache.DecodedPhotographs(animals, tmp_path)  # as another run has it
    assert_same(read_batches(again, threads=threads), streamed)
    assert not names


def test_what_a_killed_run_has_not_marked_is_decoded_anew(animals, tmp_path, monkeypatch):
    monkeypatch.setattr(decoded_cache, "BETWEEN_MARKS", 5)
    kept = decoded_cache.DecodedPhotographs(animals, tmp_path)
    first = [int(np.flatnonzero(animals.image_places == p)[0]) for p in range(7)]
    images = [kept[i]["image"].copy() for i in first]
    names = count_decoded(monkeypatch)
    again = decoded_cache.DecodedPhotographs(animals, tmp_path)
    for i, image in zip(first, images, strict=True):
        np.testing.assert_array_equal(again[i]["image"], image)
    assert names == [animals.image(i)["file_name"] for i in first[5:]]


def test_an_example_is_the_animals_with_its_pixels(animals, tmp_path):
    kept = decoded_cache.DecodedPhotographs(animals, tmp_path)
    assert len(kept) == len(animals)
    for _ in range(2):  # decoded, then read
        example, wanted = kept[3], decode_example(animals[3])
        assert example.keys() == wanted.keys()
        for name, values in wanted.items():
            np.testing.assert_array_equal(example[name], values)


def test_it_says_what_it_takes(synthetic_dir, animals, tmp_path):
    kept = decoded_cache.DecodedPhotographs(animals, tmp_path)
    assert kept.bytes == sum(3 * image["width"] * image["height"] for image in animals.images)
    options = {"data_dir": synthetic_dir, "species": ("Felidae",)}
    few = Animals.open("ap10k/split1", "train", **options)
    some = decoded_cache.DecodedPhotographs(few, tmp_path)
    assert 0 < some.bytes < kept.bytes
    half = few.of_images({few.image(0)["id"]})
    assert (
        decoded_cache.DecodedPhotographs(half, tmp_path).bytes
        == 3 * few.image(0)["width"] * few.image(0)["height"]
    )
    # the rows of a photograph are the same whoever is chosen
    for i in range(len(few)):
        some[i]
    row_of = {animals.annotation(i)["id"]: i for i in range(len(animals))}
    for i in range(len(few)):
        same = kept[row_of[few.annotation(i)["id"]]]
        np.testing.assert_array_equal(same["image"], some[i]["image"])


@pytest.mark.parametrize("other", [{"fingerprint": "other"}, {"photographs_sha256": "other"}])
def test_other_data_have_other_files(animals, tmp_path, other):
    same = {name: getattr(animals, name) for name in ("fingerprint", "photographs_sha256")}
    assert all(same.values())
    for facts in (same, same | other):
        kept = Animals(animals._source, animals.ground_truth(), **facts)
        decoded_cache.DecodedPhotographs(kept, tmp_path)[0]
    assert len(list(tmp_path.glob("*.pixels"))) == 2


def test_a_full_disk_costs_time_and_no_crop(animals, streamed, tmp_path, monkeypatch, capsys):
    write, written = os.pwrite, []

    def fills_up(file, content, where):
        if len(written) > 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(where)
        return write(file, content, where)

    monkeypatch.setattr(os, "pwrite", fills_up)
    kept = decoded_cache.DecodedPhotographs(animals, tmp_path)
    assert_same(read_batches(kept), streamed)
    said = capsys.readouterr().out
    assert said.count("no more decoded photographs are kept") == 1
    assert f"{tmp_path}: No space left" in said


def test_a_disk_that_others_need_is_not_filled(animals, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(decoded_cache, "SPARE", 1 << 60)
    kept = decoded_cache.DecodedPhotographs(animals, tmp_path)
    read_batches(kept, epochs=1)
    assert "no more decoded photographs are kept" in capsys.readouterr().out
    assert missing(kept) == len(set(animals.image_places.tolist()))


def test_rows_that_the_disk_has_not_taken_do_not_count(animals, streamed, tmp_path, monkeypatch):
    def fails(file):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    kept = decoded_cache.DecodedPhotographs(animals, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails)
        assert_same(read_batches(kept), streamed)
    assert missing(kept) == len(set(animals.image_places.tolist()))


def test_a_folder_without_leave_costs_time_and_no_crop(animals, streamed, tmp_path):
    (tmp_path / "file").write_text("no folder")
    kept = decoded_cache.DecodedPhotographs(animals, tmp_path / "file" / "photographs")
    assert_same(read_batches(kept), streamed)


@pytest.mark.parametrize("count", [0, 9])
def test_photographs_of_somebody_else_are_read(animals, streamed, tmp_path, monkeypatch, count):
    monkeypatch.setattr(decoded_cache, "BETWEEN_MARKS", 1)
    made = decoded_cache.DecodedPhotographs(animals, tmp_path)
    for place in sorted(set(animals.image_places.tolist()))[count:]:
        made[int(np.flatnonzero(animals.image_places == place)[0])]
    opened = pixel_file.File

    def refused(made, *, write):
        if write:
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(made, write=write)

    monkeypatch.setattr(pixel_file, "File", refused)
    names = count_decoded(monkeypatch)
    kept = decoded_cache.DecodedPhotographs(animals, tmp_path)
    assert_same(read_batches(kept, threads=1), streamed)
    assert len(set(names)) == count


def test_marks_that_cannot_be_read_are_none(animals, streamed, tmp_path):
    read_batches(decoded_cache.DecodedPhotographs(animals, tmp_path))
    (path,) = tmp_path.glob("*.marks")
    path.unlink()
    path.mkdir()
    kept = decoded_cache.DecodedPhotographs(animals, tmp_path)
    assert missing(kept) == len(set(animals.image_places.tolist()))
    assert_same(read_batches(kept), streamed)


def test_what_one_process_writes_another_reads_at_once(animals, tmp_path, monkeypatch):
    monkeypatch.setattr(decoded_cache, "BETWEEN_MARKS", 1)
    writer, reader = (decoded_cache.DecodedPhotographs(animals, tmp_path) for _ in range(2))
    names = count_decoded(monkeypatch)
    writer[0]
    assert (tmp_path / f"{writer._rows.lock_path.name}").exists()
    reader[1]  # the writer has the lock: decoded and not written
    assert len(names) == 2
    reader[0]
    writer[1]
    assert len(names) == 3
    reader[1]
    assert len(names) == 3
    del writer
    gc.collect()
    file_lock.check(reader._rows.lock_path)  # free again


def test_deleted_files_are_no_black_photographs(animals, streamed, tmp_path):
    for kinds in (("pixels", "marks"), ("pixels",), ("marks",)):
        kept = decoded_cache.DecodedPhotographs(animals, tmp_path)
        read_batches(kept, epochs=1)
        for kind in kinds:
            next(tmp_path.glob(f"*.{kind}")).unlink()
        assert_same(read_batches(kept), streamed)
        another = decoded_cache.DecodedPhotographs(animals, tmp_path)
        assert_same(read_batches(another), streamed)
        assert_same(read_batches(kept), streamed)


def test_marks_of_other_pixels_are_noticed(animals, streamed, tmp_path):
    # as in a copy of the folder, made while it was written: the marks came later than the pixels
    read_batches(decoded_cache.DecodedPhotographs(animals, tmp_path))
    (path,) = tmp_path.glob("*.pixels")
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size // 2))
    kept = decoded_cache.DecodedPhotographs(animals, tmp_path)
    assert_same(read_batches(kept), streamed)


def test_pixels_cut_short_are_decoded_anew(animals, streamed, tmp_path, monkeypatch):
    monkeypatch.setattr(decoded_cache, "BETWEEN_MARKS", 1)
    read_batches(decoded_cache.DecodedPhotographs(animals, tmp_path))
    (path,) = tmp_path.glob("*.pixels")
    os.truncate(path, 1000)
    names = count_decoded(monkeypatch)
    assert_same(read_batches(decoded_cache.DecodedPhotographs(animals, tmp_path)), streamed)
    assert names


def test_a_photograph_of_another_size_than_recorded_is_decoded_every_time(animals, tmp_path):
    truth = animals.ground_truth()
    wrong = truth["images"][animals.image_places[0]] | {"width": 5}
    truth |= {"images": [wrong if i["id"] == wrong["id"] else i for i in truth["images"]]}
    animals = Animals(animals._source, truth, fingerprint="wrong size")
    kept = decoded_cache.DecodedPhotographs(animals, tmp_path)
    for _ in range(2):
        np.testing.assert_array_equal(kept[0]["image"], decode_example(animals[0])["image"])


def test_a_photograph_that_cannot_be_decoded_is_named(animals, tmp_path):
    class Faulty(Animals):
        def __getitem__(self, index):
            return super().__getitem__(index) | {"bytes": b"\xff\xd8 no more"}

    faulty = Faulty(animals._source, animals.ground_truth(), fingerprint="faulty")
    with pytest.raises(ValueError, match=r"0\d+\.jpg: cannot be decoded"):
        decoded_cache.DecodedPhotographs(faulty, tmp_path)[0]


def test_two_runs_may_share_the_files(animals, streamed, tmp_path, monkeypatch):
    monkeypatch.setattr(decoded_cache, "BETWEEN_MARKS", 3)
    runs = [decoded_cache.DecodedPhotographs(animals, tmp_path) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        for made in pool.map(lambda kept: read_batches(kept), runs):
            assert_same(made, streamed)
    del runs
    gc.collect()
    for _ in range(2):  # what the other one held is written by the first
        read_batches(decoded_cache.DecodedPhotographs(animals, tmp_path))
    names = count_decoded(monkeypatch)
    assert_same(read_batches(decoded_cache.DecodedPhotographs(animals, tmp_path)), streamed)
    assert not names


# --- rows


def test_a_row_has_its_length(tmp_path):
    made = pixel_file.Rows(tmp_path, "some", np.array([3, 5, 2]))
    with pixel_file.File(made, write=True) as file:
        mark = file.write(1, np.arange(5, dtype=np.uint8))
        file.write(2, np.array([8, 9], np.uint8))
        with pytest.raises(ValueError, match="row 0 has 3 bytes, not 4"):
            file.write(0, np.zeros(4, np.uint8))
        file.mark({1: mark})
        assert [file.read(i) is None for i in range(3)] == [True, False, True]
    with pixel_file.File(made, write=False) as file:
        assert file.read(1).tolist() == [0, 1, 2, 3, 4]
    assert (made.marks() != 0).tolist() == [False, True, False]


# --- memory


@pytest.mark.parametrize(
    ("groups", "limits", "least"),
    [
        ("0::/slurm/job", {"slurm/memory.max": "4096", "slurm/job/memory.max": "max"}, 4096),
        ("4:cpu,memory:/job\n0::/", {"memory/job/memory.limit_in_bytes": "8192"}, 8192),
        ("3:cpu:/job", {"memory/job/memory.limit_in_bytes": "8192"}, None),
        (None, {}, None),
    ],
)
def test_memory_is_the_machines_or_less(tmp_path, groups, limits, least):
    for name, limit in limits.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True)
        path.write_text(limit)
    if groups:
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(groups)
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert memory.limit(tmp_path) == (least or machine)
    assert 0 < memory.limit() <= machine
