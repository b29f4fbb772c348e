"""Kill everything that writes, at its worst moments, and see that nothing comes of it.

    python tests/kill.py --kills=50

Drawings are made, built as a data set, trained on; the network is exported and predicts a folder of
photographs: once undisturbed, once with each of these processes SIGKILLed again and again, at
random moments and in the middle of writing, and started anew. In the end both must have left the
same files, parameters, optimizer state, lines of metrics and predictions, to the bit, and no
process. A few times training is told to stop by SIGTERM instead, and must end in time.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import nano
import numpy as np
import tensorflow_datasets as tfds
from orbax.checkpoint import v1 as ocp

from ap10k_jax import checkpoint, run_log
from ap10k_jax.runtime import file_lock
from tfds_ap10k import build
from tfds_ap10k.synthetic import dataset

ROOT = Path(__file__).parents[1]
IMAGES = 48
TIMES = ("images_per_second", "waiting_for_data")
SHARES = {"drawing": 0.1, "building": 0.16, "training": 0.5, "exporting": 0.1, "predicting": 0.14}
# seconds from a moment until the kill, at most
LONGEST = {
    "drawing": 0.5,
    "building": 0.3,
    "training": 0.1,
    "writing a checkpoint": 0.05,
    "starting": 8.0,
    "exporting": 0.3,
    "predicting": 0.3,
}
GRACE = 30  # seconds that a scheduler leaves between SIGTERM and SIGKILL
EXPORT = (
    "import sys, nano; nano.register(); from ap10k_jax import checkpoint;"
    "checkpoint.export(sys.argv[2], *checkpoint.load(sys.argv[1])[1:])"
)


class Place(NamedTuple):
    """Where the files of one pass lie."""

    folder: Path
    epochs: int

    @property
    def log(self) -> Path:
        return self.folder.with_suffix(".log")

    @property
    def run(self) -> Path:
        return self.folder / "run"

    def commands(self) -> dict[str, list]:
        """The command of each stage, in their order; to be run in the folder."""
        fields = {
            "model.name": "nano",
            "data.dir": "data",
            "data.synthetic_images": IMAGES,
            "data.image_size": 32,
            "data.max_animals": 20,
            "epochs": self.epochs,
            "batch_size": 8,
            "eval.batch_size": 16,
            "eval.every_epochs": 6,
            "log_every_steps": 3,
            "checkpoint_every_epochs": 1,
            "drop_remainder": False,
        }
        overrides = [f"--config.{name}={value}" for name, value in fields.items()]
        network, config = ROOT / "tests" / "nano.py", ROOT / "configs" / "quickstart.py"
        drawn, out = "data/drawn", ["--out=out", "--write=coco,csv,csv-wide,drawn"]
        return {
            "drawing": ["-m", "tfds_ap10k.synthetic", drawn, f"--images={IMAGES}"],
            "building": ["-m", "tfds_ap10k.build", f"--manual-dir={drawn}", "--data-dir=data"],
            "training": [network, "main", f"--config={config}", "--workdir=run", *overrides],
            "exporting": ["-c", EXPORT, "run", "exported"],
            "predicting": [network, "predict", "run", f"{drawn}/data", *out],
        }

    def results(self) -> dict[str, Path]:
        """What stands for a finished stage."""
        return {
            "drawing": self.folder / "data" / "drawn",
            "building": self.folder / "data" / "ap10k" / "split1" / "1.0.0",
            "training": self.run / "results.json",
            "exporting": self.folder / "exported",
            "predicting": self.folder / "out" / "problems.txt",
        }


def start(arguments: list, place: Place) -> subprocess.Popen:
    """The command in a session of its own, on one device; its output is appended to the log."""
    paths = [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1", "PYTHONPATH": os.pathsep.join(paths)}
    with place.log.open("a") as output:
        return subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            env=environment,
            cwd=place.folder,
            start_new_session=True,
            stdout=output,
            stderr=output,
        )


def finish(arguments: list, place: Place) -> None:
    """Run the command to its end."""
    status = start(arguments, place).wait(timeout=1200)
    assert status == 0, f"status {status}: {arguments}\n{place.log.read_text()[-3000:]}"


def moments(stage: str, place: Place, rng: random.Random) -> Iterator[tuple[str, Callable]]:
    """Endless: the name of a moment, and whether it has come; made just before a start."""
    lines = place.run / "metrics.jsonl"

    def there(pattern: str, folder: Path = place.folder) -> Callable:
        return lambda: any(folder.glob(pattern))

    def longer(path: Path, by: int) -> Callable:
        def count() -> int:
            return path.read_bytes().count(b"\n") if path.exists() else 0

        wanted = count() + by
        return lambda: count() >= wanted

    def newer(pattern: str) -> Callable:
        before = set(place.run.glob(pattern))
        return lambda: set(place.run.glob(pattern)) - before

    while True:
        if stage == "drawing":
            yield "drawing", there("data/drawn.unfinished/data")
        elif stage == "building":
            yield "building", there("data/ap10k/split1/incomplete*")
        elif stage == "training":
            yield "training", longer(lines, rng.randint(1, 6))
            yield "training", longer(lines, rng.randint(1, 6))
            yield "writing a checkpoint", newer("checkpoints/*tmp*")
            yield "writing a checkpoint", newer("checkpoints/*tmp*/*")
            if rng.random() < 0.25:
                yield "starting", lambda: True
        elif stage == "exporting":
            yield "exporting", there("exported.unfinished*")
        else:
            yield "predicting", longer(place.folder / "out" / "results.jsonl", rng.randint(1, 20))


def strike(process: subprocess.Popen, has_come: Callable, delay: float, signum: int) -> int | None:
    """Send the signal a while after the moment has come; the status, None if it ended before."""
    while process.poll() is None:
        if has_come():
            time.sleep(delay)
            if process.poll() is not None:
                break
            if signum == signal.SIGKILL:
                os.killpg(process.pid, signum)
            else:
                process.send_signal(signum)
            return process.wait(timeout=GRACE)
        time.sleep(0.001)
    return None


def check_gone(process: subprocess.Popen) -> None:
    """Nothing is left of the process's session."""
    until = time.monotonic() + 5
    while time.monotonic() < until:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError(f"a process of the group {process.pid} goes on")


def check_whole(place: Place) -> None:
    """Everything that could be taken for finished is whole."""
    drawn = place.results()["drawing"]
    if drawn.exists():
        assert dataset.is_complete(drawn, {"images": IMAGES, "seed": 0, "version": dataset.VERSION})
    built = build.DATASETS["ap10k"].open("split1", place.folder / "data")
    if built is not None:
        for split, coco in built.info.metadata["annotations"].items():
            assert len(built.as_data_source(split)) == len(coco["images"])
    for path in [*place.run.glob("*.json"), *place.folder.glob("out/coco*.json")]:
        json.loads(path.read_text())
    for saved in checkpoint.saved_in(place.run):
        arrays(place.run / "checkpoints" / str(saved.step))
    if (place.folder / "exported").exists():
        checkpoint.load(place.folder / "exported")


def arrays(folder: Path) -> list[dict]:
    """Variables and optimizer state of a step."""
    return [ocp.load(folder, checkpointable_name=name) for name in ("variables", "optimizer")]


def disturbed(stage: str, place: Place, kills: int, rng: random.Random) -> Counter:
    """Run the stage to its end with so many kills on the way, counted by moment."""
    counts, missed = Counter(), 0
    command, result = place.commands()[stage], place.results()[stage]
    coming = moments(stage, place, rng)
    terms = max(1, kills // 12) if stage == "training" else 0
    while counts.total() < kills + terms:
        name, has_come = next(coming)
        delay = rng.uniform(0, LONGEST[name])
        told = counts["SIGTERM"] < terms and counts.total() % 12 == 1
        process = start(command, place)
        status = strike(process, has_come, delay, signal.SIGTERM if told else signal.SIGKILL)
        check_gone(process)
        if status is None:  # ended before the killer came: once more
            assert process.returncode == 0, place.log.read_text()[-3000:]
            assert stage != "training", "the run ended too early: give it more epochs"
            assert (missed := missed + 1) < 20, f"{stage}: the moment never comes"
            shutil.rmtree(result.parent if stage == "predicting" else result)
            continue
        if told:
            assert status == 143, f"{status}\n{place.log.read_text()[-3000:]}"
        counts["SIGTERM" if told else name] += 1
        check_whole(place)
        if stage == "exporting" and result.exists():  # killed after its last act
            shutil.rmtree(result)  # an export refuses a place that is taken
        print(f"{counts.total()} {stage}: {name}{', SIGTERM' if told else ''}", flush=True)
    finish(command, place)
    return counts


def compare(one: Place, other: Place) -> None:
    """Both passes have left the same, and only that."""
    steps = [[saved.step for saved in checkpoint.saved_in(place.run)] for place in (one, other)]
    assert steps[0] == steps[1]
    for step in steps[0]:
        folders = [place.run / "checkpoints" / str(step) for place in (one, other)]
        jax.tree.map(np.testing.assert_array_equal, *map(arrays, folders))
        iterators = [(folder / "data" / "data.json").read_text() for folder in folders]
        assert iterators[0] == iterators[1]
    exported = [checkpoint.load(place.folder / "exported")[1] for place in (one, other)]
    jax.tree.map(np.testing.assert_array_equal, *exported)

    metrics = [
        [
            {k: v for k, v in line.items() if k not in TIMES}
            for line in run_log.read(place.run / "metrics.jsonl")
        ]
        for place in (one, other)
    ]
    assert metrics[0] == metrics[1]
    passed = [(line["step"], line["kind"]) for line in metrics[0]]
    assert len(passed) == len(set(passed))

    for split in ("train", "validation", "test"):
        np.testing.assert_equal(*(records(place, split) for place in (one, other)))

    names = [files(place.folder) for place in (one, other)]
    assert names[0] == names[1], set(names[0]) ^ set(names[1])
    differing = [
        name
        for name in filter(is_comparable, names[0])
        if (one.folder / name).read_bytes() != (other.folder / name).read_bytes()
    ]
    assert not differing, f"these differ: {differing}"


def records(place: Place, split: str) -> list[dict]:
    """The records of a split, photographs as they are stored.

    The bytes around them differ from build to build: protocol buffers write maps in any order.
    """
    built = build.DATASETS["ap10k"].open("split1", place.folder / "data")
    decoders = {"image": tfds.decode.SkipDecoding()}
    return list(built.as_data_source(split, decoders=decoders))


def files(folder: Path) -> list[str]:
    """The files of a pass, but arrays and events, which are named by chance, and locks.

    The file of a lock may outlive its holder's kill; that nobody holds it any more is checked.
    """
    for path in folder.rglob("*.lock"):
        file_lock.check(path)
    found = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if "ocdbt" not in name and "/d/" not in name
                  and "tensorboard" not in name and not name.endswith(".lock"))  # fmt: skip


def is_comparable(name: str) -> bool:
    """Whether a file must be the same to the byte: holds no times, and is not read by `compare`."""
    if name.startswith("run/checkpoints/") or ".array_record" in name:
        return False
    dated = ("environment.json", "dataset_info.json", "_CHECKPOINT_METADATA", "commit_success.txt")
    return Path(name).name not in ("metrics.jsonl", *dated)


def campaign(folder: Path, kills: int, seed: int = 0) -> Counter:
    """All stages undisturbed and disturbed, and their comparison; the kills by moment."""
    share = {stage: max(1, round(kills * part)) for stage, part in SHARES.items()}
    share["training"] += max(0, kills - sum(share.values()))
    epochs = 4 * (2 + share["training"])
    whole, killed = (Place(folder / name, epochs) for name in ("whole", "killed"))
    rng, counts = random.Random(seed), Counter()
    for place in (whole, killed):
        place.folder.mkdir(parents=True)
    for stage, command in whole.commands().items():
        finish(command, whole)
        counts += disturbed(stage, killed, share[stage], rng)
    compare(whole, killed)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    nano.register()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        counts = campaign(Path(folder), options.kills, options.seed)
    told = counts.pop("SIGTERM", 0)
    print(f"{counts.total()} kills survived, and {told} times SIGTERM, in "
          f"{time.monotonic() - started:.0f} s: {dict(counts)}")  # fmt: skip


if __name__ == "__main__":
    main()
