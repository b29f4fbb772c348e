"""A user's mistake ends in one clear message before anything is computed or lost."""

import subprocess
import sys
from pathlib import Path

import pytest

from ap10k_jax import run, run_directory, settings
from ap10k_jax.configs import base
from ap10k_jax.runtime import errors
from tfds_ap10k import sources

ROOT = Path(__file__).parents[1]


def command(*arguments, cwd):
    """The command line, from anywhere."""
    return subprocess.run(
        [sys.executable, "-m", "ap10k_jax.main", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "which config? For example --config=configs/quickstart.py"),
        (["--config=configs/nothing.py"], "configs/nothing.py"),
        (["--config=configs/quickstart.py", "--config.epoch=3"], "configs/base.py lists them all"),
        (["--config=configs/quickstart.py", "--config.epochs=few"], "--config.epochs=few"),
        (["--config=configs/quickstart.py", "again"], "what is 'again'?"),
        (
            ["--config=configs/sl.py", "--config.data.dir=nowhere", "--workdir=DIR"],
            "--config=configs/quickstart.py",  # the way without a download
        ),
    ],
)
def test_a_mistake_on_the_command_line_is_explained_without_a_traceback(
    tmp_path, arguments, message
):
    arguments = [a.replace("DIR", str(tmp_path / "run")) for a in arguments]
    done = command(*arguments, cwd=ROOT)
    assert done.returncode != 0
    assert message in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_help_teaches(tmp_path):
    text = command("--help", cwd=tmp_path).stdout
    for word in ("--config", "--workdir", "configs/quickstart.py", "results.json"):
        assert word in text


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("model.name", "hrnet_w33", "hrnet_w32"),
        ("model.dtype", "int8", "bfloat16"),
        ("data.name", "ap10k/split4", "ap10k/split3"),
        ("data.name", "coco", "ap10k/split1"),
        ("data.image_size", 100, "multiple of 32"),
        ("data.neck", "nape", "one of throat, midpoint"),
        ("data.species", "horse,unicorn", "unicorn"),
        ("eval.species", "Felidae,unicorn", "unicorn"),
        ("eval.splits", "validation,val", "validation, test"),
        ("eval.decode", "udp", "dark"),
        ("eval.sigmas", "coco", "paper"),
        ("batch_size", 20, "number of devices, 8"),
        ("eval.batch_size", 0, "number of devices, 8"),
        ("epochs", -1, "at least 0"),
        ("draw.images", -1, "at least 0"),
        ("log_every_steps", 0, "at least 1"),
        ("eval.every_epochs", -1, "at least 0"),
    ],
)
def test_a_value_that_cannot_work_is_named_with_its_field(field, value, message):
    config = base.get_config()
    *section, name = field.split(".")
    (config[section[0]] if section else config)[name] = value
    with pytest.raises(errors.UserError) as error:
        settings.check(config, device_count=8)
    assert f"config.{field}" in str(error.value)
    assert message in str(error.value)


def test_all_mistakes_are_listed_at_once():
    config = base.get_config()
    config.model.name, config.batch_size = "none", -1
    with pytest.raises(errors.UserError, match=r"(?s)config.batch_size.*config.model.name"):
        settings.check(config, device_count=8)


def test_the_papers_config_is_in_order():
    settings.check(base.get_config(), device_count=8)


def test_a_directory_with_another_runs_config_is_not_touched(config, tmp_path):
    run_directory.open_run(tmp_path / "run", config)
    before = (tmp_path / "run" / "config.json").read_text()
    config.epochs, config.model.name = 3, "hrnet_tiny"
    with pytest.raises(errors.UserError, match=r"(?s)epochs: 2 there.*model.name: nano there"):
        run_directory.open_run(tmp_path / "run", config)
    assert (tmp_path / "run" / "config.json").read_text() == before


def test_where_the_data_lies_may_change_between_starts(config, tmp_path):
    run_directory.open_run(tmp_path / "run", config)
    config.data.dir, config.data.loader_threads = "elsewhere", 1
    run_directory.open_run(tmp_path / "run", config)


def test_missing_data_gives_instructions_before_any_training(config, tmp_path):
    config.data.synthetic_images = 0
    config.data.dir = str(tmp_path / "nowhere")
    with pytest.raises(sources.DataNotFound, match="AlexTheBad/AP-10K"):
        run.run(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("init_from", "message"),
    [("no/such/file.pth", "no/such/file.pth"), ("README.md", "README.md")],
)
def test_initial_weights_that_cannot_be_read_are_named(config, tmp_path, init_from, message):
    config.init_from = init_from
    with pytest.raises((errors.UserError, FileNotFoundError), match=message):
        run.run(config, tmp_path / "run")


def test_a_species_without_animals_is_said(config, tmp_path):
    config.data.species = "gorilla"
    with pytest.raises(errors.UserError, match="no animal of gorilla in train"):
        run.run(config, tmp_path / "run")
