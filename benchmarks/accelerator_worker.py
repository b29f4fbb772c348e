"""One network in one framework on the device, measured on request; started by accelerator.py.

    python benchmarks/accelerator_worker.py FRAMEWORK NETWORK DTYPE BATCH SIZE

FRAMEWORK is jax, eager or compiled (PyTorch's). Every line of standard input is a JSON object with
the request `do`: build, measure, profile or quit. Every answer is a line that starts with "@@".
"""

import collections
import glob
import gzip
import json
import re
import sys
import tempfile
import time
from collections.abc import Callable

RATE = 5e-4
WARM_UP = 5  # calls before the clock starts: CUDA graphs are recorded in the first ones


def seconds_per_call(call: Callable, wait: Callable, calls: int) -> tuple[float, float]:
    """Seconds of a call when many are queued, and of the host's part of it."""
    for _ in range(WARM_UP):
        call()
    wait()
    start = time.perf_counter()
    for _ in range(calls):
        call()
    host = time.perf_counter() - start
    wait()
    return (time.perf_counter() - start) / calls, host / calls


class Ours:
    """Our training step on a packed state, and our forward pass."""

    def __init__(self, name: str, dtype: str, batch: int, size: int):
        import jax
        import jax.numpy as jnp
        import numpy as np

        from ap10k_jax import inference, models, packing, train
        from ap10k_jax import optimizer as optimizers
        from ap10k_jax.runtime import sharding

        self.jax = jax
        shardings = sharding.shardings(jax.devices()[:1])
        module = models.build(name, dtype=jnp.dtype(dtype))
        optimizer = optimizers.make_optimizer(jnp.dtype(dtype))
        self.variables = models.init(module, jax.random.key(0), image_size=(size, size))
        rng = np.random.default_rng(0)
        examples = {
            "image": rng.integers(0, 256, (batch, size, size, 3), np.uint8),
            "keypoints": rng.uniform(0, size, (batch, 17, 2)).astype(np.float32),
            "weights": np.ones((batch, 17), np.float32),
        }
        self.examples = jax.device_put(examples, shardings.batch)
        packed = packing.Packing.of(self.variables)
        state = jax.jit(packed.pack, out_shardings=shardings.replicated)(
            train.init_state(self.variables, optimizer)
        )
        self.state = optimizers.with_learning_rate(state, RATE)
        step = train.make_train_step(module, optimizer, shardings, packed=packed)

        start = time.perf_counter()
        lowered = step.lower(self.state, self.examples)
        traced = time.perf_counter()
        self.compiled_step = lowered.compile()
        self.facts = {
            "trace_seconds": traced - start,
            "compile_seconds": time.perf_counter() - traced,
        }
        self.predict = jax.jit(
            lambda v, images: module.apply(v, inference.normalize(images), train=False),
            compiler_options=sharding.compiler_options(shardings),
        )
        self.versions = {"jax": jax.__version__, "card": jax.devices()[0].device_kind}

    def step(self) -> None:
        self.state, self.numbers = self.compiled_step(self.state, self.examples)

    def wait_for_step(self) -> None:
        self.numbers["loss"].block_until_ready()

    def forward(self) -> None:
        self.heatmaps = self.predict(self.variables, self.examples["image"])

    def wait_for_forward(self) -> None:
        self.heatmaps.block_until_ready()

    def peak_bytes(self) -> int:
        statistics = self.jax.devices()[0].memory_stats() or {}  # none on CPU
        return statistics.get("peak_bytes_in_use", 0)

    def profile(self, steps: int = 3) -> dict:
        """Kernels and host launches of a step, and the kernels' time in ms."""
        with tempfile.TemporaryDirectory() as folder:
            with self.jax.profiler.trace(folder):
                for _ in range(steps):
                    self.step()
                self.wait_for_step()
            (path,) = glob.glob(f"{folder}/**/*.trace.json.gz", recursive=True)
            with gzip.open(path) as file:
                events = json.load(file)["traceEvents"]
        return {
            key: value / steps if isinstance(value, float | int) else value
            for key, value in count_events(events).items()
        }


def count_events(events: list[dict]) -> dict:
    """Kernels, launches and milliseconds of kernels in a trace, and the most expensive kernels."""
    processes = {e["pid"]: e["args"]["name"] for e in events if e.get("name") == "process_name"}
    milliseconds, kernels, launches = collections.Counter(), 0, 0
    for event in events:
        if event.get("ph") != "X":
            continue
        if "GPU" in processes.get(event["pid"], ""):
            kernels += 1
            milliseconds[re.sub(r"([_.]?\d+)+$", "", event["name"])] += event["dur"] / 1e3
        launches += event["name"].startswith(("cuGraphLaunch", "cuLaunchKernel"))
    return {
        "kernels": kernels,
        "launches": launches,
        "kernel_milliseconds": milliseconds.total(),
        "largest": [name for name, _ in milliseconds.most_common(5)],
    }


class Theirs:
    """The same network from timm in PyTorch: channels last, autocast, fused Adam."""

    def __init__(self, name: str, dtype: str, batch: int, size: int, *, compiled: bool):
        import torch
        from models import Peer  # benchmarks/models.py

        self.torch = torch
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = Peer(name).to(self.device, memory_format=torch.channels_last)
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), RATE, fused=self.device == "cuda"
        )
        # TF32, as in JAX's float32 on these cards
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
        images = torch.randn(batch, 3, size, size, device=self.device)
        self.images = images.contiguous(memory_format=torch.channels_last)
        self.target = torch.rand(batch, 17, size // 4, size // 4, device=self.device)
        self.run = torch.compile(self.model) if compiled else self.model
        self.autocast = torch.autocast(
            self.device, getattr(torch, dtype), enabled=dtype != "float32"
        )
        start = time.perf_counter()
        self.step()
        self.wait()
        self.facts = {"first_step_seconds": time.perf_counter() - start}
        self.versions = {"torch": torch.__version__}

    def step(self) -> None:
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        with self.autocast:
            heatmaps = self.run(self.images)
        (heatmaps.float() - self.target).square().mean().backward()
        self.optimizer.step()

    def forward(self) -> None:
        self.model.eval()
        with self.torch.inference_mode(), self.autocast:
            self.run(self.images)

    def wait(self) -> None:
        if self.device == "cuda":
            self.torch.cuda.synchronize()

    wait_for_step = wait_for_forward = wait

    def peak_bytes(self) -> int:
        return self.torch.cuda.max_memory_allocated() if self.device == "cuda" else 0


def measure(program: Ours | Theirs, calls: int) -> dict:
    """Milliseconds of a step and of a forward pass, and the peak of the device's memory."""
    step, host = seconds_per_call(program.step, program.wait_for_step, calls)
    peak = program.peak_bytes()
    forward, _ = seconds_per_call(program.forward, program.wait_for_forward, calls)
    return {"step": step * 1e3, "host": host * 1e3, "forward": forward * 1e3, "peak": peak}


def answer(**values: object) -> None:
    print("@@" + json.dumps(values), flush=True)


def main() -> None:
    framework, name, dtype, batch, size = sys.argv[1:]
    sizes = (name, dtype, int(batch), int(size))
    program = None
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "build":
            if framework == "jax":
                program = Ours(*sizes)
            else:
                program = Theirs(*sizes, compiled=framework == "compiled")
            answer(**program.facts, versions=program.versions)
        elif request["do"] == "measure":
            answer(**measure(program, request["calls"]))
        elif request["do"] == "profile":
            answer(**program.profile())
        else:
            break


if __name__ == "__main__":
    main()
