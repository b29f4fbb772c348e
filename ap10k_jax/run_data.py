"""The data of a run: built, checked against the config, and opened.

Every mistake is a UserError that names the field of the config.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from ap10k_jax import checkpoint, keypoints, metrics, run_directory, settings
from ap10k_jax.augmentation import Augmentation
from ap10k_jax.data import animals as data
from ap10k_jax.data import batches, decoded_cache, inputs, patches, subsets, unlabeled
from ap10k_jax.data.animals import Animals, open_builder, read_annotations
from ap10k_jax.predict import predictor
from ap10k_jax.runtime import distributed, errors
from tfds_ap10k import build, synthetic


class Opened(NamedTuple):
    """The animals of a run; without training there are only those to score."""

    scored: dict[str, Animals]  # by split, at the end of the run
    training: Animals | None = None
    validation: Animals | None = None
    unlabelled: Mapping[str, Sequence[dict]] = {}  # sources of the mean teacher, see semi.py

    def by_name(self) -> dict:
        """All of them, as environment.json lists them."""
        trained_on = {"train": self.training, "validation": self.validation}
        return {
            **(trained_on if self.training is not None else {}),
            **self.scored,
            **self.unlabelled,
        }


def prepare(config: ConfigDict) -> None:
    """Build the data set if that has not been done, on the first process. Raises UserError."""
    with (
        distributed.first_process_first("data.dir"),
        settings.errors_of("data.dir", config.data.dir),
    ):
        build_dataset(config)


def build_dataset(config: ConfigDict) -> None:
    """Build the data set if that has not been done; draw it first where the config says so."""
    data_dir = Path(config.data.dir).expanduser()
    manual_dir = config.data.manual_dir
    if config.data.synthetic_images:
        manual_dir = data_dir / "drawn"
        synthetic.generate(manual_dir, images=config.data.synthetic_images)
    dataset, name = config.data.name.split("/")
    build.build(name, manual_dir=manual_dir, data_dir=data_dir, dataset=dataset)


def check(config: ConfigDict, *, is_begun: bool) -> keypoints.KeypointSet:
    """The joints of the built data set. Raises UserError where the config does not fit them."""
    joints = check_against_data(config)
    if not is_begun:
        with settings.errors_of("init_from", config.init_from):
            check_joints(config, joints)
    return joints


def check_against_data(config: ConfigDict) -> keypoints.KeypointSet:
    """The joints of the built data set; UserError names what the config asks in vain."""
    name = config.data.name
    contents = read_annotations(open_builder(name, config.data.dir), config.data.neck)
    joints = keypoints.of_annotations(next(iter(contents.values())))
    asked, has = config.model.num_keypoints, len(joints)
    if asked != has:
        raise errors.UserError(f"config.model.num_keypoints={asked}: {name} has {has} keypoints")
    with settings.errors_of("eval.sigmas", config.eval.sigmas):
        metrics.sigmas_of(joints, config.eval.sigmas)
    absent = [s for s in settings.names(config.eval.splits) if s not in contents]
    if absent and not config.draw.images:
        splits = config.eval.splits
        has = ", ".join(contents)
        raise errors.UserError(f"config.eval.splits={splits!r}: {name} has {has} only")
    categories = [c for coco in contents.values() for c in coco["categories"]]
    there = {c[field] for c in categories for field in ("name", "supercategory")}
    for section in ("data", "eval"):
        species = config[section].species
        unknown = [s for s in settings.names(species) if s not in there]
        # of AP-10K's those that a part of it lacks are no mistake
        if unknown and not name.startswith(settings.AP10K_LIKE):
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


def open_all(config: ConfigDict, workdir: Path, joints: keypoints.KeypointSet) -> Opened:
    """Open the animals that the run needs. Raises UserError where there are none."""
    drawn = draw_images(config, workdir) if config.draw.images else {}
    splits = settings.names(config.eval.splits)
    scored = {split: open_animals(config, split, config.eval.species, drawn) for split in splits}
    if not config.epochs:
        return Opened(scored)
    training = open_animals(config, "train", config.data.species, drawn)
    validation = open_animals(config, "validation", config.data.species, drawn)
    hidden = None
    if config.data.labels_per_species:
        training, hidden = few_labels(config, workdir, training)
    with settings.errors_of("batch_size", config.batch_size):
        batches.steps_per_epoch(
            len(training), config.batch_size, drop_remainder=config.drop_remainder
        )
    with settings.errors_of("eval.splits", config.eval.splits):
        check_unseen(training, {name: scored[name] for name in splits if name == "test"})
    unlabelled = {}
    if config.semi.batch_size:
        with settings.errors_of("semi.batch_size", config.semi.batch_size):
            unlabelled = open_unlabelled(config, hidden, num_keypoints=len(joints))
    return Opened(scored, training, validation, unlabelled)


def open_animals(config: ConfigDict, split: str, species: str, drawn: dict) -> Animals:
    """The animals of a split; `species` names species and families, "" all of them.

    Of images that `draw_images` chose, validation is what is trained on: no others are left.
    """
    part = "test" if split == "test" else "train"
    animals = Animals.open(
        config.data.name,
        "all" if drawn else split,
        data_dir=config.data.dir,
        species=settings.names(species),
        images=frozenset(drawn[part]) if drawn else None,
        max_animals=config.data.max_animals,
        neck=config.data.neck,
    )
    if not len(animals):
        raise errors.UserError(
            f"{config.data.name} has no animal of {species or 'any species'} in {split}"
        )
    return animals


def open_unlabelled(
    config: ConfigDict, hidden: data.Animals | None, *, num_keypoints: int
) -> dict[str, Sequence[dict]]:
    """The sources of animals without labels: train's hidden ones, and the split `unlabeled`.

    Raises ValueError where there is none at all, and boxes.BoxFileError.
    """
    sources = {} if hidden is None else {"hidden": hidden}
    photographs = unlabeled.Photographs.open(
        config.data.name,
        data_dir=config.data.dir,
        box_file=config.semi.boxes,
        num_keypoints=num_keypoints,
    )
    if photographs is not None:
        for reason, count in photographs.left_out.items():
            if count:
                print(f"{count} photographs of the split unlabeled are left out: {reason}")
        sources["unlabeled"] = photographs
    sources = {name: source for name, source in sources.items() if len(source)}
    if not sources:
        raise ValueError(
            f"{config.data.name} has no animals without labels: no split unlabeled (python -m "
            "tfds_ap10k.build --help says how it gets one), and config.data.labels_per_species "
            "hides none"
        )
    return sources


def draw_images(config: ConfigDict, workdir: Path) -> dict:
    """The images to train on and to test on, see `subsets.draw`; written to draw.json."""
    plain = config.copy_and_resolve_references()
    plain.data.max_animals = 0
    animals = open_animals(plain, "all", config.data.species, {})
    with settings.errors_of("draw.images", config.draw.images):
        drawn = subsets.draw(animals, images=config.draw.images, seed=config.draw.seed)
    drawn["train"] = drawn["train"][: config.draw.shots or None]
    write_choice(workdir / "draw.json", drawn)
    return drawn


def few_labels(config: ConfigDict, workdir: Path, training: Animals) -> tuple[Animals, Animals]:
    """The animals that keep their labels and those that do not; written to labels.json."""
    count = config.data.labels_per_species
    with settings.errors_of("data.labels_per_species", count):
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


def check_unseen(training: Animals, tests: dict[str, Animals]) -> None:
    """Raises ValueError where photographs are trained on and tested on."""
    seen = {training.image(i)["file_name"] for i in range(len(training))}
    for name, animals in tests.items():
        both = sorted(seen & {animals.image(i)["file_name"] for i in range(len(animals))})
        if both:
            text = f"{len(both)} photographs of {name} are trained on, such as {both[0]}"
            raise ValueError(f"{text}: build the data set anew")


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


def epochs_as_passes(config: ConfigDict, passes: float) -> ConfigDict:
    """The config with everything that it counts in epochs as passes over the training animals.

    An epoch is `passes` of them. The numbers are rounded to whole passes, and are at least 1.
    """
    if passes == 1:
        return config
    config = config.copy_and_resolve_references()
    config.epochs = max(1, round(config.epochs * passes))
    config.checkpoint_every_epochs = max(1, round(config.checkpoint_every_epochs * passes))
    if config.eval.every_epochs:
        config.eval.every_epochs = max(1, round(config.eval.every_epochs * passes))
    return config


def choose_input(config: ConfigDict, animals: Animals) -> inputs.Input:
    """The source of training crops; printed. Raises UserError, see `inputs.choose`."""
    folder = Path(config.data.dir).expanduser()
    pixels = decoded_cache.DecodedPhotographs(animals, folder / "photographs")
    small = patches.Patches(
        animals,
        folder / "patches",
        image_size=config.data.image_size,
        augmentation=Augmentation(**config.augment),
    )
    with settings.errors_of("data.input", config.data.input):
        source = inputs.choose(config.data.input, pixels, small, jax.local_devices()[0])
    print(f"training crops: {source.kind} ({source.reason})")
    return source
