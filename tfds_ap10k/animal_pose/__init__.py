"""Animal-Pose: dogs, cats, cows, horses and sheep with 20 keypoints, for the paper's Table 11."""

from tfds_ap10k.animal_pose.animal_pose_dataset_builder import Builder

__all__ = ["Builder"]
