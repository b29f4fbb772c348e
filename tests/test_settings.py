"""The limits cover every field, name what the data packages know, and refuse the rest."""

import dataclasses
import json
import math

import pytest

from ap10k_jax import checkpoint, settings
from ap10k_jax.configs import base
from ap10k_jax.data import animals, inputs, unlabeled
from tfds_ap10k import build


def test_every_field_has_a_limit():
    assert settings.LIMITS.keys() == settings.flatten(base.get_config().to_dict()).keys()


def test_every_default_is_within_its_limit():
    fields = settings.flatten(base.get_config().to_dict())
    refused = [name for name, limit in settings.LIMITS.items() if not limit.accepts(fields[name])]
    assert not refused


def test_the_limits_name_what_the_data_packages_know():
    names = [f"{d}/{name}" for d, b in build.DATASETS.items() for name in b.builder_configs]
    assert settings.LIMITS["data.name"].choices == tuple(names)
    assert settings.LIMITS["data.input"].choices == inputs.INPUTS
    assert settings.LIMITS["eval.splits"].choices == animals.SPLITS


def test_the_defaults_of_the_mean_teacher_are_those_of_the_data_package():
    semi = base.get_config().semi
    assert semi.weak.to_dict() == dataclasses.asdict(unlabeled.WEAK)
    assert semi.disturbance.to_dict() == dataclasses.asdict(unlabeled.Disturbance())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", True),  # a switch is no number
        ("epochs", 1.5),
        ("semi.weight", math.nan),
        ("semi.weight", math.inf),
        ("data.image_size", 0),
        ("data.image_size", 33),
        ("model.name", ["hrnet_w32"]),
        ("data.name", "own/a b"),
        ("data.name", "ap10k/split1/"),
        ("data.dir", None),
        ("eval.splits", "train;test"),
        ("optimizer.decay_at", (0.5, math.nan)),
        ("optimizer.decay_at", 0.5),
        ("model.remat", 2),
    ],
)
def test_a_value_outside_of_its_limit_is_refused(field, value):
    assert not settings.LIMITS[field].accepts(value)


@pytest.mark.parametrize("field", settings.NETWORK_FIELDS)
def test_a_stored_config_obeys_the_same_limits(field, tmp_path):
    config = base.get_config().to_dict()
    (tmp_path / "variables").mkdir()
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config))
    assert checkpoint.config_of(tmp_path) == json.loads(json.dumps(config))
    section, name = field.split(".")
    config[section][name] = -1
    file.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=rf"{file}: {field}=-1: {settings.LIMITS[field]}"):
        checkpoint.config_of(tmp_path)
