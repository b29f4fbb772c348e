"""A cache of decoded photographs on disk.

Decoding a JPEG takes several times as long as all other work for a training crop. The first crop of
a photograph decodes it and writes its pixels; every later crop, also in later runs, reads them and
is the same to the bit. AP-10K's 7,023 training photographs take 13 GB. Where pixels cannot be
written, photographs are decoded every time; only the speed changes.
"""

import contextlib
import errno
import hashlib
import os
import shutil
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Int, UInt8
from tqdm import tqdm

from ap10k_jax import images
from ap10k_jax.data import pixel_file
from ap10k_jax.runtime import file_lock

VERSION = 1  # of the files; another version does not read them
BETWEEN_MARKS = 64  # photographs; a killed process loses at most so many
SPARE = 1 << 30  # bytes of the disk that stay free for other files, such as checkpoints


class Source(Protocol):
    """The part of `Animals` that is used here."""

    images: Sequence[dict]
    image_places: Int[np.ndarray, "n"]
    fingerprint: str
    photographs_sha256: str

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> dict: ...
    def labels(self, index: int) -> dict: ...
    def random_crop(self, example: dict, rng: np.random.Generator, **options) -> dict: ...


class DecodedPhotographs(Sequence):
    """Examples of a split's animals with decoded photographs; safe for several threads.

    An example is the animal's labels and `image` uint8 (H, W, 3), RGB. One of the processes that
    share a folder writes; the others read what it has written.
    """

    def __init__(self, animals: Source, folder: Path):
        """Define the cache. Nothing is opened or written before the first example."""
        self.animals = animals
        sizes = np.array([3 * image["width"] * image["height"] for image in animals.images])
        self.bytes = int(sizes[np.unique(animals.image_places)].sum())
        facts = (VERSION, animals.fingerprint, animals.photographs_sha256, images.DECODERS)
        digest = hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
        self._rows = pixel_file.Rows(folder, digest, sizes)
        self._lock = threading.RLock()
        self._file: pixel_file.File | None = None
        self._left: set[int] | None = None  # places to be written; None where none is
        self._unmarked: dict[int, int] = {}
        self._held = contextlib.ExitStack()
        weakref.finalize(self, self._held.close)

    def obstacle(self, *, share: float) -> str:
        """The reason why the missing pixels do not fit in `share` of the free disk, or ""."""
        return self._rows.obstacle(self._missing(), share=share)

    def __len__(self) -> int:
        return len(self.animals)

    def __getitem__(self, index: int) -> dict:
        place = int(self.animals.image_places[index])
        file = self._opened()
        if file and (row := file.read(place)) is not None:
            record = self.animals.images[place]
            image = row.reshape(record["height"], record["width"], 3)
            return {**self.animals.labels(index), "image": image}
        example = self.animals[index]
        image = images.decode(example.pop("bytes"), example.pop("file_name"))
        if file and self._left is not None:
            self._keep(file, place, image)
        return example | {"image": image}

    def random_crop(self, example: dict, rng: np.random.Generator, **options) -> dict:
        """A random crop of one of these examples; options as in `Animals.random_crop`."""
        return self.animals.random_crop(example, rng, **options)

    def _opened(self) -> pixel_file.File | None:
        """The open files, to write if this process has the lock; None while there are none."""
        with self._lock:
            if not self._file:
                missing = set(self._missing().tolist())
                self._file = (missing and self._to_write(missing)) or self._to_read()
            return self._file

    def _to_write(self, missing: set[int]) -> pixel_file.File | None:
        try:
            self._rows.folder.mkdir(parents=True, exist_ok=True)
            self._held.enter_context(file_lock.locked(self._rows.lock_path))
            file = self._held.enter_context(pixel_file.File(self._rows, write=True))
        except OSError:  # another process has the lock, or the folder is read-only
            return None
        self._left = missing
        return file

    def _to_read(self) -> pixel_file.File | None:
        with contextlib.suppress(OSError):
            return self._held.enter_context(pixel_file.File(self._rows, write=False))

    def _missing(self) -> Int[np.ndarray, "m"]:
        """Places of these animals' photographs that are not on disk."""
        used = np.unique(self.animals.image_places)
        return used[self._rows.marks()[used] == 0]

    def _keep(self, file: pixel_file.File, place: int, image: UInt8[np.ndarray, "H W 3"]) -> None:
        record = self.animals.images[place]
        try:
            marks = {}
            # An image of another size than recorded does not fit its row.
            if image.shape[:2] == (record["height"], record["width"]):
                marks = {place: file.write(place, image)}
            if due := self._due(place, marks):
                file.mark(due)
        except OSError as error:
            self._give_up(error)

    def _due(self, place: int, marks: dict[int, int]) -> dict[int, int]:
        """Marks to write now: many at once, because syncing is slow, and the rest at the end."""
        with self._lock:
            if self._left is None:
                return {}
            self._left.discard(place)
            self._unmarked |= marks
            if self._left and len(self._unmarked) < BETWEEN_MARKS:
                return {}
            due, self._unmarked = self._unmarked, {}
        if shutil.disk_usage(self._rows.folder).free < SPARE:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return due

    def _give_up(self, error: OSError) -> None:
        with self._lock:
            first, self._left = self._left is not None, None
        if first:
            folder = self._rows.folder
            tqdm.write(f"no more decoded photographs are kept in {folder}: {error.strerror}")
