"""The config of a run: its file, the limits of every field, checks, comparison, overrides.

configs/base.py says what each field means and holds its default. `LIMITS` says, in the same order,
which values each field may have. The command line, `reproduce` and `checkpoint.load` all use it.
"""

import ast
import importlib
import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from ap10k_jax import codec, configs, keypoints, metrics, models
from ap10k_jax.runtime import errors


class Range(NamedTuple):
    """Numbers from `low` to `high`, both included."""

    low: float
    high: float
    multiple_of: int = 1

    def accepts(self, value: object) -> bool:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        in_range = is_number and self.low <= value <= self.high  # False for NaN
        return in_range and (self.multiple_of == 1 or value % self.multiple_of == 0)

    def __str__(self) -> str:
        if self.multiple_of > 1:
            return f"a positive multiple of {self.multiple_of}, at most {self.high}"
        return f"at least {self.low}, at most {self.high}"


class Whole(Range):
    """Whole numbers from `low` to `high`, both included."""

    def accepts(self, value: object) -> bool:
        return isinstance(value, int) and super().accepts(value)


class OneOf(NamedTuple):
    """One of a few values, or a text that matches `pattern`, such as `example`."""

    choices: Collection
    pattern: str = ""
    example: str = ""

    def accepts(self, value: object) -> bool:
        is_listed = isinstance(value, str | bool) and value in self.choices
        return is_listed or bool(self.pattern and re.fullmatch(self.pattern, str(value)))

    def __str__(self) -> str:
        listed = ", ".join(map(str, self.choices))
        return f"one of {listed}, or {self.example}" if self.example else f"one of {listed}"


class Names(NamedTuple):
    """Comma-separated names out of a few."""

    choices: tuple[str, ...]

    def accepts(self, value: object) -> bool:
        return isinstance(value, str) and set(names(value)) <= {*self.choices}

    def __str__(self) -> str:
        return f"comma-separated names out of {', '.join(self.choices)}"


class Shares(NamedTuple):
    """A list of shares of the run."""

    def accepts(self, value: object) -> bool:
        return isinstance(value, tuple | list) and all(Range(0, 1).accepts(x) for x in value)

    def __str__(self) -> str:
        return "shares of the run, from 0 to 1"


class Text(NamedTuple):
    """Any text; what it names is looked for when the run opens it."""

    def accepts(self, value: object) -> bool:
        return isinstance(value, str)

    def __str__(self) -> str:
        return "a text"


SWITCH = OneOf((True, False))
LARGEST_BATCH = 65_536  # animals
LARGEST_COUNT = 2**31 - 1  # steps, images and animals are counted in 32 bits
COUNT = Whole(0, LARGEST_COUNT)
POSITIVE_COUNT = Whole(1, LARGEST_COUNT)
SEED = Whole(0, 2**32 - 1)

# The fields of config.augment and of config.semi.weak.
AUGMENTATION = {
    "flip_probability": Range(0, 1),
    "half_body_probability": Range(0, 1),
    "half_body_min_joints": Whole(0, models.MOST_KEYPOINTS),
    "half_body_upper_probability": Range(0, 1),
    "half_body_padding": Range(0.1, 10),
    "scale_sigma": Range(0, 0.99),  # a factor of 1 - sigma must leave something
    "rotation_probability": Range(0, 1),
    "rotation_sigma": Range(0, 360),  # degrees
    "shift_probability": Range(0, 1),
    "shift": Range(0, 10),  # of the box's side
    "shift_once": SWITCH,
}

# Field of configs/base.py -> the values that it may have.
LIMITS = {
    "seed": SEED,
    "epochs": Whole(0, 10**6),
    "epochs_of_whole_split": SWITCH,
    "batch_size": Whole(1, LARGEST_BATCH),  # and a multiple of the devices, see `check`
    "drop_remainder": SWITCH,
    "batch_parts": Whole(1, LARGEST_BATCH),
    "model.name": OneOf(models.MODELS),
    "model.num_keypoints": Whole(1, models.MOST_KEYPOINTS),
    "model.dtype": OneOf(models.DTYPES),
    "model.remat": SWITCH,
    "init_from": Text(),
    "data.name": OneOf(
        (
            *("ap10k/split1", "ap10k/split2", "ap10k/split3"),
            *("animal_pose/split1", "animal_pose/split2", "animal_pose/split3"),
            "coco_keypoints/2017",
        ),
        pattern=r"own/[\w-]+",
        example="own/NAME",
    ),
    "data.dir": Text(),
    "data.manual_dir": Text(),
    "data.neck": OneOf(tuple(keypoints.ANIMAL_POSE_NECKS)),
    "data.synthetic_images": Whole(0, 10**6),
    "data.species": Text(),  # see `check`
    "data.labels_per_species": COUNT,
    "data.image_size": Whole(32, models.LARGEST_IMAGE, multiple_of=32),  # pixels
    "data.max_animals": COUNT,
    "data.loader_threads": Whole(1, 1024),
    "data.input": OneOf(("auto", "stream", "decoded", "cache", "device")),
    "draw.images": COUNT,
    "draw.shots": COUNT,
    "draw.seed": SEED,
    "semi.batch_size": Whole(0, LARGEST_BATCH),
    "semi.weight": Range(0, 10**6),
    "semi.ramp_up_steps": COUNT,
    "semi.ema_decay": Range(0, 0.999999),  # at 1 the teacher would never learn
    "semi.confidence": Range(0, 100),  # more than 1 accepts hardly anything
    "semi.agreement": Range(1e-6, 10),  # from 2 on no disagreement is too much
    "semi.boxes": Text(),
    **{f"semi.weak.{name}": limit for name, limit in AUGMENTATION.items()},
    "semi.disturbance.contrast": Range(0, 1),
    "semi.disturbance.brightness": Range(0, 1),
    "semi.disturbance.patches": Whole(0, 100),
    "semi.disturbance.patch": Range(0, 1),
    **{f"augment.{name}": limit for name, limit in AUGMENTATION.items()},
    "optimizer.learning_rate": Range(1e-12, 10),
    "optimizer.warmup_steps": COUNT,
    "optimizer.decay_at": Shares(),
    "optimizer.linear_decay": SWITCH,
    "eval.every_epochs": COUNT,
    "eval.splits": Names(("train", "validation", "test")),
    "eval.species": Text(),  # see `check`
    "eval.batch_size": Whole(1, LARGEST_BATCH),  # and a multiple of the devices, see `check`
    "eval.flip_test": SWITCH,
    "eval.decode": OneOf(codec.METHODS),
    "eval.sigmas": OneOf(tuple(metrics.SIGMAS)),
    "log_every_steps": POSITIVE_COUNT,
    "checkpoint_every_epochs": POSITIVE_COUNT,
}

# Fields that change where and how fast a run goes, but not its numbers: they may differ between
# starts of the same run.
FREE_FIELDS = {"data.dir", "data.manual_dir", "data.loader_threads", "checkpoint_every_epochs"}
# Parts of AP-10K; other data sets have species and joints of their own.
AP10K_LIKE = ("ap10k/", "animal_pose/")
# The fields that a network and the size of its crops follow from.
NETWORK_FIELDS = ("model.name", "model.num_keypoints", "model.dtype", "data.image_size")


def check(config: ConfigDict, *, device_count: int) -> None:
    """Raises UserError that lists every field whose value cannot work."""
    fields = flatten(config.to_dict())
    problems = {
        field: str(limit) for field, limit in LIMITS.items() if not limit.accepts(fields[field])
    }
    # a combination says more than the limit of a field does
    problems |= dict(_combinations(config, device_count))
    if problems:
        raise errors.UserError(
            "the config cannot be run:\n  "
            + "\n  ".join(
                f"config.{field}={fields[field]!r:.200}: {text:.500}"
                for field, text in problems.items()
            )
        )


def _combinations(config: ConfigDict, device_count: int) -> Iterator[tuple[str, str]]:
    """Fields that do not fit the devices, the data set or each other, with what they should be."""
    from tfds_ap10k import taxonomy  # loads tensorflow-datasets, which predictions do without

    known = {*taxonomy.FAMILIES, *(species.name for species in taxonomy.SPECIES)}
    for section in ("data", "eval"):
        unknown = [s for s in names(config[section].species) if s not in known]
        if unknown and config.data.name.startswith(AP10K_LIKE):
            yield f"{section}.species", f"{unknown} are neither species nor families of AP-10K"
    for field, parts in (("batch_size", config.batch_parts), ("eval.batch_size", 1)):
        size = value_of(config, field)
        if not LIMITS[field].accepts(size) or parts < 1 or size % (device_count * parts):
            text = f"a positive multiple of the number of devices, {device_count}"
            text = text if parts == 1 else f"{text}, times batch_parts={parts}"
            yield field, f"{text}, at most {LARGEST_BATCH}"
    if config.data.labels_per_species and config.draw.images:
        yield "data.labels_per_species", "0 where config.draw.images chooses the images"
    if config.semi.batch_size < 0 or config.semi.batch_size % device_count:
        yield "semi.batch_size", f"0, or a multiple of the number of devices, {device_count}"
    if config.semi.batch_size:
        if jax.process_count() > 1:
            text = "0 where processes share a run: they do not divide the animals without labels"
            yield "semi.batch_size", text
        with_labels_only = "where config.semi.batch_size is set"
        if config.batch_parts != 1:
            yield "batch_parts", f"1 {with_labels_only}"
        if config.model.remat:
            yield "model.remat", f"False {with_labels_only}"
        if config.data.input == "device":
            yield "data.input", f"not device {with_labels_only}"


def check_network(stored: Mapping, file: Path) -> None:
    """Raises ValueError, naming the file, for a stored config whose network cannot be made.

    The network's fields alone are looked at: other fields come and go between versions.
    """
    for field in NETWORK_FIELDS:
        section, name = field.split(".")
        fields = stored.get(section)
        if not isinstance(fields, dict) or name not in fields:
            raise ValueError(f"{file}: {field} is missing")
        if not LIMITS[field].accepts(fields[name]):
            raise ValueError(f"{file}: {field}={fields[name]!r:.80}: {LIMITS[field]}")


@contextmanager
def errors_of(field: str, value: object) -> Iterator[None]:
    """ValueError and ImportError become a UserError that names the field."""
    try:
        yield
    except (ValueError, ImportError) as error:
        raise errors.UserError(f"config.{field}={value!r}: {error}") from error


def value_of(config: ConfigDict, field: str) -> object:
    """The value of a dotted field such as "data.image_size"."""
    for name in field.split("."):
        config = config[name]
    return config


def flatten(tree: Mapping, prefix: str = "") -> dict:
    """{'data.name': ...} of nested dicts."""
    flat = {}
    for name, value in tree.items():
        nested = isinstance(value, dict)
        flat |= flatten(value, f"{prefix}{name}.") if nested else {prefix + name: value}
    return flat


def names(text: str) -> tuple[str, ...]:
    """The entries of a comma-separated field."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def differences(stored: dict, config: ConfigDict) -> list[str]:
    """The fields in which a run's stored config is not this one, except the free fields."""
    have, want = flatten(stored), flatten(json.loads(config.to_json()))
    for fields in (have, want):
        if fields.get("data.input") in ("stream", "decoded"):
            fields["data.input"] = "auto"  # all three give the same crops to the bit
    return [
        f"{name}: {have.get(name, '(none)')} there, {want.get(name, '(none)')} now"
        for name in sorted(have.keys() | want.keys())
        if have.get(name) != want.get(name) and name not in FREE_FIELDS
    ]


def load(name: str) -> ConfigDict:
    """The config of a file of configs/, as `sl.py` or `transfer.py:deer,few_shot`."""
    file, _, arguments = name.partition(":")
    get_config: Callable = importlib.import_module(
        f"ap10k_jax.configs.{Path(file).stem}"
    ).get_config
    return get_config(arguments) if arguments else get_config()


def override(config: ConfigDict, field: str, text: str) -> None:
    """Set a field to the value that a text stands for. Raises UserError."""
    config.update_from_flattened_dict({field: parse_value(config, field, text)})


def parse_value(config: ConfigDict, field: str, text: str) -> object:
    """The text as a value of the type that the field has. Raises UserError."""
    fields = flatten(config.to_dict())
    if field not in fields:
        raise errors.UserError(f"--set {field}: no such field; configs/base.py lists them all")
    default = fields[field]
    if isinstance(default, str):
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # as it documents
        value = text
    kinds = (float, int) if isinstance(default, float) else type(default)
    if not isinstance(value, kinds) or isinstance(value, bool) != isinstance(default, bool):
        raise errors.UserError(f"--set {field}={text:.80}: expected such as {default}")
    if not isinstance(default, float):
        return value
    if not abs(value) < math.inf:  # NaN, or digits without end
        raise errors.UserError(f"--set {field}={text:.40}: expected a finite number")
    try:
        return float(value)
    except OverflowError:
        raise errors.UserError(f"--set {field}={text:.40}: expected a finite number") from None


def installed(argument: str) -> str:
    """--config=configs/NAME.py as the path of the installed config if no such file is here."""
    match = re.fullmatch(r"(--?config=)(configs/(\w+\.py))(:.*)?", argument)
    if not match or Path(match[2]).exists():
        return argument
    path = Path(configs.__path__[0]) / match[3]
    return f"{match[1]}{path}{match[4] or ''}" if path.exists() else argument


def run_name(config_filename: str) -> str:
    """sl of configs/sl.py, transfer-deer-few_shot of configs/transfer.py:deer,few_shot."""
    path, _, arguments = config_filename.partition(":")
    return "-".join([Path(path).stem, *re.findall(r"\w+", arguments)])
