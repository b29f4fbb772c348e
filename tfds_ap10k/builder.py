"""What the TFDS builders of keypoint data sets have in common.

The order of the annotation file is kept, the files are array_record, and the metadata hold the
annotations; a builder adds where its data lie and what they mean.
"""

import abc
import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar, Self

import tensorflow_datasets as tfds
import tqdm

from tfds_ap10k import records, sources, unlabeled


class KeypointBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):
    """One record a photograph; see `records.features` for what is in it.

    Shard based, because that keeps the order of the annotation file. The usual generator based
    builder sorts, and for a split of more than 1 GB (as AP-10K's train is) it needs TensorFlow to
    do so.
    """

    LAYOUT: ClassVar[sources.Layout]

    def __init__(self, *, file_format: str | None = None, **kwargs):
        super().__init__(file_format=file_format, **kwargs)
        # TFDS defaults to tfrecord, which cannot be read without TensorFlow, nor in any order.
        if file_format is None and not self.info.initialized:
            self.info.set_file_format("array_record", override=True)

    @classmethod
    def open(cls, config: str, data_dir: Path | None) -> Self | None:
        """The builder of a data set that is there, whole; None where it has not been built.

        TFDS renames a build to its place when it is done.
        """
        builder = cls(config=config, data_dir=data_dir)
        return builder if builder.info.initialized else None

    @classmethod
    def from_folder(cls, config: str, root: sources.Root, data_dir: Path | None) -> Self:
        """A builder that can build the data set that `root` holds."""
        return cls(config=config, data_dir=data_dir)

    @abc.abstractmethod
    def read(self, root: sources.Root) -> tuple[dict[str, dict], dict]:
        """The validated annotations of every TFDS split, and the report of oddities.

        Looks at every photograph. Raises annotations.AnnotationError; writes nothing.
        """

    @abc.abstractmethod
    def photographs(self, root: sources.Root) -> sources.Root:
        """The folder that file names are relative to."""

    def describe(
        self, *, species: Sequence[str], families: Sequence[str], num_keypoints: int, homepage: str
    ) -> tfds.core.DatasetInfo:
        """The info of the data set; the labels and joints are those of its records."""
        return self.dataset_info_from_configs(
            features=records.features(species, families, num_keypoints),
            homepage=homepage,
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(),
        )

    def _shard_iterators_per_split(self, dl_manager: tfds.download.DownloadManager) -> dict:
        root = sources.find(dl_manager.manual_dir, self.LAYOUT)
        splits, report = self.read(root)
        self.info.metadata.update(records.metadata(splits, report))
        digests = self.info.metadata["photographs"]
        return {
            split: records.shards(
                coco,
                self._folder(root, split),
                f"writing {split}",
                on_read=functools.partial(digests.__setitem__, split),
            )
            for split, coco in splits.items()
        }

    def _folder(self, root: sources.Root, split: str) -> sources.Root:
        return root / unlabeled.FOLDER if split == unlabeled.SPLIT else self.photographs(root)


def checking(images: Sequence) -> Iterable:
    """The images, with a progress bar while their photographs are looked at."""
    return tqdm.tqdm(images, "checking", unit=" photographs")
