"""From the built data set to batches: one animal an element, read, decoded, augmented, cropped.

    animals = data.Animals.open("ap10k/split1", "train")
    batches = data.train_batches(animals, batch_size=64, epochs=1, seed=0)

A batch holds `image` uint8 (b, S, S, 3) RGB, `keypoints` (b, k, 2) in crop pixels, `weights`
(b, k), `center` and `scale` (b, 2) in image pixels, and `index` (b,), the animal's place in
`animals`. Normalising and drawing the targets is left to the device: they are larger than bytes.
"""

import copy
import functools
import hashlib
import math
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import grain
import numpy as np
import tensorflow_datasets as tfds

import tfds_ap10k  # noqa: F401  registers the builders
from ap10k_jax import images, keypoints
from ap10k_jax.augmentation import Augmentation, sample
from ap10k_jax.data.decoded_cache import DecodedPhotographs
from ap10k_jax.data.patches import Patches
from tfds_ap10k import splits

SPLITS = ("train", "validation", "test")
PAPER_AUGMENTATION = Augmentation()


class Animals:
    """The animals of a split in the order of its annotation file; a Grain source of examples.

    An example holds the photograph's stored bytes, the box (xywh, image pixels), the keypoints
    (k, 3) and the index. Animals without a labelled keypoint are left out, and so are crowds
    (`iscrowd` 1), which are no single animal; `unlabeled` and `crowds` count them.
    """

    def __init__(
        self,
        source: Sequence[dict],
        annotations: dict,
        *,
        fingerprint: str,
        photographs_sha256: str = "",
        species: Sequence[str] = (),
        images: Collection[int] | None = None,
        max_animals: int = 0,
    ):
        """`source` gives the records in the order of the images of the COCO dict `annotations`.

        `fingerprint` is that of the annotations; `photographs_sha256` tells data sets apart whose
        photographs alone differ.
        `species` keeps these species, or families, only, `images` the animals of the images with
        these ids, `max_animals` the first so many.
        """
        self._source = source
        self._coco = annotations
        self.keypoint_set = keypoints.of_annotations(annotations)
        self.fingerprint, self.photographs_sha256 = fingerprint, photographs_sha256
        record_of = {image["id"]: i for i, image in enumerate(annotations["images"])}
        wanted = {
            c["id"]
            for c in annotations["categories"]
            if not species or c["name"] in species or c["supercategory"] in species
        }
        chosen = [
            a
            for a in annotations["annotations"]
            if a["category_id"] in wanted and (images is None or a["image_id"] in images)
        ]
        labeled = [a for a in chosen if keypoints.is_animal(a)]
        self._crowds = [a for a in chosen if keypoints.is_crowd(a)]
        self.crowds = len(self._crowds)
        self.unlabeled = len(chosen) - len(labeled) - self.crowds
        self._index = [(record_of[a["image_id"]], a) for a in labeled[: max_animals or None]]
        # where each of these animals' photographs is among `images`, all of the split's
        self.image_places = np.array([place for place, _ in self._index], int)
        place_of = {a["id"]: i for i, a in enumerate(annotations["annotations"])}
        # where each of these animals is among all of the split's
        self.places = np.array([place_of[a["id"]] for _, a in self._index], int)
        self.split_size = len(place_of)

    @classmethod
    def open(
        cls,
        name: str,
        split: str,
        *,
        data_dir: str | Path | None = None,
        species: Sequence[str] = (),
        images: Collection[int] | None = None,
        max_animals: int = 0,
        neck: str = "throat",
    ):
        """Animals of a built data set; `split` is train, validation, test, or "all" that there are.

        Those of Animal-Pose come with AP-10K's 17 joints; `neck` says which joint is the neck, see
        keypoints.ANIMAL_POSE_NECKS. `keypoint_set` has the joints.
        """
        builder = built(name, data_dir)
        contents = annotations(builder, neck)
        wanted = list(contents) if split == "all" else [split]
        parts = [contents[part] for part in wanted]
        metadata = builder.info.metadata
        prints = [metadata["fingerprints"][part] for part in wanted]
        # a data set that was built before these were kept has none
        digests = [metadata.get("photographs", {}).get(part, "") for part in wanted]
        # SkipDecoding: the stored bytes come as they are, we decode only what we crop
        decoders = {"image": tfds.decode.SkipDecoding()}
        sources = [builder.as_data_source(part, decoders=decoders) for part in wanted]
        return cls(
            sources[0] if len(sources) == 1 else Joined(sources),
            parts[0] if len(parts) == 1 else joined(parts),
            fingerprint=prints[0] if len(prints) == 1 else sha256(" ".join(prints)),
            photographs_sha256=" ".join(digests),
            species=species,
            images=images,
            max_animals=max_animals,
        )

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> dict:
        position, annotation = self._index[index]
        record = self._source[position]
        if record["image_id"] != annotation["image_id"]:
            raise ValueError(
                f"record {position} holds photograph {record['image_id']}, the index says "
                f"{annotation['image_id']}: build the data set anew"
            )
        file_name = self.image(index)["file_name"]
        return {"bytes": record["image"], "file_name": file_name, **self.labels(index)}

    def labels(self, index: int) -> dict:
        """An animal's example without its photograph, which is not read."""
        annotation = self.annotation(index)
        return {
            "box": np.array(annotation["bbox"], np.float32),
            "keypoints": np.array(annotation["keypoints"], np.float32).reshape(-1, 3),
            "index": np.int32(index),
        }

    def of_images(self, ids: Collection[int]) -> "Animals":
        """Those of these animals that are on the images with these ids."""
        part = copy.copy(self)
        kept = [i for i, (_, animal) in enumerate(self._index) if animal["image_id"] in ids]
        part._index = [self._index[i] for i in kept]
        part.places, part.image_places = self.places[kept], self.image_places[kept]
        return part

    @property
    def images(self) -> list[dict]:
        """The COCO records of all photographs of the split."""
        return self._coco["images"]

    def annotation(self, index: int) -> dict:
        """The COCO record of an animal."""
        return self._index[index][1]

    def image(self, index: int) -> dict:
        """The COCO record of an animal's photograph."""
        return self._coco["images"][self._index[index][0]]

    def ground_truth(self) -> dict:
        """These animals, and no others, as a COCO dict to score against.

        Crowds on their photographs come after them, as regions where the metric counts nothing.
        """
        animals = [annotation for _, annotation in self._index]
        photographs = {animal["image_id"] for animal in animals}
        crowds = [crowd for crowd in self._crowds if crowd["image_id"] in photographs]
        return self._coco | {"annotations": animals + crowds}


class Labels(Sequence):
    """Examples of animals without their photographs."""

    def __init__(self, animals: Animals):
        self._animals = animals

    def __len__(self) -> int:
        return len(self._animals)

    def __getitem__(self, index: int) -> dict:
        return self._animals.labels(index)


def built(name: str, data_dir: str | Path | None) -> tfds.core.DatasetBuilder:
    """The builder of a built data set, such as own/foxes."""
    return tfds.builder(name, data_dir=data_dir and Path(data_dir).expanduser())


def annotations(builder: tfds.core.DatasetBuilder, neck: str = "throat") -> dict[str, dict]:
    """The COCO dict of every split, train first; those of Animal-Pose with AP-10K's joints.

    `neck` is a key of keypoints.ANIMAL_POSE_NECKS; other data sets are as they are whatever it is.
    """
    contents = builder.info.metadata["annotations"]
    contents = {split: contents[split] for split in SPLITS if split in contents}
    if builder.name == "animal_pose":
        mapping = keypoints.animal_pose_mapping(neck)
        return {
            split: keypoints.remap_annotations(coco, mapping) for split, coco in contents.items()
        }
    return contents


class Joined(Sequence):
    """The records of several sources, one after the other."""

    def __init__(self, sources: Sequence[Sequence[dict]]):
        self._sources = sources
        self._ends = np.cumsum([len(source) for source in sources])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> dict:
        part = int(np.searchsorted(self._ends, index, side="right"))
        return self._sources[part][index - (self._ends[part - 1] if part else 0)]


def joined(parts: Sequence[dict]) -> dict:
    """COCO dicts of disjoint images as one."""
    lists = {name: [x for part in parts for x in part[name]] for name in ("images", "annotations")}
    return {**parts[0], **lists}


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def draw(animals: Animals, *, images: int, seed: int) -> dict:
    """Images to train on, drawn from those of `animals`, and all others, to test on.

    {"seed", "train": ids in the order they were drawn, "test": ids in ascending order, "sha256"}
    follows from the ids and the seed alone. The hash is that of "train" and "test", as
    "3 1 7; 2 4 5 6". Raises ValueError where nothing would be left to test on.
    """
    ids = sorted({animals.annotation(i)["image_id"] for i in range(len(animals))})
    if len(ids) <= images:
        raise ValueError(f"{len(ids)} images: drawing {images} leaves none to test on")
    order = [ids[i] for i in np.random.default_rng(seed).permutation(len(ids))]
    train, test = order[:images], sorted(order[images:])
    text = "; ".join(" ".join(map(str, part)) for part in (train, test))
    return {"seed": seed, "train": train, "test": test, "sha256": sha256(text)}


def few_labels(animals: Animals, *, images: int, seed: int) -> dict:
    """The images that keep their labels, so many of every species, and those that do not.

    {"images_per_species", "seed", "labelled": ids, "hidden": ids, both ascending, "sha256"}; the
    hash is as in `draw`. See tfds_ap10k.splits.few_labels. Raises ValueError where none is hidden.
    """
    coco = animals.ground_truth()
    coco["annotations"] = [a for a in coco["annotations"] if not keypoints.is_crowd(a)]
    kept = {image["id"] for image in splits.few_labels(coco, images, (seed,))["images"]}
    labelled = sorted(kept)
    hidden = sorted({a["image_id"] for a in coco["annotations"]} - kept)
    if not hidden:
        raise ValueError(f"no species has more than {images} images: no label is left out")
    text = "; ".join(" ".join(map(str, part)) for part in (labelled, hidden))
    numbers = {"images_per_species": images, "seed": seed, "labelled": labelled, "hidden": hidden}
    return numbers | {"sha256": sha256(text)}


def steps_per_epoch(animals: int, batch_size: int, *, drop_remainder: bool) -> int:
    """Batches an epoch: 143 on the training animals of split 1, the last of them with 34.

    Raises ValueError where dropping the last, smaller batch leaves none.
    """
    steps = animals // batch_size if drop_remainder else math.ceil(animals / batch_size)
    if not steps:
        raise ValueError(f"{animals} animals make no full batch, and drop_remainder is set")
    return steps


def train_batches(
    animals: Animals,
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
    kept: DecodedPhotographs | Patches | None = None,
    cut: bool = True,
) -> grain.IterDataset:
    """`epochs` passes over the animals, each in an order of its own, one augmented crop each.

    Order and augmentation follow from the seed, the epoch and the animal alone. The iterator's
    state can be saved. An epoch's last, smaller batch is filled up to `multiple_of` (the number of
    devices) with animals of the same batch, as PyTorch's DistributedSampler repeats some. Where
    several processes share a batch, `rows` says which of its n rows this one reads: all, or those
    of `sharding.rows`. The iterator's state is the same in all of them.

    `kept` has what the views are cut from in place of photographs that are decoded every time: with
    `DecodedPhotographs` the crops are the same to the bit, with `Patches` but for resampling. Of
    patches, without `cut`, batches hold in place of `image` the `matrix` (b, 2, 3) from crop to
    patch pixels, for the device to cut.
    """
    options = {"image_size": image_size, "augmentation": augmentation}
    options |= {"keypoint_set": animals.keypoint_set, "shift_seed": seed}
    if kept is not None and kept.animals is not animals:
        raise ValueError("what is kept is of other animals")
    if isinstance(kept, Patches):
        source, crop = Labels(animals), functools.partial(kept.framed, cut=cut, **options)
    else:
        source = animals if kept is None else kept
        crop = functools.partial(augmented, **options)
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
    """Every animal's upright crop once, in order; the last batch is filled up with index -1.

    `rows` as in `train_batches`.
    """
    crops = grain.MapDataset.source(animals).map(functools.partial(upright, image_size=image_size))
    batches = Batches(
        crops, batch_size=batch_size, multiple_of=batch_size, rows=rows, index_of_fill=-1
    )
    return batches.to_iter_dataset(_read_options(threads))


class Batches(grain.MapDataset):
    """The examples in batches, of which only the rows that this process reads are made.

    A batch that is no multiple of a number is filled up with copies of its first examples. With
    `index_of_fill` the copies have that index, so that whoever reads the batch can drop them.
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


def augmented(
    example: dict,
    rng: np.random.Generator,
    *,
    image_size: int,
    augmentation: Augmentation,
    keypoint_set: keypoints.KeypointSet = keypoints.AP10K,
    shift_seed: int = 0,
) -> dict:
    """A random crop of one of `Animals`' examples, or of `DecodedPhotographs`'."""
    return sample(
        decoded(example),
        rng,
        size=(image_size, image_size),
        augmentation=augmentation,
        keypoint_set=keypoint_set,
        shift_seed=shift_seed,
    )


def upright(example: dict, *, image_size: int) -> dict:
    """The plain crop of one of `Animals`' examples, as for evaluation."""
    return sample(decoded(example), size=(image_size, image_size))


def decoded(example: dict) -> dict:
    """The example with its photograph's pixels as `image` in place of the stored bytes."""
    if "image" in example:
        return example
    rest = {k: v for k, v in example.items() if k not in ("bytes", "file_name")}
    return rest | {"image": images.decode(example["bytes"], example["file_name"])}


def stack(examples: list[dict]) -> dict:
    """Examples as one batch."""
    return {name: np.stack([example[name] for example in examples]) for name in examples[0]}


def _read_options(threads: int) -> grain.ReadOptions:
    # An element is a whole batch here: a few of them ahead are enough.
    return grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
