"""Our training beside PyTorch's on one accelerator: the tables of RESULTS.md, in eight minutes.

    python benchmarks/accelerator.py [--model=hrnet_w32,simplebaseline_resnet50] [--out=DIR]

Each network in each dtype is a process of its own (accelerator_worker.py). All of them compile at
the same time, torch.compile's first; beside them `ap10k_jax.main` starts on drawn animals, cold and
warm. Then they are measured in turns, `--rounds` times: training steps and forward passes that are
queued without a wait between, medians over the rounds. The first network's step is profiled. Last,
`ap10k_jax.main` trains that network alone on the card: images/s and idle share of its loop.

PyTorch's rows need the extra `bench`. What is not ready at its deadline is left out with a line.
torch.compile is measured for the first network in the first dtype only. Any JAX device will do; on
CPU try --model=hrnet_tiny --batch=8 --size=64.
"""

import argparse
import importlib.util
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import start  # benchmarks/start.py

from tfds_ap10k import build, synthetic

ROOT = Path(__file__).parents[1]
WORKER = Path(__file__).with_name("accelerator_worker.py")
# Crops of all trainings for Tables 3 to 11 of the paper, see `python -m ap10k_jax.reproduce plan`.
PAPERS_CROPS = 242e6
IN_TIMM = (
    *("hrnet_w32", "hrnet_w48"),
    *("simplebaseline_resnet50", "simplebaseline_resnet101"),
)


class Worker:
    """A process of accelerator_worker.py and its answers. `alive` is False once one has failed."""

    def __init__(self, framework: str, name: str, dtype: str, batch: int, size: int, out: Path):
        self.framework, self.name, self.dtype = framework, name, dtype
        self.alive = True
        self.rounds: list[dict] = []
        self.log = out / f"{framework}-{name}-{dtype}.log"
        environment = {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # several processes share the card
        with self.log.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, WORKER, framework, name, dtype, str(batch), str(size)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=os.environ | environment,
                text=True,
            )
        self.answers: queue.Queue[dict | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout:
            if line.startswith("@@"):
                self.answers.put(json.loads(line[2:]))
        self.answers.put(None)  # it has ended

    def ask(self, do: str, **values: object) -> None:
        """Send a request; its answer is taken by `wait`."""
        if self.alive:
            try:
                self.process.stdin.write(json.dumps({"do": do, **values}) + "\n")
                self.process.stdin.flush()
            except BrokenPipeError:
                self.alive = False

    def wait(self, deadline: float) -> dict | None:
        """The next answer, or None: the process has ended, or the deadline passed and it is ended.

        `deadline` is a value of time.monotonic().
        """
        if not self.alive:
            return None
        try:
            result = self.answers.get(timeout=max(0.1, deadline - time.monotonic()))
            reason = f"failed, see {self.log}"
        except queue.Empty:
            result, reason = None, "was not ready in time"
        if result is None:
            print(f"{self.framework} {self.name} {self.dtype} {reason}", flush=True)
            self.end()
        return result

    def end(self) -> None:
        self.alive = False
        self.process.kill()
        self.process.wait()


def start_workers(flags: argparse.Namespace) -> list[Worker]:
    """All programs, compiling; torch.compile's, which takes longest, is the first."""
    programs = [
        (framework, name, dtype)
        for framework in ("jax", "eager")
        for name in flags.model
        for dtype in flags.dtypes
    ]
    programs.insert(0, ("compiled", flags.model[0], flags.dtypes[0]))
    with_torch = all(importlib.util.find_spec(module) for module in ("torch", "timm"))
    if not with_torch:
        print("without PyTorch's rows: torch and timm are not installed", flush=True)
    workers = []
    for framework, name, dtype in programs:
        if framework != "jax" and not with_torch:
            continue
        if framework != "jax" and name not in IN_TIMM:
            print(f"without {framework} PyTorch for {name}, which timm has not", flush=True)
            continue
        workers.append(Worker(framework, name, dtype, flags.batch, flags.size, flags.out))
        workers[-1].ask("build")
    return workers


def measure(workers: Sequence[Worker], rounds: int, calls: int, deadline: float) -> None:
    """Appends to the workers' rounds, in turns."""
    for _ in range(rounds):
        for worker in workers:
            worker.ask("measure", calls=calls)
            if result := worker.wait(deadline):
                worker.rounds.append(result)


def median(worker: Worker, key: str) -> float:
    return float(np.median([result[key] for result in worker.rounds]))


def step_table(workers: Sequence[Worker], batch: int) -> str:
    """Medians of all programs that were measured, as Markdown."""
    lines = [
        "| network | dtype | program | step, ms | images/s | host, ms a step | forward, ms | "
        "images/s | peak, GiB | compile, s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for worker in workers:
        if not worker.rounds:
            continue
        step, host, forward = (median(worker, key) for key in ("step", "host", "forward"))
        title = {"jax": "ours", "eager": "PyTorch", "compiled": "torch.compile"}[worker.framework]
        lines.append(
            f"| {worker.name} | {worker.dtype} | {title} | {step:.1f} | {batch / step * 1e3:,.0f} "
            f"| {host:.1f} | {forward:.1f} | {batch / forward * 1e3:,.0f} "
            f"| {median(worker, 'peak') / 2**30:.1f} | {worker.seconds_to_compile:.0f} |"
        )
    return "\n".join(lines)


def arguments_of_main(flags: argparse.Namespace, folder: Path) -> list[str]:
    """Arguments of `ap10k_jax.main` for the first network, on animals drawn into a folder."""
    drawn = synthetic.generate(folder / "drawn", images=flags.images)
    build.build("split1", manual_dir=drawn, data_dir=folder)
    return [
        "--config=configs/sl.py",
        f"--config.data.dir={folder}",
        f"--config.model.name={flags.model[0]}",
        f"--config.model.dtype={flags.dtypes[0]}",
        f"--config.batch_size={flags.batch}",
        f"--config.data.image_size={flags.size}",
        f"--config.epochs={flags.epochs}",
        f"--config.checkpoint_every_epochs={flags.epochs}",
        "--config.eval.every_epochs=0",
        "--config.data.input=decoded",
        "--config.drop_remainder=True",
    ]


def measure_starts(arguments: list[str], folder: Path) -> str:
    """Seconds to the first step, with an empty and a filled cache of steps, as Markdown."""
    lines = ["| start | first step after, s |", "|---|---|"]
    for kind in ("cold", "warm"):
        try:
            times = start.start([*arguments, f"--workdir={folder}/{kind}"], folder / "compiled")
        except SystemExit as error:  # with the end of its output
            return f"The {kind} start failed: {error}"
        lines.append(f"| {kind} | {times['first step']:.1f} |")
    return "\n".join(lines)


def measure_loop(arguments: list[str], folder: Path, log: Path, deadline: float) -> str:
    """The loop's numbers in the log of `ap10k_jax.main`, as Markdown."""
    command = [sys.executable, "-m", "ap10k_jax.main", *arguments, f"--workdir={folder}/loop"]
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(folder / "compiled")}
    with log.open("w") as output:
        try:
            code = subprocess.run(
                command,
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=max(1, deadline - time.monotonic()),
            ).returncode
        except subprocess.TimeoutExpired:
            code = "the deadline"
    windows = read_windows(folder / "loop" / "metrics.jsonl")
    if not windows:
        return f"The loop ended with {code}, see {log}."
    lines = ["| the loop | median of its log's windows |", "|---|---|"]
    for key in windows[-1]:
        if isinstance(windows[-1][key], float) and key not in ("loss", "learning_rate"):
            lines.append(f"| {key} | {np.median([window[key] for window in windows]):.4g} |")
    rate = np.median([window["images_per_second"] for window in windows])
    hours = PAPERS_CROPS / rate / 3600
    lines.append(f"| hours for all of the paper's trainings at this rate | {hours:.1f} |")
    return "\n".join(lines)


def read_windows(path: Path) -> list[dict]:
    """The training lines of metrics.jsonl; without the first, in which caches are still cold."""
    if not path.exists():
        return []
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    windows = [line for line in lines if line["kind"] == "train"]
    return windows[1:] or windows


def names(text: str) -> list[str]:
    return text.split(",")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=names, default="hrnet_w32,simplebaseline_resnet50")
    parser.add_argument("--dtypes", type=names, default="bfloat16,float32")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=256, help="side of the crops in pixels")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=30, help="steps and forward passes a round")
    parser.add_argument("--images", type=int, default=600, help="drawn photographs for the loop")
    parser.add_argument("--epochs", type=int, default=60, help="of the loop")
    parser.add_argument("--seconds", type=float, default=480, help="for all of it")
    parser.add_argument("--out", type=Path, help="for logs and results.md; else a new folder")
    flags = parser.parse_args()
    began = time.monotonic()
    flags.out = flags.out or Path(tempfile.mkdtemp(prefix="accelerator_"))
    flags.out.mkdir(parents=True, exist_ok=True)

    results = flags.out / "results.md"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        workers = start_workers(flags)
        try:
            arguments = arguments_of_main(flags, folder)
            text = measure_starts(arguments, folder)
            text = f"{measure_workers(workers, flags, began)}\n{text}\n"
        finally:
            for worker in workers:
                worker.end()
        print(text, flush=True)
        results.write_text(text)
        loop = measure_loop(arguments, folder, flags.out / "loop.log", began + flags.seconds)
    print(loop)
    results.write_text(f"{text}\n{loop}\n")
    print(f"\n{time.monotonic() - began:.0f} s in all; the tables and logs are in {flags.out}")


def measure_workers(workers: list[Worker], flags: argparse.Namespace, began: float) -> str:
    """The versions, the table of steps and forward passes, and the profile, as Markdown."""
    versions = {}
    for worker in reversed(workers):  # torch.compile is waited for last
        facts = worker.wait(began + flags.seconds * 0.65) or {}
        versions |= facts.pop("versions", {})
        worker.seconds_to_compile = sum(facts.values())
    measure(workers, flags.rounds, flags.calls, began + flags.seconds * 0.85)
    title = ", ".join(f"{key} {value}" for key, value in versions.items())
    text = f"{title}; batch {flags.batch}, {flags.size} px\n\n{step_table(workers, flags.batch)}\n"
    first = next(worker for worker in workers if worker.framework == "jax")
    first.ask("profile")
    if profile := first.wait(began + flags.seconds * 0.9):
        largest = profile.pop("largest")
        counted = ", ".join(f"{key} {value:.1f}" for key, value in profile.items())
        text += f"\nProfile of {first.name} in {first.dtype}, a step: {counted}"
        text += f"; largest: {', '.join(largest) or 'not seen on this device'}\n"
    return text


if __name__ == "__main__":
    main()
