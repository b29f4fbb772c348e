"""Generalization within a family, Tables 6 to 8: train on all its species but one, test on all.

The name of the species to leave out comes after the colon, that of Table 7's first column is dog:

    python -m ap10k_jax.main --config=configs/dg_intra.py:dog

A run is a column of the paper's tables, and a row is the species tested. Expected AP (test; paper)
without dog: dog 0.224, fox 0.614, wolf 0.663; without cow: cow 0.586, and 0.616 (bison) to 0.794
(buffalo) for the other Bovidae. All of them: python -m ap10k_jax.reproduce --table=6,7,8

As many images are seen as in SL, as the paper says. That makes 2.80 million crops of Bovidae
without antelope, where SL has 1.92 million: their photographs show two animals on average.
"""

from ml_collections import ConfigDict

from ap10k_jax.configs import base
from tfds_ap10k import taxonomy


def get_config(held_out: str = "cow") -> ConfigDict:
    config = base.get_config()
    family = taxonomy.family_of(held_out)
    seen = [species for species in taxonomy.species_in(family) if species != held_out]
    config.data.species = ",".join(seen)
    config.epochs_of_whole_split = True  # of the split that config.data.name names
    config.init_from = "imagenet"
    config.eval.species = family
    config.eval.splits = "test"
    return config
