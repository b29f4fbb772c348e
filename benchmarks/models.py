"""Forward pass and training step of our networks beside PyTorch's, in turns, in one process.

    python benchmarks/models.py [--models=hrnet_w32] [--batch=8] [--size=256] [--dtype=float32]

Needs the extra `bench`. The peer is what a PyTorch user would write: timm's HRNet or ResNet as the
backbone (channels last; of HRNet's last exchange only the branch that is read, as ours), the same
head, mean squared error on ready heatmaps, Adam; eager, and with --torch_compile compiled too. Our
step normalises bytes and draws its targets in addition. Half precision is `torch.autocast` there,
the model's dtype here. Both use the accelerator where there is one. A round is two calls of each
way, after one that is not counted: as in training, where a step follows a step and finds its memory
still warm. The table has medians over all calls and ratios of medians.
"""

import argparse
import os
import resource
import time
from collections.abc import Callable

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle PyTorch threads must not spin beside us

import jax
import jax.numpy as jnp
import numpy as np
import timm
import torch
from torch import nn

from ap10k_jax import inference, models, train
from ap10k_jax import optimizer as optimizers
from ap10k_jax.runtime import sharding

BACKBONES = {
    "hrnet_w32": ("hrnet_w32", {"feature_location": "", "out_indices": (1,)}, 32),
    "hrnet_w48": ("hrnet_w48", {"feature_location": "", "out_indices": (1,)}, 48),
    "simplebaseline_resnet50": ("resnet50", {"out_indices": (4,)}, 2048),
    "simplebaseline_resnet101": ("resnet101", {"out_indices": (4,)}, 2048),
}
RATE = 5e-4


class Peer(nn.Module):
    """timm's backbone with the heads of the paper's networks."""

    def __init__(self, name: str):
        super().__init__()
        backbone, options, channels = BACKBONES[name]
        self.backbone = timm.create_model(backbone, features_only=True, **options)
        layers = []
        if name.startswith("hrnet"):
            last = self.backbone.stage4[-1]
            last.fuse_layers = last.fuse_layers[:1]
        else:
            for _ in range(3):
                layers += [nn.ConvTranspose2d(channels, 256, 4, 2, 1, bias=False)]
                layers += [nn.BatchNorm2d(256), nn.ReLU(inplace=True)]
                channels = 256
        self.head = nn.Sequential(*layers, nn.Conv2d(channels, 17, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(x)[0])


def theirs(name: str, batch: int, size: int, dtype: str, *, compiled: bool) -> dict[str, Callable]:
    """PyTorch's two functions; each returns when its result is there."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = Peer(name).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), RATE)
    scaler = torch.amp.GradScaler(device, enabled=dtype == "float16")
    x = torch.randn(batch, 3, size, size, device=device)
    x = x.contiguous(memory_format=torch.channels_last)
    target = torch.rand(batch, 17, size // 4, size // 4, device=device)
    run = torch.compile(model) if compiled else model
    half = torch.autocast(device, getattr(torch, dtype), enabled=dtype != "float32")

    def wait(value: torch.Tensor) -> float:
        return float(value.flatten()[0])  # to the host: it is there when this returns

    def forward() -> float:
        model.eval()
        with torch.inference_mode(), half:
            return wait(run(x))

    def step() -> float:
        model.train()
        optimizer.zero_grad()
        with half:
            loss = (run(x).float() - target).square().mean()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return wait(loss.detach())

    return {"forward": forward, "step": step}


def ours(name: str, batch: int, size: int, dtype: str) -> tuple[dict[str, Callable], dict]:
    """Our two functions, compiled, and what the compiler says of seconds and memory."""
    shardings = sharding.shardings(jax.devices()[:1])
    module = models.build(name, dtype=jnp.dtype(dtype))
    optimizer = optimizers.make_optimizer(jnp.dtype(dtype))
    variables = models.init(module, jax.random.key(0), image_size=(size, size))
    rng = np.random.default_rng(0)
    examples = {
        "image": rng.integers(0, 256, (batch, size, size, 3), np.uint8),
        "keypoints": rng.uniform(0, size, (batch, 17, 2)).astype(np.float32),
        "weights": np.ones((batch, 17), np.float32),
    }
    examples = jax.device_put(examples, shardings.batch)
    state = [train.copy_to_devices(train.init_state(variables, optimizer), shardings)]
    state[0] = optimizers.with_learning_rate(state[0], RATE)

    start = time.perf_counter()
    lowered = train.make_train_step(module, optimizer, shardings).lower(state[0], examples)
    traced = time.perf_counter()
    take_step = lowered.compile()
    facts = {"trace": traced - start, "compile": time.perf_counter() - traced}
    facts["memory"] = take_step.memory_analysis().temp_size_in_bytes
    predict = jax.jit(
        lambda v, x: module.apply(v, inference.normalize(x), train=False),
        compiler_options=sharding.compiler_options(shardings),
    )
    held = jax.device_put(variables, shardings.replicated)

    def forward() -> float:
        return float(predict(held, examples["image"])[0, 0, 0, 0])

    def step() -> float:
        state[0], numbers = take_step(state[0], examples)
        return float(numbers["loss"])

    return {"forward": forward, "step": step}, facts


def in_turns(ways: dict[str, Callable], rounds: int) -> dict[str, list[float]]:
    """Seconds of two calls of every way in every round; each follows a call of the same way."""
    for way in ways.values():
        way()
    seconds = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            way()
            for _ in range(2):
                start = time.perf_counter()
                way()
                seconds[name].append(time.perf_counter() - start)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default="hrnet_w32", help=f"of {', '.join(BACKBONES)}")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=256, help="side of the crops in pixels")
    parser.add_argument("--dtype", default="float32", help="or bfloat16, float16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--torch_compile", action="store_true", help="measure it compiled too")
    flags = parser.parse_args()
    chosen = flags.models.split(",")
    if unknown := [name for name in chosen if name not in BACKBONES]:
        parser.error(f"--models: {', '.join(unknown)}: there are {', '.join(BACKBONES)}")

    sharding.use_compilation_cache()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    print(f"{jax.devices()[0].device_kind}; jax {jax.__version__}, torch {torch.__version__}, ")
    print(f"timm {timm.__version__}; {flags.dtype}, batch {flags.batch}, {flags.size} px\n")
    print(
        "| network | pass | ours | torch eager | torch.compile | ours / eager | ours / compiled |"
    )
    print("|---|---|---|---|---|---|---|")
    for name in chosen:
        sizes = (flags.batch, flags.size, flags.dtype)
        mine, facts = ours(name, *sizes)
        peers = {"eager": theirs(name, *sizes, compiled=False)}
        if flags.torch_compile:
            peers["compiled"] = theirs(name, *sizes, compiled=True)
        for kind in ("forward", "step"):
            ways = {"ours": mine[kind]} | {peer: way[kind] for peer, way in peers.items()}
            seconds = in_turns(ways, flags.rounds)
            rates = {way: flags.batch / float(np.median(s)) for way, s in seconds.items()}
            compiled = rates.get("compiled")
            against_compiled = f"{rates['ours'] / compiled:.2f}" if compiled else "-"
            print(
                f"| {name} | {kind} | {rates['ours']:.2f} images/s | {rates['eager']:.2f} | "
                f"{f'{compiled:.2f}' if compiled else '-'} | "
                f"{rates['ours'] / rates['eager']:.2f} | "
                f"{against_compiled} |",
                flush=True,
            )
        print(
            f"\n{name}: trace {facts['trace']:.1f} s, compile {facts['compile']:.1f} s, "
            f"{facts['memory'] / 2**30:.2f} GiB of scratch memory for our step; peak of the "
            f"process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB\n",
            flush=True,
        )


if __name__ == "__main__":
    main()
