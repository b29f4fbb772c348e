"""The base class of the TFDS builders of keypoint data sets.

It keeps the order of the annotation file, writes array_record files, and stores the annotations in
the metadata. A builder adds where its data lie and what they mean.
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
    """A data set with one record for each photograph; `records.features` says what it holds.

    It is shard based to keep the order of the annotation file. The usual generator-based builder
    sorts the records, and needs TensorFlow to do so for splits of more than 1 GB, such as AP-10K's
    train.
    """

    LAYOUT: ClassVar[sources.Layout]

    def __init__(self, *, file_format: str | None = None, **kwargs):
        super().__init__(file_format=file_format, **kwargs)
        # TFDS defaults to tfrecord, which needs TensorFlow and allows no random access.
        if file_format is None and not self.info.initialized:
            self.info.set_file_format("array_record", override=True)

    @classmethod
    def open(cls, config: str, data_dir: Path | None) -> Self | None:
        """The builder of a complete data set; None where it has not been built.

        TFDS moves a build to its final place only when it is complete.
        """
        builder = cls(config=config, data_dir=data_dir)
        return builder if builder.info.initialized else None

    @classmethod
    def from_folder(cls, config: str, root: sources.Root, data_dir: Path | None) -> Self:
        """A builder for the data set in `root`."""
        return cls(config=config, data_dir=data_dir)

    @abc.abstractmethod
    def read(self, root: sources.Root) -> tuple[dict[str, dict], dict]:
        """Read and validate the annotations of every TFDS split; returns the oddities too.

        Checks every photograph. Raises annotations.AnnotationError; writes nothing.
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
    """The images, with a progress bar while their photographs are checked."""
    return tqdm.tqdm(images, "checking", unit=" photographs")
