"""Crops cut from patches are those of the photographs, and patches never outlive what made them."""

import dataclasses
import os

import cv2
import numpy as np
import pytest

from ap10k_jax import images
from ap10k_jax.augmentation import Augmentation
from ap10k_jax.data import batches, device_crops, patches
from ap10k_jax.data.animals import Animals, decode_example

SIZE = 64
AUGMENTATION = Augmentation()
LABELS = ("keypoints", "weights", "center", "scale", "index")


@pytest.fixture(scope="module")
def animals(synthetic_dir):
    return Animals.open("ap10k/split1", "train", data_dir=synthetic_dir)


def patches_of(animals, folder, *, image_size=SIZE, **changes):
    augmentation = dataclasses.replace(AUGMENTATION, **changes)
    return patches.Patches(animals, folder, image_size=image_size, augmentation=augmentation)


@pytest.fixture(scope="module")
def filled(animals, tmp_path_factory):
    kept = patches_of(animals, tmp_path_factory.mktemp("patches"))
    kept.fill(threads=2)
    return kept


def read_batches(source, **options):
    options = {"batch_size": 8, "epochs": 2, "seed": 0, "image_size": SIZE} | options
    return list(batches.train_batches(source, **options))


def cut(small, batch):
    """The crops of a batch, as the device cuts them."""
    places = small.animals.places[batch["index"]]
    pixels = small.pixels[places].reshape(len(places), small.side, -1)
    crops = device_crops.cut(pixels, np.arange(len(places)), batch["matrix"], size=(SIZE, SIZE))
    return np.asarray(crops)


@pytest.mark.parametrize("shift_once", [False, True])
def test_views_do_not_depend_on_where_the_pixels_come_from(animals, filled, shift_once):
    common = {"augmentation": dataclasses.replace(AUGMENTATION, shift_once=shift_once)}
    streamed = read_batches(animals, **common)
    for one, other in zip(streamed, read_batches(filled, **common), strict=True):
        assert other.keys() == one.keys() - {"image"} | {"matrix"}
        for name in LABELS:
            np.testing.assert_array_equal(one[name], other[name])


def smooth(animals):
    """The animals on photographs without detail: what is left to differ is geometry."""

    class Smooth(Animals):
        def __getitem__(self, index):
            image = self.image(index)
            noise = np.random.default_rng(image["id"]).integers(0, 256, (4, 5, 3), np.uint8)
            pixels = cv2.resize(
                noise, (image["width"], image["height"]), interpolation=cv2.INTER_CUBIC
            )
            png = cv2.imencode(".png", pixels)[1].tobytes()
            return {"bytes": png, "file_name": image["file_name"], **self.labels(index)}

    copy = Smooth(animals._source, animals.ground_truth(), fingerprint="smooth")
    assert len(copy) == len(animals)
    return copy


def test_crops_agree_but_for_resampling(animals, tmp_path):
    animals = smooth(animals)
    kept = patches_of(animals, tmp_path)
    kept.fill(threads=2)
    differences = []
    for one, other in zip(read_batches(animals), read_batches(kept), strict=True):
        crops = cut(kept, other)
        apart = np.abs(one["image"].astype(int) - crops)
        # Where either is black beyond the photograph the edge is softer by a pixel of the patch.
        edge = (one["image"].max(-1) == 0) | (crops.max(-1) == 0)
        near = [cv2.dilate(m.astype(np.uint8), np.ones((7, 7), np.uint8)) for m in edge]
        differences.append(apart[np.stack(near) == 0])
    differences = np.concatenate(differences)
    # A shift by half an image pixel gives a mean of 0.9 here; by one in the patch 3.
    assert differences.mean() < 0.25
    assert np.quantile(differences, 0.999) <= 3


def test_what_a_crop_can_show_is_in_the_patch(animals, tmp_path):
    # White photographs: within the photograph every crop is white, so that a region cut too small
    # would show as black. Small animals, so that regions end inside the photograph.
    class White(Animals):
        def labels(self, index):
            labels, image = super().labels(index), self.image(index)
            middle = np.array([image["width"], image["height"]]) / 2
            shrink = np.float32(0.1)
            labels["box"] = np.concatenate(
                [middle + (labels["box"][:2] - middle) * shrink, labels["box"][2:] * shrink]
            ).astype(np.float32)
            labels["keypoints"][:, :2] = middle + (labels["keypoints"][:, :2] - middle) * shrink
            labels["keypoints"][:, 2] = 2
            return labels

        def __getitem__(self, index):
            image = self.image(index)
            pixels = np.full((image["height"], image["width"], 3), 255, np.uint8)
            png = cv2.imencode(".png", pixels)[1].tobytes()
            return {"bytes": png, "file_name": image["file_name"], **self.labels(index)}

    animals = White(animals._source, animals.ground_truth(), fingerprint="white")
    certain = {"rotation_probability": 1.0, "half_body_probability": 0.5, "shift_probability": 1.0}
    kept = patches_of(animals, tmp_path, **certain)
    kept.fill(threads=2)
    sizes = np.array([[animals.image(i)["width"], animals.image(i)["height"]] for i in range(9)])
    assert np.all(kept._regions[:9, 2:] < sizes), "the test should have regions of a part"
    augmentation = dataclasses.replace(AUGMENTATION, **certain)
    options = {"epochs": 20, "augmentation": augmentation}
    for batch in read_batches(kept, **options):
        # no crop leaves these photographs: they are ten times as wide as the animals
        assert cut(kept, batch).min() >= 254


def test_patches_are_not_larger_than_the_photograph_and_black_beyond(animals, filled):
    for i in range(len(animals)):
        x, y, width, height = filled._regions[i]
        wide, high = min(width, filled.side), min(height, filled.side)
        patch = filled.pixels[animals.places[i]]
        assert not patch[high:].any()
        assert not patch[:, wide:].any()
        photograph = decode_example(animals[i])["image"][y : y + height, x : x + width]
        shrunk = cv2.resize(photograph, (wide, high), interpolation=cv2.INTER_AREA)
        np.testing.assert_array_equal(patch[:high, :wide], shrunk)


def test_crops_do_not_depend_on_the_threads(filled):
    one, many = (read_batches(filled, threads=threads) for threads in (1, 5))
    for a, b in zip(one, many, strict=True):
        np.testing.assert_array_equal(a["matrix"], b["matrix"])


def test_a_restored_iterator_goes_on_where_it_was(filled):
    options = {"batch_size": 8, "epochs": 2, "seed": 0, "image_size": SIZE}
    iterator = iter(batches.train_batches(filled, **options))
    next(iterator)
    state, rest = iterator.get_state(), list(iterator)
    again = iter(batches.train_batches(filled, **options))
    again.set_state(state)
    for one, other in zip(rest, again, strict=True):
        np.testing.assert_array_equal(one["matrix"], other["matrix"])


def test_a_few_species_fill_their_rows_and_the_rest_is_added(
    synthetic_dir, animals, filled, tmp_path
):
    options = {"data_dir": synthetic_dir, "species": ("Felidae",)}
    few = Animals.open("ap10k/split1", "train", **options)
    assert 0 < len(few) < len(animals)
    patches_of(few, tmp_path).fill(threads=1)
    whole = patches_of(animals, tmp_path)
    assert len(whole.missing()) == len(animals) - len(few)
    whole.fill(threads=2)
    np.testing.assert_array_equal(whole.pixels, filled.pixels)
    # an animal has the same row whoever is chosen
    row_of = {animals.annotation(i)["id"]: animals.places[i] for i in range(len(animals))}
    assert few.places.tolist() == [row_of[few.annotation(i)["id"]] for i in range(len(few))]


def test_a_killed_filling_goes_on(animals, filled, tmp_path, monkeypatch):
    monkeypatch.setattr(patches, "PHOTOGRAPHS_AT_ONCE", 5)
    kept, written = patches_of(animals, tmp_path), []
    write = kept._write

    def dies(file, group):
        if len(written) == 7:
            raise KeyboardInterrupt
        written.append(group)
        return write(file, group)

    monkeypatch.setattr(kept, "_write", dies)
    with pytest.raises(KeyboardInterrupt):
        kept.fill(threads=1)
    again = patches_of(animals, tmp_path)
    # the two photographs after the last mark are made again
    assert len(again.missing()) == len(animals) - sum(len(group) for group in written[:5])
    again.fill(threads=2)
    np.testing.assert_array_equal(again.pixels, filled.pixels)
    assert not len(again.missing())


def test_filled_patches_are_not_made_again(animals, filled, monkeypatch):
    def fail(*args):
        raise AssertionError("decoded a photograph")

    monkeypatch.setattr(images, "decode", fail)
    patches_of(animals, filled.folder).fill(threads=1)


@pytest.mark.parametrize(
    "changes",
    [
        {"scale_sigma": 0.4},
        {"rotation_probability": 0.0},
        {"half_body_probability": 0.0},
        {"half_body_min_joints": 2},
        {"half_body_padding": 2.0},
        {"shift_probability": 0.0},
        {"shift": 0.3},
        {"image_size": 96},
    ],
)
def test_what_changes_what_can_be_seen_makes_patches_anew(animals, filled, changes):
    other = patches_of(animals, filled.folder, **changes)
    assert len(other.missing()) == len(animals)


def test_other_data_make_patches_anew(animals, filled):
    other = Animals(animals._source, animals.ground_truth(), fingerprint="other")
    assert len(patches_of(other, filled.folder).missing()) == len(animals)


@pytest.mark.parametrize(
    "changes", [{"flip_probability": 0.0}, {"rotation_sigma": 9.0}, {"rotation_probability": 0.9}]
)
def test_what_does_not_keeps_them(animals, filled, changes):
    assert not len(patches_of(animals, filled.folder, **changes).missing())


def test_marks_without_their_pixels_mean_nothing(animals, tmp_path):
    kept = patches_of(animals, tmp_path)
    kept.fill(threads=1)
    before = np.array(kept.pixels)
    os.truncate(kept._rows.pixels_path, 1000)
    again = patches_of(animals, tmp_path)
    assert len(again.missing()) == len(animals)
    again.fill(threads=1)
    np.testing.assert_array_equal(again.pixels, before)


def test_patches_that_are_not_what_was_written_are_made_anew(animals, filled, tmp_path):
    kept = patches_of(animals, tmp_path)
    kept.fill(threads=1)
    with kept._rows.pixels_path.open("r+b") as file:  # as in a copy that was made too early
        file.write(bytes(kept._rows.bytes // 2))
    again = patches_of(animals, tmp_path)
    again.fill(threads=1)
    np.testing.assert_array_equal(again.pixels, filled.pixels)


def test_a_faulty_photograph_is_named(animals, tmp_path):
    class Faulty(Animals):
        def __getitem__(self, index):
            return super().__getitem__(index) | {"bytes": b"\xff\xd8 no more"}

    faulty = Faulty(animals._source, animals.ground_truth(), fingerprint="faulty")
    with pytest.raises(ValueError, match=r"0\d+\.jpg: cannot be decoded"):
        patches_of(faulty, tmp_path).fill(threads=1)


def test_a_full_disk_is_an_error_and_not_a_patch(animals, tmp_path, monkeypatch):
    kept = patches_of(animals, tmp_path)
    monkeypatch.setattr(os, "pwrite", lambda file, content, where: len(content) // 2)
    with pytest.raises(OSError, match="No space left"):
        kept.fill(threads=1)
    monkeypatch.undo()
    assert len(kept.missing()) == len(animals)
