"""Checkpoints of a run, through Orbax: save, restore, keep the best, and load for a notebook.

A run directory holds `config.json`, `keypoints.json` (its joints, as a COCO category declares them)
and `checkpoints/<step>/`; an exported checkpoint holds `config.json` and `variables/`. In a step
the parts lie apart, so that a notebook reads the variables without the optimizer:

    variables   {'params', 'batch_stats'}, plain dicts of arrays
    optimizer   {'step', 'opt_state'}
    data        the state of the Grain iterator, as JSON

Of a run's several processes all call each of these functions together. The iterator's state is the
same in all of them, so that a run may go on with another number of processes.
"""

import glob
import json
import shutil
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from orbax.checkpoint import v1 as ocp

from ap10k_jax import models, settings
from ap10k_jax.runtime import distributed, errors

DELETED = ".deleted"  # ends the name of a checkpoint's folder while its files are deleted


class WrongShapes(errors.UserError, ValueError):
    """The arrays of a checkpoint are not those of its config's model; the text lists them."""


class Saved(NamedTuple):
    """A checkpoint that is whole on disk; `ap` is None where validation was not due."""

    step: int
    ap: float | None


class Checkpoints:
    """The checkpoints of one run: the latest, to go on from, and the best by validation AP.

    Each becomes visible and disappears by the renaming of its folder, so that a kill leaves nothing
    that could be taken for a whole checkpoint: Orbax writes into a temporary folder, and what a
    newer one supersedes is renamed before it is deleted file by file (Orbax deletes in place). What
    a kill left is cleared away; a `reader` leaves it, as another process may be at work on it.
    """

    def __init__(self, directory: Path, *, reader: bool = False):
        self._directory = directory
        if not reader and distributed.is_first():
            _clear_all(directory, f"*{DELETED}")
        as_json = ocp.Context()
        as_json.checkpointables.registry = ocp.handlers.local_registry()
        as_json.checkpointables.registry.add(ocp.handlers.JsonHandler, checkpointable_name="data")
        self._checkpointer = ocp.training.Checkpointer(
            directory, context=as_json, cleanup_tmp_directories=not reader
        )
        self._reader = reader
        self._latest = 1  # how many of them stay

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        try:
            if kind is None and not self._reader:
                self._delete_superseded()
        finally:
            self._checkpointer.close()

    def saved(self) -> list[Saved]:
        """The checkpoints on disk, oldest first."""
        return [Saved(c.step, (c.metrics or {}).get("AP")) for c in self._checkpointer.checkpoints]

    def save(self, step: int, parts: dict, *, ap: float | None) -> None:
        """Write `parts` in the background; an earlier save is finished first.

        A checkpoint of the step that `save_stopped` wrote is replaced.
        """
        self._latest = 1
        self._delete_superseded(written_anew=step)
        # force: without it Orbax skips a checkpoint while the previous one is being written
        self._checkpointer.save_checkpointables_async(
            step, parts, force=True, metrics=None if ap is None else {"AP": ap}
        )

    def save_stopped(self, step: int, parts: dict, *, window: list) -> None:
        """Write `parts` of a run that stops where no checkpoint is due, and wait for it.

        `window` is JSON, for `window`. The latest checkpoint before it stays: this one may be
        replaced when the run goes on, and for a moment neither would be there.
        """
        self._delete_superseded()
        self._latest = 2
        self._checkpointer.save_checkpointables(
            step, parts, force=True, custom_metadata={"window": window}
        )

    def window(self, step: int) -> list:
        """The window that `save_stopped` was given; an empty list for other checkpoints."""
        custom = self._checkpointer.checkpointables_metadata(step).custom_metadata
        return (custom or {}).get("window", [])

    def restore(self, step: int, parts: dict) -> dict:
        """The parts of `step`; `parts` gives shapes and shardings of arrays, None for JSON."""
        return self._checkpointer.load_checkpointables(step, parts)

    def _delete_superseded(self, *, written_anew: int | None = None) -> None:
        """Delete what is neither the latest nor the best, and `written_anew` if it is there."""
        self._checkpointer.wait()
        others = [c for c in self.saved() if c.step != written_anew]
        stay = {c.step for c in (*others[-self._latest :], best(others)) if c}
        going = [c.step for c in self.saved() if c.step not in stay]
        if not going:
            return
        with distributed.first_process_first("deleting superseded checkpoints"):
            if distributed.is_first():
                for step in going:
                    folder = self._directory / str(step)
                    folder.rename(folder.with_name(folder.name + DELETED))
                _clear_all(self._directory, f"*{DELETED}")
        self._checkpointer.reload()


def saved_in(workdir: Path) -> list[Saved]:
    """The finished checkpoints of a run directory, oldest first."""
    if not (workdir / "checkpoints").is_dir():
        return []
    with Checkpoints(workdir / "checkpoints", reader=True) as checkpoints:
        return checkpoints.saved()


def best(saved: list[Saved]) -> Saved | None:
    """The checkpoint with the highest AP; of equals the latest; None where none was scored."""
    scored = [c for c in saved if c.ap is not None]
    return max(scored, key=lambda c: (c.ap, c.step), default=None)


def build_module(config: dict) -> nn.Module:
    """The Linen module that a run's config names."""
    return models.build(
        config["model"]["name"],
        num_keypoints=config["model"]["num_keypoints"],
        dtype=jnp.dtype(config["model"]["dtype"]),
    )


def load(path: str | Path) -> tuple[nn.Module, dict, dict]:
    """Module, variables and config of a run directory, of one of its steps or of an export.

    Of a run directory the best checkpoint is taken, or the latest if none was scored yet. A run
    that knows its joints has them in the config as `keypoints`, for `keypoints.from_category`.
    `module.apply(variables, images, train=False)` gives heatmaps for images normalised as by
    `ap10k_jax.inference.normalize`. Raises FileNotFoundError where there is no checkpoint, and
    ValueError where its arrays do not fit the model that the config names.
    """
    path = Path(path).expanduser().absolute()
    step_dir, config_file = _locate(path)
    config = _read_config(config_file)
    module = build_module(config)
    size = config["data"]["image_size"]
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    try:
        shapes = models.shapes(module, image_size=(size, size))
    except ValueError as error:  # the network takes no images of that size
        raise ValueError(f"{config_file}: {str(error).splitlines()[0]}") from error
    wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), shapes)
    try:
        _check_shapes(step_dir, wanted)
        variables = ocp.load(step_dir, wanted, checkpointable_name="variables")
    except WrongShapes:
        raise
    except Exception as error:  # Orbax and TensorStore raise nearly every kind on damaged files
        reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise ValueError(f"{step_dir} is damaged: {reason}") from error
    return module, variables, config


def config_of(path: str | Path) -> dict:
    """The config that `load` returns; nothing else is read."""
    return _read_config(_locate(Path(path).expanduser().absolute())[1])


def export(path: str | Path, variables: dict, config: dict) -> None:
    """Write variables and config to a new folder that `load` reads; it is there whole or not."""
    path = Path(path).expanduser().absolute()
    if path.exists():
        raise FileExistsError(f"{path} exists already; choose another place for the checkpoint")
    unfinished = path.with_name(f"{path.name}.unfinished")
    _clear(unfinished)  # what a kill has left
    try:
        ocp.save_checkpointables(unfinished, {"variables": variables})
        (unfinished / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        unfinished.rename(path)
    finally:
        _clear(unfinished)


def _clear(unfinished: Path) -> None:
    """Delete the folder, and the one that Orbax writes to beside it."""
    _clear_all(unfinished.parent, f"{glob.escape(unfinished.name)}*")


def _clear_all(directory: Path, pattern: str) -> None:
    """Delete the folders of that pattern."""
    for folder in directory.glob(pattern):
        shutil.rmtree(folder, ignore_errors=True)


def _locate(path: Path) -> tuple[Path, Path]:
    """The folder that holds `variables/`, and the config file that belongs to it."""
    if (path / "checkpoints").is_dir():
        saved = saved_in(path)
        if not saved:
            raise FileNotFoundError(f"{path / 'checkpoints'} holds no finished checkpoint yet")
        step = (best(saved) or saved[-1]).step
        return path / "checkpoints" / str(step), path / "config.json"
    if (path / "variables").is_dir():
        for config_file in (path / "config.json", path.parents[1] / "config.json"):
            if config_file.is_file():
                return path, config_file
        raise FileNotFoundError(f"{path} has no config.json beside its variables")
    raise FileNotFoundError(
        f"{path} is no checkpoint: expected a run directory (with checkpoints/), a step of one, "
        "or an exported checkpoint (with variables/)"
    )


def _read_config(file: Path) -> dict:
    """A config.json with the joints beside it as `keypoints`. Raises ValueError naming the file."""
    config = _read_object(file)
    settings.check_network(config, file)
    joints_file = file.with_name("keypoints.json")
    if joints_file.is_file():
        config["keypoints"] = _read_object(joints_file)
    return config


def _read_object(file: Path) -> dict:
    """The JSON object in a file. Raises ValueError that names the file."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged: no JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} is damaged: no JSON object")
    return content


def _check_shapes(step_dir: Path, wanted: dict) -> None:
    stored = ocp.metadata(step_dir, "variables").metadata
    have = {jax.tree_util.keystr(k): v.shape for k, v in jax.tree.leaves_with_path(stored)}
    want = {jax.tree_util.keystr(k): v.shape for k, v in jax.tree.leaves_with_path(wanted)}
    differing = [k for k in sorted(have.keys() | want.keys()) if have.get(k) != want.get(k)]
    if differing:
        lines = "\n".join(
            f"  {k}: stored {have.get(k, 'nowhere')}, model {want.get(k, 'has none')}"
            for k in differing[:20]
        )
        raise WrongShapes(f"{step_dir} does not fit its config's model:\n{lines}")
