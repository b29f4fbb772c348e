"""Augmentation of training crops: flips, half bodies, scales, rotations and shifts of the view.

A view is the image pixel at a crop's middle (`center`), the width and height it shows in image
pixels (`sides`; `scale` once widened to the crop's aspect), a rotation, and whether the image is
mirrored first. Augmentation changes the view only; the pixels are read once, by one affine warp.

Letters, coordinates and boxes are those of `transforms`. Never imports jax.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

from ap10k_jax import keypoints as joints
from ap10k_jax import transforms


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Settings of the augmentation. The values are the paper's (MMPose 0.x, AP-10K configs)."""

    flip_probability: float = 0.5
    half_body_probability: float = 0.3
    half_body_min_joints: int = 8  # only animals with more labelled joints than this
    half_body_upper_probability: float = 0.7  # a slip in MMPose (randn for rand) made 0.5 into 0.69
    half_body_padding: float = 1.5
    scale_sigma: float = 0.5  # factor N(1, sigma), clipped to 1 -+ sigma
    rotation_probability: float = 0.6
    rotation_sigma: float = 40.0  # degrees; clipped to twice this
    shift_probability: float = 0.3
    shift: float = 0.16  # of the padded sides (0.2 of the box's own), uniform, on each axis
    # MMPose 0.26 and later draw the shift for every crop, and so do we. True is as in MMPose 0.19,
    # which the paper used: once for every animal, while loading, and none for half bodies.
    shift_once: bool = False


def augment(
    example: Mapping[str, np.ndarray],
    rng: np.random.Generator,
    *,
    augmentation: Augmentation = Augmentation(),
    keypoint_set: joints.KeypointSet = joints.AP10K,
) -> dict:
    """The example with a random view: flipped, of half the body, scaled, rotated, shifted.

    Reads `width` (the image's), `keypoints` (k, 3), `center` and `sides`; changes these but the
    width, and sets `rotation` (degrees) and `mirror`. In the order of MMPose 1.x. With `shift_once`
    the center must be shifted already, see `sample`.
    """
    example = _random_flip(example, rng, augmentation, keypoint_set)
    example = _random_half_body(example, rng, augmentation, keypoint_set)
    return _random_view(example, rng, augmentation)


def sample(
    example: Mapping[str, np.ndarray],
    rng: np.random.Generator | None = None,
    *,
    size: tuple[int, int] = (256, 256),
    padding: float = 1.25,
    augmentation: Augmentation = Augmentation(),
    keypoint_set: joints.KeypointSet = joints.AP10K,
    shift_seed: int = 0,
) -> dict:
    """The crop of one animal: augmented if there is an `rng`, else plain.

    Reads `image` (H, W, 3), `box` (xywh) and `keypoints` (k, 3: x, y, visibility) and replaces
    `image` by the crop and `keypoints` by (k, 2) in crop pixels; adds `weights` (k,), 1 for
    labelled joints, and `center` and `scale`, with which `transforms.crop_to_image` leads back
    (without augmentation). Whatever else the example holds goes along. `size` is (width, height).
    With `shift_once` an animal's shift follows from `shift_seed` and the example's `index`.
    """
    image_size = example["image"].shape[1::-1]
    view = _view(example, image_size, rng, padding, augmentation, keypoint_set, shift_seed)
    scale = transforms.widen(view["sides"], size[0] / size[1])
    image, matrix = transforms.crop(
        example["image"],
        view["center"],
        scale,
        rotation=view["rotation"],
        size=size,
        mirror=view["mirror"],
    )
    return {**example, "image": image, **_labels(view, scale, matrix)}


def frame(
    example: Mapping[str, np.ndarray],
    rng: np.random.Generator | None = None,
    *,
    image_size: tuple[int, int],
    size: tuple[int, int] = (256, 256),
    padding: float = 1.25,
    augmentation: Augmentation = Augmentation(),
    keypoint_set: joints.KeypointSet = joints.AP10K,
    shift_seed: int = 0,
) -> dict:
    """Like `sample` with the same random draws, but with a `matrix` in place of pixels.

    It is (2, 3) and leads from crop pixels to those of the image as it is stored, mirroring
    included. `image_size` is (width, height).
    """
    view = _view(example, image_size, rng, padding, augmentation, keypoint_set, shift_seed)
    scale = transforms.widen(view["sides"], size[0] / size[1])
    matrix = transforms.affine_matrix(view["center"], scale, rotation=view["rotation"], size=size)
    to_image = transforms.invert_affine(matrix)
    if view["mirror"]:
        to_image = transforms.compose(np.array([[-1.0, 0, image_size[0] - 1], [0, 1, 0]]), to_image)
    return {**example, **_labels(view, scale, matrix), "matrix": to_image.astype(np.float32)}


def reach(
    example: Mapping[str, np.ndarray],
    *,
    image_size: tuple[int, int],
    aspect: float = 1.0,
    padding: float = 1.25,
    augmentation: Augmentation = Augmentation(),
    keypoint_set: joints.KeypointSet = joints.AP10K,
) -> Int[np.ndarray, "4"]:
    """The part of the image that any crop of the animal can show: x, y, width, height in pixels."""
    views = [transforms.padded_box(example["box"], image_size, padding)]
    points = np.asarray(example["keypoints"], np.float32)
    labelled = (points[:, 2] > 0).sum()
    if augmentation.half_body_probability and labelled > augmentation.half_body_min_joints:
        # the halves are not mirror images of each other (joint 10), so those of either view
        order = joints.mirror_order(keypoint_set.pairs, len(points))
        halves = [*_halves(points, keypoint_set), *_halves(points[order], keypoint_set)]
        found = [_half_view(half, augmentation) for half in halves if len(half)]
        views += [view for view in found if view]
    low, high = np.array(image_size, float), np.zeros(2)
    for center, sides in views:
        scale = transforms.widen(sides * (1 + augmentation.scale_sigma), aspect)
        turned = np.hypot(*scale) if augmentation.rotation_probability else scale
        shift = augmentation.shift * sides * (augmentation.shift_probability > 0)
        low = np.minimum(low, center - turned / 2 - shift - 1)  # 1: pixels are blended
        high = np.maximum(high, center + turned / 2 + shift + 2)
    low, high = np.floor(np.maximum(low, 0)), np.ceil(np.minimum(high, image_size))
    return np.concatenate([low, high - low]).astype(np.int64)


def _view(
    example: Mapping[str, np.ndarray],
    image_size: tuple[int, int],
    rng: np.random.Generator | None,
    padding: float,
    augmentation: Augmentation,
    keypoint_set: joints.KeypointSet,
    shift_seed: int,
) -> dict:
    """The plain view of an animal's box, or with an `rng` a random one; see `augment`."""
    center, sides = transforms.padded_box(example["box"], image_size, padding)
    view = {"width": image_size[0], "keypoints": np.asarray(example["keypoints"], np.float32)}
    view |= {"center": center, "sides": sides, "rotation": 0.0, "mirror": False}
    if rng is None:
        return view
    if augmentation.shift_once:
        animal_rng = np.random.default_rng((shift_seed, int(example["index"])))
        view["center"] = _shifted(center, sides, animal_rng, augmentation)
    return augment(view, rng, augmentation=augmentation, keypoint_set=keypoint_set)


def _labels(
    view: Mapping[str, np.ndarray],
    scale: Float[np.ndarray, "2"],
    matrix: Float[np.ndarray, "2 3"],
) -> dict:
    """The labels of a view's crop; `matrix` leads from image to crop pixels."""
    return {
        "keypoints": transforms.apply_affine(view["keypoints"][:, :2], matrix),
        "weights": (view["keypoints"][:, 2] > 0).astype(np.float32),
        "center": view["center"],
        "scale": scale,
    }


def _random_flip(
    example: Mapping[str, np.ndarray],
    rng: np.random.Generator,
    augmentation: Augmentation,
    keypoint_set: joints.KeypointSet,
) -> dict:
    """Mirrors keypoints and center, and notes that the image is to be mirrored."""
    if rng.random() >= augmentation.flip_probability:
        return dict(example)
    width = example["width"]
    return {
        **example,
        "keypoints": transforms.flip_keypoints(example["keypoints"], width, keypoint_set.pairs),
        "center": transforms.flip_x(example["center"], width),
        "mirror": True,
    }


def _random_half_body(
    example: Mapping[str, np.ndarray],
    rng: np.random.Generator,
    augmentation: Augmentation,
    keypoint_set: joints.KeypointSet,
) -> dict:
    """Moves the view to the upper or the lower body of an animal with enough labelled joints.

    As MMPose 0.x: the view's middle is the mean of the chosen joints, not that of their box; a half
    is chosen only with more than 2 joints. Nothing where it is not known which joints are upper.
    """
    labelled = example["keypoints"][:, 2] > 0
    if labelled.sum() <= augmentation.half_body_min_joints or not keypoint_set.upper_body:
        return dict(example)
    if rng.random() >= augmentation.half_body_probability:
        return dict(example)
    halves = _halves(example["keypoints"], keypoint_set)
    if rng.random() >= augmentation.half_body_upper_probability:
        halves.reverse()
    # More than 8 labelled joints leave at least one half with more than 2 of them.
    view = _half_view(halves[0] if len(halves[0]) > 2 else halves[1], augmentation)
    return {**example, "center": view[0], "sides": view[1]} if view else dict(example)


def _halves(
    keypoints: Float[np.ndarray, "k 3"], keypoint_set: joints.KeypointSet
) -> list[Float[np.ndarray, "n 2"]]:
    """The labelled joints of the upper and those of the lower body."""
    labelled = keypoints[:, 2] > 0
    upper = np.isin(np.arange(len(labelled)), keypoint_set.upper_body)
    return [keypoints[labelled & half, :2] for half in (upper, ~upper)]


def _half_view(
    points: Float[np.ndarray, "n 2"], augmentation: Augmentation
) -> tuple[Float[np.ndarray, "2"], Float[np.ndarray, "2"]] | None:
    """Middle and sides of the view of these joints; None where they lie on a line along an axis."""
    sides = (points.max(axis=0) - points.min(axis=0)) * augmentation.half_body_padding
    return (points.mean(axis=0), sides) if np.all(sides > 0) else None


def _random_view(
    example: Mapping[str, np.ndarray], rng: np.random.Generator, augmentation: Augmentation
) -> dict:
    """Scales, rotates and shifts the view.

    Normal draws are clipped, as in MMPose 0.x and so in the paper (1.x truncates instead): a third
    of the scale factors are exactly 0.5 or 1.5.
    """
    sigma = augmentation.scale_sigma
    factor = np.clip(rng.normal(1, sigma), 1 - sigma, 1 + sigma)
    rotation = 0.0
    if rng.random() < augmentation.rotation_probability:
        limit = 2 * augmentation.rotation_sigma
        rotation = float(np.clip(rng.normal(0, augmentation.rotation_sigma), -limit, limit))
    center = example["center"]
    if not augmentation.shift_once:
        center = _shifted(center, example["sides"], rng, augmentation)
    sides = (example["sides"] * factor).astype(np.float32)
    return {**example, "center": center, "sides": sides, "rotation": rotation}


def _shifted(
    center: Float[np.ndarray, "2"],
    sides: Float[np.ndarray, "2"],
    rng: np.random.Generator,
    augmentation: Augmentation,
) -> Float[np.ndarray, "2"]:
    """The middle of a view with these sides, moved at random or, as a rule, left alone."""
    if rng.random() >= augmentation.shift_probability:
        return center
    shift = rng.uniform(-augmentation.shift, augmentation.shift, 2)
    return (center + shift * sides).astype(np.float32)
