"""Every animal once, as a small picture of all that augmentation can show of it, kept on disk.

A patch is the part of the photograph that any crop of the animal can show (`reach`),
shrunk with antialiasing to at most `side` pixels on each axis, in the upper left of a black square.
The accelerator cuts crops from it (data/device_crops.py). Patches are one and a half times as wide
as the crop: then a median AP-10K photograph, of which crops show two image pixels as one, loses
little but what a crop cannot show anyway.

The files of a split (data/pixel_file.py), a row an animal, are named by a digest of all that
decides the pixels, so that other data, sizes or augmentation never meet old patches. Runs on some
species fill some rows, a killed filling goes on, and several runs can share it.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8
from tqdm import tqdm

from ap10k_jax import images, keypoints, transforms
from ap10k_jax.augmentation import Augmentation, frame, reach
from ap10k_jax.data import pixel_file

VERSION = 1  # of the pixels; a change makes all files anew
PHOTOGRAPHS_AT_ONCE = 64  # between two marks on disk


class Source(Protocol):
    """What is asked of `Animals`."""

    places: Int[np.ndarray, "n"]
    split_size: int
    fingerprint: str
    photographs_sha256: str
    keypoint_set: keypoints.KeypointSet

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> dict: ...
    def labels(self, index: int) -> dict: ...
    def image(self, index: int) -> dict: ...


class Patches(Sequence):
    """The patches of a split's animals for crops of `image_size` and this augmentation."""

    def __init__(
        self,
        animals: Source,
        folder: Path,
        *,
        image_size: int,
        augmentation: Augmentation,
    ):
        """Nothing is written yet: `fill` does."""
        self.animals = animals
        self._augmentation = augmentation
        self.folder = folder
        self.side = image_size * 3 // 2
        # What can be shown does not depend on how often it is, but for never.
        certain = {
            f"{name}_probability": float(getattr(augmentation, f"{name}_probability") > 0)
            for name in ("half_body", "rotation", "shift")
        }
        neutral = {"flip_probability": 0, "half_body_upper_probability": 0, "rotation_sigma": 0}
        neutral |= {"shift_once": False}
        shown = dataclasses.replace(augmentation, **certain, **neutral)
        facts = {
            "version": VERSION,
            "data": [animals.fingerprint, animals.photographs_sha256],
            "joints": keypoints.as_category(animals.keypoint_set),
            "image_size": image_size,
            "augmentation": dataclasses.asdict(shown),
        }
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
        sizes = np.full(animals.split_size, 3 * self.side**2)
        self._rows = pixel_file.Rows(folder, f"{digest}-{self.side}px", sizes)

    @property
    def bytes(self) -> int:
        """Of the patches of these animals."""
        return len(self.animals) * 3 * self.side**2

    def missing(self) -> Int[np.ndarray, "n"]:
        """Indices of the animals whose patches are not there yet."""
        return np.flatnonzero(self._rows.marks()[self.animals.places] == 0)

    def obstacle(self) -> str:
        """Why what is missing cannot be written; "" if it can, and leaves a tenth of the room."""
        return self._rows.obstacle(self.animals.places[self.missing()], share=0.9)

    def fill(self, *, threads: int) -> None:
        """Make the patches that are missing, or are not what was written.

        Raises ValueError that names a faulty photograph.
        """
        unusable = self._unusable()
        if not len(unusable):
            return
        groups = _by_photograph(unusable, self.animals)
        bar = tqdm(total=len(unusable), desc="patches", unit="animal", dynamic_ncols=True)
        with (
            pixel_file.File(self._rows, write=True) as file,
            bar,
            ThreadPoolExecutor(threads) as pool,
        ):
            for start in range(0, len(groups), PHOTOGRAPHS_AT_ONCE):
                some = groups[start : start + PHOTOGRAPHS_AT_ONCE]
                marks = {}
                for written in pool.map(functools.partial(self._write, file), some):
                    marks |= written
                file.mark(marks)
                bar.update(len(marks))

    def _unusable(self) -> Int[np.ndarray, "n"]:
        """Indices of the animals without a patch that fits its mark; reads all of them once."""
        try:
            file = pixel_file.File(self._rows, write=False)
        except OSError:
            return np.arange(len(self.animals))
        places = tqdm(
            self.animals.places, desc="checking patches", unit="animal", dynamic_ncols=True
        )
        with file:
            fits = [file.read(int(place)) is not None for place in places]
        return np.flatnonzero(~np.array(fits))

    @functools.cached_property
    def pixels(self) -> UInt8[np.ndarray, "n side side 3"]:
        """All patches of the split, by `places`; those that are not filled are black."""
        shape = (self.animals.split_size, self.side, self.side, 3)
        return np.memmap(self._rows.pixels_path, np.uint8, "r", shape=shape)

    def __len__(self) -> int:
        return len(self.animals)

    def __getitem__(self, index: int) -> dict:
        """An animal's labels: the device has the pixels."""
        return self.animals.labels(index)

    def random_crop(
        self,
        example: dict,
        rng: np.random.Generator,
        *,
        image_size: int,
        augmentation: Augmentation,
        shift_seed: int = 0,
    ) -> dict:
        """A random crop without its pixels: `matrix` (2, 3) leads from crop to patch pixels."""
        index = int(example["index"])
        image = self.animals.image(index)
        view = frame(
            example,
            rng,
            image_size=(image["width"], image["height"]),
            size=(image_size, image_size),
            augmentation=augmentation,
            keypoint_set=self.animals.keypoint_set,
            shift_seed=shift_seed,
        )
        matrix = transforms.compose(self._matrix(index), view["matrix"])
        return view | {"matrix": matrix.astype(np.float32)}

    @functools.cached_property
    def _regions(self) -> Int[np.ndarray, "n 4"]:
        """x, y, width, height in image pixels of what each patch shows."""
        images = [self.animals.image(index) for index in range(len(self.animals))]
        regions = [
            reach(
                self.animals.labels(index),
                image_size=(image["width"], image["height"]),
                augmentation=self._augmentation,
                keypoint_set=self.animals.keypoint_set,
            )
            for index, image in enumerate(images)
        ]
        return np.array(regions)

    def _matrix(self, index: int) -> Float[np.ndarray, "2 3"]:
        """From image to patch pixels."""
        region = self._regions[index]
        zoom = np.minimum(self.side / region[2:], 1)
        # pixel centres are whole numbers: the region's edge is half a pixel before its first
        return np.column_stack([np.diag(zoom), (0.5 - region[:2]) * zoom - 0.5])

    def _write(self, file: pixel_file.File, group: list[int]) -> dict[int, int]:
        """Write the patches of the animals of one photograph; their marks by place."""
        marks = {}
        example = self.animals[group[0]]
        record, name = self.animals.image(group[0]), example["file_name"]
        photograph = images.decode(example["bytes"], name)
        if photograph.shape[:2] != (record["height"], record["width"]):
            raise ValueError(f"{name}: not of the size that its record says")
        for index in group:
            x, y, width, height = self._regions[index].tolist()
            part = photograph[y : y + height, x : x + width]
            shrunk = (min(width, self.side), min(height, self.side))
            patch = np.zeros((self.side, self.side, 3), np.uint8)
            patch[: shrunk[1], : shrunk[0]] = cv2.resize(part, shrunk, interpolation=cv2.INTER_AREA)
            place = int(self.animals.places[index])
            marks[place] = file.write(place, patch)
        return marks


def _by_photograph(indices: Int[np.ndarray, "n"], animals: Source) -> list[list[int]]:
    """Indices of animals of the same photograph together."""
    groups: dict[int, list[int]] = {}
    for index in indices.tolist():
        groups.setdefault(animals.image(index)["id"], []).append(index)
    return list(groups.values())
