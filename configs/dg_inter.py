"""Generalization between families, Table 9: train on one family, test on others.

    python -m ap10k_jax.main --config=configs/dg_inter.py:Bovidae
    python -m ap10k_jax.main --config=configs/dg_inter.py:Cercopithecidae

Expected AP (test; paper): from Bovidae 0.782 on Bovidae, 0.641 on Cervidae, 0.468 on Equidae, 0.015
on Hominidae; from Cercopithecidae 0.695 on itself and 0.446 on Hominidae. Table 10 goes on from the
Bovidae run. Any other pair: --config.data.species=Felidae --config.eval.species=Felidae,Canidae
"""

from ml_collections import ConfigDict

from configs import base

TESTED = {"Bovidae": "Cervidae,Equidae,Hominidae", "Cercopithecidae": "Hominidae"}


def get_config(family: str = "Bovidae") -> ConfigDict:
    config = base.get_config()
    config.data.species = family
    config.animals_per_epoch = 9122  # the training animals of split 1: as many are seen as in SL
    config.init_from = "imagenet"
    config.eval.species = f"{family},{TESTED[family]}"
    config.eval.splits = "test"
    return config
