"""Photographs decoded once: their pixels stay on disk, and the same crops are cut from them.

Decoding a JPEG takes several times as long as all else that a training crop needs. Here the first
crop of a photograph decodes it, as ever, and writes its pixels; every later one, also of later
runs, reads the part that it shows, and is the same to the bit. AP-10K's 7,023 training photographs
take 13 GB. Where they cannot be written they are decoded every time, which changes nothing but the
speed.
"""

import functools
import hashlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Int, UInt8
from tqdm import tqdm

from ap10k_jax import rows, transforms

VERSION = 1  # of the pixels; a change makes all files anew
BETWEEN_MARKS = 64  # photographs; what a killed process has written since the last is made again


class Source(Protocol):
    """What is asked of `data.Animals`."""

    images: Sequence[dict]
    image_places: Int[np.ndarray, "n"]
    fingerprint: str

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> dict: ...
    def labels(self, index: int) -> dict: ...


class Photographs(Sequence):
    """A split's animals with their photographs' pixels; for several threads at once.

    An example is the animal's labels and `image` (H, W, 3), RGB, which is not to be written to.
    """

    def __init__(self, animals: Source, folder: Path):
        """Nothing is written before the first example."""
        self.animals = animals
        sizes = np.array([3 * image["width"] * image["height"] for image in animals.images])
        self.bytes = int(sizes[np.unique(animals.image_places)].sum())
        digest = hashlib.sha256(f"{VERSION} {animals.fingerprint}".encode()).hexdigest()[:16]
        self._rows = rows.Rows(folder, digest, sizes)
        self._lock = threading.Lock()
        self._unmarked: list[int] = []
        self._full = False  # nothing more is written

    def obstacle(self, *, share: float) -> str:
        """Why the missing pixels cannot be kept in this share of the free room; "" if they can."""
        return self._rows.obstacle(self._missing(), share=share)

    def __len__(self) -> int:
        return len(self.animals)

    def __getitem__(self, index: int) -> dict:
        place = int(self.animals.image_places[index])
        file = self._opened()
        if file and file.done[place]:
            record = self.animals.images[place]
            image = file.row(place).reshape(record["height"], record["width"], 3)
            return {**self.animals.labels(index), "image": np.asarray(image)}
        example = self.animals[index]
        image = transforms.decode_image(example.pop("bytes"), example.pop("file_name"))
        if file and not self._full:
            self._keep(file, place, image)
        return example | {"image": image}

    def _opened(self) -> rows.File | None:
        """The file, opened once; None where it can be neither written nor read."""
        with self._lock:
            return self._file

    @functools.cached_property
    def _file(self) -> rows.File | None:
        if len(self._missing()):
            try:
                return rows.File(self._rows, write=True)
            except OSError as error:
                self._give_up(error)
        try:
            return rows.File(self._rows, write=False) if self._rows.whole() else None
        except OSError:
            return None

    def _missing(self) -> Int[np.ndarray, "m"]:
        """Places of these animals' photographs that are not kept yet."""
        used = np.unique(self.animals.image_places)
        return used[~self._rows.done()[used]]

    def _keep(self, file: rows.File, place: int, image: UInt8[np.ndarray, "H W 3"]) -> None:
        record = self.animals.images[place]
        if image.shape[:2] != (record["height"], record["width"]):
            return  # it has no room of its own
        try:
            file.write(place, image)
            file.done[place] = True
            if written := self._to_mark(place):
                file.mark(written)
        except OSError as error:
            self._give_up(error)

    def _to_mark(self, place: int) -> list[int]:
        """Rows to mark on disk now that this one is written: many at once, as it takes a while."""
        with self._lock:
            self._unmarked.append(place)
            if len(self._unmarked) < BETWEEN_MARKS:
                return []
            written, self._unmarked = self._unmarked, []
            return written

    def _give_up(self, error: OSError) -> None:
        if not self._full:
            folder = self._rows.folder
            tqdm.write(f"no more decoded photographs are kept in {folder}: {error.strerror}")
        self._full = True


def memory() -> int:
    """Bytes of memory that this process may use, of the machine or of its control group."""
    sizes = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        sizes.append(int(text))
    return min(sizes)
