"""Tables from one command: chained, resumed, in spite of failures, and all of them in miniature."""

import csv
import json

import commands
import miniature
import pytest

from ap10k_jax import checkpoint, run
from ap10k_jax.reproduce import __main__ as reproduce
from ap10k_jax.reproduce import plan, tables


@pytest.fixture(scope="module")
def folder(tmp_path_factory, nano):
    return miniature.build_all(tmp_path_factory.mktemp("miniature"))


class Killed(BaseException):
    """Stands for a kill: nobody catches it."""


@pytest.fixture
def command(folder, tmp_path, monkeypatch):
    """A function: arguments -> exit status and the names of the cells that were started."""
    miniature.share_steps(monkeypatch)
    settings = [word for setting in miniature.SETTINGS for word in ("--set", setting)]
    started = []

    def start(step):
        started.append(step.cell.name)
        return miniature.start(step)

    def run(*arguments):
        monkeypatch.setattr(reproduce, "start", start)
        started.clear()
        places = (f"--workdir={tmp_path / 'runs'}", f"--data-dir={folder}")
        return commands.status(reproduce.main, [*places, *settings, *arguments]), list(started)

    return run


def rows(tmp_path, name):
    with (tmp_path / "runs" / name).open() as file:
        return list(csv.DictReader(file))


CHAIN = [
    "dg_inter/Bovidae-split1",
    "transfer/deer-generalization-seed1",
    "transfer/deer-few_shot-seed1",
    "transfer/deer-transfer-seed1",
]


def test_two_tables_are_chained_resumed_and_reported(command, tmp_path, monkeypatch):
    # a kill inside a cell: the next start goes on from its checkpoint
    save = checkpoint.Checkpoints.save

    def killed(self, step, parts, *, ap):
        save(self, step, parts, ap=ap)
        self._checkpointer.wait()
        raise Killed

    arguments = ("--table=9,10", "--cells=transfer/[dg]*seed1")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Checkpoints, "save", killed)
        with pytest.raises(Killed):
            command(*arguments)
    runs = tmp_path / "runs"
    assert len(checkpoint.saved_in(runs / CHAIN[0])) == 1
    assert not (runs / CHAIN[0] / "results.json").exists()

    # a kill between cells: those that are done are not repeated
    score = run.initial_variables

    def killed_before(config, module):
        if "few_shot" in config.to_json() or config.draw.shots:
            raise Killed
        return score(config, module)

    with monkeypatch.context() as patch:
        patch.setattr(run, "initial_variables", killed_before)
        with pytest.raises(Killed):
            command(*arguments)
    assert (runs / CHAIN[1] / "results.json").exists()
    assert not (runs / CHAIN[2]).exists()

    # gorillas are not drawn: no cell of theirs is started, and that is no failure
    assert command(*arguments) == (0, CHAIN[2:])
    assert command(*arguments) == (0, [])

    # each starts from the Bovidae run, and all are tested on the same images
    drawn = [json.loads((runs / name / "draw.json").read_text()) for name in CHAIN[1:]]
    assert len({tuple(d["test"]) for d in drawn}) == len({d["sha256"] for d in drawn}) == 1
    assert [len(d["train"]) for d in drawn] == [5, 2, 5]
    for name in CHAIN[1:]:
        config = json.loads((runs / name / "config.json").read_text())
        assert config["init_from"] == str(runs / CHAIN[0])

    found = rows(tmp_path, "report-9-10.csv")
    assert {row["run_directories"] for row in found if row["row"] == "deer"} == set(CHAIN)
    gorilla = [row["lack"] for row in found if (row["table"], row["row"]) == ("10", "gorilla")]
    assert gorilla == ["no animals"] * 3


def test_a_failed_cell_stops_only_what_starts_from_it(command, tmp_path, capsys):
    arguments = ("--table=7,10", "--cells=*[-/][dw]*1")
    broken = ("--set", "dg_inter/*:init_from=no/such/file.pth")
    status, started = command(*arguments, *broken)
    assert status == 1
    assert started[0] == CHAIN[0]
    assert "dg_intra/without-fox-split1" in started
    assert not any(name.startswith("transfer") for name in started)
    said = capsys.readouterr().out
    assert "transfer/deer-transfer-seed1: not run, it starts from dg_inter/Bovidae-split1" in said
    assert (tmp_path / "runs" / "dg_intra/without-fox-split1" / "results.json").exists()
    # mended, it is run in the same place, and so is what starts from it
    status, started = command(*arguments, "--cells=*deer-transfer*1")
    assert (status, started) == (0, [CHAIN[0], CHAIN[3]])


def test_a_run_of_another_config_is_neither_taken_nor_touched(command, tmp_path, capsys):
    assert command("--table=7", "--cells=*without-fox-split1")[0] == 0
    path = tmp_path / "runs" / "dg_intra/without-fox-split1" / "results.json"
    before = path.read_text()
    status, started = command("--table=7", "--cells=*without-fox-split1", "--set", "seed=5")
    assert (status, started) == (1, [])
    assert "another config: seed: 0 there, 5 now" in capsys.readouterr().out
    assert path.read_text() == before


def test_the_plan_of_the_whole_paper_needs_no_data(capsys, tmp_path):
    arguments = ["--table=all", "--dry-run", f"--data-dir={tmp_path}", f"--workdir={tmp_path}"]
    assert commands.status(reproduce.main, [*arguments, "--images-per-second=100"]) == 0
    said = capsys.readouterr().out
    cells = tables.cells([n for table in tables.TITLES for n in tables.numbers(table)])
    assert all(cell.name in said for cell in cells)
    assert "181 cells: 178 to run, 3 impossible" in said
    # 3 x (5 scratch + 4 ImageNet) x 210 epochs, (420 + 630) x 2 x 3, 300 x 3 from COCO and with
    # either neck one in Table 11, of 9,122 animals; with either neck 420 of Animal-Pose's 4,282
    crops = (3 * 9 * 210 + 1050 * 6 + 300 * 3 + 2 * 210) * 9122 + 2 * 420 * 4282
    # Tables 6 to 8: as many images as in SL, of six Bovidae, three Canidae and ten Felidae
    for runs, images, animals in ((6, 755, 1467), (3, 980, 1130), (10, 1342, 1457)):
        crops += 3 * runs * round(210 * 7023 / images) * animals
    crops += 3 * 210 * (1467 + 623)  # Table 9: 210 passes over Bovidae and Cercopithecidae
    crops += 18 * (round(35 * 140 * 1.30085) + round(50 * 20 * 1.30085))
    assert f"{crops:,} training crops" in said
    assert "Table 6. Generalization within Bovidae: row tested, column left out" in said
    assert "hours in all" in said
    assert not list(tmp_path.iterdir())


def test_jobs_are_commands_in_order(capsys, tmp_path):
    arguments = ["--table=10", "--jobs", "--cells=*deer*seed1", "--data-dir=none"]
    assert commands.status(reproduce.main, [*arguments, f"--workdir={tmp_path}"]) == 0
    first, *others = capsys.readouterr().out.splitlines()
    assert first.startswith("python -m ap10k_jax.main --config=")
    assert "dg_inter.py:Bovidae" in first
    assert "#" not in first
    assert len(others) == 3
    assert all(line.endswith("  # after dg_inter/Bovidae-split1") for line in others)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--table=12"], "the paper's tables are 3,4,5,6,7,8,9,10,11"),
        (["--table=x"], "the paper's tables are"),
        (["--table=3", "--images-per-second=fast"], "hrnet_w32=210"),
        (["--table=3", "--cells=nothing*"], "no cell matches"),
        (["--table=3", "--dry-run", "--set", "epoch=3"], "no such field"),
        (["--table=3", "--dry-run", "--jobs"], "not allowed with"),
    ],
)
def test_a_mistake_is_explained(arguments, message, capsys, tmp_path):
    try:
        status = commands.status(
            reproduce.main, [*arguments, f"--workdir={tmp_path}", "--data-dir=none"]
        )
    except SystemExit as error:
        status = error.code
    assert status
    assert message in capsys.readouterr().err


def test_data_that_cannot_be_built_is_said_once_and_nothing_is_started(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(reproduce, "start", lambda step: pytest.fail("started a cell"))
    arguments = ["--table=7", f"--workdir={tmp_path}", f"--data-dir={tmp_path}/none"]
    assert commands.status(reproduce.main, arguments) == 1
    said = capsys.readouterr()
    assert said.out.count("could not be built, see above") == 9
    assert said.err.count("AlexTheBad/AP-10K") <= 2 * 3  # instructions for each of three splits


def test_a_cell_is_run_by_the_command_that_is_printed(tmp_path, monkeypatch):
    cell = tables.animal_pose()
    (step,) = plan.make([cell], ["data.dir=none"], tmp_path)
    seen = []

    class Cell:
        def __init__(self, words):
            seen.append(words)

        def wait(self):
            return 3

    monkeypatch.setattr(reproduce.subprocess, "Popen", Cell)
    assert reproduce.start(step) == 3
    assert seen[0][1:] == plan.command(step)[1:]


@pytest.mark.slow
def test_all_tables_in_miniature(command, tmp_path):
    """Every cell of Tables 3 to 11 that the drawings have animals for, in all splits and seeds."""
    status, started = command("--table=all")
    assert status == 0
    runs = tmp_path / "runs"
    found = rows(tmp_path, "report-all.csv")
    assert len(found) == 261
    numbers = [number for table in tables.TITLES for number in tables.numbers(table)]
    for number, row in zip(numbers, found, strict=True):
        if row["lack"]:
            assert row["lack"] == "no animals"
            continue
        every = {cell.name for cell in number.cells}
        if number.column == "APM":  # some splits have no medium animal
            assert set(row["run_directories"].split()) <= every
        else:
            assert set(row["run_directories"].split()) == every, number
        for name in row["run_directories"].split():
            assert json.loads((runs / name / "results.json").read_text())
    assert {row["table"] for row in found if not row["lack"]} == set(map(str, tables.TITLES))
    assert len(started) > 120
    assert command("--table=all") == (0, [])
