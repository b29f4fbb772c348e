"""Animals without labels for semi-supervised training: two views of each, and their geometry.

Some are animals of train whose labels are hidden (`data.labels_per_species`), in their annotated
boxes. The others are on photographs of the data set's split `unlabeled`, which has no annotations.
Without a detector's boxes such a photograph counts as one animal, in a box as large as the
photograph. With a file of boxes (see box_files.py) every box is an animal; photographs without a
box are left out and counted.

NumPy and OpenCV only, because this runs in loader threads.
"""

import copy
import dataclasses
import functools
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import grain
import numpy as np
from jaxtyping import UInt8

from ap10k_jax import box_files, images, keypoints, transforms
from ap10k_jax.augmentation import Augmentation, frame, sample
from ap10k_jax.data.animals import JoinedRecords, open_builder, open_records, read_record


@dataclasses.dataclass(frozen=True)
class Disturbance:
    """Photometric changes of the strong view: contrast, brightness, and patches of one colour.

    The patches hide joints that the teacher sees, as another animal or a bush would.
    """

    contrast: float = 0.2  # factor uniform within 1 -+ this, about the crop's mean
    brightness: float = 0.1  # added: uniform within -+ this share of 255
    patches: int = 1  # at most so many, each a rectangle of one colour
    patch: float = 0.2  # longest side of a patch, as a share of the crop's


WEAK = Augmentation(
    half_body_probability=0.0,
    scale_sigma=0.1,
    rotation_probability=0.5,
    rotation_sigma=10.0,
    shift_probability=0.0,
)


class Photographs(Sequence):
    """The animals of a split without annotations; a Grain source of examples as Animals."""

    def __init__(
        self,
        source: Sequence[dict],
        images: Sequence[dict],
        *,
        fingerprint: str,
        num_keypoints: int,
        detections: box_files.BoxFile | None = None,
    ):
        """Make the source; without `detections` the whole photograph is the box."""
        self._source, self._images, self.fingerprint = source, images, fingerprint
        self.unlabeled = 0  # animals left out because no keypoint is labelled: none here
        self.crowds = 0  # box_files.read leaves crowds out
        self._nothing = np.zeros((num_keypoints, 3), np.float32)
        self.left_out = {"not in the box file": 0, "without a box": 0}
        self._index: list[tuple[int, box_files.Box | None]] = []
        for position, image in enumerate(images):
            if detections is None:
                self._index.append((position, None))
                continue
            of_image = detections.boxes(image["file_name"])
            if not of_image:
                self.left_out["not in the box file" if of_image is None else "without a box"] += 1
            self._index += [(position, box) for box in of_image or ()]

    @classmethod
    def open(
        cls,
        name: str,
        *,
        data_dir: str | Path | None = None,
        box_file: str | Path = "",
        num_keypoints: int = 17,
    ) -> "Photographs | None":
        """Open a data set's split `unlabeled`; None without one. Raises box_files.BoxFileError."""
        builder = open_builder(name, data_dir)
        coco = builder.info.metadata["annotations"].get("unlabeled")
        if coco is None:
            return None
        return cls(
            open_records(builder, "unlabeled"),
            coco["images"],
            fingerprint=builder.info.metadata["fingerprints"]["unlabeled"],
            num_keypoints=num_keypoints,
            detections=box_files.read(Path(box_file).expanduser()) if box_file else None,
        )

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> dict:
        position, box = self._index[index]
        image = self._images[position]
        record = read_record(self._source, position, image["id"])
        size = image["width"], image["height"]
        xywh = np.array([0, 0, *size], np.float32)
        if box is not None:
            stored = io.BytesIO(record["image"])
            turned = images.orientation(stored) if box.displayed else 1
            xywh = box.pixels(*size, turned).astype(np.float32)
        return {
            "bytes": record["image"],
            "file_name": image["file_name"],
            "box": xywh,
            "keypoints": self._nothing,
        }


def batches(
    sources: Sequence[Sequence[dict]],
    *,
    batch_size: int,
    seed: int,
    image_size: int,
    weak: Augmentation,
    strong: Augmentation,
    disturbance: Disturbance = Disturbance(),
    keypoint_set: keypoints.KeypointSet = keypoints.AP10K,
    threads: int = 4,
) -> grain.IterDataset:
    """Batches of endless shuffled passes over all animals of the sources.

    A batch holds the results of `two_views`. All batches are full: one may reach into the next
    pass.
    """
    joined = sources[0] if len(sources) == 1 else JoinedRecords(sources)
    views = functools.partial(
        two_views,
        image_size=image_size,
        weak=weak,
        strong=strong,
        disturbance=disturbance,
        keypoint_set=keypoint_set,
    )
    animals = grain.MapDataset.source(joined).seed(seed).shuffle().repeat().random_map(views)
    read = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    return animals.batch(batch_size, drop_remainder=True).to_iter_dataset(read)


def two_views(
    example: Mapping,
    rng: np.random.Generator,
    *,
    image_size: int,
    weak: Augmentation,
    strong: Augmentation,
    disturbance: Disturbance = Disturbance(),
    keypoint_set: keypoints.KeypointSet = keypoints.AP10K,
) -> dict:
    """A weak and a strong view (uint8 crops) of one animal, and the map from one to the other.

    `to_strong` (2, 3) maps pixels of the weak crop to those of the strong one. `exchanged` is true
    where one of the two is mirrored, so that left joints become right ones. `truth` (k, 2), in weak
    crop pixels, `truth_weights` (k,) and the box's `area` in square weak crop pixels only measure
    the quality of pseudo-labels; the weights of an animal without labels are 0.
    """
    image = images.decode(example["bytes"], example["file_name"])
    truth = np.asarray(example["keypoints"], np.float32)
    # Half-body augmentation reads keypoints; it must not see the hidden ones.
    known = {"box": example["box"], "keypoints": np.zeros_like(truth)}
    crops, to_image = [], []
    for augmentation in (weak, strong):
        # MMPose shifts a labelled animal once, on loading; these are shifted for every view.
        augmentation = dataclasses.replace(augmentation, shift_once=False)
        options = {"size": (image_size, image_size), "augmentation": augmentation}
        options |= {"keypoint_set": keypoint_set}
        again = copy.deepcopy(rng)
        crop = sample({**known, "image": image}, rng, **options)
        framed = frame(known, again, image_size=image.shape[1::-1], **options)
        crops.append(crop["image"])
        to_image.append(np.asarray(framed["matrix"], np.float64))
    to_weak, to_strong = (transforms.invert_affine(matrix) for matrix in to_image)
    mirrored = [np.linalg.det(matrix[:, :2]) < 0 for matrix in to_image]
    if mirrored[0]:
        truth = truth[keypoints.mirror_order(keypoint_set.pairs, len(truth))]
    zoom = np.sqrt(abs(np.linalg.det(to_weak[:, :2])))
    return {
        "weak": crops[0],
        "strong": disturb(crops[1], rng, disturbance),
        "to_strong": transforms.compose(to_strong, to_image[0]).astype(np.float32),
        "exchanged": np.bool_(mirrored[0] != mirrored[1]),
        "truth": transforms.apply_affine(truth[:, :2], to_weak),
        "truth_weights": (truth[:, 2] > 0).astype(np.float32),
        "area": np.float32(example["box"][2] * example["box"][3] * zoom**2),
    }


def disturb(
    crop: UInt8[np.ndarray, "S S 3"], rng: np.random.Generator, disturbance: Disturbance
) -> UInt8[np.ndarray, "S S 3"]:
    """The crop with its contrast and brightness changed and random patches painted over."""
    factor = 1 + rng.uniform(-1, 1) * disturbance.contrast
    added = 255 * rng.uniform(-1, 1) * disturbance.brightness
    mean = float(crop.mean())
    table = np.clip((np.arange(256) - mean) * factor + mean + added, 0, 255).astype(np.uint8)
    result = cv2.LUT(crop, table)
    side = len(crop)
    for _ in range(rng.integers(disturbance.patches + 1)):
        w, h = np.maximum(1, side * disturbance.patch * rng.uniform(0.3, 1, 2)).astype(int)
        x, y = rng.integers(0, side - w + 1), rng.integers(0, side - h + 1)
        result[y : y + h, x : x + w] = rng.integers(0, 256, 3)
    return result
