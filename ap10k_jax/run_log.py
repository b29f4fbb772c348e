"""What a run writes while it goes: metrics.jsonl, TensorBoard and a progress line."""

import json
import math
import os
import time
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar
from tqdm import tqdm

from ap10k_jax.runtime import files


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
