"""Weight files of PyTorch and safetensors, read as files that nobody vouches for.

Nothing in a file is run, and no file takes much more memory than it has bytes.
"""

import pickle
import warnings
import zipfile
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

# Reading a broken zip file raises any of these.
UNREADABLE = (OSError, RuntimeError, NotImplementedError, EOFError, zipfile.BadZipFile)


def read(path: str | Path) -> dict[str, np.ndarray]:
    """The state dict in a .safetensors file or a PyTorch file (.pth, .pt, .bin, .tar).

    Nothing in a file is ever run. Raises FileNotFoundError, ImportError where a PyTorch file needs
    PyTorch, and one ValueError that names a file that cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weight file {path}")
    if path.suffix == ".safetensors":
        try:
            # It compares the sizes that the header claims with the file's before it reads any.
            return safetensors.numpy.load_file(path)
        # KeyError, TypeError, AttributeError: of numbers that numpy has not, such as 8-bit floats
        except (safetensors.SafetensorError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is truncated or no .safetensors file: {error}") from error
    if path.suffix in (".pth", ".pt", ".bin", ".tar"):
        return read_torch(path)
    raise ValueError(f"{path} is neither a .safetensors nor a PyTorch file (.pth, .pt, .bin, .tar)")


class Skipped:
    """Stands in for an object of a training log that a PyTorch file carries beside its tensors."""

    def __new__(cls, *_):
        return object.__new__(cls)

    def __setstate__(self, _):
        pass


# MMPose 1.x saves numpy arrays with the weights, and its unfinished runs their loss history. None
# of these is ever called: torch.load puts a Skipped in the place of each. Any other object is
# refused.
SKIPPED = (
    "numpy.dtype",
    "numpy.ndarray",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "mmengine.logging.history_buffer.HistoryBuffer",
    "builtins.getattr",
)


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a PyTorch file, out of its 'state_dict' if it has one."""
    try:
        import torch  # 200 MB that only this format needs
    except ImportError as error:
        message = f"reading {path} needs PyTorch: pip install 'ap10k_jax[convert]'"
        raise ImportError(message) from error

    check_zip(path)
    try:
        # the warnings are of formats that only torch cares about
        harmless = torch.serialization.safe_globals([(Skipped, name) for name in SKIPPED])
        with warnings.catch_warnings(action="ignore"), harmless:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        message = f"{path} is damaged, or holds Python objects, which are refused: {error}"
        raise ValueError(message) from error
    except Exception as error:  # torch raises several kinds for a truncated file
        raise ValueError(f"{path} is truncated or no PyTorch file: {error}") from error
    state_dict = content.get("state_dict", content) if isinstance(content, dict) else None
    if not (
        isinstance(state_dict, dict)
        and state_dict
        and all(isinstance(name, str) for name in state_dict)
        and all(is_plain(tensor) for tensor in state_dict.values())
    ):
        raise ValueError(f"{path} holds no state dict: a mapping of names to tensors")
    # A tensor may repeat a few numbers of the file without end; a copy of it would fill the memory.
    claimed = sum(t.numel() * t.element_size() for t in state_dict.values())
    if claimed > 2 * path.stat().st_size:
        raise ValueError(
            f"{path} is damaged: its tensors claim {claimed:,} bytes, more than it has"
        )
    return {
        # numpy has no bfloat16
        name: (tensor.float() if tensor.is_floating_point() else tensor).detach().numpy()
        for name, tensor in state_dict.items()
    }


def is_plain(value: object) -> bool:
    """True for a tensor of numbers as numpy has them: not sparse, quantized, complex."""
    import torch

    return (
        torch.is_tensor(value)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not (value.is_quantized or value.is_complex())
    )


def check_zip(path: Path) -> None:
    """Raises ValueError for a PyTorch file that unpacks to more than it is.

    PyTorch never compresses, but its reader would unpack what somebody else has compressed.
    """
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (*UNREADABLE, ValueError) as error:
        raise ValueError(f"{path} is truncated or no PyTorch file: {error}") from error
    unpacked = sum(entry.file_size for entry in entries)
    stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
    if not stored or unpacked > path.stat().st_size:
        raise ValueError(
            f"{path} is no PyTorch file: it would unpack to {unpacked:,} bytes, and PyTorch does "
            "not compress"
        )
