"""Batches of crops from a source of examples: decoded, augmented and cropped in Grain's threads.

A batch holds `image` uint8 (b, S, S, 3) RGB, `keypoints` (b, k, 2) in crop pixels, `weights`
(b, k), `center` and `scale` (b, 2) in image pixels, and `index` (b,), the animal's place in the
source. Normalising and drawing the targets is left to the device: they are larger than bytes.
"""

import functools
import math
from collections.abc import Callable
from typing import Protocol

import grain
import numpy as np

from ap10k_jax.augmentation import Augmentation, sample
from ap10k_jax.data.animals import Animals, decode_example

PAPER_AUGMENTATION = Augmentation()


class Source(Protocol):
    """Examples of animals, and their random crops: Animals, DecodedPhotographs or Patches."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> dict: ...
    def random_crop(
        self,
        example: dict,
        rng: np.random.Generator,
        *,
        image_size: int,
        augmentation: Augmentation,
        shift_seed: int = 0,
    ) -> dict: ...


def steps_per_epoch(animals: int, batch_size: int, *, drop_remainder: bool) -> int:
    """Batches in an epoch: 143 of 64 on the training animals of split 1, where the last has 34.

    Raises ValueError where dropping the last, smaller batch leaves none.
    """
    steps = animals // batch_size if drop_remainder else math.ceil(animals / batch_size)
    if not steps:
        raise ValueError(f"{animals} animals make no full batch, and drop_remainder is set")
    return steps


def train_batches(
    source: Source,
    *,
    batch_size: int,
    epochs: int,
    seed: int,
    image_size: int = 256,
    augmentation: Augmentation = PAPER_AUGMENTATION,
    drop_remainder: bool = False,
    multiple_of: int = 1,
    rows: Callable[[int], range] = range,
    threads: int = 4,
) -> grain.IterDataset:
    """Batches of `epochs` shuffled passes over the source, with one random crop of each animal.

    Order and augmentation depend on the seed, the epoch and the animal alone. The iterator's state
    can be saved. An epoch's last, smaller batch is filled up to `multiple_of` (the number of
    devices) with animals of the same batch, as PyTorch's DistributedSampler repeats some. Where
    several processes share a batch, `rows(n)` gives the rows of a batch of n that this process
    reads: all of them, or those of `sharding.rows`. The iterator's state is the same in all of
    them.

    Crops of `Animals` and of `DecodedPhotographs` are the same to the bit. With `Patches`, batches
    hold in place of `image` the `matrix` (b, 2, 3) from crop to patch pixels, for the device to
    cut.
    """
    crop = functools.partial(
        source.random_crop, image_size=image_size, augmentation=augmentation, shift_seed=seed
    )
    crops = grain.MapDataset.source(source).seed(seed).shuffle().random_map(crop)
    batches = Batches(
        crops,
        batch_size=batch_size,
        drop_remainder=drop_remainder,
        multiple_of=multiple_of,
        rows=rows,
    )
    return batches.repeat(epochs).to_iter_dataset(_read_options(threads))


def eval_batches(
    animals: Animals,
    *,
    batch_size: int,
    image_size: int = 256,
    rows: Callable[[int], range] = range,
    threads: int = 4,
) -> grain.IterDataset:
    """Batches of every animal's plain crop, in order; the last one is filled up with index -1.

    `rows` as in `train_batches`.
    """
    crops = grain.MapDataset.source(animals).map(functools.partial(upright, image_size=image_size))
    batches = Batches(
        crops, batch_size=batch_size, multiple_of=batch_size, rows=rows, index_of_fill=-1
    )
    return batches.to_iter_dataset(_read_options(threads))


class Batches(grain.MapDataset):
    """Batches of examples, of which this process makes only the rows that it reads.

    A batch is filled up to `multiple_of` with copies of its first examples. With `index_of_fill`
    the copies have that index, so that the reader of the batch can drop them.
    """

    def __init__(
        self,
        examples: grain.MapDataset,
        *,
        batch_size: int,
        drop_remainder: bool = False,
        multiple_of: int = 1,
        rows: Callable[[int], range] = range,
        index_of_fill: int | None = None,
    ):
        super().__init__(examples)
        self._examples, self._batch_size = examples, batch_size
        self._steps = steps_per_epoch(len(examples), batch_size, drop_remainder=drop_remainder)
        self._multiple_of, self._rows, self._index_of_fill = multiple_of, rows, index_of_fill

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int | slice) -> dict | grain.MapDataset:
        if isinstance(step, slice):
            return self.slice(step)
        epoch, step = divmod(step, self._steps)
        start = step * self._batch_size
        size = min(self._batch_size, len(self._examples) - start)
        rows = self._rows(size + -size % self._multiple_of)
        # Grain tells the epochs apart by indices beyond the length
        first = epoch * len(self._examples) + start
        made = {place: self._examples[first + place] for place in {row % size for row in rows}}
        batch = [made[row % size] for row in rows]
        if self._index_of_fill is not None:
            fill = {"index": np.int32(self._index_of_fill)}
            batch = [e | fill if r >= size else e for r, e in zip(rows, batch, strict=True)]
        return stack(batch)


def upright(example: dict, *, image_size: int) -> dict:
    """The plain crop of one of `Animals`' examples, as used for evaluation."""
    return sample(decode_example(example), size=(image_size, image_size))


def stack(examples: list[dict]) -> dict:
    """Stack examples into one batch."""
    return {name: np.stack([example[name] for example in examples]) for name in examples[0]}


def _read_options(threads: int) -> grain.ReadOptions:
    # An element is a whole batch here, so a short buffer is enough.
    return grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
