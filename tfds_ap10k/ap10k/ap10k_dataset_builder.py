"""AP-10K, in the three splits of its authors."""

import tensorflow_datasets as tfds

from ap10k_jax import keypoints
from tfds_ap10k import annotations, builder, sources, taxonomy, unlabeled

FILES = {"train": "train", "validation": "val", "test": "test"}  # TFDS split: part of file name


class Builder(builder.KeypointBuilder):
    """One record a photograph; see `records.features` for what is in it."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012 (TFDS reads it from the class)
    BUILDER_CONFIGS = [  # noqa: RUF012
        tfds.core.BuilderConfig(name=f"split{n}", description=f"Random 7:1:2 split {n} of 3.")
        for n in (1, 2, 3)
    ]
    LAYOUT = sources.AP10K
    MANUAL_DOWNLOAD_INSTRUCTIONS = LAYOUT.instructions

    def _info(self) -> tfds.core.DatasetInfo:
        return self.describe(
            species=[species.name for species in taxonomy.SPECIES],
            families=taxonomy.FAMILIES,
            num_keypoints=len(keypoints.AP10K),
            homepage="https://github.com/AlexTheBad/AP-10K",
        )

    def read(self, root: sources.Root) -> tuple[dict[str, dict], dict]:
        categories = {species.id: (species.name, species.family) for species in taxonomy.SPECIES}

        def annotated() -> tuple[dict[str, dict], dict]:
            return annotations.read(
                {
                    split: root / "annotations" / f"ap10k-{part}-{self.builder_config.name}.json"
                    for split, part in FILES.items()
                },
                folder=self.photographs(root),
                keypoint_names=keypoints.AP10K.names,
                categories=categories,
                progress=builder.checking,
            )

        return unlabeled.beside(root, annotated, categories, progress=builder.checking)

    def photographs(self, root: sources.Root) -> sources.Root:
        return root / "data"
