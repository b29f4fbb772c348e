"""One run from a config to its results: check, open, choose, begin, train, score.

`run` does all of it in a directory; ap10k_jax/main.py is its command line and lists the files that
a run writes. Of a run's several processes all call it; the first alone writes.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import flax.linen as nn
import jax
from ml_collections import ConfigDict

from ap10k_jax import (
    checkpoint,
    evaluate,
    inference,
    initial_weights,
    keypoints,
    metrics,
    models,
    run_data,
    run_directory,
    run_log,
    semi,
    settings,
    train,
    train_loop,
    visualize,
)
from ap10k_jax.data import inputs
from ap10k_jax.data.animals import Animals, open_builder
from ap10k_jax.report import plots
from ap10k_jax.runtime import compile_cache, distributed, files, sharding

OVERALL = ("AP", "AP50", "AP75", "APM", "APL", "AR")


def run(
    config: ConfigDict, workdir: Path, *, step_cache: compile_cache.StepCache | None = None
) -> dict:
    """Train until the config's last epoch, score the best checkpoint, write and return results.

    `step_cache` keeps compiled steps between processes that run the source files as they are.
    """
    shardings = sharding.shardings()
    settings.check(config, device_count=shardings.batch.mesh.size)
    with exclusive(workdir):
        saved = saved_checkpoints(config, workdir)
        module = checkpoint.build_module(config)
        # before all else: a wrong file should not be found out late
        initial = named_weights(config, module) if config.init_from and not saved else None
        run_data.prepare(config)
        joints = run_data.check(config, is_begun=bool(saved))
        opened = run_data.open_all(config, workdir, joints)
        source = run_data.choose_input(config, opened.training) if config.epochs else None
        # Only now: a mistake until here can be mended in the same place.
        begin(config, workdir, joints, opened, source)
        predict_step = inference.make_predict_step(
            module,
            shardings,
            pairs=joints.pairs,
            flip_test=config.eval.flip_test,
            decode=config.eval.decode,
        )
        if config.epochs:
            learn(
                config,
                workdir,
                module,
                initial,
                opened,
                source,
                predict_step,
                shardings,
                step_cache,
            )
            step, variables = best_weights(workdir)
        else:
            step, variables = 0, initial or initial_variables(config, module)
        return score(config, workdir, opened.scored, predict_step, shardings, variables, step=step)


@contextlib.contextmanager
def exclusive(workdir: Path) -> Iterator[None]:
    """The run's directory, used by no other run. A disk that is full or read-only is explained."""
    full = "make room, and start the same command again; the last checkpoint is kept"
    closed = "choose another --workdir"
    with (
        files.explain_disk_errors(workdir, full=full, closed=closed),
        contextlib.ExitStack() as stack,
    ):
        with distributed.first_process_first("--workdir"):
            if distributed.is_first():
                stack.enter_context(run_directory.locked(workdir))
        yield


def saved_checkpoints(config: ConfigDict, workdir: Path) -> list[checkpoint.Saved]:
    """The checkpoints of a run begun before. Raises UserError if it was a run of another config."""
    run_directory.check(workdir, config)
    has_checkpoints = (workdir / "checkpoints").is_dir()
    distributed.agree(config=config.to_json(), workdir=str(workdir), checkpoints=has_checkpoints)
    saved = checkpoint.saved_in(workdir)
    distributed.agree(checkpoints=saved)
    return saved


def named_weights(config: ConfigDict, module: nn.Module) -> dict:
    """The variables that `config.init_from` names. Raises UserError."""
    with settings.errors_of("init_from", config.init_from):
        return initial_variables(config, module)


def begin(
    config: ConfigDict,
    workdir: Path,
    joints: keypoints.KeypointSet,
    opened: run_data.Opened,
    source: inputs.Input | None,
) -> None:
    """Write what is known of the run before its first step, and see that all processes see it."""
    animals = opened.by_name()
    report = open_builder(config.data.name, config.data.dir).info.metadata["report"]
    distributed.agree(data={split: a.fingerprint for split, a in animals.items()})
    with distributed.first_process_first("--workdir"):
        if distributed.is_first():
            run_directory.open_run(workdir, config, joints)
            kind = source.kind if source else None
            run_directory.write_environment(workdir, animals, source=kind, report=report)
        else:
            distributed.wait_for(workdir / "config.json")


def initial_variables(config: ConfigDict, module: nn.Module) -> dict:
    """Random weights, or those that `config.init_from` names (see configs/base.py)."""
    source, size = config.init_from, (config.data.image_size,) * 2
    key = jax.random.key(config.seed)
    if not source:
        return models.init(module, key, image_size=size)
    if Path(source).expanduser().is_dir():
        if is_unfinished(Path(source).expanduser()):
            raise ValueError(
                f"{source} has not been trained to its end; name one of its checkpoints/<step> to "
                "start from that"
            )
        _, variables, _ = checkpoint.load(source)
        differing = other_shapes(variables, models.shapes(module, image_size=size))
        if not differing:
            return variables
        if not all(path[1].startswith("head") for path in differing):
            raise ValueError(f"{source} holds another model than {config.model.name}")
        print(f"{source} was trained on other joints; their last layer starts anew")
        fresh = models.init(module, key, image_size=size)
        return jax.tree.map(lambda a, b: a if a.shape == b.shape else b, variables, fresh)
    with distributed.first_process_first("init_from"):  # may be a download
        variables, report = initial_weights.load(
            source, config.model.name, config.model.num_keypoints, key=key
        )
    print(report)
    return variables


def other_shapes(variables: dict, wanted: dict) -> list[tuple[str, ...]]:
    """Paths, as ('params', 'head', 'bias'), of arrays of other shapes or in only one tree."""
    have, want = (
        {
            tuple(entry.key for entry in path): leaf.shape
            for path, leaf in jax.tree.leaves_with_path(tree)
        }
        for tree in (variables, wanted)
    )
    return sorted(path for path in have | want if have.get(path) != want.get(path))


def is_unfinished(workdir: Path) -> bool:
    """True for the directory of a run whose results are still to come."""
    return (workdir / "checkpoints").is_dir() and not (workdir / "results.json").exists()


def learn(
    config: ConfigDict,
    workdir: Path,
    module: nn.Module,
    initial: dict | None,
    opened: run_data.Opened,
    source: inputs.Input,
    predict_step: Callable,
    shardings: sharding.Shardings,
    step_cache: compile_cache.StepCache | None,
) -> None:
    """Train to the last epoch; `initial` is None for random weights, or if a run goes on."""
    if source.kind == "device":
        # a photograph that cannot be decoded
        with (
            distributed.first_process_first("patches"),
            settings.errors_of("data.name", config.data.name),
        ):
            source.examples.fill(threads=config.data.loader_threads)
    training = opened.training
    passes = run_data.epochs_as_passes(config, run_data.passes_per_epoch(config, training))
    method = train.supervised(passes, training, shardings, source)
    has_whole_batch = len(training) >= config.batch_size
    is_usual = has_whole_batch and source.kind != "device" and not opened.unlabelled
    if is_usual and jax.process_count() == 1:
        step = train.compile_in_background(config, module, shardings, step_cache=step_cache)
        method = method._replace(make_step=lambda *_, **__: step)
    if initial is None and not checkpoint.saved_in(workdir):
        initial = initial_variables(config, module)
    if opened.unlabelled:
        sources = list(opened.unlabelled.values())
        method = semi.mean_teacher(passes, method, sources, shardings, training.keypoint_set)
    train_loop.train(
        passes,
        workdir,
        module,
        initial,
        training,
        opened.validation,
        predict_step,
        shardings,
        method,
    )
    if opened.unlabelled and distributed.is_first():
        lines = run_log.read(workdir / "metrics.jsonl")
        png = plots.png(plots.pseudo_labels(lines))
        (workdir / "pseudo_labels.png").write_bytes(png)


def best_weights(workdir: Path) -> tuple[int, dict]:
    """Step and variables of the best checkpoint by validation AP."""
    _, variables, _ = checkpoint.load(workdir)
    return checkpoint.best(checkpoint.saved_in(workdir)).step, variables


def score(
    config: ConfigDict,
    workdir: Path,
    scored: dict[str, Animals],
    predict_step: Callable,
    shardings: sharding.Shardings,
    variables: dict,
    *,
    step: int,
) -> dict:
    """Score these variables on each split; write results, predictions and pictures."""
    variables = sharding.replicate(variables, shardings)
    results = {"step": step, "sigmas": config.eval.sigmas}
    for split, animals in scored.items():
        rows = evaluate.predict(
            *(predict_step, variables, animals, config), name=split, shardings=shardings
        )
        results[split] = evaluate.full_score(animals, rows, sigmas=config.eval.sigmas)
        results["sigmas"] = results[split]["sigmas"]  # joints of one's own have others
        if distributed.is_first():
            evaluate.write_predictions(workdir / f"predictions-{split}.json", rows)
            sheet = evaluate.picture(animals, rows, sigmas=config.eval.sigmas)
            visualize.save(workdir / f"animals-{split}.png", sheet)

    results = run_log.plain(results)
    with distributed.first_process_first("results.json"):
        if distributed.is_first():
            run_directory.write_json(workdir / "results.json", results)  # stands for a finished run
    return results


def summary(results: dict, splits: tuple[str, ...]) -> str:
    """The results as a table to print: overall, families, species."""
    chosen = f"Best checkpoint: step {results['step']}" if results["step"] else "Initial weights"
    lines = [f"{chosen}; {results['sigmas']} sigmas"]
    for split in splits:
        numbers = results[split]
        if numbers.get("area_over_box", 1) != 1:
            lines.append(
                f"{split}: areas are {numbers['area_over_box']:g} of the boxes' in the median; in "
                "AP-10K they are the boxes': not comparable"
            )
        lines.append(
            f"\n{split}: " + "  ".join(f"{k} {metrics.format_ap(numbers[k])}" for k in OVERALL)
        )
        for kind in ("per_family", "per_species"):
            cells = [f"{name} {metrics.format_ap(ap)}" for name, ap in numbers[kind].items()]
            lines.append(f"  {kind.replace('_', ' ')}: " + ", ".join(cells))
    return "\n".join(lines)
