"""Compiles the training step in a background thread, and caches the executable on disk.

HRNet's training step has thousands of operations. Even where the executable lies in JAX's own
cache of compilations, a start has to trace and lower the step, to find out which one it needs, and
then to load it, all before the first batch can be used. Here a thread does that while the program
makes weights and copies them to the devices. A `StepCache` finds an executable by what it was made
from, which is the code, the versions, the machine and the arguments, so that nothing is traced.
"""

import functools
import hashlib
import importlib.metadata
import logging
import os
import pickle
import platform
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
from jax.experimental import serialize_executable
from jaxtyping import PyTree

from ap10k_jax.runtime import errors
from ap10k_jax.runtime import files as file_writing

CAPACITY = 8  # compiled steps in a cache; HRNet-w32's has 22 MB
LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy")
CACHE_HIT = "/jax/compilation_cache/cache_hits"  # jax.monitoring's
log = logging.getLogger(__name__)


class CachedStepError(errors.UserError):
    """A cached step was loaded but does not run; it has been deleted."""


class BackgroundCompilation:
    """A jitted function of a state and a batch, compiled in a thread for one shape of batches.

    Batches of another shape, such as the last of an epoch, go to the jitted function.
    """

    def __init__(
        self,
        function: Callable,
        state_shapes: Callable[[], PyTree[jax.ShapeDtypeStruct]],
        batch_shapes: dict[str, jax.ShapeDtypeStruct],
        *,
        devices: Sequence[jax.Device],
        cache: "StepCache | None" = None,
        made_from: tuple = (),
    ):
        """`made_from` identifies the function, together with the shapes of its batch.

        The state's shapes should follow from it, too: they are asked for if the cache lacks the
        step. `devices` are those that the function runs on.
        """
        self._function, self._shapes = function, shapes_of(batch_shapes)
        self._compiled: Callable | None = None
        self._error: Exception | None = None
        self._untried: Callable[[], None] | None = None  # forgets a kept step that has not run yet
        key = (*made_from, self._shapes, tuple(device.id for device in devices))

        def work() -> None:
            try:
                self._compiled = cache and cache.load(key, devices)
                if self._compiled:
                    self._untried = functools.partial(cache.forget, key)
                else:
                    self._compiled, is_new = compile_here(function, state_shapes(), batch_shapes)
                    self._ready.set()
                    if cache and is_new:
                        cache.save(key, self._compiled)
            except Exception as error:  # raised again where the step is called
                self._error = error
            finally:
                self._ready.set()

        self._ready = threading.Event()
        self._thread = threading.Thread(target=work, name="compiling")
        self._thread.start()

    def __call__(self, state: PyTree, batch: dict) -> tuple:
        if shapes_of(batch) != self._shapes:
            return self._function(state, batch)
        self._ready.wait()
        if self._compiled is None:
            raise self._error
        if not self._untried:
            return self._compiled(state, batch)
        try:
            result = jax.block_until_ready(self._compiled(state, batch))
        except jax.errors.JaxRuntimeError as error:
            self._untried()
            raise CachedStepError(
                f"a compiled step that was kept does not run; it is deleted, start again ({error})"
            ) from error
        self._untried = None
        return result

    def join(self) -> None:
        """Wait until the thread has ended."""
        self._thread.join()


def compile_here(
    function: Callable, state: PyTree[jax.ShapeDtypeStruct], batch: dict
) -> tuple[Callable, bool]:
    """The compiled function, and True if it was compiled now and not read from JAX's cache.

    One that comes out of JAX's cache must not go into a StepCache: on CPU (jaxlib 0.10) what was
    loaded and is written again lacks functions, which is found out only when it runs.
    """
    thread, hits = threading.get_ident(), []

    def hear(event: str, **_: str) -> None:
        if event == CACHE_HIT and threading.get_ident() == thread:
            hits.append(event)

    jax.monitoring.register_event_listener(hear)
    try:
        compiled = function.lower(state, batch).compile()
        return compiled, not hits
    finally:
        jax.monitoring.unregister_event_listener(hear)


def shapes_of(batch: dict) -> tuple:
    """Names, shapes and types of a batch's arrays, sorted by name."""
    return tuple((name, x.shape, str(x.dtype)) for name, x in sorted(batch.items()))


class StepCache:
    """A folder of compiled steps, for programs that run the source files unchanged.

    Functions that were changed in memory, as in notebooks and tests, would not be noticed. Like
    JAX's own cache of compilations it holds machine code: nobody else may write there. What cannot
    be read or written is compiled, or not kept, and logged.
    """

    def __init__(self, folder: Path):
        # Hashed once, at the start: files that are edited later are not what the program runs.
        self._folder, self._surroundings = folder, surroundings()

    def load(self, key: tuple, devices: Sequence[jax.Device]) -> Callable | None:
        """The compiled step that was saved under this key, by the same code on such a machine."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("compiling anew: %s cannot be read (%s)", path, error)
            return None
        checksum, content = content[:32], content[32:]
        if checksum != hashlib.sha256(content).digest():
            log.warning("compiling anew: %s is damaged", path)
            return None
        try:
            compiled = serialize_executable.deserialize_and_load(
                *pickle.loads(content), execution_devices=devices
            )
            os.utime(path)
        except Exception as error:  # of XLA, which promises no type
            log.warning("compiling anew: %s cannot be loaded (%s)", path, error)
            return None
        return compiled

    def save(self, key: tuple, compiled: Callable) -> None:
        """Write a compiled step; beyond CAPACITY the least recently used one is deleted."""
        try:
            content = pickle.dumps(serialize_executable.serialize(compiled))
            self._folder.mkdir(parents=True, exist_ok=True)
            digest = hashlib.sha256(content).digest()
            file_writing.write_bytes(self._path(key), digest + content)
            files = sorted(self._folder.glob("*.step"), key=lambda path: path.stat().st_mtime)
            for path in files[:-CAPACITY]:
                path.unlink(missing_ok=True)
        except Exception as error:  # a full disk, or a kind of device that cannot do this
            log.warning("the compiled step is not kept in %s: %s", self._folder, error)

    def forget(self, key: tuple) -> None:
        """Delete the step under this key, if there is one."""
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: tuple) -> Path:
        name = hashlib.sha256(repr((self._surroundings, key)).encode()).hexdigest()
        return self._folder / f"{name}.step"


def surroundings() -> tuple:
    """Everything but the arguments that a compiled step depends on: code, versions, machine."""
    code = hashlib.sha256()
    package = Path(__file__).parents[1]
    for path in sorted(package.rglob("*.py")):
        code.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes() + b"\0")
    settings = sorted((k, str(v)) for k, v in jax.config.values.items() if "cache" not in k)
    flags = [(name, os.environ.get(name)) for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")]
    devices = [(d.id, d.platform, d.device_kind) for d in jax.devices()]
    return (
        code.hexdigest(),
        sys.version,
        [(name, importlib.metadata.version(name)) for name in LIBRARIES],
        settings,
        flags,
        devices,
        jax.devices()[0].client.platform_version,
        platform.machine(),
        instructions(),
    )


def instructions() -> str:
    """The instruction sets of the processor, where the system tells; code for another may crash."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
