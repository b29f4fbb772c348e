"""The animals of a built data set: the source of examples, one animal an element.

source = Animals.open("ap10k/split1", "train")
batches.train_batches(source, batch_size=64, epochs=1, seed=0)
"""

import copy
import hashlib
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

import tfds_ap10k  # noqa: F401  registers the builders
from ap10k_jax import images, keypoints
from ap10k_jax.augmentation import Augmentation, sample
from tfds_ap10k import splits

SPLITS = ("train", "validation", "test")


class Animals:
    """The animals of a split in the order of its annotation file; a Grain source of examples.

    An example holds the photograph's encoded bytes, its file name, the box (xywh, image pixels),
    the keypoints (k, 3: x, y in image pixels, visibility) and the index. Animals without a labelled
    keypoint are left out and counted in `unlabeled`. Crowds (`iscrowd` 1), which are not single
    animals, are left out and counted in `crowds`.
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
        """Make the source from records in the order of the images of the COCO dict `annotations`.

        `fingerprint` is that of the annotations; `photographs_sha256` distinguishes data sets that
        differ in their photographs only. `species` selects species or families by name, `images`
        the images with these ids, `max_animals` the first so many of the animals that are left.
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
        # position of each animal's photograph in `images`, which holds all of the split
        self.image_places = np.array([place for place, _ in self._index], int)
        place_of = {a["id"]: i for i, a in enumerate(annotations["annotations"])}
        # position of each animal among all annotations of the split
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
        """Open a split of a built data set: train, validation, test, or "all" of them.

        Animal-Pose comes with AP-10K's 17 joints; `neck` says which of its joints is the neck, see
        keypoints.ANIMAL_POSE_NECKS. `keypoint_set` has the joints.
        """
        builder = open_builder(name, data_dir)
        contents = read_annotations(builder, neck)
        wanted = list(contents) if split == "all" else [split]
        parts = [contents[part] for part in wanted]
        metadata = builder.info.metadata
        prints = [metadata["fingerprints"][part] for part in wanted]
        # data sets built by earlier versions have no such digests
        digests = [metadata.get("photographs", {}).get(part, "") for part in wanted]
        sources = [open_records(builder, part) for part in wanted]
        return cls(
            sources[0] if len(sources) == 1 else JoinedRecords(sources),
            parts[0] if len(parts) == 1 else splits.join(parts),
            fingerprint=prints[0] if len(prints) == 1 else _sha256(" ".join(prints)),
            photographs_sha256=" ".join(digests),
            species=species,
            images=images,
            max_animals=max_animals,
        )

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> dict:
        position, annotation = self._index[index]
        record = read_record(self._source, position, annotation["image_id"])
        file_name = self.image(index)["file_name"]
        return {"bytes": record["image"], "file_name": file_name, **self.labels(index)}

    def labels(self, index: int) -> dict:
        """An animal's example without its photograph; nothing is read from disk."""
        annotation = self.annotation(index)
        return {
            "box": np.array(annotation["bbox"], np.float32),
            "keypoints": np.array(annotation["keypoints"], np.float32).reshape(-1, 3),
            "index": np.int32(index),
        }

    def random_crop(
        self,
        example: dict,
        rng: np.random.Generator,
        *,
        image_size: int,
        augmentation: Augmentation,
        shift_seed: int = 0,
    ) -> dict:
        """A random crop of one of these examples, see `sample`."""
        return sample(
            decode_example(example),
            rng,
            size=(image_size, image_size),
            augmentation=augmentation,
            keypoint_set=self.keypoint_set,
            shift_seed=shift_seed,
        )

    def of_images(self, ids: Collection[int]) -> "Animals":
        """The animals on the images with these ids, as a source of its own."""
        part = copy.copy(self)
        indices = [i for i, (_, animal) in enumerate(self._index) if animal["image_id"] in ids]
        part._index = [self._index[i] for i in indices]
        part.places, part.image_places = self.places[indices], self.image_places[indices]
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
        """A COCO dict of exactly these animals, to score against.

        Crowds on their photographs follow, as regions that the metric ignores.
        """
        animals = [annotation for _, annotation in self._index]
        photographs = {animal["image_id"] for animal in animals}
        crowds = [crowd for crowd in self._crowds if crowd["image_id"] in photographs]
        return self._coco | {"annotations": animals + crowds}


def open_builder(name: str, data_dir: str | Path | None) -> tfds.core.DatasetBuilder:
    """Open the builder of a built data set, such as own/foxes."""
    return tfds.builder(name, data_dir=data_dir and Path(data_dir).expanduser())


def open_records(builder: tfds.core.DatasetBuilder, split: str) -> Sequence[dict]:
    """Open the records of a split; their photographs stay encoded."""
    # Only photographs that are cropped get decoded, and by ap10k_jax.transforms.
    return builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})


def read_record(records: Sequence[dict], position: int, image_id: int) -> dict:
    """Read a record. Raises ValueError where it is not the one of this image."""
    record = records[position]
    if record["image_id"] != image_id:
        raise ValueError(
            f"record {position} holds photograph {record['image_id']}, the index says "
            f"{image_id}: build the data set anew"
        )
    return record


def read_annotations(builder: tfds.core.DatasetBuilder, neck: str = "throat") -> dict[str, dict]:
    """Read the COCO dict of every split, train first; Animal-Pose gets AP-10K's joints.

    `neck` is a key of keypoints.ANIMAL_POSE_NECKS and matters for Animal-Pose only.
    """
    contents = builder.info.metadata["annotations"]
    contents = {split: contents[split] for split in SPLITS if split in contents}
    if builder.name == "animal_pose":
        mapping = keypoints.animal_pose_mapping(neck)
        return {
            split: keypoints.remap_annotations(coco, mapping) for split, coco in contents.items()
        }
    return contents


def decode_example(example: dict) -> dict:
    """Decode an example's photograph: `image` uint8 (H, W, 3), RGB, replaces the encoded bytes."""
    if "image" in example:
        return example
    rest = {k: v for k, v in example.items() if k not in ("bytes", "file_name")}
    return rest | {"image": images.decode(example["bytes"], example["file_name"])}


class JoinedRecords(Sequence):
    """The records of several sources, concatenated."""

    def __init__(self, sources: Sequence[Sequence[dict]]):
        self._sources = sources
        self._ends = np.cumsum([len(source) for source in sources])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> dict:
        part = int(np.searchsorted(self._ends, index, side="right"))
        return self._sources[part][index - (self._ends[part - 1] if part else 0)]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
