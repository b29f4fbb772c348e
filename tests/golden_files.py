"""Where the golden numbers are: copies in golden/, everything else beside the repository."""

from pathlib import Path

import numpy as np
import pytest

COPIES = Path(__file__).parent / "golden"
SHARED = Path(__file__).parents[2] / "shared"


def copy(name: str) -> dict[str, np.ndarray]:
    """The arrays of a file that the repository holds, possibly a part of the whole."""
    with np.load(COPIES / name) as file:
        return dict(file)


def shared(path: str) -> Path:
    """A file beside the repository; without it the test is skipped."""
    if not (SHARED / path).exists():
        pytest.skip(f"needs ../shared/{path}, which is not part of the repository")
    return SHARED / path


def whole(name: str) -> dict[str, np.ndarray]:
    """All arrays of a golden file."""
    with np.load(shared(f"golden/{name}")) as file:
        return dict(file)
