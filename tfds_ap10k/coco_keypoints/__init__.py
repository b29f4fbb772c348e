"""People with 17 keypoints from COCO 2017, to pretrain the models of the paper's Table 5 on."""

from tfds_ap10k.coco_keypoints.coco_keypoints_dataset_builder import Builder

__all__ = ["Builder"]
