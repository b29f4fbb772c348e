"""Pixels kept on disk: rows of known lengths in one file, and in another which of them are there.

    NAME.pixels   the rows one after the other, with holes
    NAME.done     a byte a row: 1 once it is safely there

so some rows can be written now and others later, a killed writer's work is not lost, and several
processes can share the files: whoever writes a row writes the same bytes. Files that are deleted
while they are open stay as they are for whoever has them open.
"""

import errno
import os
import shutil
from collections.abc import Collection
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int, UInt8

from ap10k_jax import disk


class Rows:
    """The rows under `folder`/`name`, of so many bytes each."""

    def __init__(self, folder: Path, name: str, sizes: Int[np.ndarray, "n"]):
        """Nothing is written yet: `File` does that."""
        self.folder, self._sizes = folder, sizes
        self.starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        self.pixels_path = folder / f"{name}.pixels"
        self.done_path = folder / f"{name}.done"

    @property
    def bytes(self) -> int:
        """Of all rows."""
        return int(self.starts[-1])

    def whole(self) -> bool:
        """Whether the file of pixels has its length; if not, marks mean nothing."""
        return self.pixels_path.exists() and self.pixels_path.stat().st_size == self.bytes

    def done(self) -> Bool[np.ndarray, "n"]:
        """Which rows are there, by the marks on disk."""
        done = np.zeros(len(self._sizes), bool)
        if self.whole() and self.done_path.exists():
            stored = np.fromfile(self.done_path, np.uint8)[: len(done)]
            done[: len(stored)] = stored == 1
        return done

    def obstacle(self, places: Int[np.ndarray, "m"], *, share: float) -> str:
        """Why these rows cannot be written to a `share` of the free room; "" if they can."""
        needed = int(self._sizes[places].sum())
        above = disk.nearest(self.folder)
        if needed and not os.access(above, os.W_OK):
            return f"{above} cannot be written to"
        free = shutil.disk_usage(above).free
        if needed > share * free:
            return f"{needed / 1e9:.2f} GB do not fit in {above}: {free / 1e9:.2f} GB free"
        return ""


class File:
    """Rows opened to be read and, with `write`, written; from any number of threads.

    A written row counts, for processes to come, once `mark` has returned.
    """

    def __init__(self, rows: Rows, *, write: bool):
        """Raises OSError where the files are not there, or are but cannot be opened."""
        self._rows = rows
        if write:
            rows.folder.mkdir(parents=True, exist_ok=True)
            if not rows.whole():
                rows.done_path.write_bytes(b"")  # marks of pixels that are gone mean nothing
        mode, flags = ("r+b", os.O_RDWR | os.O_CREAT) if write else ("rb", os.O_RDONLY)
        paths = rows.pixels_path, rows.done_path
        self._pixels, self._done = (os.fdopen(os.open(p, flags, 0o644), mode, 0) for p in paths)
        if write:
            os.ftruncate(self._pixels.fileno(), rows.bytes)
        self.pixels = np.memmap(self._pixels, np.uint8, "r", shape=(rows.bytes,))
        self.done = rows.done()

    def row(self, place: int) -> UInt8[np.ndarray, "size"]:
        """A row's bytes; read-only, and read from disk where they are looked at."""
        return self.pixels[self._rows.starts[place] : self._rows.starts[place + 1]]

    def write(self, place: int, content: UInt8[np.ndarray, "..."]) -> None:
        """Raises OSError where the disk is full.

        By pwrite: writing to a memory map ends the process with a signal where it is.
        """
        content = np.ascontiguousarray(content)
        start, end = self._rows.starts[place : place + 2].tolist()
        if content.nbytes != end - start:
            raise ValueError(f"row {place} has {end - start} bytes, not {content.nbytes}")
        if os.pwrite(self._pixels.fileno(), content.data, start) < content.nbytes:
            path = str(self._rows.pixels_path)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    def mark(self, places: Collection[int]) -> None:
        """These rows are written. A mark is never on disk before its pixels."""
        os.fsync(self._pixels.fileno())
        for place in places:
            os.pwrite(self._done.fileno(), b"\1", int(place))
        os.fsync(self._done.fileno())

    def close(self) -> None:
        """No more is written; rows can still be read."""
        self._pixels.close()
        self._done.close()

    def __enter__(self) -> "File":
        return self

    def __exit__(self, *error) -> None:
        self.close()
