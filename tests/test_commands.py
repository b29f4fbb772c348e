"""All commands: the list of them, how they spell flags, and how they report mistakes."""

import ast
import importlib
import re
import sys
from pathlib import Path

import commands
import pytest

from ap10k_jax import __main__ as overview
from ap10k_jax import main
from ap10k_jax.runtime import command_line, errors

ROOT = Path(__file__).parents[1]
LISTED = [name for name in overview.COMMANDS if name != "ap10k_jax.main"]
# A mistake that each command finds before it computes anything, `{}` being an empty folder.
MISTAKES = {
    "ap10k_jax.predict": ["{}/none", "{}/none.jpg"],
    "ap10k_jax.demo": ["{}/none"],
    "ap10k_jax.reproduce": ["--table=3", "--cells=none", "--workdir={}"],
    "ap10k_jax.run_report": ["{}/none"],
    "ap10k_jax.convert": ["{}/none.pth", "{}/dest", "--model=hrnet_w32"],
    "ap10k_jax.export": ["{}/none", "{}/dest"],
    "tfds_ap10k.build": ["--manual-dir={}/none", "--data-dir={}/built"],
    "tfds_ap10k.synthetic": ["{}/full", "--images=1"],
    "tfds_ap10k.describe": ["{}/none.json"],
    "tfds_ap10k.checks": ["{}/none.json"],
    "tfds_ap10k.blank": ["{}", "--species={}/none", "--joints={}/none", "--out={}/out.json"],
    "tfds_ap10k.exchange": ["{}/none.json", "--to-cvat={}/out.xml"],
    "tfds_ap10k.dedup": ["{}", "--out={}/out", "--apply"],
    "tfds_ap10k.divide": ["{}/none.json", "--out={}/out"],
}


def module_of(name):
    """The module that has the command's main()."""
    path = ROOT / name.replace(".", "/")
    module = importlib.import_module(f"{name}.__main__" if path.is_dir() else name)
    return module


def programs():
    """Modules that `python -m` runs, by what their files say."""
    for folder in ("ap10k_jax", "tfds_ap10k"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            tree = ast.parse(path.read_text())
            tests = [ast.unparse(node.test) for node in tree.body if isinstance(node, ast.If)]
            if "__name__ == '__main__'" in tests:
                name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
                yield name.removesuffix(".__main__")


def test_the_overview_names_every_command(capsys):
    assert sorted(overview.COMMANDS) == sorted(set(programs()) - {"ap10k_jax"})
    overview.main()
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 100 for line in lines)
    for name, purpose in overview.COMMANDS.items():
        assert any(line.startswith(f"python -m {name} ") and purpose in line for line in lines)


def test_every_command_has_a_mistake_here():
    assert {*MISTAKES} == {*LISTED} - {"ap10k_jax.models"}  # which takes no files


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_ends_in_an_error_and_status_1(name, tmp_path, monkeypatch, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    words = [word.replace("{}", str(tmp_path)) for word in MISTAKES[name]]
    monkeypatch.setattr(sys, "argv", [name, *words])
    assert commands.status(module_of(name).main) == 1
    text = capsys.readouterr().err
    assert re.search(r"^error: \S", text, re.MULTILINE)
    assert "Traceback" not in text


@pytest.mark.parametrize("name", LISTED)
def test_help_spells_flags_with_hyphens(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    assert commands.status(module_of(name).main) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: python -m {name} ")
    assert not re.findall(r"(?<![\w-])--[a-z]+_[a-z_]+", text)


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("--move_to=a_b", "--move-to=a_b"),
        ("--move_to", "--move-to"),
        ("--move-to=a_b", "--move-to=a_b"),
        ("a_b=--c_d", "a_b=--c_d"),
        ("-a_b", "-a_b"),
    ],
)
def test_underscores_in_a_flag_become_hyphens(given, read):
    assert command_line.hyphenated(given) == read


def test_a_parser_takes_both_spellings_but_leaves_values_and_what_follows_two_hyphens():
    parser = command_line.Parser("x", None)
    parser.add_argument("--move-to")
    parser.add_argument("rest", nargs="*")
    for flag in ("--move_to", "--move-to"):
        options = parser.parse_args([f"{flag}=a_b", "--", "--c_d"])
        assert (options.move_to, options.rest) == ("a_b", ["--c_d"])


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("--process_id=1", "--process-id=1"),
        ("--process-id=1", "--process-id=1"),
        ("--config.data.max_animals=3", "--config.data.max_animals=3"),
        ("--only_check_args", "--only_check_args"),  # absl's own
        ("horse_1", "horse_1"),
    ],
)
def test_main_takes_both_spellings_of_its_own_flags(given, read):
    assert main.spelled(given) == read


@pytest.mark.parametrize("error", [errors.UserError("why"), OSError("why")])
def test_a_reported_error_is_one_line_and_status_1(error, capsys):
    def command():
        with errors.reported():
            raise error

    assert commands.status(command) == 1
    assert capsys.readouterr().err == "error: why\n"


def test_other_errors_are_reported_only_where_they_are_named(capsys):
    with pytest.raises(ValueError, match="a slip"), errors.reported():
        raise ValueError("a slip")
    with pytest.raises(SystemExit), errors.reported(ValueError):
        raise ValueError("a mistake")
    assert capsys.readouterr().err == "error: a mistake\n"
