"""The geometry of the whole chain is right: 64 real animals can be learnt by heart."""

import json

import golden_files
import pytest

from ap10k_jax import run
from ap10k_jax.configs import quickstart


@pytest.mark.slow
def test_64_real_animals_are_learnt_by_heart(tmp_path):
    config = quickstart.get_config()
    config.data.synthetic_images = 0
    config.data.manual_dir = str(golden_files.shared("data/animalpose_ap10k"))
    config.data.dir = str(tmp_path)
    config.data.max_animals = 64
    config.epochs = 250
    config.batch_size = config.eval.batch_size = 32
    for field in ("flip_probability", "scale_sigma", "rotation_probability", "shift_probability"):
        config.augment[field] = 0.0
    config.eval.splits = "train"  # on purpose: the animals that were learnt
    config.eval.every_epochs = 250
    config.checkpoint_every_epochs = 250
    run.run(config, tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert sum(results["train"]["num_animals"].values()) == 64
    assert results["train"]["AP"] >= 0.9
