"""From photographs and boxes to crops: decoding, geometry, augmentation. NumPy and OpenCV only.

Letters: H W image, S the crop's height and width, k keypoints. Coordinates are (x, y) in pixels
whose centres are whole numbers, boxes are xywh in image pixels, images are RGB uint8. This module
runs in loader processes and never imports jax.

A view is the image pixel at a crop's middle (`center`), the width and height it shows in image
pixels (`sides`; `scale` once widened to the crop's aspect), a rotation, and whether the image is
mirrored first. Augmentation changes the view only; the pixels are read once, by one affine warp.
"""

import dataclasses
import importlib.metadata
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import simplejpeg
from jaxtyping import Float, Int, UInt8

from ap10k_jax import images
from ap10k_jax import keypoints as joints

# whose pixels a photograph's are
DECODERS = f"simplejpeg {importlib.metadata.version('simplejpeg')}, OpenCV {cv2.__version__}"
SMALLEST_SIDE = 0.01  # pixels of a box inside its image; thinner ones would be magnified to nothing

# The loader runs one image per thread or process; OpenCV's own pool would only fight it for cores.
cv2.setNumThreads(0)


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How training crops vary. The values are the paper's (MMPose 0.x, AP-10K configs)."""

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


def decode_image(data: bytes, name: str = "image") -> UInt8[np.ndarray, "H W 3"]:
    """The RGB pixels of an encoded photograph; `name` is the file to name if it cannot be read.

    Its size is looked at before it is decoded, see `images`. EXIF orientation is ignored: the
    annotations refer to the pixels as they are stored.
    """
    try:
        format = images.header(data).format
    except ValueError as error:
        raise ValueError(f"{name}: cannot be decoded as an image: {error}") from error
    if format == "JPEG":
        try:
            # OpenCV's pixels to the bit, with less copying of them
            return simplejpeg.decode_jpeg(data, "RGB")
        except ValueError:
            pass  # OpenCV makes do with more kinds of damage
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ValueError(f"{name}: cannot be decoded as an image: {error}") from error
    if image is None:
        raise ValueError(f"{name}: cannot be decoded as an image ({len(data)} bytes)")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def box_to_center_scale(
    box: Float[np.ndarray, "4"] | Sequence[float],
    image_size: tuple[int, int],
    *,
    padding: float = 1.25,
    aspect: float = 1.0,
) -> tuple[Float[np.ndarray, "2"], Float[np.ndarray, "2"]]:
    """Center and scale of the crop around a box: clipped to the image, padded, then widened.

    `image_size` is (width, height) in pixels, `aspect` the crop's width / height. Raises ValueError
    for a box that has no area inside the image.
    """
    center, sides = _padded_box(box, image_size, padding)
    return center, _widen(sides, aspect)


def affine_matrix(
    center: Float[np.ndarray, "2"],
    scale: Float[np.ndarray, "2"],
    *,
    rotation: float = 0.0,
    size: tuple[int, int] = (256, 256),
) -> Float[np.ndarray, "2 3"]:
    """The matrix from image to crop pixels; `size` is (width, height) of the crop.

    A positive rotation (degrees) turns the crop's window clockwise on the image, and so the image
    counter-clockwise in the crop. A similarity: scale[0] decides, scale[1] follows from the aspect.
    """
    angle = np.deg2rad(rotation)
    zoom = size[0] / float(scale[0])
    linear = zoom * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    # The crop's middle is at size / 2, not (size - 1) / 2: MMPose's convention, half a pixel off.
    offset = np.array(size) / 2 - linear @ np.asarray(center, np.float64)
    return np.column_stack([linear, offset])


def apply_affine(
    points: Float[np.ndarray, "*k 2"], matrix: Float[np.ndarray, "2 3"]
) -> Float[np.ndarray, "*k 2"]:
    """The points mapped by a (2, 3) matrix, as float32."""
    mapped = np.asarray(points, np.float64) @ matrix[:, :2].T + matrix[:, 2]
    return mapped.astype(np.float32)


def invert_affine(matrix: Float[np.ndarray, "2 3"]) -> Float[np.ndarray, "2 3"]:
    """The matrix of the way back, from crop to image pixels."""
    inverse = np.linalg.inv(matrix[:, :2])
    return np.column_stack([inverse, -inverse @ matrix[:, 2]])


def crop(
    image: UInt8[np.ndarray, "H W 3"],
    center: Float[np.ndarray, "2"],
    scale: Float[np.ndarray, "2"],
    *,
    rotation: float = 0.0,
    size: tuple[int, int] = (256, 256),
    mirror: bool = False,
) -> tuple[UInt8[np.ndarray, "S S 3"], Float[np.ndarray, "2 3"]]:
    """The crop (bilinear, black beyond the image) and the matrix from image to crop pixels.

    With `mirror` the crop is that of the mirrored image, and center, rotation and matrix refer to
    the mirrored image too; the pixels are read from the image as given, which saves a copy of it.
    """
    matrix = affine_matrix(center, scale, rotation=rotation, size=size)
    # OpenCV 4's warpAffine reads pixels at positions rounded to 1/32, OpenCV 5's at exact ones. We
    # round as 4 does: either version then cuts the crops that the published numbers come from.
    inverse = invert_affine(matrix)
    along_x = np.rint(np.arange(size[0]) * inverse[:, :1] * 1024).astype(np.int32)
    along_y = np.rint((np.arange(size[1]) * inverse[:, 1:2] + inverse[:, 2:]) * 1024)
    x, y = (along_y.astype(np.int32)[:, :, None] + along_x[:, None, :] + 16) >> 5  # in 1/32 pixel
    if mirror:
        x = 32 * (image.shape[1] - 1) - x
    # Far outside is as black as just outside; int16 is what remap takes.
    pixels = np.clip(np.stack([x >> 5, y >> 5], axis=-1), -2, 32766).astype(np.int16)
    fractions = ((y & 31) * 32 + (x & 31)).astype(np.uint16)
    return cv2.remap(image, pixels, fractions, cv2.INTER_LINEAR), matrix


def flip(
    image: UInt8[np.ndarray, "H W 3"],
    keypoints: Float[np.ndarray, "k c"],
    center: Float[np.ndarray, "2"],
    *,
    pairs: Sequence[tuple[int, int]],
) -> tuple[UInt8[np.ndarray, "H W 3"], Float[np.ndarray, "k c"], Float[np.ndarray, "2"]]:
    """Image, keypoints and crop center, mirrored left to right (x -> W - 1 - x).

    The rows of left and right joints are exchanged; columns after x, such as visibility, go along.
    """
    width = image.shape[1]
    return image[:, ::-1], _flip_keypoints(keypoints, width, pairs), _flip_x(center, width)


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
    """What the network sees of one animal: augmented if there is an `rng`, else the plain crop.

    Reads `image` (H, W, 3), `box` (xywh) and `keypoints` (k, 3: x, y, visibility) and replaces
    `image` by the crop and `keypoints` by (k, 2) in crop pixels; adds `weights` (k,), 1 for
    labelled joints, and `center` and `scale`, with which `crop_to_image` leads back (without
    augmentation). Whatever else the example holds goes along. `size` is (width, height). With
    `shift_once` an animal's shift follows from `shift_seed` and the example's `index`.
    """
    image_size = example["image"].shape[1::-1]
    view = _view(example, image_size, rng, padding, augmentation, keypoint_set, shift_seed)
    scale = _widen(view["sides"], size[0] / size[1])
    image, matrix = crop(
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
    """What `sample` gives, drawn alike, but for the pixels: `matrix` says where they are.

    It is (2, 3) and leads from crop pixels to those of the image as it is stored, mirroring
    included. `image_size` is (width, height).
    """
    view = _view(example, image_size, rng, padding, augmentation, keypoint_set, shift_seed)
    scale = _widen(view["sides"], size[0] / size[1])
    matrix = affine_matrix(view["center"], scale, rotation=view["rotation"], size=size)
    to_image = invert_affine(matrix)
    if view["mirror"]:
        to_image = compose(np.array([[-1.0, 0, image_size[0] - 1], [0, 1, 0]]), to_image)
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
    views = [_padded_box(example["box"], image_size, padding)]
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
        scale = _widen(sides * (1 + augmentation.scale_sigma), aspect)
        turned = np.hypot(*scale) if augmentation.rotation_probability else scale
        shift = augmentation.shift * sides * (augmentation.shift_probability > 0)
        low = np.minimum(low, center - turned / 2 - shift - 1)  # 1: pixels are blended
        high = np.maximum(high, center + turned / 2 + shift + 2)
    low, high = np.floor(np.maximum(low, 0)), np.ceil(np.minimum(high, image_size))
    return np.concatenate([low, high - low]).astype(np.int64)


def compose(
    outer: Float[np.ndarray, "2 3"], inner: Float[np.ndarray, "2 3"]
) -> Float[np.ndarray, "2 3"]:
    """The matrix of `inner` followed by `outer`."""
    return np.column_stack([outer[:, :2] @ inner[:, :2], outer[:, :2] @ inner[:, 2] + outer[:, 2]])


def crop_to_image(
    points: Float[np.ndarray, "*k 2"],
    center: Float[np.ndarray, "2"],
    scale: Float[np.ndarray, "2"],
    *,
    size: tuple[int, int] = (256, 256),
) -> Float[np.ndarray, "*k 2"]:
    """Points of an unrotated crop in image pixels: the way back for predictions."""
    return apply_affine(points, invert_affine(affine_matrix(center, scale, size=size)))


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
    center, sides = _padded_box(example["box"], image_size, padding)
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
        "keypoints": apply_affine(view["keypoints"][:, :2], matrix),
        "weights": (view["keypoints"][:, 2] > 0).astype(np.float32),
        "center": view["center"],
        "scale": scale,
    }


def _padded_box(
    box: Float[np.ndarray, "4"] | Sequence[float], image_size: tuple[int, int], padding: float
) -> tuple[Float[np.ndarray, "2"], Float[np.ndarray, "2"]]:
    """Middle and padded sides of the part of a box that lies inside the image."""
    box = np.asarray(box, np.float64)
    # The last pixel, not the image's edge, is the limit: as MMPose 1.x clips.
    last = np.asarray(image_size, np.float64) - 1
    low, high = np.clip(box[:2], 0, last), np.clip(box[:2] + box[2:], 0, last)
    if not np.all(high - low > SMALLEST_SIDE):  # also refuses NaN
        width, height = image_size
        raise ValueError(f"box {box.tolist()} (xywh) has no area inside the {width}x{height} image")
    return ((low + high) / 2).astype(np.float32), ((high - low) * padding).astype(np.float32)


def _widen(sides: Float[np.ndarray, "2"], aspect: float) -> Float[np.ndarray, "2"]:
    """The smallest sides with this width / height that contain the given ones."""
    width = max(sides[0], sides[1] * aspect)
    return np.array([width, width / aspect], np.float32)


def _flip_x(points: Float[np.ndarray, "*k c"], width: int) -> Float[np.ndarray, "*k c"]:
    """Points with x mirrored in an image of this width; further columns stay."""
    flipped = np.array(points)
    flipped[..., 0] = width - 1 - flipped[..., 0]
    return flipped


def _flip_keypoints(
    keypoints: Float[np.ndarray, "k c"], width: int, pairs: Sequence[tuple[int, int]]
) -> Float[np.ndarray, "k c"]:
    """Mirrored keypoints, left and right exchanged."""
    return _flip_x(keypoints, width)[joints.mirror_order(pairs, len(keypoints))]


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
        "keypoints": _flip_keypoints(example["keypoints"], width, keypoint_set.pairs),
        "center": _flip_x(example["center"], width),
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
