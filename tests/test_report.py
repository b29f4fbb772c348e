"""Every number of the report is in the run directories that it names, and says what it lacks."""

import csv
import json
import math
import re

import numpy as np
import pytest

from ap10k_jax import figures, page, plan, report, results, tables
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
    files = report.write(workdir, chosen, numbers, steps)
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
            leaves = [results.look_up(stored, path) for path in number.reads]
            values.append([leaf for leaf in leaves if leaf is not None])
        assert float(row["ours"]) == pytest.approx(np.mean(values), abs=1e-6)
        if len(number.reads) == 1:
            assert float(row["deviation"]) == pytest.approx(np.std(values), abs=1e-6)
        else:
            across = np.std(np.mean(values, axis=0))
            assert float(row["deviation"]) == pytest.approx(across, abs=1e-6)
        assert float(row["difference"]) == pytest.approx(
            float(row["ours"]) - number.paper[0], abs=1e-6
        )
        # the same number, and its runs, for people
        printed = (
            f"{float(row['ours']):.3f} +- {float(row['deviation']):.3f} / {number.paper[0]:.3f}"
        )
        assert printed in texts["report-7-9-10.md"]
        assert printed in texts["report-7-9-10.html"]
        assert row["run_directories"] in texts["report-7-9-10.md"]
        found += 1
    assert found > 25


def test_only_finished_runs_count(written):
    rows = rows_of(written[2]["report-7-9-10.csv"])
    held_out = [row for row in rows if row["table"] == "7" and row["row"] == "dog"]
    assert {row["runs"] for row in held_out} == {"2"}
    assert not any("dog-split3" in row["run_directories"] for row in rows)
    gorilla = [row for row in rows if row["table"] == "10" and row["row"] == "gorilla"]
    assert {row["lack"] for row in gorilla} == {"not run"}
    horse = [row for row in rows if row["table"] == "9" and row["row"] == "horse"]
    assert {row["lack"] for row in horse} == {"no animals"}


def number(paper):
    return tables.Number(3, "scratch", "hrnet_w32", (), (("validation", "AP"),), paper)


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
    ],
)
def test_a_difference_is_marked_where_it_exceeds_both_deviations(mean, deviation, paper, beyond):
    value = results.Value(number(paper), mean, deviation, ("a",), "")
    assert value.beyond == beyond
    assert report.entry(value).endswith("*") == beyond


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
    text = report.write(tmp_path, (7,), numbers, steps)[0].read_text()
    before = text.split("## Table 7")[0]
    for words in ("model.name=hrnet_tiny (3 of 9 runs)", "epochs=3 (9 of 9 runs)"):
        assert words in before
    assert "data.dir" not in before


def test_entries_cannot_break_their_table():
    parts = [page.Table(("a|b",), [["<i>&|"]])]
    assert "| <i>&\\| |" in page.markdown("t", parts)
    assert "&lt;i&gt;&amp;|" in page.page("t", parts)


def test_the_heat_map_has_ours_and_the_papers_numbers():
    ours, paper = np.array([[0.12, math.nan]]), np.array([[0.34, 0.56]])
    figure = figures.heat_map(["dog"], ["dog", "average"], ours, paper)
    texts = [[text.get_text() for text in axis.texts] for axis in figure.axes[:2]]
    assert texts == [[".12"], [".34", ".56"]]
    framed = [len(axis.patches) for axis in figure.axes[:2]]
    assert framed == [1, 1]  # the held-out species' own cell
    assert figures.png(figure).startswith(b"\x89PNG")
