"""A data set of drawn animals in the shape of AP-10K."""

from tfds_ap10k.synthetic.dataset import draw, generate

__all__ = ["draw", "generate"]
