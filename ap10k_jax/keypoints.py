"""Sets of keypoints: names, mirror pairs, skeletons, half bodies, sigmas, mappings."""

import dataclasses
import re
import reprlib
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

# For joints whose spread of labelling nobody has measured: in the middle of COCO's, which go from
# 0.025 (eyes) to 0.107 (hips). An AP with it compares models on one data set, and no data sets.
DEFAULT_SIGMA = 0.05

SIDES = {"left": "left", "l": "left", "right": "right", "r": "right"}  # as parts of names


@dataclasses.dataclass(frozen=True)
class KeypointSet:
    """The joints of one data set, in the order of its annotation files; every index is 0-based."""

    names: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]  # (left, right): exchanged when the image is mirrored
    skeleton: tuple[tuple[int, int], ...]  # the limbs to draw
    upper_body: tuple[int, ...] = ()  # half-body augmentation; joints not named here are "lower"
    sigmas: tuple[float, ...] = ()  # OKS: spread of human labelling, relative to sqrt(area)

    def __len__(self) -> int:
        return len(self.names)

    def side(self, index: int) -> str:
        """'left', 'right' or 'middle': the animal's own left, not the viewer's."""
        return _split_side(self.names[index])[0]


AP10K = KeypointSet(
    names=(
        *("left_eye", "right_eye", "nose", "neck", "root_of_tail"),
        *("left_shoulder", "left_elbow", "left_front_paw"),
        *("right_shoulder", "right_elbow", "right_front_paw"),
        *("left_hip", "left_knee", "left_back_paw"),
        *("right_hip", "right_knee", "right_back_paw"),
    ),
    pairs=((0, 1), (5, 8), (6, 9), (7, 10), (11, 14), (12, 15), (13, 16)),
    # The annotation files store the same limbs 1-based.
    skeleton=(
        *((0, 1), (0, 2), (1, 2), (2, 3), (3, 4)),
        *((3, 5), (5, 6), (6, 7), (3, 8), (8, 9), (9, 10)),
        *((4, 11), (11, 12), (12, 13), (4, 14), (14, 15), (15, 16)),
    ),
    # Right front paw (10) is missing: a slip of MMPose's configs/_base_/datasets/ap10k.py, kept
    # because the published numbers were trained with it.
    upper_body=(0, 1, 2, 3, 5, 6, 7, 8, 9),
    # As corrected in December 2021; every number published since then uses these.
    sigmas=(
        *(0.025, 0.025, 0.026, 0.035, 0.035),
        *(0.079, 0.072, 0.062, 0.079, 0.072, 0.062),
        *(0.107, 0.087, 0.089, 0.107, 0.087, 0.089),
    ),
)

# The paper's own tables were computed with COCO's values in COCO's order (left, right, left, ...),
# which does not match AP-10K's order of joints.
AP10K_PAPER_SIGMAS = (
    *(0.025, 0.025, 0.026, 0.035, 0.035),
    *(0.079, 0.079, 0.072, 0.072, 0.062, 0.062),
    *(0.107, 0.107, 0.087, 0.087, 0.089, 0.089),
)

ANIMAL_POSE = KeypointSet(
    names=(
        *("left_eye", "right_eye", "nose", "left_ear", "right_ear"),
        *("left_front_elbow", "right_front_elbow", "left_back_elbow", "right_back_elbow"),
        *("left_front_knee", "right_front_knee", "left_back_knee", "right_back_knee"),
        *("left_front_paw", "right_front_paw", "left_back_paw", "right_back_paw"),
        *("throat", "withers", "tail_base"),
    ),
    pairs=((0, 1), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)),
    skeleton=(
        *((0, 1), (0, 2), (1, 2), (0, 3), (1, 4), (2, 17), (17, 18), (18, 19)),
        *((18, 5), (5, 9), (9, 13), (18, 6), (6, 10), (10, 14)),
        *((19, 7), (7, 11), (11, 15), (19, 8), (8, 12), (12, 16)),
    ),
    # MMPose's, of configs/_base_/datasets/animalpose.py, which adapted COCO's because nobody has
    # measured these joints. There the ears come before the nose, so the first five are COCO's for
    # eyes, nose and ears in another order than meant: the left ear has the nose's .026, the right
    # ear and the nose have the ears' .035. Kept, because MMPose's numbers were made with it.
    sigmas=(
        *(0.025, 0.025, 0.035, 0.026, 0.035),  # eyes, nose, ears
        *(0.107, 0.107, 0.107, 0.107),  # elbows
        *(0.087, 0.087, 0.087, 0.087),  # knees
        *(0.089, 0.089, 0.089, 0.089),  # paws
        *(0.10, 0.10, 0.10),  # throat, withers, tail base
    ),
)

COCO_PERSON = KeypointSet(
    names=(
        *("nose", "left_eye", "right_eye", "left_ear", "right_ear"),
        *("left_shoulder", "right_shoulder"),
        *("left_elbow", "right_elbow"),
        *("left_wrist", "right_wrist"),
        *("left_hip", "right_hip"),
        *("left_knee", "right_knee"),
        *("left_ankle", "right_ankle"),
    ),
    pairs=((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)),
    skeleton=(
        *((0, 1), (0, 2), (1, 3), (2, 4), (5, 6), (5, 11), (6, 12), (11, 12)),
        *((5, 7), (7, 9), (6, 8), (8, 10), (11, 13), (13, 15), (12, 14), (14, 16)),
    ),
    upper_body=tuple(range(11)),
    # COCO's own values, in the order of its keypoints.
    sigmas=(
        *(0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072),
        *(0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089),
    ),
)

KNOWN = (AP10K, ANIMAL_POSE, COCO_PERSON)

# For each AP-10K joint the Animal-Pose joint that stands for it, as in Table 11. Front and back
# "elbow" become shoulder and hip, "knee" becomes elbow and knee; ears have no counterpart. The
# neck is the throat here; the paper does not say what it took, see ANIMAL_POSE_NECKS.
ANIMAL_POSE_TO_AP10K = (0, 1, 2, 17, 19, 5, 9, 13, 6, 10, 14, 7, 11, 15, 8, 12, 16)


# The Animal-Pose joints whose mean is taken as AP-10K's neck. "throat" is the likely choice of the
# paper: 17 of the 20 joints remain when ears and withers go. "midpoint", of throat and withers, is
# where AP-10K's annotators put the neck: in nose-to-tail lengths their mean distance from throat /
# midpoint is .164 / .027 for cows, .121 / .045 for dogs, .160 / .052 for horses, .138 / .009 for
# sheep and .049 / .102 for cats. Predictions with the neck at the midpoint and no other error have
# an AP of .88 on labels with the neck at the throat.
ANIMAL_POSE_NECKS = {"throat": (17,), "midpoint": (17, 18)}


def animal_pose_mapping(neck: str = "throat") -> tuple[int | tuple[int, ...], ...]:
    """For each AP-10K joint the Animal-Pose joint, or the joints to average, that stand for it.

    `neck` is a key of ANIMAL_POSE_NECKS. Raises ValueError for another one.
    """
    if neck not in ANIMAL_POSE_NECKS:
        raise ValueError(f"unknown neck {neck!r}: choose from {', '.join(ANIMAL_POSE_NECKS)}")
    place = AP10K.names.index("neck")
    before, after = ANIMAL_POSE_TO_AP10K[:place], ANIMAL_POSE_TO_AP10K[place + 1 :]
    return (*before, ANIMAL_POSE_NECKS[neck], *after)


def from_category(category: Mapping) -> KeypointSet:
    """The joints that a category of a COCO-style file declares.

        {"keypoints": ["left_ear", "right_ear", "nose"], "skeleton": [[1, 3], [2, 3]],
         "sigmas": [0.04, 0.04, 0.03]}

    Names that are AP-10K's, Animal-Pose's or COCO's, in their order, give that very set, whatever
    the skeleton. For others the limbs are those of `skeleton` (1-based in the file, may be absent),
    the pairs those of `pairs_of`, and no upper body is known. `sigmas` is a key of ours; without it
    all are DEFAULT_SIGMA. Raises ValueError that says what is wrong.
    """
    names = category.get("keypoints")
    if not (isinstance(names, list | tuple) and names):
        raise ValueError("declares no keypoints (a list of their names)")
    unfit = [name for name in names if not (isinstance(name, str) and name.strip())]
    if unfit:
        raise ValueError(f"{reprlib.repr(unfit[0])} is not a name of a keypoint")
    repeated = [name for i, name in enumerate(names) if name in names[:i]]
    if repeated:
        raise ValueError(f"{reprlib.repr(repeated[0])} names more than one keypoint")
    skeleton = category.get("skeleton") or []
    if not _are_limbs(skeleton, len(names)):
        raise ValueError(f"the skeleton is not of pairs of keypoint numbers from 1 to {len(names)}")
    limbs = tuple((a - 1, b - 1) for a, b in skeleton)
    sigmas = category.get("sigmas")
    if sigmas is not None and not _are_sigmas(sigmas, len(names)):
        raise ValueError(f"the sigmas are not {len(names)} numbers between 0 and 1")
    known = [joints for joints in KNOWN if joints.names == tuple(names)]
    default = (DEFAULT_SIGMA,) * len(names)
    joints = known[0] if known else KeypointSet(tuple(names), pairs_of(names), limbs, (), default)
    return dataclasses.replace(joints, sigmas=tuple(sigmas)) if sigmas else joints


def of_annotations(coco: Mapping) -> KeypointSet:
    """The joints of a COCO dict whose categories agree; AP-10K's if they declare none."""
    category = next(iter(coco.get("categories", ())), {})
    return from_category(category) if category.get("keypoints") else AP10K


def as_category(joints: KeypointSet) -> dict:
    """The declaration of a COCO category, for `from_category` to read."""
    skeleton = [[a + 1, b + 1] for a, b in joints.skeleton]  # COCO counts joints from 1
    return {"keypoints": list(joints.names), "skeleton": skeleton, "sigmas": list(joints.sigmas)}


def pairs_of(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """(left, right) of the joints whose names differ in nothing but the side, in order of the left.

    A side is a part of the name: left_eye, eye_left, front_left_paw, leftEye, LeftEye, l_eye,
    eye.R, "L eye". Raises ValueError if two names say the same, as left_eye and l_eye do.
    """
    index = {}
    for i, name in enumerate(names):
        first = index.setdefault(_split_side(name), i)
        if first != i and _split_side(name)[0] != "middle":
            raise ValueError(f"{names[first]!r} and {name!r} name the same keypoint")
    return tuple(
        (i, index["right", rest])
        for (side, rest), i in index.items()
        if side == "left" and ("right", rest) in index
    )


def one_sided(joints: KeypointSet) -> list[str]:
    """Names of joints of one side without a counterpart on the other; as a rule, of a slip."""
    paired = {i for pair in joints.pairs for i in pair}
    return [
        name
        for i, name in enumerate(joints.names)
        if joints.side(i) != "middle" and i not in paired
    ]


def _split_side(name: str) -> tuple[str, tuple[str, ...]]:
    """('left', ('*', 'front', 'paw')) of left_front_paw; ('middle', ...) of a name without side."""
    # leftEye, Left_eye and LEye have the words left (or l) and eye; Leg is one word of no side.
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^\W_A-Za-z]+", name)
    if len(words) == 1:  # leftear
        words = [word for word in re.split(r"(?i)^(left|right)|(left|right)$", name) if word]
    words = [word.lower() for word in words]
    sides = [i for i, word in enumerate(words) if word in SIDES]
    if len(sides) != 1:
        return "middle", tuple(words)
    (at,) = sides
    return SIDES[words[at]], (*words[:at], "*", *words[at + 1 :])


def _are_limbs(skeleton: object, count: int) -> bool:
    return isinstance(skeleton, list | tuple) and all(
        isinstance(limb, list | tuple)
        and len(limb) == 2
        and all(type(joint) is int and 1 <= joint <= count for joint in limb)
        for limb in skeleton
    )


def _are_sigmas(sigmas: object, count: int) -> bool:
    return (
        isinstance(sigmas, list | tuple)
        and len(sigmas) == count
        and all(type(s) in (int, float) and 0 < s < 1 for s in sigmas)
    )


def num_labelled(annotation: Mapping) -> int:
    """The number of labelled joints of a COCO annotation: those with a visibility above 0."""
    return sum(visibility > 0 for visibility in annotation["keypoints"][2::3])


def is_crowd(annotation: Mapping) -> bool:
    """Returns True for a COCO annotation of a group in one box, which has `iscrowd` 1."""
    return bool(annotation.get("iscrowd"))


def is_animal(annotation: Mapping) -> bool:
    """Returns True for an annotation to train on and to find: one animal with a labelled joint."""
    return num_labelled(annotation) > 0 and not is_crowd(annotation)


def mirror_order(pairs: Sequence[tuple[int, int]], num_keypoints: int) -> Int[np.ndarray, " k"]:
    """For each joint the index of its counterpart on the other side (its own if there is none)."""
    order = np.arange(num_keypoints)
    for left, right in pairs:
        order[[left, right]] = right, left
    return order


def select(
    keypoints: Float[np.ndarray, "*b m c"], mapping: tuple[int, ...]
) -> Float[np.ndarray, "*b k c"]:
    """The joints of another data set, in our order: row k of the result is row mapping[k]."""
    return keypoints[..., list(mapping), :]


def remap_annotations(
    coco: Mapping,
    mapping: Sequence[int | tuple[int, ...]] = ANIMAL_POSE_TO_AP10K,
    to: KeypointSet = AP10K,
) -> dict:
    """A COCO dict of another data set with the joints of `to`: joint k was its joint mapping[k].

    An entry of several joints stands for their mean, which is labelled where all of them are.
    Visibilities come along, joints without a counterpart are dropped, and `num_keypoints` is
    counted anew: an animal of which only ears were labelled has none left, so that loader and
    metric leave it out. Every AP-10K joint has its Animal-Pose joint, so the "common keypoints" of
    Table 11 are all 17, and AP-10K's sigmas and predictions need no mask. The dict that is passed
    in stays as it is.
    """
    if len(mapping) != len(to):
        raise ValueError(f"a mapping of {len(mapping)} joints to a set of {len(to)}")
    skeleton = [[a + 1, b + 1] for a, b in to.skeleton]  # COCO counts joints from 1
    return {
        **coco,
        "annotations": [_remapped(animal, mapping) for animal in coco["annotations"]],
        "categories": [
            {**category, "keypoints": list(to.names), "skeleton": skeleton}
            for category in coco["categories"]
        ],
    }


def _remapped(animal: Mapping, mapping: Sequence[int | tuple[int, ...]]) -> dict:
    values = animal["keypoints"]
    labels = [values[i : i + 3] for i in range(0, len(values), 3)]
    points = [
        labels[joint] if isinstance(joint, int) else _mean([labels[j] for j in joint])
        for joint in mapping
    ]
    return {
        **animal,
        "num_keypoints": sum(point[2] > 0 for point in points),
        "keypoints": [value for point in points for value in point],
    }


def _mean(points: Sequence[Sequence[float]]) -> Sequence[float]:
    """The mean of (x, y, visibility) triples; zeros where one of them is not labelled."""
    if len(points) == 1:
        return points[0]
    visibility = min(point[2] for point in points)
    if not visibility:
        return (0, 0, 0)
    x, y = (sum(point[i] for point in points) / len(points) for i in (0, 1))
    return (x, y, visibility)
