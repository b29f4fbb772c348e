"""Transfer and few-shot learning, Table 10: from the Bovidae run of Table 9 to one other species.

Of the species' images 140 are drawn to train on, or 20 of those (few-shot), and the rest is tested.
After the colon come the species and one of transfer, few_shot and generalization (no training):

    python -m ap10k_jax.main --config=configs/transfer.py:zebra,few_shot \\
        --config.init_from=runs/dg_inter-Bovidae

Expected AP (paper) for zebra: transfer 0.708, few-shot 0.480, generalization 0.324. draw.json in
the run's directory names the images; another --config.draw.seed draws others.
"""

from ml_collections import ConfigDict

from ap10k_jax.configs import base

SCHEDULES = {"transfer": (35, True), "few_shot": (50, False), "generalization": (0, False)}


def get_config(arguments: str = "deer,transfer") -> ConfigDict:
    species, kind = arguments.split(",")
    config = base.get_config()
    config.data.species = config.eval.species = species
    config.draw.images = 140
    config.draw.shots = 20 if kind == "few_shot" else 0
    config.epochs, config.optimizer.linear_decay = SCHEDULES[kind]
    config.optimizer.learning_rate = 1e-5
    # Our choice, the paper says nothing: transfer has 105 steps and few-shot 50, so that SL's 500
    # warm-up steps would keep the rate below a quarter of 1e-5 to the end.
    config.optimizer.warmup_steps = 0
    config.optimizer.decay_at = ()
    # No image is left to choose a checkpoint by, so the last one is taken.
    config.eval.every_epochs = 0
    config.eval.splits = "test"
    return config
