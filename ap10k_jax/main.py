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

import contextlib
import functools
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from ap10k_jax import (
    box_files,
    checkpoint,
    codec,
    configs,
    evaluate,
    inference,
    keypoints,
    metrics,
    models,
    run_directory,
    run_log,
    semi,
    train,
    visualize,
)
from ap10k_jax.augmentation import Augmentation
from ap10k_jax.data import batches, decoded_cache, inputs, patches, subsets
from ap10k_jax.data.animals import SPLITS, Animals, open_builder, read_annotations
from ap10k_jax.predict import predictor
from ap10k_jax.runtime import compile_cache, distributed, errors, files, sharding, signals
from tfds_ap10k import build, synthetic, taxonomy
from tfds_ap10k.annotations import AnnotationError

CONFIG = config_flags.DEFINE_config_file("config", help_string="A file of configs/.")
COORDINATOR = flags.DEFINE_string(
    "coordinator_address",
    None,
    "Several hosts: HOST:PORT of the first process. On SLURM and TPU pods they find each other.",
)
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Several hosts: how many processes.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Several hosts: which one this is, from 0.")
WORKDIR = flags.DEFINE_string("workdir", None, "The run's directory; runs/<name of the config>.")

# What the command line turns into a message.
MISTAKES = (
    errors.UserError,
    AnnotationError,
    box_files.BoxFileError,
    OSError,
    FloatingPointError,
    compile_cache.KeptStepError,
)
# With AP-10K's species and joints; other data sets have their own.
AP10K_LIKE = ("ap10k/", "animal_pose/")
LARGEST_BATCH = 65_536  # animals
MANY = 2**31 - 1  # of steps, which are counted in 32 bits
# What a number of the config can be: field, smallest, largest.
AUGMENT_BOUNDS = (
    ("flip_probability", 0, 1),
    ("half_body_probability", 0, 1),
    ("half_body_min_joints", 0, models.MOST_KEYPOINTS),
    ("half_body_upper_probability", 0, 1),
    ("half_body_padding", 0.1, 10),
    ("scale_sigma", 0, 0.99),  # a factor of 1 - sigma must leave something
    ("rotation_probability", 0, 1),
    ("rotation_sigma", 0, 360),
    ("shift_probability", 0, 1),
    ("shift", 0, 10),
)
BOUNDS = (
    ("seed", 0, 2**32 - 1),
    ("epochs", 0, 10**6),
    ("log_every_steps", 1, MANY),
    ("checkpoint_every_epochs", 1, MANY),
    ("model.num_keypoints", 1, models.MOST_KEYPOINTS),
    ("data.loader_threads", 1, 1024),
    ("data.max_animals", 0, MANY),
    ("data.synthetic_images", 0, 10**6),
    ("draw.images", 0, MANY),
    ("draw.shots", 0, MANY),
    ("draw.seed", 0, 2**32 - 1),
    *((f"augment.{name}", *limits) for name, *limits in AUGMENT_BOUNDS),
    ("optimizer.learning_rate", 1e-12, 10),
    ("optimizer.warmup_steps", 0, MANY),
    ("eval.every_epochs", 0, MANY),
    ("data.labels_per_species", 0, MANY),
    ("semi.batch_size", 0, LARGEST_BATCH),
    ("semi.weight", 0, 10**6),
    ("semi.ramp_up_steps", 0, MANY),
    ("semi.ema_decay", 0, 0.999999),  # at 1 the teacher would never learn
    ("semi.confidence", 0, 100),  # more than 1 accepts hardly anything
    ("semi.agreement", 1e-6, 10),  # from 2 on no disagreement is too much
    *((f"semi.weak.{name}", *limits) for name, *limits in AUGMENT_BOUNDS),
    ("semi.disturbance.contrast", 0, 1),
    ("semi.disturbance.brightness", 0, 1),
    ("semi.disturbance.patches", 0, 100),
    ("semi.disturbance.patch", 0, 1),
)
SPECIES_AND_FAMILIES = {*taxonomy.FAMILIES, *(species.name for species in taxonomy.SPECIES)}
OVERALL = ("AP", "AP50", "AP75", "APM", "APL", "AR")


def run(config: ConfigDict, workdir: Path, *, store: compile_cache.Store | None = None) -> dict:
    """Train until the config's last epoch, score the best checkpoint, write and return results.

    `store` keeps compiled steps between processes that run the source files as they are.
    """
    shardings = sharding.shardings()
    check(config, device_count=shardings.batch.mesh.size)
    full = "make room, and start the same command again; the last checkpoint is kept"
    closed = "choose another --workdir"
    with files.trouble(workdir, full=full, closed=closed), contextlib.ExitStack() as held:
        with distributed.first_ahead("--workdir"):
            if distributed.is_first():
                held.enter_context(run_directory.locked(workdir))
        return run_here(config, workdir, shardings, store)


def run_here(
    config: ConfigDict,
    workdir: Path,
    shardings: sharding.Shardings,
    store: compile_cache.Store | None,
) -> dict:
    """`run`, in a directory that no other run uses."""
    run_directory.check(workdir, config)
    is_there = (workdir / "checkpoints").is_dir()
    distributed.agree(config=config.to_json(), workdir=str(workdir), checkpoints=is_there)
    saved = checkpoint.saved_in(workdir)
    distributed.agree(checkpoints=saved)
    module = checkpoint.build_module(config)
    # A fresh run's weights come before all else: a wrong file should not be found out late.
    initial = None
    if config.init_from and not saved:
        with mistakes_in("init_from", config.init_from):
            initial = train.initial_variables(config, module)
    with distributed.first_ahead("data.dir"), mistakes_in("data.dir", config.data.dir):
        prepare_data(config)
    joints = check_against_data(config)
    if not saved:
        with mistakes_in("init_from", config.init_from):
            check_joints(config, joints)

    found = open_builder(config.data.name, config.data.dir).info.metadata["report"]
    drawn = draw_images(config, workdir) if config.draw.images else {}
    splits = names(config.eval.splits)
    scored = {split: open_animals(config, split, config.eval.species, drawn) for split in splits}
    predict_step = inference.make_predict_step(
        *(module, shardings),
        pairs=joints.pairs,
        flip_test=config.eval.flip_test,
        decode=config.eval.decode,
    )
    if not config.epochs:
        begin(workdir, config, joints, scored, found=found)
        initial = initial or train.initial_variables(config, module)
        return score(config, workdir, scored, predict_step, shardings, initial, step=0)

    training = open_animals(config, "train", config.data.species, drawn)
    validation = open_animals(config, "validation", config.data.species, drawn)
    hidden = None
    if config.data.labels_per_species:
        training, hidden = few_labels(config, workdir, training)
    with mistakes_in("batch_size", config.batch_size):
        batches.steps_per_epoch(
            len(training), config.batch_size, drop_remainder=config.drop_remainder
        )
    with mistakes_in("eval.splits", config.eval.splits):
        check_unseen(training, {name: scored[name] for name in splits if name == "test"})
    unlabelled = {}
    if config.semi.batch_size:
        with mistakes_in("semi.batch_size", config.semi.batch_size):
            unlabelled = semi.open_pool(config, hidden, num_keypoints=len(joints))
    with mistakes_in("data.input", config.data.input):
        source = choose_input(config, training)
    # Only now: a mistake until here can be mended in the same place.
    opened = {"train": training, "validation": validation, **scored, **unlabelled}
    begin(workdir, config, joints, opened, source=source.kind, found=found)
    if source.kind == "device":
        # a photograph that cannot be decoded
        with distributed.first_ahead("patches"), mistakes_in("data.name", config.data.name):
            source.examples.fill(threads=config.data.loader_threads)
    passes = train.epochs_as_passes(config, passes_per_epoch(config, training))
    method = train.supervised(passes, training, shardings, source)
    whole = len(training) >= config.batch_size
    if whole and not unlabelled and source.kind != "device" and jax.process_count() == 1:
        step = train.compile_ahead(config, module, shardings, store=store)
        method = method._replace(make_step=lambda *_, **__: step)
    if initial is None and not saved:
        initial = train.initial_variables(config, module)
    if unlabelled:
        sources = list(unlabelled.values())
        method = semi.mean_teacher(passes, method, sources, shardings, training.keypoint_set)
    train.train(
        *(passes, workdir, module, initial, training, validation, predict_step, shardings),
        method,
    )
    if unlabelled and distributed.is_first():
        semi.write_curve(workdir)
    _, variables, _ = checkpoint.load(workdir)
    chosen = checkpoint.best(checkpoint.saved_in(workdir))
    return score(config, workdir, scored, predict_step, shardings, variables, step=chosen.step)


def begin(
    workdir: Path,
    config: ConfigDict,
    joints: keypoints.KeypointSet,
    animals: dict[str, Animals],
    *,
    source: str | None = None,
    found: Mapping | None = None,
) -> None:
    """Write what is known of the run before its first step, and see that all processes see it."""
    distributed.agree(data={split: a.fingerprint for split, a in animals.items()})
    with distributed.first_ahead("--workdir"):
        if distributed.is_first():
            run_directory.open_run(workdir, config, joints)
            run_directory.write_environment(workdir, animals, source=source, found=found)
        else:
            distributed.wait_for(workdir / "config.json")


@contextlib.contextmanager
def mistakes_in(field: str, value: object) -> Iterator[None]:
    """Refused values become a UserError that names the field."""
    try:
        yield
    except (ValueError, ImportError) as error:
        raise errors.UserError(f"config.{field}={value!r}: {error}") from error


def check(config: ConfigDict, *, device_count: int) -> None:
    """Raises UserError that lists every field whose value cannot work."""
    problems = []

    def expect(ok: bool, field: str, what: str) -> None:
        if not ok:
            problems.append(f"config.{field}={value_of(config, field)!r:.200}: {what:.500}")

    known = [f"{d}/{name}" for d, b in build.DATASETS.items() for name in b.builder_configs]
    is_known = config.data.name in known or re.fullmatch(r"own/[\w-]+", config.data.name)
    expect(is_known, "data.name", f"one of {', '.join(known)}, or own/NAME")
    necks = keypoints.ANIMAL_POSE_NECKS
    expect(config.data.neck in necks, "data.neck", f"one of {', '.join(necks)}")
    size = config.data.image_size
    largest = models.LARGEST_IMAGE
    fits = 0 < size <= largest and size % 32 == 0
    expect(fits, "data.image_size", f"a positive multiple of 32, at most {largest}")
    choices = f"one of {', '.join(inputs.INPUTS)}"
    text = inputs.REMOVED.get(config.data.input, choices)
    expect(config.data.input in inputs.INPUTS, "data.input", text)
    for field, low, high in BOUNDS:
        value = value_of(config, field)
        expect(low <= value <= high, field, f"at least {low}, at most {high}")  # refuses NaN too
    shares = config.optimizer.decay_at
    fits = all(isinstance(share, int | float) and 0 <= share <= 1 for share in shares)
    expect(fits, "optimizer.decay_at", "shares of the run, from 0 to 1")
    for field in ("data.species", "eval.species"):
        section, name = field.split(".")
        unknown = [s for s in names(config[section][name]) if s not in SPECIES_AND_FAMILIES]
        if config.data.name.startswith(AP10K_LIKE):
            expect(not unknown, field, f"{unknown} are neither species nor families of AP-10K")
    expect(config.model.name in models.MODELS, "model.name", f"one of {', '.join(models.MODELS)}")
    dtypes = models.DTYPES
    expect(config.model.dtype in dtypes, "model.dtype", f"one of {', '.join(dtypes)}")
    for field in ("batch_size", "eval.batch_size"):
        value = value_of(config, field)
        parts = config.batch_parts if field == "batch_size" else 1
        fits = 0 < value <= LARGEST_BATCH and parts > 0 and value % (device_count * parts) == 0
        text = f"a positive multiple of the number of devices, {device_count}"
        text = text if parts == 1 else f"{text}, times batch_parts={parts}"
        expect(fits, field, f"{text}, at most {LARGEST_BATCH}")
    alone = not (config.data.labels_per_species and config.draw.images)
    expect(alone, "data.labels_per_species", "0 where config.draw.images chooses the images")
    fits = config.semi.batch_size >= 0 and config.semi.batch_size % device_count == 0
    expect(fits, "semi.batch_size", f"0, or a multiple of the number of devices, {device_count}")
    alone = jax.process_count() == 1 or not config.semi.batch_size
    expect(alone, "semi.batch_size", "0 where processes share a run: they do not divide the pool")
    if config.semi.batch_size:
        with_labels_only = "where config.semi.batch_size is set"
        expect(config.batch_parts == 1, "batch_parts", f"1 {with_labels_only}")
        expect(not config.model.remat, "model.remat", f"False {with_labels_only}")
        expect(config.data.input != "device", "data.input", f"not device {with_labels_only}")
    unknown = [s for s in names(config.eval.splits) if s not in SPLITS]
    expect(not unknown, "eval.splits", f"comma-separated names out of {', '.join(SPLITS)}")
    expect(config.eval.decode in codec.METHODS, "eval.decode", f"one of {', '.join(codec.METHODS)}")
    expect(config.eval.sigmas in metrics.SIGMAS, "eval.sigmas", "corrected or paper")
    if problems:
        raise errors.UserError("the config cannot be run:\n  " + "\n  ".join(problems))


def value_of(config: ConfigDict, field: str) -> object:
    """What the config has under a name as data.image_size."""
    return functools.reduce(lambda node, name: node[name], field.split("."), config)


def check_against_data(config: ConfigDict) -> keypoints.KeypointSet:
    """The joints of the built data set; UserError names what the config asks in vain."""
    name = config.data.name
    contents = read_annotations(open_builder(name, config.data.dir), config.data.neck)
    joints = keypoints.of_annotations(next(iter(contents.values())))
    asked, has = config.model.num_keypoints, len(joints)
    if asked != has:
        raise errors.UserError(f"config.model.num_keypoints={asked}: {name} has {has} keypoints")
    with mistakes_in("eval.sigmas", config.eval.sigmas):
        metrics.sigmas_of(joints, config.eval.sigmas)
    absent = [s for s in names(config.eval.splits) if s not in contents]
    if absent and not config.draw.images:
        splits = config.eval.splits
        has = ", ".join(contents)
        raise errors.UserError(f"config.eval.splits={splits!r}: {name} has {has} only")
    categories = [c for coco in contents.values() for c in coco["categories"]]
    there = {c[field] for c in categories for field in ("name", "supercategory")}
    for section in ("data", "eval"):
        species = config[section].species
        unknown = [s for s in names(species) if s not in there]
        # of AP-10K's those that a part of it lacks are no mistake
        if unknown and not name.startswith(AP10K_LIKE):
            text = f"{unknown} are neither species nor families of {name}"
            raise errors.UserError(f"config.{section}.species={species!r}: {text}")
    return joints


def check_joints(config: ConfigDict, joints: keypoints.KeypointSet) -> None:
    """Raises ValueError where a network is to be scored, untrained, on joints that it never saw.

    People have 17 joints in COCO as animals have in AP-10K: nothing but their names tells.
    """
    source = config.init_from
    if source == "coco":
        found = keypoints.COCO_PERSON
    elif source and Path(source).expanduser().is_dir():
        try:
            found = predictor.keypoint_set(checkpoint.config_of(source))
        except ValueError:
            if not config.epochs:  # training teaches it the joints, whatever they were
                raise
            return
    else:
        return
    if found.names == joints.names:
        return
    other = next((name for name in found.names if name not in joints.names), found.names[-1])
    text = f"finds {len(found)} other joints, as {other!r}, than {config.data.name} has"
    if not config.epochs:
        raise ValueError(f"{text}; without training (config.epochs=0) its numbers mean nothing")
    print(f"{source} {text}: its last layer has to learn them anew")


def check_unseen(training: Animals, tests: dict[str, Animals]) -> None:
    """Raises ValueError where photographs are trained on and tested on."""
    seen = {training.image(i)["file_name"] for i in range(len(training))}
    for name, animals in tests.items():
        both = sorted(seen & {animals.image(i)["file_name"] for i in range(len(animals))})
        if both:
            text = f"{len(both)} photographs of {name} are trained on, such as {both[0]}"
            raise ValueError(f"{text}: build the data set anew")


def names(text: str) -> tuple[str, ...]:
    """The entries of a comma-separated field."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def open_animals(config: ConfigDict, split: str, species: str, drawn: dict) -> Animals:
    """The animals of a split; `species` names species and families, "" all of them.

    Of images that `draw_images` chose, validation is what is trained on: no others are left.
    """
    part = "test" if split == "test" else "train"
    animals = Animals.open(
        config.data.name,
        "all" if drawn else split,
        data_dir=config.data.dir,
        species=names(species),
        images=frozenset(drawn[part]) if drawn else None,
        max_animals=config.data.max_animals,
        neck=config.data.neck,
    )
    if not len(animals):
        raise errors.UserError(
            f"{config.data.name} has no animal of {species or 'any species'} in {split}"
        )
    return animals


def passes_per_epoch(config: ConfigDict, training: Animals) -> float:
    """Passes over the training animals in an epoch of the config; printed where it is not 1.

    With `epochs_of_whole_split` an epoch shows as many images as the whole training split has.
    """
    if not config.epochs_of_whole_split:
        return 1.0
    whole, own = (
        len({animals.annotation(i)["image_id"] for i in range(len(animals))})
        for animals in (open_animals(config, "train", "", {}), training)
    )
    print(f"an epoch is {whole} images, as of the whole split: {whole / own:.2f} passes over {own}")
    return whole / own


def choose_input(config: ConfigDict, animals: Animals) -> inputs.Input:
    """Where training crops come from; printed. Raises ValueError, see `inputs.choose`."""
    folder = Path(config.data.dir).expanduser()
    pixels = decoded_cache.DecodedPhotographs(animals, folder / "photographs")
    small = patches.Patches(
        animals,
        folder / "patches",
        image_size=config.data.image_size,
        augmentation=Augmentation(**config.augment),
    )
    source = inputs.choose(config.data.input, pixels, small, jax.local_devices()[0])
    print(f"training crops: {source.kind} ({source.reason})")
    return source


def draw_images(config: ConfigDict, workdir: Path) -> dict:
    """The images to train on and to test on, see `subsets.draw`; written to draw.json."""
    plain = config.copy_and_resolve_references()
    plain.data.max_animals = 0
    animals = open_animals(plain, "all", config.data.species, {})
    with mistakes_in("draw.images", config.draw.images):
        drawn = subsets.draw(animals, images=config.draw.images, seed=config.draw.seed)
    drawn["train"] = drawn["train"][: config.draw.shots or None]
    write_choice(workdir / "draw.json", drawn)
    return drawn


def few_labels(config: ConfigDict, workdir: Path, training: Animals) -> tuple[Animals, Animals]:
    """The animals that keep their labels and those that do not; written to labels.json."""
    count = config.data.labels_per_species
    with mistakes_in("data.labels_per_species", count):
        chosen = subsets.few_labels(training, images=count, seed=config.seed)
    write_choice(workdir / "labels.json", chosen)
    return training.of_images({*chosen["labelled"]}), training.of_images({*chosen["hidden"]})


def write_choice(path: Path, chosen: dict) -> None:
    """Write which images a run uses; UserError if it has begun with others."""
    if path.exists() and run_directory.read_json(path, dict) != chosen:
        raise errors.UserError(
            f"{path} names other images: the data set has changed since; delete the run"
        )
    if distributed.is_first():
        path.parent.mkdir(parents=True, exist_ok=True)
        run_directory.write_json(path, chosen)


def prepare_data(config: ConfigDict) -> None:
    """Build the data set if that has not been done; draw it first where the config says so."""
    data_dir = Path(config.data.dir).expanduser()
    manual_dir = config.data.manual_dir
    if config.data.synthetic_images:
        manual_dir = data_dir / "drawn"
        synthetic.generate(manual_dir, images=config.data.synthetic_images)
    dataset, name = config.data.name.split("/")
    build.build(name, manual_dir=manual_dir, data_dir=data_dir, dataset=dataset)


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
    with distributed.first_ahead("results.json"):
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


def installed_config(argument: str) -> str:
    """--config=configs/NAME.py as the path of the installed config if no such file is here."""
    match = re.fullmatch(r"(--?config=)(configs/(\w+\.py))(:.*)?", argument)
    if not match or Path(match[2]).exists():
        return argument
    path = Path(configs.__path__[0]) / match[3]
    return f"{match[1]}{path}{match[4] or ''}" if path.exists() else argument


def parse_flags(argv: list[str]) -> list[str]:
    """What is left of the command line after the flags; a mistaken config field is a UserError."""
    try:
        rest = flags.FLAGS([argv[0], *map(installed_config, argv[1:])])
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
    workdir = Path(WORKDIR.value or Path("runs") / name_of(flags.FLAGS["config"].config_filename))
    store = compile_cache.Store(sharding.compilation_cache() / "steps")
    results = run(config, workdir.absolute(), store=store)
    print(summary(results, names(config.eval.splits)))
    print(f"\n{workdir} holds the checkpoints, the predictions and pictures of the animals.")


def name_of(config_filename: str) -> str:
    """sl of configs/sl.py, transfer-deer-few_shot of configs/transfer.py:deer,few_shot."""
    path, _, arguments = config_filename.partition(":")
    return "-".join([Path(path).stem, *re.findall(r"\w+", arguments)])


def cli() -> None:
    """The command line: a user's mistake ends in one clear message and exit status 1.

    Told to stop it ends with 143 or 130, see runtime/signals.py.
    """
    with distributed.ended_by_errors():
        try:
            with signals.handled():
                app.run(main, flags_parser=parse_flags)
        except signals.Stopped as stopped:
            print(stopped, file=sys.stderr)
            sys.exit(stopped.status)
        except MISTAKES as error:
            sys.exit(f"error: {error}")


if __name__ == "__main__":
    cli()
