"""Orderly stop on SIGTERM, from a scheduler, or on Ctrl-C.

Schedulers send SIGTERM and, about 30 s later, SIGKILL. Inside `handled` the first signal raises
Stopped in the main thread; inside `deferred` it only raises where that section ends, so that
training can save at the step it has reached. Compiling takes minutes, and Python cannot interrupt
it. Where the process has not ended after the grace period, it is ended all the same. Files are
whole at any moment, so that loses the steps since the last checkpoint alone.

The exit status is 128 + the signal's number, 143 or 130, which shells, Slurm and Kubernetes read as
"ended by that signal". It is no success, so that jobs that wait for this one do not start, and it
differs from 1, so that a preempted run can be queued again and a failed one not.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils

SIGNALS = (signal.SIGTERM, signal.SIGINT)
GRACE = 25  # seconds until the process ends by itself; schedulers leave 30 or more
GO_ON = "The same command goes on from there."

_state = {"signal": None, "deferred": 0}


class Stopped(KeyboardInterrupt):
    """The process was told to stop; the message says what has been saved."""

    def __init__(self, saved: str = "What was finished is kept."):
        super().__init__(f"stopped by {signal.Signals(number()).name}. {saved} {GO_ON}")
        self.status = 128 + number()


def number() -> int:
    """The signal that was received; SIGINT where a library raised KeyboardInterrupt itself."""
    return _state["signal"] or signal.SIGINT


def requested(step: int | None = None) -> bool:
    """True once the process has been told to stop.

    With a `step` of training, all processes of a run return True at the same step, whichever of
    them received the signal: JAX listens for SIGTERM then, in place of this module.
    """
    if step is not None and jax.process_count() > 1:
        if _state["signal"]:  # Ctrl-C, of which JAX does not know
            os.kill(os.getpid(), signal.SIGTERM)
        if multihost_utils.reached_preemption_sync_point(step):
            _state["signal"] = _state["signal"] or signal.SIGTERM
            return True
        return False
    return _state["signal"] is not None


def check() -> None:
    """Raises Stopped if the process has been told to stop and is the only one of its run."""
    if requested() and jax.process_count() == 1:
        raise Stopped


@contextlib.contextmanager
def handled(grace: float = GRACE) -> Iterator[None]:
    """SIGTERM and SIGINT raise Stopped here; a second Ctrl-C ends the process at once.

    In another thread than the main one, which alone may handle signals, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {name: signal.signal(name, _handle) for name in SIGNALS}
    # A thread hears of the signal even while the main thread is inside a library.
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    previous = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    left = threading.Event()
    threading.Thread(target=_end_after, args=(reader, grace, left), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous)
        for name, handler in before.items():
            signal.signal(name, handler)
        left.set()
        os.close(writer)  # the thread ends too
        _state["signal"] = None


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Signals wait until the end of this section, which raises Stopped then."""
    _state["deferred"] += 1
    try:
        yield
    finally:
        _state["deferred"] -= 1
    if not _state["deferred"]:
        check()


def _handle(signum: int, frame: object) -> None:
    if requested():  # as when reproduce passes on what the terminal has sent to all
        return
    _state["signal"] = signum
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    print(f"\n{signal.Signals(signum).name}: stopping", file=sys.stderr, flush=True)
    if not _state["deferred"]:
        raise Stopped


def _end_after(reader: int, grace: float, left: threading.Event) -> None:
    received = os.read(reader, 1)
    os.close(reader)
    if not received or left.wait(grace):
        return
    name = signal.Signals(received[0]).name
    print(
        f"\nstopped by {name}, {grace:g} s ago, before this step had an end. The last checkpoint "
        f"is kept. {GO_ON}",
        file=sys.stderr,
        flush=True,
    )
    os._exit(128 + received[0])
