"""Supervised learning, Tables 3 and 4: 5 models x {scratch, ImageNet} x 3 splits, 210 epochs.

HRNet-w32 from scratch has AP 0.703 +- 0.002 in the paper (validation, mean and standard deviation
over the splits; it does not say whether of sample or population):

    python -m ap10k_jax.main --config=configs/sl.py --config.data.manual_dir=DOWNLOADS

Other rows: --config.model.name=hrnet_w48, --config.data.name=ap10k/split2, --config.epochs=420.
"""

from ml_collections import ConfigDict

from ap10k_jax.configs import base


def get_config() -> ConfigDict:
    return base.get_config()
