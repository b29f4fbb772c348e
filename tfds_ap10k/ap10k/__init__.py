"""AP-10K, in the three splits of its authors."""

from tfds_ap10k.ap10k.ap10k_dataset_builder import Builder

__all__ = ["Builder"]
