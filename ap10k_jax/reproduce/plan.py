"""The plan: the runs behind a table, their states, and the cost of what is still to run.

The run directories are the only state: a cell is finished when its directory holds the results of
exactly the config of that cell.
"""

import fnmatch
import functools
import math
import shlex
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import tensorflow_datasets as tfds
from ml_collections import ConfigDict

import tfds_ap10k  # noqa: F401  registers the builders
from ap10k_jax import configs, initial_weights, keypoints, run_directory, run_log, settings
from ap10k_jax.reproduce import tables
from ap10k_jax.runtime import errors
from tfds_ap10k import taxonomy

# The states of a cell: done, to do, half done, or the reason why it cannot be done.
FINISHED, TO_RUN, BEGUN = "finished", "to run", "begun"
OTHER, IMPOSSIBLE, BLOCKED = "another config", "impossible", "blocked"
RUNNABLE = (TO_RUN, BEGUN)

# Training images and animals of split 1 in the official files, to plan with where the data set is
# not built (of Animal-Pose seven tenths): those of whole data sets and of the families trained on.
PUBLISHED = {
    "ap10k": (7023, 9122),
    "animal_pose": (3226, 4282),
    "Bovidae": (755, 1467),
    "Canidae": (980, 1130),
    "Cercopithecidae": (476, 623),
    "Felidae": (1342, 1457),
}
ANIMALS_PER_IMAGE = 13_028 / 10_015


class Step(NamedTuple):
    """A cell of the plan."""

    cell: tables.Cell
    config: ConfigDict
    workdir: Path
    state: str
    why: str  # of a state that needs a reason
    crops: int  # training crops that the whole run sees


def config_of(cell: tables.Cell, assignments: Sequence[str], runs: Path) -> ConfigDict:
    """The cell's config with the user's assignments, `[GLOB:]FIELD=VALUE`; `runs` holds all runs.

    Raises errors.UserError for those that name no field or do not fit it.
    """
    config = settings.load(cell.config)
    for field, value in cell.overrides.items():
        config.update_from_flattened_dict({field: value})
    for assignment in assignments:
        pattern, field, text = parse_setting(assignment)
        if fnmatch.fnmatchcase(cell.name, pattern):
            settings.override(config, field, text)
    # Whatever they say of these: they make the cell what it is.
    if cell.after:
        config.init_from = str(runs / cell.after)
    if is_scoring_alone(cell):
        config.epochs = 0
    return config


def is_scoring_alone(cell: tables.Cell) -> bool:
    """True if the cell scores another one's weights as they are."""
    return cell.overrides.get("epochs", settings.load(cell.config).epochs) == 0


def changed(step: Step) -> tuple[str, ...]:
    """The fields in which a cell is not the paper's, as `epochs=20`, free fields aside."""
    papers = config_of(step.cell, (), step.workdir)
    have, want = (
        settings.flatten(step.config.to_dict()),
        settings.flatten(papers.to_dict()),
    )
    fixed = settings.FREE_FIELDS | ({"init_from"} if step.cell.after else set())
    return tuple(f"{k}={v}" for k, v in have.items() if k not in fixed and v != want[k])


def parse_setting(setting: str) -> tuple[str, str, str]:
    """GLOB, FIELD and VALUE of `[GLOB:]FIELD=VALUE`."""
    name, equals, value = setting.partition("=")
    pattern, _, field = name.rpartition(":")
    if not equals:
        raise errors.UserError(f"--set {setting}: expected [GLOB:]FIELD=VALUE")
    return pattern or "*", field, value


def command(step: Step) -> list[str]:
    """The command line of a cell: its config file, and the fields that differ from it."""
    folder = Path(configs.__path__[0])
    if folder.is_relative_to(Path.cwd()):
        folder = folder.relative_to(Path.cwd())
    plain = settings.flatten(settings.load(step.cell.config).to_dict())
    fields = settings.flatten(step.config.to_dict())
    changed = [f"--config.{k}={v}" for k, v in fields.items() if v != plain[k]]
    start = ["python", "-m", "ap10k_jax.main", f"--config={folder / step.cell.config}"]
    return [*start, f"--workdir={step.workdir}", *changed]


def job(step: Step) -> str:
    """The command line, quoted for a shell, with the cell that must be finished before it."""
    after = f"  # after {step.cell.after}" if step.cell.after else ""
    return shlex.join(command(step)) + after


def make(cells: Sequence[tables.Cell], assignments: Sequence[str], runs: Path) -> list[Step]:
    """The cells in their order with config, state and cost."""
    steps = {}
    for cell in cells:
        config = config_of(cell, assignments, runs)
        state = state_of(config, runs / cell.name, after=cell.after)
        step = Step(cell, config, runs / cell.name, *state, 0)
        before = steps.get(cell.after)
        if before and step.state in RUNNABLE and before.state in (IMPOSSIBLE, OTHER, BLOCKED):
            step = step._replace(state=BLOCKED, why=f"{cell.after}: {before.state}")
        steps[cell.name] = step._replace(crops=crops(config))
    return list(steps.values())


def state_of(config: ConfigDict, workdir: Path, *, after: str = "") -> tuple[str, str]:
    """The state of a run directory, and the reason of a state that needs one."""
    if (workdir / "config.json").exists():
        stored = run_directory.read_json(workdir / "config.json", dict)
        if after and str(stored.get("init_from")).endswith(f"/{after}"):
            # all runs together may have been moved since
            stored["init_from"] = config.init_from
        differing = settings.differences(stored, config)
        if differing:
            return OTHER, "; ".join(differing)
        if (workdir / "results.json").exists():
            return FINISHED, ""
    reason = no_weights(config) or no_animals(config)
    if reason:
        return IMPOSSIBLE, reason
    return (BEGUN if (workdir / "config.json").exists() else TO_RUN), ""


def no_weights(config: ConfigDict) -> str:
    """The reason why there are no initial weights for the config; "" if there may be some."""
    models = initial_weights.PUBLIC.get(config.init_from)
    if models is None or config.model.name in models:
        return ""
    return f"nobody published {config.init_from} weights of {config.model.name}"


def no_animals(config: ConfigDict) -> str:
    """The animals that the built data set lacks; "" if none, or if it is not built."""
    counts = built(config.data.name, config.data.dir)
    if counts is None:
        return ""
    if config.draw.images:
        images = sum(animals_of(counts[split]["images"], config.data.species) for split in counts)
        enough = images > config.draw.images
        if not images:
            return f"no animals of {config.data.species}"
        return (
            "" if enough else f"{images} images of {config.data.species} are too few to draw from"
        )
    wanted = [(split, config.eval.species) for split in settings.names(config.eval.splits)]
    if config.epochs:
        wanted += [("train", config.data.species), ("validation", config.data.species)]
    lacking = [
        f"no animals of {species or 'any species'} in {split}"
        for split, species in dict.fromkeys(wanted)
        if not animals_of(counts[split]["animals"], species)
    ]
    return "; ".join(lacking)


def animals_of(counts: Counter, species: str) -> int:
    """The count of these species and families, or of all if none is named."""
    wanted = settings.names(species)
    return sum(
        n
        for name, n in counts.items()
        if not wanted or name in wanted or taxonomy.family_of(name) in wanted
    )


@functools.cache
def built(name: str, data_dir: str) -> dict[str, dict[str, Counter]] | None:
    """Animals and images by species of a data set's splits; None if it has not been built."""
    builder = tfds.builder(name, data_dir=Path(data_dir).expanduser())
    if not builder.info.initialized:
        return None
    result = {}
    for split, coco in builder.info.metadata["annotations"].items():
        names = {category["id"]: category["name"] for category in coco["categories"]}
        labelled = [a for a in coco["annotations"] if keypoints.is_animal(a)]
        pairs = {(a["image_id"], a["category_id"]) for a in labelled}
        result[split] = {
            "animals": Counter(names[a["category_id"]] for a in labelled),
            "images": Counter(names[species] for _, species in pairs),
        }
    return result


def crops(config: ConfigDict) -> int:
    """Training crops of a whole run; an estimate for drawn images and data not built."""
    if config.draw.images:
        images = min(config.draw.shots or config.draw.images, config.draw.images)
        return round(config.epochs * images * ANIMALS_PER_IMAGE)
    whole, images, animals = training_counts(config)
    passes = whole / images if config.epochs_of_whole_split and images else 1
    return max(1, round(config.epochs * passes)) * animals if config.epochs else 0


def training_counts(config: ConfigDict) -> tuple[int, int, int]:
    """Images of the whole training split, and images and animals of the species trained on.

    They are counted in the built data set. Without one they are split 1's published numbers: those
    of the family for any of its species, and those of the whole data set for several families.
    """
    counts = built(config.data.name, config.data.dir)
    if counts is None:
        whole, all_animals = PUBLISHED[config.data.name.split("/")[0]]
        families = {
            name if name in taxonomy.FAMILIES else taxonomy.family_of(name)
            for name in settings.names(config.data.species)
        }
        family = families.pop() if len(families) == 1 else ""
        images, animals = PUBLISHED.get(family, (whole, all_animals))
    else:
        train = counts["train"]
        whole = train["images"].total()
        images = animals_of(train["images"], config.data.species)
        animals = animals_of(train["animals"], config.data.species)
    limit = config.data.max_animals or math.inf
    return min(whole, limit), min(images, limit), min(animals, limit)


def measured_rates(runs: Path) -> dict[str, float]:
    """Median training crops a second of each model, from what the runs have logged."""
    rates = {}
    for path in sorted(runs.glob("**/metrics.jsonl")):
        config = path.parent / "config.json"
        lines = [line for line in run_log.read(path) if "images_per_second" in line]
        if lines and config.exists():
            model = settings.flatten(run_directory.read_json(config, dict)).get("model.name", "")
            rates.setdefault(model, []).extend(line["images_per_second"] for line in lines)
    return {model: statistics.median(values) for model, values in rates.items()}
