"""Minutes on two CPU cores, nothing to download: a tiny HRNet on synthetic animals at 128 px.

    python -m ap10k_jax.main --config=configs/quickstart.py

Validation AP is above 0.5 at the end; runs/quickstart/animals-validation.png shows what it learnt.
"""

from ml_collections import ConfigDict

from ap10k_jax.configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.epochs = 40
    config.batch_size = 32
    config.drop_remainder = True  # spares compiling the step for the last, smaller batch

    config.model.name = "hrnet_tiny"
    config.data.dir = "runs/synthetic"
    config.data.synthetic_images = 400
    config.data.image_size = 128

    # Few and small images learn faster from milder variation than the paper's.
    config.augment.scale_sigma = 0.25
    config.augment.rotation_sigma = 15.0
    config.augment.half_body_probability = 0.0

    config.optimizer.learning_rate = 2e-3
    config.optimizer.warmup_steps = 50
    config.eval.every_epochs = 10
    config.log_every_steps = 10
    config.checkpoint_every_epochs = 5
    return config
