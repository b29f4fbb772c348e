"""AP-10K as a TensorFlow data set, readable without TensorFlow; Animal-Pose, COCO and one's own
photographs beside it.

Importing this package registers its builders, so that `tfds.builder("ap10k/split1")` and
`tfds.data_source("ap10k/split1", split="train")` know them.
"""

from tfds_ap10k.animal_pose import Builder as AnimalPose
from tfds_ap10k.ap10k import Builder as Ap10k
from tfds_ap10k.coco_keypoints import Builder as CocoKeypoints
from tfds_ap10k.own import Builder as Own

__all__ = ["AnimalPose", "Ap10k", "CocoKeypoints", "Own"]
