"""Cross-domain transfer from human pose, Table 5: HRNet-w32 from a COCO human-pose checkpoint.

The rate is fixed at 1e-4 after SL's 500 warm-up steps. 20, 30, 40 and 210 epochs have AP .606,
.642, .667 and .753 in the paper:

    python -m ap10k_jax.main --config=configs/cdtl.py --config.epochs=20

Without the public file: --config.init_from=FILE, or the directory of a run of your own.
"""

from ml_collections import ConfigDict

from ap10k_jax.configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.epochs = 210
    config.init_from = "coco"
    config.optimizer.learning_rate = 1e-4
    # The paper: "the same setting as SL, except that the learning rate is fixed". So the 500
    # warm-up steps of configs/base.py stay, and only the two falls of the rate go.
    config.optimizer.decay_at = ()
    return config
