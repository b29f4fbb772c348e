"""Several processes of one run, on one host or on several: they start, agree and end together.

On SLURM, with Open MPI and on a TPU pod they find each other; elsewhere the command line gives the
address of the first. All run the same program on the same file system. Each loads its own rows of
every batch, and the first alone writes the run, prints and shows progress.
"""

import contextlib
import hashlib
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from ap10k_jax.runtime.errors import UserError

WAIT = 300  # seconds in which all processes must start
NETWORK_DELAY = 90  # seconds in which a network file system shows what another host wrote
HEARTBEAT = 60  # seconds without a heartbeat until a process counts as dead, and the others end


def join(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> None:
    """Connect to the other processes of this run; without any this does nothing.

    It must be called before JAX looks for devices. Arguments take precedence over the environment.
    Raises UserError.
    """
    given = {
        "coordinator_address": coordinator_address,
        "num_processes": num_processes,
        "process_id": process_id,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if given and len(given) < 3:
        raise UserError("--coordinator-address, --num-processes and --process-id go together")
    on_tpu = "tpu" in (jax.config.jax_platforms or "").split(",")
    options = given or cluster_options(os.environ) or ({} if on_tpu else None)
    if options is None:
        return
    if options.get("num_processes"):
        print(f"waiting up to {WAIT} s for {options['num_processes']} processes", flush=True)
    try:
        jax.distributed.initialize(
            **options,
            initialization_timeout=WAIT,
            heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=HEARTBEAT,
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"the processes of this run do not find each other ({error}); name the first one's "
            "host with --coordinator-address=HOST:PORT --num-processes=N --process-id=0..N-1"
        ) from error
    if not is_first():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  for as long as the process lives


def cluster_options(environment: Mapping[str, str]) -> dict | None:
    """Options that `jax.distributed.initialize` cannot detect itself on this cluster.

    None where the environment names one process only. That includes an interactive allocation,
    outside of `srun` and `mpirun`, where no other process would start.
    """
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS", 1))
    if tasks > 1 and "SLURM_PROCID" in environment:
        nodes = int(environment.get("SLURM_STEP_NUM_NODES", 1))
        devices = [d for d in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if d]
        # JAX gives each task the device of its number. That is wrong where a task sees one device
        # only, or has all devices of its node.
        if len(devices) == 1 or (devices and tasks == nodes):
            return {"num_processes": tasks, "local_device_ids": list(range(len(devices)))}
        return {"num_processes": tasks}
    size = int(environment.get("OMPI_COMM_WORLD_SIZE", 1))
    return {"num_processes": size} if size > 1 else None


def is_first() -> bool:
    """True in the process that writes and prints."""
    return jax.process_index() == 0


@contextlib.contextmanager
def first_process_first(what: str) -> Iterator[None]:
    """The first process runs this block before the others do; `what` is named in their errors.

    If it fails in the first, it fails in all.
    """
    if jax.process_count() == 1:
        yield
    elif is_first():
        done = False
        try:
            yield
            done = True
        finally:
            multihost_utils.broadcast_one_to_all(np.int32(done))
    else:
        if not multihost_utils.broadcast_one_to_all(np.int32(0)):
            raise UserError(f"the first process has ended: {what}; its own message says why")
        yield


def wait_for(path: Path) -> None:
    """Wait for a file that the first process writes. Raises UserError if it does not appear."""
    started = time.monotonic()
    while not path.exists():
        if time.monotonic() - started > NETWORK_DELAY:
            raise UserError(
                f"{path} was written by the first process, and is not here: --workdir must be on a "
                "file system that all hosts share"
            )
        time.sleep(1)


def agree(**values: object) -> None:
    """Raises UserError on all processes, with the names of values in which they differ."""
    if jax.process_count() == 1:
        return
    hashes = {
        name: np.frombuffer(hashlib.sha256(repr(value).encode()).digest()[:4], np.uint32)
        for name, value in values.items()
    }
    differing = [
        f"{name} (here: {str(values[name])[:200]})"
        for name, everywhere in multihost_utils.process_allgather(hashes).items()
        if len(np.unique(everywhere)) > 1
    ]
    if differing:
        raise UserError(
            "the processes of this run do not see the same "
            + ", ".join(differing)
            + "; they need the same command line, and --workdir and data.dir on a file system that "
            "all of them share"
        )


@contextlib.contextmanager
def ended_by_errors() -> Iterator[None]:
    """An error ends this process at once if it is one of several.

    It would otherwise wait for the others to end, and they for its part of the next step. Within a
    minute of its end the others are told, and end too.
    """
    try:
        yield
    except BaseException as error:
        is_error = not isinstance(error, SystemExit) or error.code == 1  # see errors.reported
        if not jax.distributed.is_initialized() or jax.process_count() == 1 or not is_error:
            raise
        if not isinstance(error, SystemExit):
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
