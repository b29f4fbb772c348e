"""The list of runs is the paper's: every number, no run twice, each after what it starts from."""

import numpy as np
import pytest

from ap10k_jax import main, models, tables
from tfds_ap10k import taxonomy

ALL = [number for table in tables.TITLES for number in tables.numbers(table)]


def leaves(tree):
    """The numbers of the paper's file, which are lists of a mean and perhaps a deviation."""
    return [tree] if isinstance(tree, list) else [x for t in tree.values() for x in leaves(t)]


@pytest.mark.parametrize("table", tables.TITLES)
def test_every_number_of_the_paper_is_there(table):
    printed = leaves(tables.paper()[str(table)]["rows"])
    assert sorted(number.paper for number in tables.numbers(table)) == sorted(map(tuple, printed))
    places = [(number.row, number.column) for number in tables.numbers(table)]
    assert len(places) == len(set(places))


def test_the_papers_runs_are_counted():
    counts = {t: len(tables.cells(tables.numbers(t))) for t in tables.TITLES}
    # 10: its 54 and three Bovidae runs; 11: its own four, and the two that they start from
    assert counts == {3: 30, 4: 18, 5: 12, 6: 18, 7: 9, 8: 30, 9: 6, 10: 57, 11: 6}
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
        for path in number.reads:
            assert path[1] in main.OVERALL or path[2] in species | set(taxonomy.FAMILIES)
    assert set(tables.MODELS.values()) <= set(models.MODELS)


@pytest.mark.parametrize("table", [6, 7, 8])
def test_the_papers_averages_are_those_of_the_seen_species(table):
    """The estimator that the report uses reproduces the printed averages and their deviations."""
    numbers = tables.numbers(table)
    for average in (number for number in numbers if number.column == "average"):
        names = [path[2] for path in average.reads]
        assert average.row not in names
        row = {n.column: n.paper[0] for n in numbers if n.row == average.row}
        printed = [row[name] for name in names]
        # the paper's own row of king cheetah has an average of .836 where its columns give .834
        assert np.mean(printed) == pytest.approx(average.paper[0], abs=0.0025)
        assert np.std(printed) == pytest.approx(average.paper[1], abs=0.004)


def test_chains_are_the_papers():
    after = {cell.name: cell.after for cell in tables.cells(ALL) if cell.after}
    assert after["transfer/deer-few_shot-seed2"] == "dg_inter/Bovidae-split2"
    assert after["cross_dataset/ap10k-direct"] == "cross_dataset/animal_pose-train"
    assert after["cross_dataset/animal_pose-finetune"] == "sl/hrnet_w32-imagenet-210-split1"
    assert len(after) == 54 + 4
