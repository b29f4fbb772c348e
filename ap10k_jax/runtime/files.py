"""Atomic writing of files, and clear messages for full and read-only disks."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ap10k_jax.runtime import errors


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path with the same ending, whose file replaces `path` at the end."""
    part = path.with_name(f".unfinished-{path.name}")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with replacing(path) as part:
        part.write_text(text)


def write_bytes(path: Path, content: bytes) -> None:
    with replacing(path) as part:
        part.write_bytes(content)


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)


class DiskError(errors.UserError, OSError):
    """A folder that cannot be written to; the message names it."""


@contextlib.contextmanager
def explain_disk_errors(folder: Path, *, full: str, closed: str) -> Iterator[None]:
    """Turns "disk full" and "read-only" errors into a DiskError that names the folder.

    `full` and `closed` are the remedies that the message gives. Libraries wrap such errors in
    their own, or keep their text alone, so that both are searched for.
    """
    try:
        yield
    except DiskError:
        raise
    except Exception as error:
        for inner in chain(error):
            code = code_of(inner)
            if code in FULL:
                free = shutil.disk_usage(nearest(folder)).free // 2**20
                why = f"{os.strerror(code)} in {folder} ({free} MiB free)"
                raise DiskError(f"{why}: {full}") from error
            where = getattr(inner, "filename", None) or folder
            # another place, as one that is read from, is not mended by writing elsewhere
            if code in CLOSED and Path(where).absolute().is_relative_to(folder.absolute()):
                raise DiskError(f"{os.strerror(code)}: {where}: {closed}") from error
        raise


def code_of(error: BaseException) -> int | None:
    """The errno of this error, or of the system error that its text names; None without any."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    named = [code for code in (*FULL, *CLOSED) if os.strerror(code) in str(error)]
    return named[0] if named else None


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error, its cause, the cause of that and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def nearest(folder: Path) -> Path:
    """The folder, or the closest parent that exists."""
    folder = folder.absolute()
    return next(path for path in (folder, *folder.parents) if path.is_dir())
