"""The directory of a run: whose config it holds, on what it ran, and that it is not mixed up."""

import contextlib
import importlib.metadata
import json
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import jax
from ml_collections import ConfigDict

from ap10k_jax import keypoints, settings
from ap10k_jax.runtime import errors, file_lock, files


class Opened(Protocol):
    """An opened split of a data set, as data.animals.Animals is."""

    fingerprint: str
    unlabeled: int  # animals without keypoints, which are left out
    crowds: int

    def __len__(self) -> int: ...


PACKAGES = (
    *("ap10k_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain"),
    *("tensorflow-datasets", "numpy", "opencv-python-headless", "simplejpeg", "pycocotools"),
)


def check(workdir: Path, config: ConfigDict) -> None:
    """Raises UserError if the directory holds a run of another config."""
    path = workdir / "config.json"
    if path.exists() and (differing := settings.differences(read_json(path, dict), config)):
        raise errors.UserError(
            f"{workdir} holds a run of another config; choose another --workdir, or delete it:\n  "
            + "\n  ".join(differing)
        )


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """The directory is this process's alone. Raises UserError that names the one that has it."""
    workdir.mkdir(parents=True, exist_ok=True)
    try:
        with file_lock.locked(workdir / "lock"):
            yield
    except file_lock.InUse as held:
        raise errors.UserError(
            f"{held}; wait until it has ended, or choose another --workdir"
        ) from held
    finally:
        with contextlib.suppress(OSError):
            workdir.rmdir()  # nothing came of it, or it is not empty


def open_run(
    workdir: Path, config: ConfigDict, joints: keypoints.KeypointSet = keypoints.AP10K
) -> None:
    """Make the run's directory, or see that it belongs to the same config."""
    check(workdir, config)
    path, joints_path = workdir / "config.json", workdir / "keypoints.json"
    declared = keypoints.as_category(joints)
    if joints_path.exists() and read_json(joints_path, dict) != declared:
        raise errors.UserError(
            f"{workdir} holds a run on other joints: the data set has changed since"
        )
    if path.exists():
        return
    workdir.mkdir(parents=True, exist_ok=True)
    write_json(joints_path, declared)
    write_json(path, json.loads(config.to_json()))


def version_of(package: str) -> str:
    """The installed version; a checkout on PYTHONPATH is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def write_environment(
    workdir: Path,
    animals: Mapping[str, Opened],
    *,
    source: str | None = None,
    report: Mapping | None = None,
) -> None:
    """Versions, hardware and the fingerprints of the splits; a later start appends its own.

    `source` is the way the training data are read, `report` that of the builder of the data set.
    """
    path = workdir / "environment.json"
    starts = read_json(path, list) if path.exists() else []
    starts.append(
        {
            "python": platform.python_version(),
            "packages": {name: version_of(name) for name in PACKAGES},
            "devices": [device.device_kind for device in jax.devices()],
            "machine": platform.platform(),
            "fingerprints": {split: a.fingerprint for split, a in animals.items()},
            "input": source,
            "photographs_in_two_splits": list((report or {}).get("photographs_in_two_splits", ())),
            "animals": {split: len(a) for split, a in animals.items()},
            "animals_without_keypoints": {split: a.unlabeled for split, a in animals.items()},
            "crowds": {split: a.crowds for split, a in animals.items()},
        }
    )
    write_json(path, starts)


def read_json(path: Path, kind: type) -> dict | list:
    """The content of a file by `write_json`. Raises UserError if it holds something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise errors.UserError(f"{path} is damaged ({error}); delete it, or the run") from error
    if not isinstance(content, kind):
        raise errors.UserError(
            f"{path} is damaged (no JSON {kind.__name__}); delete it, or the run"
        )
    return content


def write_json(path: Path, value: object) -> None:
    """Write a file that is there whole or, after a kill, not at all."""
    files.write_text(path, json.dumps(value, indent=2) + "\n")
