"""The list of runs is the paper's: every number, no run twice, each after what it starts from."""

from pathlib import Path

import numpy as np
import pytest

from ap10k_jax import models, run
from ap10k_jax.reproduce import plan, tables
from tfds_ap10k import taxonomy

ALL = [number for table in tables.TITLES for number in tables.numbers(table)]


def leaves(tree):
    """The numbers of the paper's file, which are lists of a mean and perhaps a deviation."""
    return [tree] if isinstance(tree, list) else [x for t in tree.values() for x in leaves(t)]


@pytest.mark.parametrize("table", tables.TITLES)
def test_every_number_of_the_paper_is_there(table):
    printed = leaves(tables.paper()[str(table)]["rows"])
    if table == 11:  # two necks, and Animal-Pose as one category, too
        to_ap10k, to_animal_pose = printed[:3], printed[3:]
        printed = 2 * to_ap10k + 4 * to_animal_pose
    assert sorted(number.paper for number in tables.numbers(table)) == sorted(map(tuple, printed))
    places = [(number.row, number.column) for number in tables.numbers(table)]
    assert len(places) == len(set(places))


def test_the_papers_runs_are_counted():
    counts = {t: len(tables.cells(tables.numbers(t))) for t in tables.TITLES}
    # 10: its 54 and three Bovidae runs; 11: with either neck four and the run on Animal-Pose that
    # they start from, and the run on AP-10K
    assert counts == {3: 30, 4: 18, 5: 12, 6: 18, 7: 9, 8: 30, 9: 6, 10: 57, 11: 11}
    # shared are the six runs of 210 epochs, three Bovidae runs, and one in Table 11
    assert len(tables.cells(ALL)) == sum(counts.values()) - 6 - 3 - 1


def test_one_name_stands_for_one_run():
    runs = {}
    for number in ALL:
        for cell in number.cells:
            assert runs.setdefault(cell.name, cell) == cell
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyzBC0123456789_-/") for name in runs)


def test_a_cell_comes_after_the_one_it_starts_from():
    names = [cell.name for cell in tables.cells(ALL)]
    assert len(names) == len(set(names))
    for cell in tables.cells(ALL):
        if cell.after:
            assert names.index(cell.after) < names.index(cell.name)


def test_models_and_species_are_known():
    species = {species.name for species in taxonomy.SPECIES}
    for number in ALL:
        for path in (source.path for source in number.sources):
            assert path[1] in (*run.OVERALL, "instance_AP") or path[2] in species | set(
                taxonomy.FAMILIES
            )
    assert set(tables.MODELS.values()) <= set(models.MODELS)


@pytest.mark.parametrize("table", [6, 7, 8])
def test_the_papers_averages_are_over_the_trainings_that_saw_the_species(table):
    """The estimator that the report uses reproduces the printed averages and their deviations."""
    numbers = tables.numbers(table)
    cells = [n for n in numbers if n.column != "average"]
    for average in (number for number in numbers if number.column == "average"):
        assert {source.path for source in average.sources} == {("test", "per_species", average.row)}
        without = {cell.config for cell in average.cells}
        assert f"dg_intra.py:{average.row}" not in without
        assert len(without) == len(average.sources) == len({n.row for n in numbers}) - 1
        row = [n for n in cells if n.row == average.row]
        printed = [n.paper[0] for n in row if n.sources[0] in average.sources]
        # the paper's deviations are of the population: sample deviations are up to .024 off
        assert np.mean(printed) == pytest.approx(average.paper[0], abs=0.0006)
        assert np.std(printed) == pytest.approx(average.paper[1], abs=0.0006)


@pytest.mark.parametrize("table", [6, 7, 8])
def test_a_row_is_the_species_tested_and_a_column_the_species_left_out(table):
    for number in tables.numbers(table):
        if number.column != "average":
            (source,) = number.sources
            assert source.path == ("test", "per_species", number.row)
            (config,) = {cell.config for cell in source.cells}
            left_out = config.removeprefix("dg_intra.py:")
            assert number.column == f"{taxonomy.family_of(left_out)[:3]}./{left_out}"


def test_both_necks_of_animal_pose_have_runs_of_their_own():
    configs = {}
    for number in tables.numbers(11):
        (cell,) = number.cells
        configs.setdefault(number.row, set()).add(plan.config_of(cell, (), Path()).data.neck)
        if cell.after and "animal_pose" in cell.after:  # the same neck, all the way
            assert cell.after.endswith("midpoint-train") == ("midpoint" in cell.name)
    assert configs == {
        # the run on AP-10K alone knows nothing of necks
        "animal_pose (neck: throat) to ap10k": {"throat"},
        "animal_pose (neck: midpoint) to ap10k": {"throat", "midpoint"},
        "ap10k to animal_pose (neck: throat)": {"throat"},
        "ap10k to animal_pose (neck: midpoint)": {"midpoint"},
    }


def test_chains_are_the_papers():
    after = {cell.name: cell.after for cell in tables.cells(ALL) if cell.after}
    assert after["transfer/deer-few_shot-seed2"] == "dg_inter/Bovidae-split2"
    assert after["cross_dataset/ap10k-direct"] == "cross_dataset/animal_pose-train"
    assert after["cross_dataset/animal_pose-finetune"] == "sl/hrnet_w32-imagenet-210-split1"
    assert (
        after["cross_dataset/ap10k_midpoint-direct"] == "cross_dataset/animal_pose_midpoint-train"
    )
    assert len(after) == 54 + 8
