"""Semi-supervised learning: few labels, or all of them, and photographs without any.

A mean teacher labels the photographs of train that configs/few_label.py leaves out, and those of
the split `unlabeled` where the data set has one (see ap10k_jax/semi.py). After the colon stands
the number of labelled photographs a species, or `all`:

    python -m ap10k_jax.main --config=configs/semi.py:5
    python -m ap10k_jax.main --config=configs/semi.py:all --config.semi.boxes=megadetector.json
    python -m ap10k_jax.main --config=configs/semi.py:5,quickstart

The teacher is what is scored and saved. pseudo_labels.png in the run's directory shows how good
its labels were where the truth is known.
"""

from ml_collections import ConfigDict

from ap10k_jax.configs import few_label


def get_config(arguments: str = "5") -> ConfigDict:
    labels, _, scale = arguments.partition(",")
    labels = "0" if labels == "all" else labels
    config = few_label.get_config(f"{labels},{scale}" if scale else labels)
    config.semi.batch_size = config.batch_size
    if scale:  # settings for a thousand steps, chosen on a seed that the table does not show
        config.semi.ema_decay = 0.99
        config.semi.ramp_up_steps = 50
    return config
