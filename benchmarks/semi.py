"""Gain from photographs without labels beside few labels, on drawn animals, by seed.

    python benchmarks/semi.py --out=runs/semi-benchmark [--seeds=1,2,3] [--only=labels,teacher,all]

Of every species 5 photographs have labels, drawn from the seed. Labels alone teach a start of 171
passes; from there on all arms take the same number of steps of as many labelled animals:

- labels: as before;
- averaged: the running average of that network, which costs nothing: what a teacher is without
  pseudo-labels;
- teacher: configs/semi.py, the mean teacher that learns from all other photographs of train, too;
- all: every photograph of train with its labels, which nothing without them could be expected to
  reach.

The first three see the same labelled animals in the same order. Every arm is scored after its last
step, on validation and test. What is finished in the folder is not run again.
"""

import argparse
import json
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from ap10k_jax import checkpoint, evaluate, inference, run, run_directory, semi, train
from ap10k_jax import optimizer as optimizers
from ap10k_jax.configs import few_label
from ap10k_jax.configs import semi as semi_config
from ap10k_jax.data import batches, subsets
from ap10k_jax.data.animals import Animals
from ap10k_jax.runtime import sharding

LABELS = "5,quickstart"
IMAGES = 3000
SIZE = 96  # pixels a side of the crop
START = ({"epochs": 57}, {"epochs": 114, "learning_rate": 1e-3, "warmup_steps": 20})
PASSES = 171  # over the labelled animals, after the start: about 1,200 steps
SPLITS = ("validation", "test")


def configured(config: ConfigDict, folder: Path, seed: int, **fields: float) -> ConfigDict:
    """The config at 96 px, its epochs counted in passes; `fields` are its or its optimizer's."""
    config.seed = seed
    config.data.dir = str(folder / "data")
    config.data.synthetic_images = IMAGES
    config.data.image_size = SIZE
    config.data.loader_threads = 2
    config.epochs_of_whole_split = False
    config.eval.every_epochs = 0
    for name, value in fields.items():
        node = config if name in config else config.optimizer
        node[name] = value
    config.checkpoint_every_epochs = config.epochs
    return config


def started(folder: Path, seed: int) -> Path:
    """The run whose weights all arms of a seed start from."""
    init_from = ""
    for number, fields in enumerate(START):
        workdir = folder / f"start{number}-{seed}"
        if not (workdir / "results.json").exists():
            config = few_label.get_config(LABELS)
            run.run(configured(config, folder, seed, init_from=init_from, **fields), workdir)
        init_from = str(workdir)
    return workdir


def learn(folder: Path, seed: int, arm: str) -> dict[str, dict[str, float]]:
    """AP of an arm on each split; the arm `labels` comes with `averaged`."""
    module, variables, _ = checkpoint.load(started(folder, seed))
    get_config = (semi_config if arm == "teacher" else few_label).get_config
    later = START[-1] | {"epochs": PASSES}
    config = configured(get_config(LABELS), folder, seed, **later)
    config.seed = seed + 1000  # another order than the start's; the labels stay
    shardings = sharding.shardings()
    opened = {
        split: Animals.open(config.data.name, split, data_dir=config.data.dir)
        for split in ("train", *SPLITS)
    }
    animals = opened["train"]
    chosen = subsets.few_labels(animals, images=config.data.labels_per_species, seed=seed)
    labelled, hidden = (animals.of_images({*chosen[part]}) for part in ("labelled", "hidden"))
    per_pass = batches.steps_per_epoch(
        len(labelled), config.batch_size, drop_remainder=config.drop_remainder
    )
    labelled = animals if arm == "all" else labelled
    method = train.supervised(config, labelled, shardings)
    if arm == "teacher":
        method = semi.mean_teacher(config, method, [hidden], shardings, animals.keypoint_set)

    optimizer = optimizers.make_optimizer(np.float32)
    state = train.copy_to_devices(method.init_state(variables, optimizer), shardings)
    step = method.make_step(module, optimizer, shardings)
    rate, steps = optimizers.learning_rate(config, per_pass), per_pass * config.epochs
    average = jax.jit(
        lambda teacher, student, number: semi.averaged(
            teacher, student, semi.ema_decay(number, decay=config.semi.ema_decay)
        )
    )
    averaged = jax.tree.map(np.asarray, variables)
    for number, batch in zip(range(steps), method.batches, strict=False):
        batch = {name: batch[name] for name in method.inputs}
        state, numbers = step(optimizers.with_learning_rate(state, rate(number)), batch)
        if arm == "labels":
            averaged = average(averaged, state.variables, number)
        if number % 100 == 99:
            print(f"{arm} {seed}: step {number + 1}, {describe(numbers)}", flush=True)

    kinds = {"labels": state.variables, "averaged": averaged}
    kinds = kinds if arm == "labels" else {arm: state.variables}
    predict_step = inference.make_predict_step(module, shardings, pairs=animals.keypoint_set.pairs)
    return {
        kind: {
            split: evaluate.score(
                opened[split],
                evaluate.predict(predict_step, found, opened[split], config, name=split),
                sigmas=config.eval.sigmas,
            )["AP"]
            for split in SPLITS
        }
        for kind, found in kinds.items()
    }


def describe(numbers: dict) -> str:
    """A step's numbers; those of pseudo-labels are (sum, count) pairs."""
    plain = {name: np.asarray(value) for name, value in numbers.items()}
    ratios = {name: x[0] / max(x[1], 1) if x.ndim else x for name, x in plain.items()}
    return ", ".join(f"{name} {float(value):.4f}" for name, value in ratios.items())


def run_all() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--only", default="labels,teacher,all", help="which arms")
    flags = parser.parse_args()
    sharding.use_compilation_cache()
    folder, seeds = flags.out.absolute(), [int(seed) for seed in flags.seeds.split(",")]
    found = {}
    for seed in seeds:
        for arm in flags.only.split(","):
            path = folder / f"{arm}-{seed}.json"
            if not path.exists():
                run_directory.write_json(path, learn(folder, seed, arm))
            for kind, scores in json.loads(path.read_text()).items():
                found.setdefault(kind, {})[seed] = scores
    print(f"\n| AP | {' | '.join(f'seed {seed}' for seed in seeds)} | mean +- sample deviation |")
    print("|---" * (len(seeds) + 2) + "|")
    for split in SPLITS:
        for kind, scores in found.items():
            values = [scores[seed][split] for seed in seeds]
            cells = " | ".join(f"{value:.3f}" for value in values)
            spread = f"{np.mean(values):.3f} +- {np.std(values, ddof=len(values) > 1):.3f}"
            print(f"| {kind}, {split} | {cells} | {spread} |")


if __name__ == "__main__":
    run_all()
