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

import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from ap10k_jax import checkpoint, data, devices, evaluate, models, runlog, train, visualize
from tfds_ap10k import build, synthetic
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


OVERALL = ("AP", "AP50", "AP75", "APM", "APL", "AR")


class UserError(Exception):
    """A mistake that the user can mend; shown without a traceback."""


def run(config: ConfigDict, workdir: Path) -> dict:
    """Train until the config's last epoch, score the best checkpoint, write and return results."""
    check(config)
    shardings = devices.shardings()
    open_workdir(workdir, config)
    prepare_data(config)

    def animals(split: str) -> data.Animals:
        return data.Animals.open(
            config.data.name,
            split,
            data_dir=config.data.dir,
            max_animals=config.data.max_animals,
        )

    scored = {split: animals(split) for split in dict.fromkeys(("validation", *config.eval.splits))}
    training = animals("train")
    write_environment(workdir, {"train": training, **scored})
    predict_step = evaluate.make_predict_step(
        checkpoint.build_module(config),
        shardings,
        flip_test=config.eval.flip_test,
        decode=config.eval.decode,
    )
    train.train(config, workdir, training, scored["validation"], predict_step, shardings)
    final = {split: scored[split] for split in config.eval.splits}
    return score_best(config, workdir, final, predict_step, shardings)


def check(config: ConfigDict) -> None:
    """Raises UserError that lists every field whose value cannot work."""
    problems = []
    if config.model.name not in models.MODELS:
        problems.append(
            f"config.model.name={config.model.name!r}: one of {', '.join(models.MODELS)}"
        )
    for field in ("epochs", "batch_size", "log_every_steps", "checkpoint_every_epochs"):
        if config[field] < 1:
            problems.append(f"config.{field}={config[field]}: at least 1")
    if config.data.image_size % 32 or config.data.image_size < 32:
        problems.append(f"config.data.image_size={config.data.image_size}: a multiple of 32")
    if config.eval.decode not in ("default", "dark"):
        problems.append(f"config.eval.decode={config.eval.decode!r}: default or dark")
    if config.eval.sigmas not in ("corrected", "paper"):
        problems.append(f"config.eval.sigmas={config.eval.sigmas!r}: corrected or paper")
    unknown = [s for s in config.eval.splits if s not in ("train", "validation", "test")]
    if unknown:
        problems.append(f"config.eval.splits: {unknown} are not among train, validation, test")
    if problems:
        raise UserError("the config cannot be run:\n  " + "\n  ".join(problems))


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
    with checkpoint.Checkpoints(workdir / "checkpoints") as checkpoints:
        chosen = checkpoint.best(checkpoints.saved())
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


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise UserError(f"what is {argv[1]!r}? Options start with --; see --help")
    if flags.FLAGS["config"].config_filename is None:
        raise UserError("which config? For example --config=configs/quickstart.py; see --help")
    logging.set_verbosity(logging.WARNING)  # Orbax tells every detail otherwise
    use_compilation_cache()
    config = CONFIG.value
    name = Path(flags.FLAGS["config"].config_filename).stem
    workdir = Path(WORKDIR.value or Path("runs") / name)
    results = run(config, workdir.absolute())
    print(summary(results, config.eval.splits))
    print(f"\n{workdir} holds the checkpoints, the predictions and pictures of the animals.")


def cli() -> None:
    """The command line: a user's mistake ends in one clear message and exit status 1."""
    try:
        app.run(main)
    except (UserError, AnnotationError, OSError, FloatingPointError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    cli()
