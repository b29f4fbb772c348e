"""Animal-Pose in three random splits of our own: its authors published none."""

import re

import tensorflow_datasets as tfds

from ap10k_jax import keypoints
from tfds_ap10k import builder, sources, taxonomy
from tfds_ap10k.animal_pose import conversion

INSTRUCTIONS = """\
Animal-Pose must be downloaded by hand, "Part I" of its official page,
https://sites.google.com/view/animal-pose/ (linked to https://github.com/noahcao/animal-pose-dataset):
  Google Drive  https://drive.google.com/drive/folders/1xxm6ZjfsDSmv6C9JvbgiGrmHktrUjV5x
Put keypoints.json and the folder images/ into a folder and name that folder with --manual-dir. They
may also lie in a folder animal_pose (or animal-pose, AnimalPose...) or a zip file of such a name.
"""


class Builder(builder.KeypointBuilder):
    """One record a photograph; see `records.features` for what is in it, with 20 keypoints.

    Labels and category ids of the species are those of AP-10K.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012 (TFDS reads it from the class)
    BUILDER_CONFIGS = [  # noqa: RUF012
        tfds.core.BuilderConfig(name=f"split{n}", description=f"Random 7:1:2 split {n} of 3.")
        for n in (1, 2, 3)
    ]
    LAYOUT = sources.Layout(
        "Animal-Pose",
        "keypoints.json",
        re.compile(r"animal[-_ ]?pose.*", re.IGNORECASE),
        INSTRUCTIONS,
    )
    MANUAL_DOWNLOAD_INSTRUCTIONS = INSTRUCTIONS

    def _info(self) -> tfds.core.DatasetInfo:
        return self.describe(
            species=[species.name for species in taxonomy.SPECIES],
            families=taxonomy.FAMILIES,
            num_keypoints=len(keypoints.ANIMAL_POSE),
            homepage="https://sites.google.com/view/animal-pose/",
        )

    def read(self, root: sources.Root) -> tuple[dict[str, dict], dict]:
        split = int(self.builder_config.name.removeprefix("split"))
        return conversion.read(
            root / "keypoints.json",
            self.photographs(root),
            seed=[split],
            progress=builder.checking,
        )

    def photographs(self, root: sources.Root) -> sources.Root:
        return root / "images"
