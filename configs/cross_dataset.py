"""Between AP-10K and Animal-Pose, Table 11: HRNet-w32 on the 17 joints that both have.

After the colon comes the data set to train on and to test; the recipe is that of SL.

    train     python -m ap10k_jax.main --config=configs/cross_dataset.py:animal_pose
    direct    python -m ap10k_jax.main --config=configs/cross_dataset.py:ap10k \\
                  --config.epochs=0 --config.init_from=runs/cross_dataset-animal_pose
    finetune  the same without --config.epochs=0 (and with another --workdir)

Expected AP (paper): Animal-Pose to AP-10K 0.424 direct, 0.722 finetuned, 0.727 trained on AP-10K
alone; AP-10K to Animal-Pose 0.913, 0.935, 0.932. AP-10K holds images that are in Animal-Pose too,
so the direct numbers flatter; the report of ap10k_jax.reproduce counts them.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(dataset: str = "animal_pose") -> ConfigDict:
    config = base.get_config()
    config.data.name = f"{dataset}/split1"
    config.init_from = "imagenet"
    return config
