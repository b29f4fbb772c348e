"""Learning from few labels: of every species 5 to 25 photographs of train, drawn from config.seed.

The number comes after the colon; labels.json in the run's directory names the photographs:

    python -m ap10k_jax.main --config=configs/few_label.py:5

An epoch is as many photographs as all of train has, so few labels are seen as often as many would.
`5,quickstart` does it in minutes on drawn animals. configs/semi.py uses the other photographs, too.
"""

from ml_collections import ConfigDict

from ap10k_jax.configs import base, quickstart


def get_config(arguments: str = "5") -> ConfigDict:
    labels, _, scale = arguments.partition(",")
    if scale not in ("", "quickstart"):
        raise ValueError(
            f"{arguments!r}: a number of photographs, and perhaps ,quickstart after it"
        )
    config = (quickstart if scale else base).get_config()
    config.data.labels_per_species = int(labels)
    config.epochs_of_whole_split = True
    config.init_from = "imagenet"
    if scale:
        config.init_from = ""
        config.data.synthetic_images = 800
        config.data.dir = "runs/synthetic-800"
        config.batch_size = 16
    return config
