"""Train and evaluate: `python -m ap10k_jax.main --config=configs/sl.py [--workdir=runs/sl]`.

Any field of the config can be overridden, as in `--config.model.name=hrnet_w48`; configs/base.py
says what each one means. A run started again in its directory goes on where it was; told to stop
(SIGTERM, Ctrl-C) it saves at the step it has reached. The directory ends up with

  config.json, environment.json     what was run, on what
  keypoints.json                    the joints, as a COCO category declares them
  metrics.jsonl, tensorboard/       numbers by step
  checkpoints/<step>/               the latest and the best by validation AP
  results.json                      the best checkpoint's AP, per species and family
  draw.json                         the images that config.draw chose
  labels.json                       those that keep their labels by config.data.labels_per_species
  pseudo_labels.png                 how good the labels were that config.semi gave the others
  predictions-<split>.json          its keypoints, as COCO results
  animals-<split>.png               its best, median and worst animals

Try it without any download: `python -m ap10k_jax.main --config=configs/quickstart.py`.
"""

import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from ap10k_jax import settings
from ap10k_jax.run import run, summary
from ap10k_jax.runtime import command_line, compile_cache, distributed, errors, sharding, signals

CONFIG = config_flags.DEFINE_config_file("config", help_string="A file of configs/.")
COORDINATOR = flags.DEFINE_string(
    "coordinator-address",
    None,
    "Several hosts: HOST:PORT of the first process. On SLURM and TPU pods they find each other.",
)
NUM_PROCESSES = flags.DEFINE_integer("num-processes", None, "Several hosts: how many processes.")
PROCESS_ID = flags.DEFINE_integer("process-id", None, "Several hosts: which one this is, from 0.")
WORKDIR = flags.DEFINE_string("workdir", None, "The run's directory; runs/<name of the config>.")


def spelled(argument: str) -> str:
    """The argument with hyphens in the name of a flag of ours; absl's own have underscores."""
    own = command_line.hyphenated(argument)
    return own if own[2:].partition("=")[0] in flags.FLAGS else argument


def parse_flags(argv: list[str]) -> list[str]:
    """The command line without its flags. Raises UserError for a mistaken flag or field."""
    try:
        rest = flags.FLAGS([argv[0], *map(settings.installed, map(spelled, argv[1:]))])
    except flags.Error as error:
        raise errors.UserError(f"{error}; see --help") from error
    except (AttributeError, KeyError, TypeError) as error:  # from ml_collections
        raise errors.UserError(f"no such field: {error}; configs/base.py lists them all") from error
    if not flags.FLAGS["config"].present:
        example = "--config=configs/quickstart.py"
        raise errors.UserError(f"which config? For example {example}; see --help")
    if len(rest) > 1:
        raise errors.UserError(f"what is {rest[1]!r}? Options start with --; see --help")
    return rest


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)  # Orbax tells every detail otherwise
    distributed.join(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
    sharding.use_compilation_cache()
    config = CONFIG.value
    workdir = Path(
        WORKDIR.value or Path("runs") / settings.run_name(flags.FLAGS["config"].config_filename)
    )
    step_cache = compile_cache.StepCache(sharding.compilation_cache() / "steps")
    results = run(config, workdir.absolute(), step_cache=step_cache)
    print(summary(results, settings.names(config.eval.splits)))
    print(f"\n{workdir} holds the checkpoints, the predictions and pictures of the animals.")


def cli() -> None:
    """The command line: a user's mistake ends in one clear message and exit status 1.

    Told to stop it ends with 143 or 130, see runtime/signals.py.
    """
    with distributed.ended_by_errors(), errors.reported():
        try:
            with signals.handled():
                app.run(main, flags_parser=parse_flags)
        except signals.Stopped as stopped:
            print(stopped, file=sys.stderr)
            sys.exit(stopped.status)


if __name__ == "__main__":
    cli()
