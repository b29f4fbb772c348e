"""Growth of the cost with the batch, the image, the data set and the number of devices.

    python benchmarks/scaling.py [--rounds=3]

hrnet_tiny on random crops. Sizes take turns, so that whatever else the machine does meets all of
them. Devices are virtual ones, which share this machine's cores: with them a step cannot become
faster, and what it costs more is the price of dividing it.
"""

import argparse
import os
import time
from collections.abc import Callable

os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")

import grain
import jax
import numpy as np
import optax

from ap10k_jax import keypoints, models, train
from ap10k_jax.data.animals import Animals
from ap10k_jax.runtime import sharding
from tfds_ap10k import taxonomy

BATCHES = (8, 16, 32, 64)
SIDES = (64, 128, 192, 256)
DEVICES = (1, 2, 4, 8)
ANIMALS = (1_000, 10_000, 100_000)
MODEL, BATCH, SIDE = "hrnet_tiny", 16, 128


def crops(batch: int, side: int) -> dict:
    """A batch of random bytes, which cost what photographs cost."""
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (batch, side, side, 3), dtype=np.uint8),
        "keypoints": rng.uniform(0, side, (batch, 17, 2)).astype(np.float32),
        "weights": np.ones((batch, 17), np.float32),
    }


def stepper(batch: int, side: int, count: int) -> Callable[[], None]:
    """A function that takes a training step on so many devices; compiled."""
    shardings = sharding.shardings(jax.devices()[:count])
    module, optimizer = models.build(MODEL), optax.adam(1e-3)
    variables = models.init(module, jax.random.key(0), image_size=(side, side))
    step = train.make_train_step(module, optimizer, shardings)
    arrays = sharding.split(crops(batch, side), shardings)
    state = [train.copy_to_devices(train.init_state(variables, optimizer), shardings)]

    def take() -> None:
        state[0], numbers = step(state[0], arrays)
        numbers["loss"].block_until_ready()

    take()
    return take


def in_turns(ways: dict, rounds: int) -> dict:
    """Median CPU-seconds and seconds of each way."""
    taken = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            cpu, wall = time.process_time(), time.perf_counter()
            way()
            taken[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    return {name: np.median(times, axis=0) for name, times in taken.items()}


def steps(title: str, settings: dict[object, tuple[int, int, int]], rounds: int) -> None:
    """A table of training steps at (batch, side, devices)."""
    taken = in_turns({name: stepper(*setting) for name, setting in settings.items()}, rounds)
    print(f"\n| {title} | CPU-ms / image | ms / step | images / s |\n|---|---|---|---|")
    for name, (cpu, wall) in taken.items():
        batch = settings[name][0]
        print(
            f"| {name} | {1000 * cpu / batch:.1f} | {1000 * wall:.0f} | {batch / wall:.0f} |",
            flush=True,
        )


class Records:
    """As many records as there are images; none of them is read."""

    def __init__(self, count: int):
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> dict:
        raise NotImplementedError


def annotations(animals: int) -> dict:
    species, joints = taxonomy.SPECIES, keypoints.as_category(keypoints.AP10K)
    return {
        "images": [{"id": i, "file_name": f"{i:012d}.jpg"} for i in range(animals)],
        "categories": [
            {"id": s.id, "name": s.name, "supercategory": s.family, **joints} for s in species
        ],
        "annotations": [
            {
                "id": i,
                "image_id": i,
                "category_id": species[i % len(species)].id,
                "bbox": [1.0, 2.0, 30.0, 40.0],
                "keypoints": [5.0, 6.0, 2.0] * 17,
            }
            for i in range(animals)
        ],
    }


def data_sets(rounds: int) -> None:
    """Cost of opening the animals of a data set, and of ordering an epoch of them."""
    print("\n| animals | open, CPU-ms | first order of an epoch, CPU-ms |\n|---|---|---|")
    for count in ANIMALS:
        coco, records = annotations(count), Records(count)
        opened = Animals(records, coco, fingerprint="")
        ways = {
            "open": lambda r=records, c=coco: Animals(r, c, fingerprint=""),
            "order": lambda a=opened: first_places(a),
        }
        taken = in_turns(ways, rounds)
        cells = " | ".join(f"{1000 * cpu:.1f}" for cpu, _ in taken.values())
        print(f"| {count:,} | {cells} |", flush=True)


def first_places(animals: Animals) -> list[int]:
    """The animals of the first batch of an epoch, in the order of training."""
    order = grain.MapDataset.range(len(animals)).seed(0).shuffle()
    return [order[i] for i in range(64)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    flags = parser.parse_args()
    data_sets(flags.rounds)
    steps(f"batch, {SIDE} px", {b: (b, SIDE, 1) for b in BATCHES}, flags.rounds)
    steps(f"side in px, batch {BATCH}", {s: (BATCH, s, 1) for s in SIDES}, flags.rounds)
    steps(f"devices, batch {BATCH}", {d: (BATCH, SIDE, d) for d in DEVICES}, flags.rounds)


if __name__ == "__main__":
    main()
