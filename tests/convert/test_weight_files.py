"""Weight files of every kind are read, and none can run code or fill the memory."""

import collections
import os
import pickle
import sys

import numpy as np
import pytest
import safetensors.numpy

from ap10k_jax.convert import weight_files

STATE = {"backbone.conv1.weight": np.arange(6, dtype=np.float32).reshape(1, 2, 3, 1)}


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("wrapped", [True, False])
def test_pytorch_files_of_every_age(tmp_path, is_zip, wrapped):
    torch = pytest.importorskip("torch")
    state = collections.OrderedDict((n, torch.from_numpy(a)) for n, a in STATE.items())
    state["half"] = torch.full((3,), 0.5, dtype=torch.bfloat16)
    state["bn1.num_batches_tracked"] = torch.tensor(7)
    # What MMPose 1.x keeps beside the weights.
    meta = {"time": "now", "sigmas": np.ones(17), "epoch": np.float64(210), "n": np.arange(3)}
    torch.save(
        {"state_dict": state, "meta": meta} if wrapped else state,
        tmp_path / "net.pth",
        _use_new_zipfile_serialization=is_zip,
    )
    read = weight_files.read(tmp_path / "net.pth")
    assert list(read) == list(state)
    np.testing.assert_array_equal(read["backbone.conv1.weight"], STATE["backbone.conv1.weight"])
    np.testing.assert_array_equal(read["half"], np.full(3, 0.5, np.float32))
    assert read["bn1.num_batches_tracked"] == 7


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("written_by", ["torch", "torch, old", "pickle"])
def test_a_payload_is_refused_and_never_runs(tmp_path, written_by):
    torch = pytest.importorskip("torch")
    content = {"state_dict": {"a": torch.zeros(1)}, "meta": Payload(tmp_path / "ran")}
    path = tmp_path / "net.pth"
    if written_by == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=written_by == "torch")
    with pytest.raises(ValueError, match=r"net\.pth"):
        weight_files.read(path)
    assert not (tmp_path / "ran").exists()


def test_getattr_from_a_file_gets_nothing(tmp_path):
    """MMEngine's loss history needs getattr to load: a stand-in takes its place."""
    torch = pytest.importorskip("torch")

    class Reach:
        def __reduce__(self):
            return getattr, (np.ndarray, "fill")

    torch.save({"state_dict": {"a": torch.zeros(1)}, "meta": Reach()}, tmp_path / "net.pth")
    with torch.serialization.safe_globals(
        [(weight_files.Skipped, name) for name in weight_files.SKIPPED]
    ):
        content = torch.load(tmp_path / "net.pth", weights_only=True)
    assert isinstance(content["meta"], weight_files.Skipped)
    assert list(weight_files.read(tmp_path / "net.pth")) == ["a"]


@pytest.mark.parametrize("suffix", ["safetensors", "pth", "pth, old"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_file_is_named(tmp_path, suffix, share):
    path = tmp_path / f"net.{suffix.removesuffix(', old')}"
    state = {"a": np.ones((100, 100), np.float32), "b": np.ones((100, 100), np.float32)}
    if suffix == "safetensors":
        safetensors.numpy.save_file(state, path)
    else:
        torch = pytest.importorskip("torch")
        tensors = {n: torch.from_numpy(a) for n, a in state.items()}
        torch.save(tensors, path, _use_new_zipfile_serialization=suffix == "pth")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(ValueError, match=r"net\..* is (truncated|damaged)"):
        weight_files.read(path)


def test_files_that_hold_no_weights_are_named(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"state_dict": {}}, tmp_path / "empty.pth")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    torch.save({"epoch": 3, "a": torch.zeros(1)}, tmp_path / "mixed.pth")
    for name in ("empty", "list", "mixed"):
        with pytest.raises(ValueError, match=rf"{name}\.pth holds no state dict"):
            weight_files.read(tmp_path / f"{name}.pth")
    (tmp_path / "net.onnx").touch()
    with pytest.raises(ValueError, match="neither"):
        weight_files.read(tmp_path / "net.onnx")
    with pytest.raises(FileNotFoundError, match="cocoa"):
        weight_files.read("cocoa")


def test_without_pytorch_the_error_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "net.pth").touch()
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"ap10k_jax\[convert\]"):
        weight_files.read(tmp_path / "net.pth")
