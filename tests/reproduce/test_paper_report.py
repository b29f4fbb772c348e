"""Every number of the report is in the run directories that it names, and says what it lacks."""

import csv
import json
import math
import re

import numpy as np
import paper_runs
import pytest

from ap10k_jax.report import document, plots
from ap10k_jax.reproduce import paper_report, plan, results, tables
from tfds_ap10k import taxonomy

SETTINGS = ("data.dir=none",)


def made_up(numbers, species=("dog", "fox", "wolf", "deer", "moose", "cow", "sheep"), seed=0):
    """results.json of a run in which these species have animals, every AP another one."""
    rng = np.random.default_rng(seed)
    aps = {name: float(rng.uniform(0.3, 0.9)) for name in species}
    families = {}
    for name in species:
        families.setdefault(taxonomy.family_of(name), []).append(aps[name])
    families = {family: float(np.mean(values)) for family, values in families.items()}

    def around(values):
        return {name: [ap - 0.05, ap + 0.06] for name, ap in values.items()}

    ap = float(np.mean(list(aps.values())))
    scores = {
        **dict.fromkeys(("AP", "AP50", "AP75", "APM", "APL", "AR"), ap),
        "per_species": aps,
        "per_family": families,
        "num_animals": {name: 10 + len(name) for name in species},
        "AP_by_sigmas": {"paper": ap, "corrected": ap - 0.02},
        "instance_AP": ap + 0.01,
        "intervals": {
            "AP": [ap - 0.03, ap + 0.03],
            "instance_AP": [ap - 0.02, ap + 0.04],
            "per_species": around(aps),
            "per_family": around(families),
        },
    }
    return {"step": 70, "sigmas": "paper", "validation": scores, "test": scores}


def write_run(step, seed):
    step.workdir.mkdir(parents=True)
    (step.workdir / "config.json").write_text(step.config.to_json())
    (step.workdir / "results.json").write_text(json.dumps(made_up((), seed=seed)))
    environment = {
        "python": "3.11.7",
        "packages": {"jax": "0.10.2"},
        "devices": ["V100"] * 2,
        "machine": "Linux",
        "fingerprints": {"test": "fedc" * 16},
        "animals": {"train": 228},
    }
    (step.workdir / "environment.json").write_text(json.dumps([environment]))
    if step.config.draw.images:
        drawn = {"seed": step.config.draw.seed, "train": [1], "test": [2], "sha256": "ab" * 32}
        (step.workdir / "draw.json").write_text(json.dumps(drawn))
    lines = [
        {"step": s, "kind": kind, "loss": 1 / s, "AP": s / 100}
        for s in (10, 20)
        for kind in ("train", "validation")
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (step.workdir / "metrics.jsonl").write_text(text)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A report on Tables 7, 9 and 10: all but two runs are there, one of them begun."""
    workdir = tmp_path_factory.mktemp("runs")
    chosen = (7, 9, 10)
    numbers = [number for table in chosen for number in tables.numbers(table)]
    cells = tables.cells(numbers)
    for i, step in enumerate(plan.make(cells, SETTINGS, workdir)):
        if step.cell.name == "dg_intra/without-dog-split3":
            step.workdir.mkdir(parents=True)
            (step.workdir / "config.json").write_text(step.config.to_json())
        elif "gorilla" not in step.cell.name:
            write_run(step, seed=i)
    steps = plan.make(cells, SETTINGS, workdir)
    files = paper_report.write(workdir, chosen, numbers, steps)
    return workdir, numbers, {file.name: file.read_text() for file in files}


def rows_of(text):
    return list(csv.DictReader(text.splitlines()))


def test_there_is_a_file_for_people_one_for_programs_and_a_page(written):
    workdir, _, texts = written
    names = ["report-7-9-10.md", "report-7-9-10.csv", "report-7-9-10-species.csv"]
    assert list(texts) == [*names, "report-7-9-10.html"]
    assert all((workdir / name).exists() for name in texts)


def test_every_number_is_in_the_directories_that_it_names(written):
    workdir, numbers, texts = written
    found = 0
    for number, row in zip(numbers, rows_of(texts["report-7-9-10.csv"]), strict=True):
        assert (row["row"], row["column"]) == (number.row, number.column)
        directories = row["run_directories"].split()
        assert len(directories) == int(row["runs"])
        if row["lack"]:
            assert row["ours"] == row["run_directories"] == ""
            continue
        values = []
        for name in directories:
            stored = json.loads((workdir / name / "results.json").read_text())
            (path,) = {source.path for source in number.sources}
            values.append(results.look_up(stored, path))
        if len(number.sources) > 1:  # over the trainings, of means over their repetitions
            cells = [{cell.name for cell in source.cells} for source in number.sources]
            by_run = dict(zip(directories, values, strict=True))
            values = [np.mean([by_run[n] for n in names & by_run.keys()]) for names in cells]
        assert float(row["ours"]) == pytest.approx(np.mean(values), abs=1e-6)
        deviation = float(row["population_deviation"])
        assert deviation == pytest.approx(np.std(values, ddof=0), abs=1e-6)
        assert float(row["difference"]) == pytest.approx(
            float(row["ours"]) - number.paper[0], abs=0.00051
        )
        # the same number, and its runs, for people
        printed = f"{float(row['ours']):.3f} +- {deviation:.3f} / {number.paper[0]:.3f}"
        assert printed in texts["report-7-9-10.md"]
        assert printed in texts["report-7-9-10.html"]
        assert row["run_directories"] in texts["report-7-9-10.md"]
        found += 1
    assert found > 25


def test_only_finished_runs_count(written):
    rows = rows_of(written[2]["report-7-9-10.csv"])
    without_dog = [row for row in rows if row["column"] == "Can./dog"]
    assert {row["runs"] for row in without_dog} == {"2"}
    average = [row["runs"] for row in rows if row["table"] == "7" and row["column"] == "average"]
    assert average == ["6", "5", "5"]  # of dog, which both other trainings saw; of fox and wolf
    assert not any("dog-split3" in row["run_directories"] for row in rows)
    gorilla = [row for row in rows if row["table"] == "10" and row["row"] == "gorilla"]
    assert {row["lack"] for row in gorilla} == {"not run"}
    horse = [row for row in rows if row["table"] == "9" and row["row"] == "horse"]
    assert {row["lack"] for row in horse} == {"no animals"}


def number(paper):
    source = tables.Source((), ("validation", "AP"))
    return tables.Number(3, "scratch", "hrnet_w32", (source,), paper)


@pytest.mark.parametrize(
    ("mean", "deviation", "paper", "beyond"),
    [
        (0.71, 0.02, (0.70, 0.005), False),  # within ours
        (0.71, 0.002, (0.70, 0.02), False),  # within the paper's
        (0.71, 0.005, (0.70, 0.005), True),
        (0.69, 0.005, (0.70, 0.005), True),
        (0.71, math.nan, (0.70, 0.005), True),  # one run: the paper's alone
        (0.71, math.nan, (0.70,), False),  # nothing to measure the difference by
        (math.nan, math.nan, (0.70, 0.005), False),
        (0.6985 + 1e-12, 0.0, (0.699, 0.0), False),  # the paper's number is rounded
        (0.7001, 0.0, (0.699, 0.0), True),
    ],
)
def test_a_difference_is_marked_where_it_exceeds_both_deviations(mean, deviation, paper, beyond):
    value = results.Value(number(paper), mean, deviation, ("a",), "")
    assert value.beyond == beyond
    assert paper_report.entry(value).endswith("*") == beyond
    assert paper_report.difference(value).endswith("*") == beyond


@pytest.mark.parametrize(
    ("mean", "text"),
    [(0.71234, "+.012"), (0.699, "-.001"), (0.7004, ".000"), (0.6996, ".000"), (math.nan, "")],
)
def test_a_difference_is_ours_minus_the_papers_to_three_digits(mean, text):
    lack = "not run" if math.isnan(mean) else ""
    assert (
        paper_report.difference(results.Value(number((0.7,)), mean, math.nan, ("a",), lack)) == text
    )


def finished(name, per_species):
    """A finished run in memory with APs of species on test."""
    found = {"test": {"per_species": per_species}}
    return results.Run(name, plan.FINISHED, "", {}, (), found, [], {}, [])


@pytest.fixture
def table_7():
    """Numbers of Table 7 by row and column, and their runs: dogs are hard after any training."""
    hard = {"dog": 0.1, "fox": 0.7, "wolf": 0.9}
    numbers = tables.numbers(7)
    runs = {}
    for cell in tables.cells(numbers):
        left_out = cell.config.partition(":")[2]
        per_species = {name: ap - 0.05 * (name == left_out) for name, ap in hard.items()}
        runs[cell.name] = finished(cell.name, per_species)
    return {(n.row, n.column): n for n in numbers}, runs


def test_a_species_that_is_hard_to_test_is_a_low_row(table_7):
    numbers, runs = table_7
    ours = {place: results.value(number, runs).mean for place, number in numbers.items()}
    assert ours["dog", "Can./dog"] == pytest.approx(0.05)
    for column in ("Can./fox", "Can./wolf", "average"):
        assert ours["dog", column] == pytest.approx(0.1)
    assert ours["fox", "Can./dog"] == ours["fox", "average"] == pytest.approx(0.7)
    assert ours["wolf", "Can./wolf"] == pytest.approx(0.85)


def test_without_a_training_its_column_is_missing_and_the_averages_that_need_it(table_7):
    numbers, runs = table_7
    for name, run in runs.items():
        if "without-fox" in name:
            runs[name] = run._replace(state=plan.TO_RUN, results={})
    lacks = {place: results.value(number, runs).lack for place, number in numbers.items()}
    assert {place for place, lack in lacks.items() if lack} == {
        *((species, "Can./fox") for species in ("dog", "fox", "wolf")),
        *(("dog", "average"), ("wolf", "average")),
    }
    assert lacks["dog", "Can./fox"] == "not run"
    assert lacks["dog", "average"] == "1 of 2 trainings"


def test_species_and_families_have_their_intervals(written):
    rows = rows_of(written[2]["report-7-9-10-species.csv"])
    assert {row["kind"] for row in rows} == {"family", "species"}
    for row in rows[:50]:
        assert float(row["low"]) < float(row["AP"]) < float(row["high"])
    bovidae = next(row for row in rows if row["name"] == "Bovidae")
    assert int(bovidae["animals"]) == 10 + len("cow") + 10 + len("sheep")


def test_the_page_needs_nothing_but_itself(written):
    text = written[2]["report-7-9-10.html"]
    assert "http" not in text
    assert "<script" not in text
    assert set(re.findall(r'src="([^,]*),', text)) == {"data:image/png;base64"}
    assert text.count("<img") == 7  # numbers and curves of each table, and the species
    assert re.findall(r"<td class=\"beyond\">[^<]* \*</td>", text)


def test_the_report_says_what_it_was_made_with(written):
    text = written[2]["report-7-9-10.md"]
    sigmas = "0.025 0.025 0.026 0.035 0.035 0.079 0.079 0.072 0.072 0.062 0.062"
    for words in (sigmas, "fedc" * 16, "0.10.2", "2 x V100, Linux", "ab" * 32, "instance AP"):
        assert words in text


def test_what_is_not_the_papers_recipe_is_said_first(written, tmp_path):
    assert "not the paper's recipe" not in written[2]["report-7-9-10.md"]  # where data lie is free
    numbers = tables.numbers(7)
    settings = (*SETTINGS, "epochs=3", "*dog*:model.name=hrnet_tiny")
    for step in plan.make(tables.cells(numbers), settings, tmp_path):
        write_run(step, seed=0)
    steps = plan.make(tables.cells(numbers), settings, tmp_path)
    text = paper_report.write(tmp_path, (7,), numbers, steps)[0].read_text()
    before = text.split("## Table 7")[0]
    for words in ("model.name=hrnet_tiny (3 of 9 runs)", "epochs=3 (9 of 9 runs)"):
        assert words in before
    assert "data.dir" not in before


def test_the_papers_own_numbers_differ_from_the_paper_nowhere(tmp_path):
    steps = paper_runs.write(tmp_path, SETTINGS)
    everything = tuple(tables.TITLES)
    numbers = [number for table in everything for number in tables.numbers(table)]
    files = paper_report.write(tmp_path, everything, numbers, steps)
    texts = {file.name: file.read_text() for file in files}
    rows = rows_of(texts["report-all.csv"])
    assert len(rows) == len(numbers) == 261
    assert {row["lack"] for row in rows} == {""}
    assert {row["difference"] for row in rows} == {"0.000000"}
    assert {row["beyond_both"] for row in rows} == {"0"}
    text = texts["report-all.md"]
    assert "261 of 261 numbers are there; 0 of them differ" in text
    assert "The largest difference is 0.000." in text
    assert " * |" not in text
    shown = re.findall(r"Differences, ours minus the paper's:\n\n(.*?)\n\n", text, flags=re.S)
    lines = [line for table in shown for line in table.split("\n")[2:]]
    entries = [entry.strip() for line in lines for entry in line.strip("|").split(" | ")[1:]]
    assert len(shown) == 9
    assert {entry for entry in entries if entry} == {".000"}
    assert sum(entry == ".000" for entry in entries) == len(numbers)
    # the deviations are the paper's, too, where one table prints the number
    for row in rows:
        if row["paper_deviation"] and (row["table"], row["row"]) != ("4", "imagenet"):
            printed = float(row["paper_deviation"])
            assert float(row["population_deviation"]) == pytest.approx(printed, abs=0.0006)
    table_11 = text.split("## Table 11")[1]
    words = ("throat (its likely choice", "midpoint of throat and withers", "4,000 / 1,117 / 1,000")
    assert all(word in table_11.split("|")[0] for word in words)
    assert "| ap10k to animal_pose (neck: midpoint) | 0.913 / 0.913 |" in table_11
    table_6 = text.split("## Table 6")[1].split("## Table 7")[0]
    assert "| antelope | 0.607 +- 0.010 / 0.607 +- 0.010 | 0.742 +- 0.013 / 0.742" in table_6
    assert "|  | Bov./antelope | Bov./argali sheep |" in table_6


def test_the_schedule_of_table_9_is_named(tmp_path):
    numbers = tables.numbers(9)

    def text(*settings):
        steps = plan.make(tables.cells(numbers), (*SETTINGS, *settings), tmp_path)
        return paper_report.write(tmp_path, (9,), numbers, steps)[0].read_text()

    assert "Trained for 210 passes over the family's images, as the paper says" in text()
    longer = text("dg_inter/*:epochs_of_whole_split=True")
    assert "as many images as 210 epochs of supervised learning on the whole split show" in longer


def test_runs_that_nobody_can_make_are_named(tmp_path):
    numbers = tables.numbers(3)
    steps = plan.make(tables.cells(numbers), SETTINGS, tmp_path)
    text = paper_report.write(tmp_path, (3,), numbers, steps)[0].read_text().split("## Table 3")[0]
    words = "3 of 30 runs cannot be made, nobody published imagenet weights of hourglass52: "
    assert words + "sl/hourglass52-imagenet-210-split1" in text


def test_entries_cannot_break_their_table():
    parts = [document.Table(("a|b",), [["<i>&|"]])]
    assert "| <i>&\\| |" in document.markdown("t", parts)
    assert "&lt;i&gt;&amp;|" in document.page("t", parts)


def test_the_heat_map_has_ours_and_the_papers_numbers():
    ours, paper = np.array([[0.12, math.nan]]), np.array([[0.34, 0.56]])
    figure = plots.heat_map(["dog"], ["Can./dog", "average"], ours, paper, framed={(0, 0)})
    assert figure.axes[0].get_ylabel() == "species tested"
    texts = [[text.get_text() for text in axis.texts] for axis in figure.axes[:2]]
    assert texts == [[".12"], [".34", ".56"]]
    same = plots.heat_map(["a"], ["b"], np.array([[0.705 + 1e-12]]), np.array([[0.705 - 1e-12]]))
    assert len({axis.texts[0].get_text() for axis in same.axes[:2]}) == 1
    framed = [len(axis.patches) for axis in figure.axes[:2]]
    assert framed == [1, 1]  # the species that training had not seen
    assert plots.png(figure).startswith(b"\x89PNG")
