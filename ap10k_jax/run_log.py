"""The log of a run: metrics.jsonl, TensorBoard, a progress line, and the means that go there."""

import json
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import jax
import numpy as np
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar
from tqdm import tqdm

from ap10k_jax.runtime import errors, files, sharding


class Animals(Protocol):
    """The photographs of a split, as of data.animals.Animals."""

    def image(self, index: int) -> dict: ...


class RunLog:
    """Numbers by step. Opened at the step a run goes on from, it forgets what came after it.

    If that step is `unscored`, its scores are still to come.
    """

    def __init__(self, directory: Path, *, step: int, total_steps: int, unscored: bool = False):
        self._path = directory / "metrics.jsonl"
        _forget_after(self._path, step, unscored=unscored)
        self._file = self._path.open("a")
        # Not its SummaryWriter: that writes in a thread, and when a full disk has ended the thread
        # the run waits for it for ever.
        (directory / "tensorboard").mkdir(exist_ok=True)
        self._events = EventsWriter(str(directory / "tensorboard" / "events"))
        if step:  # TensorBoard forgets the later ones too
            self._event(step + 1, session_log=SessionLog(status=SessionLog.START))
        self.bar = tqdm(total=total_steps, initial=step, unit="step", dynamic_ncols=True)
        self._shown: dict[str, str] = {}

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.bar.close()
        self._events.close()
        self._file.close()

    def write(self, step: int, kind: str, numbers: dict) -> None:
        """Append one line; `kind` is train, or the name of the split that was scored."""
        numbers = plain(numbers)
        self._file.write(json.dumps({"step": step, "kind": kind, **numbers}) + "\n")
        for name, value in numbers.items():
            if isinstance(value, int | float):
                self._event(step, summary=scalar(f"{kind}/{name}", value))
        self._events.flush()

    def _event(self, step: int, **content: object) -> None:
        self._events.write_event(Event(wall_time=time.time(), step=step, **content))

    def flush(self) -> None:
        """Everything written so far is on disk: to be called before a checkpoint is saved."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def show(self, **values: str) -> None:
        """Set these entries of the progress line."""
        self._shown.update(values)
        self.bar.set_postfix(self._shown)


class NoLog(RunLog):
    """In place of the log on all processes of a run but the first: nothing is written or shown."""

    def __init__(self, directory: Path, **options: object):
        self.bar = tqdm(disable=True)

    def __exit__(self, *exception):
        pass

    def write(self, step: int, kind: str, numbers: dict) -> None:
        pass

    def flush(self) -> None:
        pass

    def show(self, **values: str) -> None:
        pass


class NonFiniteLoss(errors.UserError, FloatingPointError):
    """The loss became NaN or infinite; the message names the step and the photographs."""


class Window:
    """The steps since the last line of the log: their numbers, photographs and times."""

    def __init__(self, animals: Animals):
        self._animals = animals
        self._steps: list[tuple[int, dict, np.ndarray]] = []
        self._start = time.perf_counter()
        self._waited = 0.0
        self._images = 0

    def add(self, step: int, numbers: dict, index: np.ndarray, waited: float) -> None:
        self._steps.append((step, numbers, index))
        self._waited += waited
        self._images += len(index) * jax.process_count()

    def _numbers(self) -> list[dict]:
        """The steps' numbers on the host. Raises NonFiniteLoss."""
        numbers = jax.device_get([n for _, n, _ in self._steps])
        for (step, _, index), values in zip(self._steps, numbers, strict=True):
            if not np.isfinite(values["loss"]):
                files = [self._animals.image(int(i))["file_name"] for i in sharding.gather(index)]
                raise NonFiniteLoss(
                    f"the loss is {values['loss']} at step {step}; its batch: {', '.join(files)}"
                )
        return numbers

    def stored(self) -> list:
        """The steps as JSON, for a run that stops amid a window. Raises NonFiniteLoss."""
        return [
            [step, {k: np.asarray(v).tolist() for k, v in values.items()}, index.tolist()]
            for (step, _, index), values in zip(self._steps, self._numbers(), strict=True)
        ]

    def restore(self, stored: list) -> None:
        """Go on with `stored` steps: the means will be those of a run that never stopped."""
        self._steps = [(step, values, np.array(index)) for step, values, index in stored]

    def close(self) -> dict:
        """Means over the window; starts the next one. Raises NonFiniteLoss."""
        numbers, self._steps = self._numbers(), []
        now = time.perf_counter()
        seconds, waited = now - self._start, self._waited
        images, self._images = self._images, 0
        self._start, self._waited = now, 0.0
        means = {k: mean([n[k] for n in numbers]) for k in numbers[0]}
        return means | {"images_per_second": images / seconds, "waiting_for_data": waited / seconds}

    def restart_clock(self) -> None:
        """Leave out what has passed since the last line (compiling, scoring, saving)."""
        self._start, self._waited = time.perf_counter(), 0.0


def mean(values: Sequence) -> float:
    """The mean of numbers; of (sum, count) pairs that of what was counted, nan if nothing was."""
    values = np.asarray(values, float)
    if values.ndim == 1:
        return float(np.mean(values))
    total, count = values.sum(axis=0)
    return float(total / count) if count else float("nan")


def plain(value):
    """The value with nan as None, which JSON has no number for."""
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def read(path: Path) -> list[dict]:
    """The lines of a metrics.jsonl; a last line cut short by a kill is left out.

    Raises OSError for a broken line before the last: what follows it must not get lost in silence.
    """
    lines, found = [], path.read_bytes().split(b"\n")
    for number, line in enumerate(found, start=1):
        try:
            content = json.loads(line)
            lines.append(content | {"step": int(content["step"]), "kind": str(content["kind"])})
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            if any(rest.strip() for rest in found[number:]):
                raise OSError(f"{path} is damaged: line {number} is none of a log") from error
            break
    return lines


def _forget_after(path: Path, step: int, *, unscored: bool) -> None:
    """Drop the lines of what will be done again, so that no step stands twice."""
    if not path.exists():
        return
    kept = [line for line in read(path) if line["step"] <= step]
    if unscored:
        kept = [line for line in kept if line["step"] < step or line["kind"] == "train"]
    files.write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
