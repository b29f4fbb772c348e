"""Weights of PyTorch networks as variables of ours, and back."""

from ap10k_jax.convert.torch_names import Report, from_torch, to_torch

__all__ = ["Report", "from_torch", "to_torch"]
