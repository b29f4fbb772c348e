"""One process at a time: a lock that names who holds it, and that goes when its holder is killed.

`flock` of the standard library's fcntl: the kernel drops it with the process, so there is no stale
lock to judge by its age. (The filelock package makes the same call; it cannot say who the other is,
which is most of what is here.)
"""

import contextlib
import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from ap10k_jax.runtime import errors


class InUse(errors.UserError, OSError):
    """Another process holds the lock; the message names it."""


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock of this file, in a folder that exists. Raises InUse, or waits if told to.

    The file exists only while the lock is held, or after its holder was killed.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor, path, wait)
            if _is(descriptor, path):
                break
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its holder has just removed it: there may be a new one
    try:
        command = " ".join(sys.argv)[:500]
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}: {command}".encode())
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(descriptor)


def check(path: Path) -> None:
    """Raises InUse if the lock is held now; makes no file."""
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_RDWR)
        try:
            _lock(descriptor, path, wait=False)
        finally:
            os.close(descriptor)


def _lock(descriptor: int, path: Path, wait: bool) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 1000, 0).decode(errors="replace") or "another process"
        if not wait:
            raise InUse(f"{path.parent} is in use by {holder}") from None
        print(f"{path.parent}: waiting for {holder}", file=sys.stderr, flush=True)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:  # some network file systems have no locks
        print(f"note: {path} cannot be locked ({error.strerror})", file=sys.stderr)


def _is(descriptor: int, path: Path) -> bool:
    """True if the open file is the one at this path."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
