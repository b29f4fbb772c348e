"""Keypoints of animals in photographs and videos."""

from ap10k_jax.predict.predictor import Animal, Predictor

__all__ = ["Animal", "Predictor"]
