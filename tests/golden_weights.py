"""The state dicts behind the golden numbers: every tensor is a function of its name and shape."""

import json
import zlib
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parent / "golden"

# Our name -> the name in the golden files.
GOLDEN_NAMES = {
    "hrnet_w32": "hrnet_w32",
    "hrnet_w48": "hrnet_w48",
    "simplebaseline_resnet50": "resnet50",
    "simplebaseline_resnet101": "resnet101",
    "hourglass52": "hourglass52",
}


def tensor(name: str, shape: list[int]) -> np.ndarray:
    z = np.random.default_rng([zlib.crc32(name.encode()), 0]).standard_normal(shape)
    if name.endswith("running_mean"):
        z = 0.1 * z
    elif name.endswith("running_var"):
        z = 1 + 0.1 * np.abs(z)
    elif len(shape) == 1:
        z = 0.6 + 0.05 * z if name.endswith("weight") else 0.05 * z
    else:
        z = z / np.sqrt(np.prod(shape[1:]))
    return z.astype(np.float32)


def names_and_shapes(model: str) -> dict[str, list[int]]:
    """MMPose 1.x names and PyTorch shapes of one of our models."""
    return dict(json.loads((GOLDEN / "state_dict_keys.json").read_text())[GOLDEN_NAMES[model]])


def state_dict(model: str) -> dict[str, np.ndarray]:
    return {name: tensor(name, shape) for name, shape in names_and_shapes(model).items()}
