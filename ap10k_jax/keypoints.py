"""What the joints are: names, mirror pairs, skeletons, half bodies, sigmas, mappings."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int


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
        first = self.names[index].split("_")[0]
        return first if first in ("left", "right") else "middle"


AP10K = KeypointSet(
    names=(
        "left_eye",
        "right_eye",
        "nose",
        "neck",
        "root_of_tail",
        "left_shoulder",
        "left_elbow",
        "left_front_paw",
        "right_shoulder",
        "right_elbow",
        "right_front_paw",
        "left_hip",
        "left_knee",
        "left_back_paw",
        "right_hip",
        "right_knee",
        "right_back_paw",
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
        "left_eye",
        "right_eye",
        "nose",
        "left_ear",
        "right_ear",
        "left_front_elbow",
        "right_front_elbow",
        "left_back_elbow",
        "right_back_elbow",
        "left_front_knee",
        "right_front_knee",
        "left_back_knee",
        "right_back_knee",
        "left_front_paw",
        "right_front_paw",
        "left_back_paw",
        "right_back_paw",
        "throat",
        "withers",
        "tail_base",
    ),
    pairs=((0, 1), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)),
    skeleton=(
        *((0, 1), (0, 2), (1, 2), (0, 3), (1, 4), (2, 17), (17, 18), (18, 19)),
        *((18, 5), (5, 9), (9, 13), (18, 6), (6, 10), (10, 14)),
        *((19, 7), (7, 11), (11, 15), (19, 8), (8, 12), (12, 16)),
    ),
)

COCO_PERSON = KeypointSet(
    names=(
        "nose",
        "left_eye",
        "right_eye",
        "left_ear",
        "right_ear",
        "left_shoulder",
        "right_shoulder",
        "left_elbow",
        "right_elbow",
        "left_wrist",
        "right_wrist",
        "left_hip",
        "right_hip",
        "left_knee",
        "right_knee",
        "left_ankle",
        "right_ankle",
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

# Paper, Table 11: for each AP-10K joint, the Animal-Pose joint that stands for it. Front and back
# "elbow" become shoulder and hip, "knee" becomes elbow and knee, the throat becomes the neck; ears
# and withers have no counterpart.
ANIMAL_POSE_TO_AP10K = (0, 1, 2, 17, 19, 5, 9, 13, 6, 10, 14, 7, 11, 15, 8, 12, 16)


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
    coco: Mapping, mapping: tuple[int, ...] = ANIMAL_POSE_TO_AP10K, to: KeypointSet = AP10K
) -> dict:
    """A COCO dict of another data set with the joints of `to`: joint k was its joint mapping[k].

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


def _remapped(animal: Mapping, mapping: tuple[int, ...]) -> dict:
    values = animal["keypoints"]
    points = [values[3 * joint : 3 * joint + 3] for joint in mapping]
    return {
        **animal,
        "num_keypoints": sum(point[2] > 0 for point in points),
        "keypoints": [value for point in points for value in point],
    }
