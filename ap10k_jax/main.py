"""Train and evaluate: `python -m ap10k_jax.main --config=configs/sl.py [--workdir=runs/sl]`.

Any field of the config can be overridden, as in `--config.model.name=hrnet_w48`; configs/base.py
says what each one means. A run started again in its directory goes on where it was. The directory
ends up with

  config.json, environment.json     what was run, on what
  metrics.jsonl, tensorboard/       numbers by step
  checkpoints/<step>/               the latest and the best by validation AP
  results.json                      the best checkpoint's AP, per species and family
  predictions-<split>.json          its keypoints, as COCO results
  animals-<split>.png               its best, median and worst animals

Try it without any download: `python -m ap10k_jax.main --config=configs/quickstart.py`.
"""

import contextlib
import functools
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from ap10k_jax import (
    checkpoint,
    codec,
    data,
    devices,
    evaluate,
    metrics,
    models,
    runlog,
    train,
    visualize,
)
from tfds_ap10k import build, synthetic, taxonomy
from tfds_ap10k.annotations import AnnotationError

CONFIG = config_flags.DEFINE_config_file("config", help_string="A file of configs/.")
WORKDIR = flags.DEFINE_string("workdir", None, "The run's directory; runs/<name of the config>.")

# Fields that change where and how fast a run goes, but not its numbers: they may differ between
# starts of the same run.
FREE_FIELDS = {
    "data.dir",
    "data.manual_dir",
    "data.loader_threads",
    "checkpoint_every_epochs",
}
PACKAGES = (
    *("ap10k_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain"),
    *("tensorflow-datasets", "numpy", "opencv-python-headless", "pycocotools"),
)


SPLITS = ("train", "validation", "test")
DTYPES = ("float32", "bfloat16", "float16")
SPECIES_AND_FAMILIES = {*taxonomy.FAMILIES, *(species.name for species in taxonomy.SPECIES)}
OVERALL = ("AP", "AP50", "AP75", "APM", "APL", "AR")


class UserError(Exception):
    """A mistake that the user can mend; shown without a traceback."""


def run(config: ConfigDict, workdir: Path) -> dict:
    """Train until the config's last epoch, score the best checkpoint, write and return results."""
    shardings = devices.shardings()
    check(config, device_count=shardings.batch.mesh.size)
    open_workdir(workdir, config)
    module = checkpoint.build_module(config)
    # A fresh run's weights come before all else: a wrong file should not be found out late.
    fresh = not checkpoint.saved_in(workdir)
    with mistakes_in("init_from", config.init_from):
        initial = train.initial_variables(config, module) if fresh else None
    with mistakes_in("data.dir", config.data.dir):
        prepare_data(config)

    splits = names(config.eval.splits)
    training = open_animals(config, "train", config.data.species)
    validation = open_animals(config, "validation", config.data.species)
    scored = {split: open_animals(config, split, config.eval.species) for split in splits}
    write_environment(workdir, {"train": training, "validation": validation, **scored})
    with mistakes_in("batch_size", config.batch_size):
        data.steps_per_epoch(len(training), config.batch_size, drop_remainder=config.drop_remainder)
    predict_step = evaluate.make_predict_step(
        module, shardings, flip_test=config.eval.flip_test, decode=config.eval.decode
    )
    train.train(config, workdir, module, initial, training, validation, predict_step, shardings)
    return score_best(config, workdir, scored, predict_step, shardings)


@contextlib.contextmanager
def mistakes_in(field: str, value: object) -> Iterator[None]:
    """Refused values become a UserError that names the field."""
    try:
        yield
    except (ValueError, ImportError) as error:
        raise UserError(f"config.{field}={value!r}: {error}") from error


def check(config: ConfigDict, *, device_count: int) -> None:
    """Raises UserError that lists every field whose value cannot work."""
    problems = []

    def expect(ok: bool, field: str, what: str) -> None:
        if not ok:
            value = functools.reduce(lambda node, name: node[name], field.split("."), config)
            problems.append(f"config.{field}={value!r}: {what}")

    known = [f"ap10k/{name}" for name in build.CONFIGS]
    expect(config.data.name in known, "data.name", f"one of {', '.join(known)}")
    size = config.data.image_size
    expect(size > 0 and size % 32 == 0, "data.image_size", "a positive multiple of 32")
    expect(config.data.loader_threads > 0, "data.loader_threads", "at least 1")
    for field in ("data.species", "eval.species"):
        section, name = field.split(".")
        unknown = [s for s in names(config[section][name]) if s not in SPECIES_AND_FAMILIES]
        expect(not unknown, field, f"{unknown} are neither species nor families of AP-10K")
    expect(config.model.name in models.MODELS, "model.name", f"one of {', '.join(models.MODELS)}")
    expect(config.model.dtype in DTYPES, "model.dtype", f"one of {', '.join(DTYPES)}")
    for field in ("epochs", "log_every_steps", "checkpoint_every_epochs"):
        expect(config[field] > 0, field, "at least 1")
    for field in ("batch_size", "eval.batch_size"):
        value = config.batch_size if field == "batch_size" else config.eval.batch_size
        fits = value > 0 and value % device_count == 0
        expect(fits, field, f"a positive multiple of the number of devices, {device_count}")
    expect(config.eval.every_epochs > 0, "eval.every_epochs", "at least 1")
    unknown = [s for s in names(config.eval.splits) if s not in SPLITS]
    expect(not unknown, "eval.splits", f"comma-separated names out of {', '.join(SPLITS)}")
    expect(config.eval.decode in codec.METHODS, "eval.decode", f"one of {', '.join(codec.METHODS)}")
    expect(config.eval.sigmas in metrics.SIGMAS, "eval.sigmas", "corrected or paper")
    if problems:
        raise UserError("the config cannot be run:\n  " + "\n  ".join(problems))


def names(text: str) -> tuple[str, ...]:
    """The entries of a comma-separated field."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def open_animals(config: ConfigDict, split: str, species: str) -> data.Animals:
    """The animals of a split; `species` names species and families, "" all of them."""
    animals = data.Animals.open(
        config.data.name,
        split,
        data_dir=config.data.dir,
        species=names(species),
        max_animals=config.data.max_animals,
    )
    if not len(animals):
        raise UserError(
            f"{config.data.name} has no animal of {species or 'any species'} in {split}"
        )
    return animals


def open_workdir(workdir: Path, config: ConfigDict) -> None:
    """Make the run's directory, or see that it belongs to the same config."""
    path = workdir / "config.json"
    wanted = json.loads(config.to_json())
    if path.exists():
        have, want = flatten(json.loads(path.read_text())), flatten(wanted)
        differing = [
            f"{name}: {have.get(name, '(none)')} there, {want.get(name, '(none)')} now"
            for name in sorted(have.keys() | want.keys())
            if have.get(name) != want.get(name) and name not in FREE_FIELDS
        ]
        if differing:
            raise UserError(
                f"{workdir} holds a run of another config; choose another --workdir, or delete it:"
                "\n  " + "\n  ".join(differing)
            )
        return
    workdir.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".tmp")
    part.write_text(json.dumps(wanted, indent=2) + "\n")
    part.replace(path)


def flatten(tree: dict, prefix: str = "") -> dict:
    """{'data.name': ...} of nested dicts."""
    flat = {}
    for name, value in tree.items():
        nested = isinstance(value, dict)
        flat |= flatten(value, f"{prefix}{name}.") if nested else {prefix + name: value}
    return flat


def prepare_data(config: ConfigDict) -> None:
    """Build the data set if that has not been done; draw it first where the config says so."""
    data_dir = Path(config.data.dir).expanduser()
    manual_dir = config.data.manual_dir
    if config.data.synthetic_images:
        manual_dir = data_dir / "drawn"
        synthetic.generate(manual_dir, images=config.data.synthetic_images)
    build.build(config.data.name.split("/")[1], manual_dir=manual_dir, data_dir=data_dir)


def write_environment(workdir: Path, animals: dict[str, data.Animals]) -> None:
    """Versions, hardware and the fingerprints of the splits; a later start appends its own."""
    path = workdir / "environment.json"
    starts = json.loads(path.read_text()) if path.exists() else []
    starts.append(
        {
            "python": platform.python_version(),
            "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
            "devices": [device.device_kind for device in jax.devices()],
            "machine": platform.platform(),
            "fingerprints": {split: a.fingerprint for split, a in animals.items()},
            "animals": {split: len(a) for split, a in animals.items()},
            "animals_without_keypoints": {split: a.unlabeled for split, a in animals.items()},
        }
    )
    path.write_text(json.dumps(starts, indent=2) + "\n")


def score_best(
    config: ConfigDict,
    workdir: Path,
    scored: dict[str, data.Animals],
    predict_step: Callable,
    shardings: devices.Shardings,
) -> dict:
    """Score the best checkpoint on each split; write results, predictions and pictures."""
    _, variables, _ = checkpoint.load(workdir)
    chosen = checkpoint.best(checkpoint.saved_in(workdir))
    variables = jax.device_put(variables, shardings.replicated)
    results = {"step": chosen.step, "sigmas": config.eval.sigmas}
    for split, animals in scored.items():
        rows = evaluate.predict(predict_step, variables, animals, config, name=split)
        results[split] = evaluate.score(animals, rows, sigmas=config.eval.sigmas)
        evaluate.write_predictions(workdir / f"predictions-{split}.json", rows)
        sheet = evaluate.picture(animals, rows, sigmas=config.eval.sigmas)
        visualize.save(workdir / f"animals-{split}.png", sheet)

    results = runlog.plain(results)
    (workdir / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    return results


def summary(results: dict, splits: tuple[str, ...]) -> str:
    """The results as a table to print: overall, families, species."""
    lines = [f"Best checkpoint: step {results['step']}; {results['sigmas']} sigmas"]
    for split in splits:
        numbers = results[split]
        lines.append(f"\n{split}: " + "  ".join(f"{k} {show(numbers[k])}" for k in OVERALL))
        for kind in ("per_family", "per_species"):
            cells = [f"{name} {show(ap)}" for name, ap in numbers[kind].items()]
            lines.append(f"  {kind.replace('_', ' ')}: " + ", ".join(cells))
    return "\n".join(lines)


def show(ap: float | None) -> str:
    """Three digits, or a dash where there was no animal to measure."""
    return "-" if ap is None else f"{ap:.3f}"


def use_compilation_cache() -> None:
    """Keep compiled steps between runs: HRNet-w32's takes minutes to compile on a small machine."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = Path("~/.cache/ap10k_jax/compiled").expanduser()
        jax.config.update("jax_compilation_cache_dir", str(folder))


def parse_flags(argv: list[str]) -> list[str]:
    """What is left of the command line after the flags; a mistaken config field is a UserError."""
    try:
        rest = flags.FLAGS(argv)
    except flags.Error as error:
        raise UserError(f"{error}; see --help") from error
    except (AttributeError, KeyError, TypeError) as error:  # from ml_collections
        raise UserError(f"no such field: {error}; configs/base.py lists them all") from error
    if not flags.FLAGS["config"].present:
        raise UserError("which config? For example --config=configs/quickstart.py; see --help")
    if len(rest) > 1:
        raise UserError(f"what is {rest[1]!r}? Options start with --; see --help")
    return rest


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)  # Orbax tells every detail otherwise
    use_compilation_cache()
    config = CONFIG.value
    name = Path(flags.FLAGS["config"].config_filename).stem
    workdir = Path(WORKDIR.value or Path("runs") / name)
    results = run(config, workdir.absolute())
    print(summary(results, names(config.eval.splits)))
    print(f"\n{workdir} holds the checkpoints, the predictions and pictures of the animals.")


def cli() -> None:
    """The command line: a user's mistake ends in one clear message and exit status 1."""
    try:
        app.run(main, flags_parser=parse_flags)
    except (UserError, AnnotationError, OSError, FloatingPointError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    cli()
