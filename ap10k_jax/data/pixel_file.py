"""Pixels kept on disk: rows of known lengths in one file, and in another which of them are there.

    NAME.pixels   the rows one after the other, with holes
    NAME.marks    four bytes a row: its CRC-32 once it is safely there, before that 0

so some rows can be written now and others later, and a killed writer's work is not lost. A row that
does not fit its mark, as in a copy that was made while the files were written, counts as missing.
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
    """The rows under `folder`/`name`, of so many bytes each."""

    def __init__(self, folder: Path, name: str, sizes: Int[np.ndarray, "n"]):
        """Nothing is written yet: `File` does that."""
        self.folder, self._sizes = folder, sizes
        self.starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        self.pixels_path, self.marks_path, self.lock_path = (
            folder / f"{name}.{kind}" for kind in ("pixels", "marks", "lock")
        )

    @property
    def bytes(self) -> int:
        """Of all rows."""
        return int(self.starts[-1])

    def whole(self) -> bool:
        """Whether the file of pixels has its length; if not, marks mean nothing."""
        try:
            return self.pixels_path.stat().st_size == self.bytes
        except OSError:
            return False

    def marks(self) -> UInt32[np.ndarray, "n"]:
        """The marks on disk; 0 for rows that are not there, or cannot be read."""
        marks = np.zeros(len(self._sizes), "<u4")
        try:
            stored = np.fromfile(self.marks_path, "<u4")[: len(marks)] if self.whole() else []
        except OSError:
            return marks
        marks[: len(stored)] = stored
        return marks

    def obstacle(self, places: Int[np.ndarray, "m"], *, share: float) -> str:
        """Why these rows cannot be written to a `share` of the free room; "" if they can."""
        needed = int(self._sizes[places].sum())
        above = files.nearest(self.folder)
        if needed and not os.access(above, os.W_OK):
            return f"{above} cannot be written to"
        free = shutil.disk_usage(above).free
        if needed > share * free:
            return f"{needed / 1e9:.2f} GB do not fit in {above}: {free / 1e9:.2f} GB free"
        return ""


class File:
    """Rows opened to be read and, with `write`, written; from any number of threads.

    Of several processes only one should write: on network file systems the others' neighbouring
    rows may suffer. With pread and pwrite: what is wrong with a disk raises OSError, where a memory
    map would end the process.
    """

    def __init__(self, rows: Rows, *, write: bool):
        """Raises OSError where the files are not there, or are but cannot be opened."""
        self._rows, self._checked = rows, np.zeros(len(rows.starts) - 1, bool)
        if write:
            rows.folder.mkdir(parents=True, exist_ok=True)
            if not rows.whole():
                rows.marks_path.write_bytes(b"")  # marks of pixels that are gone mean nothing
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
        """A row's bytes; None where they are not there, cannot be read, or are others."""
        start, end = self._rows.starts[place : place + 2].tolist()
        row = np.empty(end - start, np.uint8)
        try:
            mark = int.from_bytes(os.pread(self._marks.fileno(), 4, 4 * place), "little")
            if not mark or os.preadv(self._pixels.fileno(), [row], start) < len(row):
                return None
        except OSError:
            return None
        if not self._checked[place]:  # once is enough, and takes as long as reading
            if _checksum(row) != mark:
                return None
            self._checked[place] = True
        return row

    def write(self, place: int, content: UInt8[np.ndarray, "..."]) -> int:
        """Write a row; the mark to give it. Raises OSError where the disk is full."""
        content = np.ascontiguousarray(content)
        start, end = self._rows.starts[place : place + 2].tolist()
        if content.nbytes != end - start:
            raise ValueError(f"row {place} has {end - start} bytes, not {content.nbytes}")
        if os.pwrite(self._pixels.fileno(), content.data, start) < content.nbytes:
            path = str(self._rows.pixels_path)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        return _checksum(content)

    def mark(self, marks: Mapping[int, int]) -> None:
        """Rows that were written count from here on. No mark is on disk before its pixels."""
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
    return zlib.crc32(content) or 1  # 0 stands for none
