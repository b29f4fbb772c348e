"""Being told to stop: SIGTERM from a scheduler, Ctrl-C from a person.

Schedulers send SIGTERM and, about 30 s later, SIGKILL. Inside `handled` the first signal raises
Stopped in the main thread; inside `deferred` it only raises where that section ends, so that
training can save at the step it has reached. Whatever the process is in the middle of (compiling
takes minutes, and Python cannot interrupt it), it has ended when the grace is over: files are whole
at any moment, so nothing but the steps since the last checkpoint is lost then.

The exit status is 128 + the signal's number, 143 or 130, which shells, Slurm and Kubernetes read as
"ended by that signal": it is no success, so jobs that wait for this one do not start, and it tells
a preempted run, to be queued again, from a failed one (1).
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
    """The process was told to stop; the message says what has been kept."""

    def __init__(self, kept: str = "What was finished is kept."):
        super().__init__(f"stopped by {signal.Signals(number()).name}. {kept} {GO_ON}")
        self.status = 128 + number()


def number() -> int:
    """The signal that has come; SIGINT where a library was told by itself."""
    return _state["signal"] or signal.SIGINT


def requested(step: int | None = None) -> bool:
    """Whether the process has been told to stop.

    At a `step` of training several processes learn of it together, at the same one, whichever of
    them was told: JAX listens for SIGTERM then, in place of this module.
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
    """Raises Stopped where a process of its own has been told to stop."""
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
    hearing, telling = os.pipe()
    os.set_blocking(telling, False)
    previous = signal.set_wakeup_fd(telling, warn_on_full_buffer=False)
    left = threading.Event()
    threading.Thread(target=_end_after, args=(hearing, grace, left), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous)
        for name, handler in before.items():
            signal.signal(name, handler)
        left.set()
        os.close(telling)  # the thread ends too
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


def _end_after(hearing: int, grace: float, left: threading.Event) -> None:
    heard = os.read(hearing, 1)
    os.close(hearing)
    if not heard or left.wait(grace):
        return
    name = signal.Signals(heard[0]).name
    print(
        f"\nstopped by {name}, {grace:g} s ago, before this step had an end. The last checkpoint "
        f"is kept. {GO_ON}",
        file=sys.stderr,
        flush=True,
    )
    os._exit(128 + heard[0])
