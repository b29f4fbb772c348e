"""AP-10K, in the three splits of its authors."""

import tensorflow_datasets as tfds
import tqdm

from ap10k_jax import keypoints
from tfds_ap10k import annotations, records, sources, taxonomy

FILES = {"train": "train", "validation": "val", "test": "test"}  # TFDS split: part of file name


class Builder(tfds.core.ShardBasedBuilder):
    """One record a photograph; see `records.features` for what is in it.

    Shard based, because that keeps the order of the annotation file. The usual generator based
    builder sorts, and for a split of more than 1 GB (as train is) it needs TensorFlow to do so.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012 (TFDS reads it from the class)
    BUILDER_CONFIGS = [  # noqa: RUF012
        tfds.core.BuilderConfig(name=f"split{n}", description=f"Random 7:1:2 split {n} of 3.")
        for n in (1, 2, 3)
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = sources.INSTRUCTIONS

    def __init__(self, *, file_format: str | None = None, **kwargs):
        super().__init__(file_format=file_format, **kwargs)
        # TFDS defaults to tfrecord, which cannot be read without TensorFlow, nor in any order.
        if file_format is None and not self.info.initialized:
            self.info.set_file_format("array_record", override=True)

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=records.features(
                [species.name for species in taxonomy.SPECIES],
                taxonomy.FAMILIES,
                len(keypoints.AP10K),
            ),
            homepage="https://github.com/AlexTheBad/AP-10K",
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(),
        )

    def read(self, root: sources.Root) -> tuple[dict[str, dict], dict]:
        """The validated annotations of every split, and the report of oddities.

        Looks at every photograph. Raises annotations.AnnotationError; writes nothing.
        """
        return annotations.read(
            {
                split: root / "annotations" / f"ap10k-{part}-{self.builder_config.name}.json"
                for split, part in FILES.items()
            },
            folder=root / "data",
            keypoint_names=keypoints.AP10K.names,
            categories={species.id: (species.name, species.family) for species in taxonomy.SPECIES},
            progress=lambda images: tqdm.tqdm(images, "checking", unit=" photographs"),
        )

    def _shard_iterators_per_split(self, dl_manager: tfds.download.DownloadManager) -> dict:
        root = sources.find(dl_manager.manual_dir)
        splits, report = self.read(root)
        self.info.metadata.update(records.metadata(splits, report))
        return {
            split: records.shards(coco, root / "data", f"writing {split}")
            for split, coco in splits.items()
        }
