"""Patches: one small picture of each animal on disk, from which the accelerator cuts its crops.

A patch is the part of the photograph that some crop of the animal can show (`reach`). It
is shrunk with antialiasing to at most `side` pixels on each axis, and lies in the upper left of a
black square. data/device_crops.py cuts crops from it. A patch is 1.5 times as wide as a crop: in a
median AP-10K photograph a crop shows two image pixels as one, so little detail is lost that a crop
could show.

A split has a file with one row for each animal (data/pixel_file.py). The file's name holds a digest
of everything that decides the pixels, so that other data, sizes or augmentations never use old
patches. A run on some species fills their rows only, a killed run continues, and several runs can
share the file.
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
    """The part of `Animals` that is used here."""

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
        """Define the patches. Nothing is written before `fill`."""
        self.animals = animals
        self._augmentation = augmentation
        self.folder = folder
        self.side = image_size * 3 // 2
        # The region depends on which augmentations can occur, not on how often they do.
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
        """Bytes of the patches of these animals."""
        return len(self.animals) * 3 * self.side**2

    def missing(self) -> Int[np.ndarray, "n"]:
        """Indices of the animals whose patches are not on disk."""
        return np.flatnonzero(self._rows.marks()[self.animals.places] == 0)

    def obstacle(self) -> str:
        """The reason why the missing patches do not fit in nine tenths of the free disk, or ""."""
        return self._rows.obstacle(self.animals.places[self.missing()], share=0.9)

    def fill(self, *, threads: int) -> None:
        """Write the patches that are missing or damaged.

        Raises ValueError that names a photograph that cannot be used.
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
        """Indices of the animals whose patch does not match its mark; reads every patch."""
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
        """All patches of the split, indexed by `places`; missing ones are black."""
        shape = (self.animals.split_size, self.side, self.side, 3)
        return np.memmap(self._rows.pixels_path, np.uint8, "r", shape=shape)

    def __len__(self) -> int:
        return len(self.animals)

    def __getitem__(self, index: int) -> dict:
        """An animal's labels; its pixels are on the device."""
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
        """Part of the photograph in each patch: x, y, width, height in image pixels."""
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
        """Affine matrix from image to patch pixels."""
        region = self._regions[index]
        zoom = np.minimum(self.side / region[2:], 1)
        # Pixel centres are whole numbers: the region begins half a pixel before the first centre.
        return np.column_stack([np.diag(zoom), (0.5 - region[:2]) * zoom - 0.5])

    def _write(self, file: pixel_file.File, group: list[int]) -> dict[int, int]:
        """Write the patches of one photograph's animals and return their marks by place."""
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
    """Indices grouped by photograph."""
    groups: dict[int, list[int]] = {}
    for index in indices.tolist():
        groups.setdefault(animals.image(index)["id"], []).append(index)
    return list(groups.values())
