"""Pixels on disk: one file with rows of known lengths, and one file with a mark for each row.

    NAME.pixels   the rows one after the other; sparse where a row is not written yet
    NAME.marks    four bytes a row: its CRC-32 once the row is on disk, 0 before

Rows can be written in any order and by several runs. A killed writer loses only the rows that it
had not marked. A row that does not match its mark counts as missing; this happens in a copy that
was made while the files were written.
"""

import errno
import os
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8, UInt32

from ap10k_jax.runtime import files


class Rows:
    """The rows under `folder`/`name`; `sizes` gives the bytes of each."""

    def __init__(self, folder: Path, name: str, sizes: Int[np.ndarray, "n"]):
        """Define the rows. Nothing is written before a `File` is opened."""
        self.folder, self._sizes = folder, sizes
        self.starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        self.pixels_path, self.marks_path, self.lock_path = (
            folder / f"{name}.{kind}" for kind in ("pixels", "marks", "lock")
        )

    @property
    def bytes(self) -> int:
        """Bytes of all rows."""
        return int(self.starts[-1])

    def whole(self) -> bool:
        """True if the file of pixels has its length; marks are valid only then."""
        try:
            return self.pixels_path.stat().st_size == self.bytes
        except OSError:
            return False

    def marks(self) -> UInt32[np.ndarray, "n"]:
        """The marks on disk; 0 for rows that are missing or cannot be read."""
        marks = np.zeros(len(self._sizes), "<u4")
        try:
            stored = np.fromfile(self.marks_path, "<u4")[: len(marks)] if self.whole() else []
        except OSError:
            return marks
        marks[: len(stored)] = stored
        return marks

    def obstacle(self, places: Int[np.ndarray, "m"], *, share: float) -> str:
        """The reason why these rows do not fit in a `share` of the free disk; "" if they fit."""
        needed = int(self._sizes[places].sum())
        above = files.nearest(self.folder)
        if needed and not os.access(above, os.W_OK):
            return f"{above} cannot be written to"
        free = shutil.disk_usage(above).free
        if needed > share * free:
            return f"{needed / 1e9:.2f} GB do not fit in {above}: {free / 1e9:.2f} GB free"
        return ""


class File:
    """Open files of rows, to read and, with `write`, to write; safe for several threads.

    Only one process may write: on network file systems two writers can damage each other's
    neighbouring rows. Pixels go through pread and pwrite, because a disk error then raises OSError,
    where a memory map would end the process.
    """

    def __init__(self, rows: Rows, *, write: bool):
        """Raises OSError where the files are missing or cannot be opened."""
        self._rows, self._checked = rows, np.zeros(len(rows.starts) - 1, bool)
        if write:
            rows.folder.mkdir(parents=True, exist_ok=True)
            if not rows.whole():
                rows.marks_path.write_bytes(b"")  # the pixels are gone, so their marks are void
        elif not rows.whole():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(rows.pixels_path))
        mode, flags = ("r+b", os.O_RDWR | os.O_CREAT) if write else ("rb", os.O_RDONLY)
        self._pixels, self._marks = (
            os.fdopen(os.open(path, flags, 0o644), mode, 0)
            for path in (rows.pixels_path, rows.marks_path)
        )
        if write:
            os.ftruncate(self._pixels.fileno(), rows.bytes)

    def read(self, place: int) -> UInt8[np.ndarray, "size"] | None:
        """A row's bytes; None where they are missing, unreadable, or do not match the mark."""
        start, end = self._rows.starts[place : place + 2].tolist()
        row = np.empty(end - start, np.uint8)
        try:
            mark = int.from_bytes(os.pread(self._marks.fileno(), 4, 4 * place), "little")
            if not mark or os.preadv(self._pixels.fileno(), [row], start) < len(row):
                return None
        except OSError:
            return None
        if not self._checked[place]:  # only once: the checksum takes as long as reading
            if _checksum(row) != mark:
                return None
            self._checked[place] = True
        return row

    def write(self, place: int, content: UInt8[np.ndarray, "..."]) -> int:
        """Write a row and return its mark. Raises OSError where the disk is full."""
        content = np.ascontiguousarray(content)
        start, end = self._rows.starts[place : place + 2].tolist()
        if content.nbytes != end - start:
            raise ValueError(f"row {place} has {end - start} bytes, not {content.nbytes}")
        if os.pwrite(self._pixels.fileno(), content.data, start) < content.nbytes:
            path = str(self._rows.pixels_path)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        return _checksum(content)

    def mark(self, marks: Mapping[int, int]) -> None:
        """Mark written rows as complete. The pixels reach the disk before their marks."""
        os.fsync(self._pixels.fileno())
        for place, mark in marks.items():
            os.pwrite(self._marks.fileno(), mark.to_bytes(4, "little"), 4 * place)
        os.fsync(self._marks.fileno())

    def __enter__(self) -> "File":
        return self

    def __exit__(self, *error) -> None:
        self._pixels.close()
        self._marks.close()


def _checksum(content: UInt8[np.ndarray, "..."]) -> int:
    return zlib.crc32(content) or 1  # 0 means that a row is missing
