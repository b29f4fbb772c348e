"""The taxonomy is the official one: checked against the real file where that is at hand."""

import json
from pathlib import Path

import pytest

from tfds_ap10k import taxonomy

OFFICIAL = Path(__file__).parents[3] / "shared/data/ap10k_real/ap10k-train-split1.json"


def test_54_species_have_ids_1_to_54_in_order():
    assert [species.id for species in taxonomy.SPECIES] == list(range(1, 55))
    assert len({species.name for species in taxonomy.SPECIES}) == 54


def test_23_families_stand_in_order_of_first_appearance():
    assert len(taxonomy.FAMILIES) == 23
    assert taxonomy.FAMILIES[:3] == ("Bovidae", "Canidae", "Castoridae")


def test_families_of_the_papers_generalisation_tracks_have_their_members():
    assert taxonomy.species_in("Cervidae") == ("deer", "moose")
    assert taxonomy.species_in("Equidae") == ("horse", "zebra")
    assert len(taxonomy.species_in("Felidae")) == 10
    assert taxonomy.family_of("king cheetah") == "Felidae"
    with pytest.raises(KeyError):
        taxonomy.species_in("Unicornidae")


def test_names_and_ids_invert_each_other():
    for species in taxonomy.SPECIES:
        assert taxonomy.id_of(species.name) == species.id
        assert taxonomy.name_of(species.id) == species.name


def test_undocumented_backgrounds_are_unknown():
    assert taxonomy.background_name(8) == "mugshot"
    assert [taxonomy.background_name(value) for value in (0, 9, 88)] == ["unknown"] * 3
    assert len(taxonomy.BACKGROUND_NAMES) == 9


@pytest.mark.skipif(not OFFICIAL.exists(), reason="the official annotation file is not at hand")
def test_taxonomy_equals_the_categories_of_the_official_file():
    categories = json.loads(OFFICIAL.read_text())["categories"]
    ours = [(species.id, species.name, species.family) for species in taxonomy.SPECIES]
    assert ours == [(c["id"], c["name"], c["supercategory"]) for c in categories]
