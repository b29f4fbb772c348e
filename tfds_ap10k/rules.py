"""Rules that find annotations which a person probably did not intend; `checks` reports them.

A finding is a reason to look, not a proof of a mistake: animals do cross their legs. Lengths are
relative to the square root of the box's area, so that near and far animals are comparable. A rule
finds nothing where the data set lacks its joints. The limits were chosen on Animal-Pose's
photographs; `benchmarks/RESULTS.md` says how many of the findings are worth a look.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from ap10k_jax import keypoints

OUTSIDE = 0.05  # of the box's size that a joint may stick out
COINCIDENT = 0.01
CROSSING = 1.5, 0.1  # two limbs, labelled, to the same with a joint exchanged: ratio, difference
FACE = 0.3  # sine of the angle between the eyes, seen from the nose; less is a profile
TWIST = 0.08  # distance of shoulders and hips from the line of the back
FENCE = 3.0  # interquartile ranges above the upper quartile
FEW_LIMBS = 20  # of a species; with fewer its range is that of all species
LOOSE = 0.15  # of the box that the joints cover, where at least half of them are labelled
BESIDE = 0.25  # of the size of an animal with joints; smaller ones are the distant herd


class Animals(NamedTuple):
    """The n annotations of a file as arrays; lengths are made comparable by `size`."""

    points: Float[np.ndarray, "n k 2"]  # pixels of the image
    labelled: Bool[np.ndarray, "n k"]
    boxes: Float[np.ndarray, "n 4"]  # xywh
    size: Float[np.ndarray, " n"]  # square root of the box's area
    species: Int[np.ndarray, " n"]
    images: Int[np.ndarray, " n"]
    joints: keypoints.KeypointSet


Found = Iterator[tuple[int, tuple[int, ...], float]]  # place of the animal, its joints, value


def outside_box(animals: Animals) -> Found:
    """A joint outside the animal's own box; the value is how far."""
    first = animals.boxes[:, None, :2]
    last = first + animals.boxes[:, None, 2:]
    beyond = np.maximum(first - animals.points, animals.points - last).max(axis=2)
    beyond /= animals.size[:, None]
    for i, k in zip(*np.nonzero(animals.labelled & (beyond > OUTSIDE)), strict=True):
        yield i, (k,), beyond[i, k]


def coincident(animals: Animals) -> Found:
    """Two joints at nearly the same position; the value is their distance."""
    for a in range(len(animals.joints)):
        for b in range(a + 1, len(animals.joints)):
            apart = length(animals, a, b)
            for i in np.flatnonzero(apart < COINCIDENT):
                yield i, (a, b), apart[i]


def eyes_swapped(animals: Animals) -> Found:
    """Left and right eye on the wrong sides of the nose: whoever shows both eyes shows us its face,
    and then they go round the nose in one direction. The value is the sine of the angle.
    """
    names = ("right_eye", "nose", "left_eye")
    if set(names) <= set(animals.joints.names):
        right, nose, left = (animals.joints.names.index(name) for name in names)
        a = animals.points[:, right] - animals.points[:, nose]
        b = animals.points[:, left] - animals.points[:, nose]
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        sine = _cross(a, b) / np.maximum(norms, 1e-6)
        seen = animals.labelled[:, [right, nose, left]].all(axis=1)
        for i in np.flatnonzero(seen & (sine < -FACE)):
            yield i, (left, right), sine[i]


def limbs_cross(animals: Animals) -> Found:
    """A limb that goes to the other side: the left and right one together would be much shorter if
    their lower joints were exchanged. The value is by how much.
    """
    opposite = keypoints.mirror_order(animals.joints.pairs, len(animals.joints))
    left = [a for a, _ in animals.joints.pairs]
    for a, b in animals.joints.skeleton:
        if a in left and b in left:
            a2, b2 = opposite[a], opposite[b]
            labelled = length(animals, a, b) + length(animals, a2, b2)
            exchanged = length(animals, a, b2) + length(animals, a2, b)
            with np.errstate(invalid="ignore"):  # joints that are not labelled are NaN apart
                shorter = labelled - exchanged
                strange = (labelled > CROSSING[0] * exchanged) & (shorter > CROSSING[1])
            for i in np.flatnonzero(strange):
                yield i, (b, b2), shorter[i]


def body_twisted(animals: Animals) -> Found:
    """Shoulders and hips on different sides of the back: one of the pairs has left and right
    swapped. The value is the smaller distance from the line from neck to root of tail.
    """
    names = ("neck", "root_of_tail", "left_shoulder", "right_shoulder", "left_hip", "right_hip")
    if set(names) <= set(animals.joints.names):
        wanted = [animals.joints.names.index(name) for name in names]
        neck, tail, *pairs = (animals.points[:, k] for k in wanted)
        back = (neck - tail) / np.maximum(np.linalg.norm(neck - tail, axis=1), 1e-6)[:, None]
        front, rear = (
            _cross(back, one - other) / animals.size for one, other in (pairs[:2], pairs[2:])
        )
        smaller = np.minimum(abs(front), abs(rear))
        seen = animals.labelled[:, wanted].all(axis=1)
        for i in np.flatnonzero(seen & (front * rear < 0) & (smaller > TWIST)):
            yield i, tuple(wanted[2:]), smaller[i]


def limb_too_long(animals: Animals) -> Found:
    """A limb far longer than those of its species; short ones only point at us. The value is the
    length above the upper quartile, in interquartile ranges.
    """
    for a, b in animals.joints.skeleton:
        lengths = length(animals, a, b)
        everyone = lengths[np.isfinite(lengths)]
        for species in np.unique(animals.species):
            own = np.where(animals.species == species, lengths, np.nan)
            known = own[np.isfinite(own)]
            known = known if len(known) >= FEW_LIMBS else everyone
            if len(known) >= FEW_LIMBS:
                lower, upper = np.percentile(known, [25, 75])
                above = (own - upper) / max(upper - lower, 1e-6)
                for i in np.flatnonzero(above > FENCE):
                    yield i, (a, b), above[i]


def box_too_large(animals: Animals) -> Found:
    """A box far larger than what the joints cover, though most of them are labelled. The value is
    the part of the box that they cover.
    """
    hidden = ~animals.labelled[..., None]
    first = np.where(hidden, np.inf, animals.points).min(axis=1)
    last = np.where(hidden, -np.inf, animals.points).max(axis=1)
    enough = animals.labelled.sum(axis=1) > len(animals.joints) / 2
    covered = np.where(enough[:, None], last - first, 0).prod(axis=1) / animals.size**2
    for i in np.flatnonzero(enough & (covered < LOOSE)):
        yield i, (), covered[i]


def unlabelled_beside(animals: Animals) -> Found:
    """An animal without a joint beside one with joints that is not much larger: forgotten? The
    value is its size in parts of that of the largest with joints.
    """
    with_joints = animals.labelled.any(axis=1)
    largest = defaultdict(float)
    for image, size in zip(animals.images[with_joints], animals.size[with_joints], strict=True):
        largest[int(image)] = max(largest[int(image)], float(size))
    for i in np.flatnonzero(~with_joints):
        beside = largest.get(int(animals.images[i]))
        if beside and animals.size[i] > BESIDE * beside:
            yield i, (), animals.size[i] / beside


RULES: dict[str, Callable[[Animals], Found]] = {
    rule.__name__: rule
    for rule in (
        *(outside_box, coincident, eyes_swapped, limbs_cross, body_twisted),
        *(limb_too_long, box_too_large, unlabelled_beside),
    )
}
# Of these the smallest value is the strangest.
SMALLEST_FIRST = (coincident.__name__, box_too_large.__name__)


def arrays(coco: Mapping) -> Animals:
    """The annotations of a COCO dict as arrays, in its order."""
    records = coco["annotations"]
    points = np.array([animal["keypoints"] for animal in records], float)
    points = points.reshape(len(records), -1, 3)
    boxes = np.array([animal["bbox"] for animal in records], float)
    return Animals(
        points[..., :2],
        points[..., 2] > 0,
        boxes,
        np.sqrt(boxes[:, 2] * boxes[:, 3]),
        np.array([animal["category_id"] for animal in records]),
        np.array([animal["image_id"] for animal in records]),
        keypoints.of_annotations(coco),
    )


def length(animals: Animals, a: int, b: int) -> Float[np.ndarray, " n"]:
    """Distances between joints relative to the box's size; NaN where one is not labelled."""
    apart = np.linalg.norm(animals.points[:, a] - animals.points[:, b], axis=1) / animals.size
    return np.where(animals.labelled[:, a] & animals.labelled[:, b], apart, np.nan)


def _cross(a: Float[np.ndarray, "n 2"], b: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, " n"]:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
