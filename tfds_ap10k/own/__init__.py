"""A user's own animals, with joints of their own, as a data set like AP-10K."""

from tfds_ap10k.own.own_dataset_builder import Builder

__all__ = ["Builder"]
