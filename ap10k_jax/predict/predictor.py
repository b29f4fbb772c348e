"""Keypoints of the animals in photographs and videos: in Python, and on the command line.

    from ap10k_jax.predict import Predictor

    predictor = Predictor.load("runs/sl")
    for animal in predictor("fox.jpg", boxes=[[120, 40, 300, 260]]):
        print(animal.score, animal.keypoints)

`python -m ap10k_jax.predict CHECKPOINT INPUTS...` does it for folders and videos: see `--help`, and
`predict/__main__.py` for what is behind it.

Letters: H W image, S crop, n crops, k keypoints. Coordinates are (x, y) in pixels of the image as
it is stored (EXIF rotation is ignored, as in the data set); boxes are xywh in those pixels.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Float, UInt8

from ap10k_jax import augmentation, checkpoint, codec, images, inference, metrics
from ap10k_jax import keypoints as joints
from ap10k_jax.runtime import sharding

Image = UInt8[np.ndarray, "H W 3"] | UInt8[np.ndarray, "H W"] | str | Path
Boxes = Float[np.ndarray, "n 4"] | Sequence[Sequence[float]] | None

# The joints a data set labels, by the first part of its name, for checkpoints that do not say.
KEYPOINT_SETS = {
    "ap10k": (joints.AP10K,),
    "animal_pose": (joints.AP10K, joints.ANIMAL_POSE),  # we train on it with AP-10K's
    "coco_keypoints": (joints.COCO_PERSON,),
}
BATCH_SIZES = (1, 8, 64)


class Animal(NamedTuple):
    """Keypoints (x, y, score) of one animal in image pixels, and the box (xywh) they come from.

    `score` is the mean of the joint scores above 0.2, or 0. A joint whose score is not above 0 was
    not found: its x and y mean nothing.
    """

    keypoints: Float[np.ndarray, "k 3"]
    score: float
    box: Float[np.ndarray, "4"]


class Predictor:
    """A network with its weights; call it with an image, or a list of them, to get `Animal`s.

    Batches are filled up to one of `batch_sizes`, so that each size is compiled once and nothing
    afterwards. What is computed is what the evaluation computes.
    """

    def __init__(
        self,
        module: nn.Module,
        variables: dict,
        *,
        name: str = "network",
        image_size: int = 256,
        keypoint_set: joints.KeypointSet = joints.AP10K,
        flip_test: bool = True,
        decode: str = "default",
        batch_sizes: tuple[int, ...] = BATCH_SIZES,
    ):
        self.name = name
        self.image_size = image_size
        self.keypoint_set = keypoint_set
        self.flip_test = flip_test
        self.decode = decode
        self.batch_sizes = tuple(sorted(batch_sizes))
        # One device: a batch of one cannot be split, and the sizes here do not need several.
        shardings = sharding.shardings(jax.local_devices()[:1])
        self.variables = jax.device_put(variables, shardings.replicated)
        make_step = functools.partial(inference.make_predict_step, module, shardings)
        self._step = make_step(pairs=keypoint_set.pairs, flip_test=flip_test, decode=decode)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        flip_test: bool | None = None,
        decode: str | None = None,
        batch_sizes: tuple[int, ...] = BATCH_SIZES,
    ):
        """The predictor of a run directory, one of its steps, or an exported checkpoint.

        `flip_test` and `decode` are those of the run's own evaluation unless given. Without the
        mirror test (`flip_test=False`) it takes half the time and loses about a point of AP.
        """
        module, variables, config = checkpoint.load(path)
        own = config.get("eval", {})
        return cls(
            module,
            variables,
            name=config["model"]["name"],
            image_size=config["data"]["image_size"],
            keypoint_set=keypoint_set(config),
            flip_test=own.get("flip_test", True) if flip_test is None else flip_test,
            decode=decode or own.get("decode", codec.METHODS[0]),
            batch_sizes=batch_sizes,
        )

    def __call__(
        self, image: Image | Sequence[Image], boxes: Boxes | Sequence[Boxes] = None
    ) -> list[Animal] | list[list[Animal]]:
        """The animals of an image, one a box and in the boxes' order; of a list of images, lists.

        An image is RGB uint8 (H, W, 3), or grey (H, W), or has an alpha channel (H, W, 4), which is
        dropped; or it is the path of a file. Boxes are (n, 4) or (4,); None is the whole image as
        one box, an empty list no animal. With a list of images `boxes` is None or a list as long.
        Raises ValueError for what is no image and for a box without area inside its image, and
        OSError for a file that cannot be read.
        """
        if not isinstance(image, (list, tuple)):
            return self.predict_crops(self.crops(image, boxes))
        boxes = [None] * len(image) if boxes is None else boxes
        if len(boxes) != len(image):
            raise ValueError(f"{len(image)} images, but boxes for {len(boxes)}")
        crops = [self.crops(one, its) for one, its in zip(image, boxes, strict=True)]
        animals = iter(self.predict_crops([crop for its in crops for crop in its]))
        return [[next(animals) for _ in its] for its in crops]

    def crops(self, image: Image, boxes: Boxes = None) -> list[dict]:
        """Crops of an image for the network, one for each box. No device is used.

        Each holds `image` (S, S, 3), `center` and `scale`, which lead back, and the `box`.
        """
        pixels = rgb(image)
        height, width = pixels.shape[:2]
        wanted = np.array([[0, 0, width, height]]) if boxes is None else np.asarray(boxes, float)
        if wanted.size == 0:
            return []
        if wanted.ndim > 2 or wanted.shape[-1] != 4:
            raise ValueError(f"boxes are (n, 4) or (4,), xywh; these are {wanted.shape}")
        if np.isinf(wanted).any():  # of NaN the crop says that it has no area
            raise ValueError(f"boxes are finite numbers; these are {wanted.tolist()}")
        return [self._crop(pixels, box) for box in wanted.reshape(-1, 4)]

    def predict_crops(self, crops: Sequence[dict]) -> list[Animal]:
        """The animals of any number of crops, also of several images, in their order."""
        animals = []
        for start, stop, size in batches(len(crops), self.batch_sizes):
            chosen = crops[start:stop]
            # copies of the last crop fill the batch up
            chosen = [*chosen, *[chosen[-1]] * (size - len(chosen))]
            batch = {name: np.stack([c[name] for c in chosen]) for name in chosen[0]}
            points = np.asarray(self._step(self.variables, batch["image"]))
            if not np.isfinite(points).all():
                raise FloatingPointError("the network's output is not finite: broken weights?")
            points = inference.to_image(points, batch)[: stop - start]
            animals += [
                Animal(k, metrics.instance_score(k), box)
                for k, box in zip(points, batch["box"][: stop - start], strict=True)
            ]
        return animals

    def _crop(self, pixels: UInt8[np.ndarray, "H W 3"], box: Float[np.ndarray, "4"]) -> dict:
        nothing = np.zeros((len(self.keypoint_set), 3), np.float32)
        example = {"image": pixels, "box": box.astype(np.float32), "keypoints": nothing}
        sample = augmentation.sample(
            example, size=(self.image_size, self.image_size), keypoint_set=self.keypoint_set
        )
        return {name: sample[name] for name in ("image", "center", "scale", "box")}


def batches(count: int, sizes: Sequence[int]) -> list[tuple[int, int, int]]:
    """Division of `count` crops: (start, stop, size to fill up to), at most half of it filling.

    >>> batches(10, (1, 8, 64))
    [(0, 8, 8), (8, 9, 1), (9, 10, 1)]
    """
    plan, start = [], 0
    while start < count:
        left = count - start
        enough = [s for s in sizes if s >= left > s / 2]
        smaller = [s for s in sizes if s <= left]
        size = enough[0] if enough else smaller[-1] if smaller else sizes[0]
        stop = min(start + size, count)
        plan.append((start, stop, size))
        start = stop
    return plan


def rgb(image: Image) -> UInt8[np.ndarray, "H W 3"]:
    """An image, or the file of one, as RGB pixels; ValueError where it is neither."""
    if isinstance(image, (str, Path)):
        path = Path(image).expanduser()
        return images.decode(images.read(path), str(image))
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8:
        raise ValueError(f"an image is uint8, 0 to 255; this array is {pixels.dtype}")
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or not pixels.size:
        raise ValueError(f"an image is (H, W), (H, W, 3) or (H, W, 4); this is {pixels.shape}")
    if max(pixels.shape[:2]) > images.MAX_SIDE:
        raise ValueError(f"an image has at most {images.MAX_SIDE} pixels a side: {pixels.shape}")
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    return np.ascontiguousarray(pixels[..., :3])


def keypoint_set(config: dict) -> joints.KeypointSet:
    """The joints that a run's network was trained on."""
    if "keypoints" in config:
        return joints.from_category(config["keypoints"])
    name = config["data"].get("name", "ap10k").split("/")[0]
    number = config["model"]["num_keypoints"]
    for chosen in KEYPOINT_SETS.get(name, ()):
        if len(chosen) == number:
            return chosen
    raise ValueError(f"the {number} joints of a network trained on {name!r} are not known")
