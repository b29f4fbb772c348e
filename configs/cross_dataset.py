"""Between AP-10K and Animal-Pose, Table 11: HRNet-w32 on the 17 joints that both have.

After the colon come the data set to train on and to test and, after a comma, which joint of
Animal-Pose stands for AP-10K's neck; the recipe is that of SL.

    train     python -m ap10k_jax.main --config=configs/cross_dataset.py:animal_pose
    direct    python -m ap10k_jax.main --config=configs/cross_dataset.py:ap10k \\
                  --config.epochs=0 --config.init_from=runs/cross_dataset-animal_pose
    finetune  the same without --config.epochs=0 (and with another --workdir)

The paper does not say which joint it took for the neck. It is the throat here, most likely the
paper's choice (17 of the 20 joints remain when ears and withers go). AP-10K's annotators put the
neck midway between throat and withers: `animal_pose,midpoint` has it there, in animals on which
both are labelled. Numbers with different necks are not comparable: predictions with the neck at the
midpoint and no other error have AP .88 on labels with the neck at the throat. For ap10k the word
changes nothing; it records with which neck the run that this one starts from was trained.

Expected AP (paper): Animal-Pose to AP-10K 0.424 direct, 0.722 finetuned, 0.727 trained on AP-10K
alone; AP-10K to Animal-Pose 0.913, 0.935, 0.932. The authors' code scores Animal-Pose as one
category, on fixed splits of 4,000 / 1,117 / 1,000 animals (the last is the part that is not from
PASCAL VOC). Our AP is the mean over five species on a random 7:1:2 split; `instance_AP` in
results.json is the one with one category. AP-10K holds images that are in Animal-Pose too, so the
direct numbers flatter; the report of ap10k_jax.reproduce counts them.
"""

from ml_collections import ConfigDict

from ap10k_jax.configs import base


def get_config(arguments: str = "animal_pose") -> ConfigDict:
    dataset, _, neck = arguments.partition(",")
    config = base.get_config()
    config.data.neck = neck or config.data.neck
    config.data.name = f"{dataset}/split1"
    config.init_from = "imagenet"
    return config
