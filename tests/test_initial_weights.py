"""Public weights are downloaded once, verified, and put into the network."""

import functools
import hashlib
import http.server
import sys
import threading
import warnings

import jax
import numpy as np
import pytest
import safetensors.numpy

from ap10k_jax import initial_weights, models
from ap10k_jax.convert import torch_names


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AP10K_JAX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def server(tmp_path):
    """A folder, the address under which it is served on loopback, and the requests so far."""
    folder = tmp_path / "served"
    folder.mkdir()
    requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            requests.append(self.path)

    handler = functools.partial(Handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever).start()
        yield folder, f"http://127.0.0.1:{running.server_port}", requests
        running.shutdown()


def publish(folder, content: bytes) -> str:
    """Puts a file there under a name that carries its checksum, as MMPose does; the name."""
    name = f"net-{hashlib.sha256(content).hexdigest()[:8]}_20211029.pth"
    (folder / name).write_bytes(content)
    return name


def test_a_download_is_kept_and_not_repeated(server, cache):
    folder, address, requests = server
    name = publish(folder, b"weights" * 100_000)
    path = initial_weights.fetch(f"{address}/{name}")
    assert path == cache / name
    assert path.read_bytes() == b"weights" * 100_000
    initial_weights.fetch(f"{address}/{name}")
    assert requests == [f"/{name}"]
    assert [p.name for p in cache.iterdir()] == [name]


def test_a_download_with_another_checksum_is_not_kept(server, cache):
    folder, address, _ = server
    (folder / "net-01234567.pth").write_bytes(b"something else")
    with pytest.raises(ValueError, match="not 01234567"):
        initial_weights.fetch(f"{address}/net-01234567.pth")
    assert list(cache.iterdir()) == []


def test_a_file_in_the_cache_is_verified(cache):
    cache.mkdir()
    (cache / "net-01234567.pth").write_bytes(b"half a downlo")
    with pytest.raises(ValueError, match="delete it"):
        initial_weights.fetch("http://127.0.0.1:9/net-01234567.pth")


UNPUBLISHED = [url for url in initial_weights.PUBLIC["imagenet"].values() if "/hrnet" in url]


@pytest.mark.parametrize("url", UNPUBLISHED)
def test_a_file_without_a_published_digest_is_trusted_once_and_must_then_stay(cache, url):
    cache.mkdir()
    path = cache / url.rsplit("/", 1)[-1]
    path.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    with pytest.warns(UserWarning, match=f"cannot be verified: its SHA-256 is {digest}"):
        assert initial_weights.fetch(url) == path
    assert (cache / f"{path.name}.sha256").read_text().split() == [digest]
    with warnings.catch_warnings(action="error"):  # said once is enough
        assert initial_weights.fetch(url) == path
    path.write_bytes(b"other weights")
    with pytest.raises(ValueError, match=rf"has changed.*\.sha256 says {digest}; delete"):
        initial_weights.fetch(url)


def test_a_download_without_a_published_digest_is_kept_with_its_record(server, cache):
    folder, address, requests = server
    name = initial_weights.UNPUBLISHED[0]
    (folder / name).write_bytes(b"weights")
    with pytest.warns(UserWarning, match="cannot be verified"):
        path = initial_weights.fetch(f"{address}/{name}")
    assert path.read_bytes() == b"weights"
    assert initial_weights.fetch(f"{address}/{name}") == path
    assert requests == [f"/{name}"]
    assert sorted(p.name for p in cache.iterdir()) == [name, f"{name}.sha256"]
    path.unlink()
    (folder / name).write_bytes(b"something else")
    with pytest.raises(ValueError, match="has changed"):
        initial_weights.fetch(f"{address}/{name}")
    assert not path.exists()


def test_the_files_without_a_published_digest_are_the_hrnet_authors():
    assert [url.rsplit("/", 1)[-1] for url in UNPUBLISHED] == list(initial_weights.UNPUBLISHED)


@pytest.mark.parametrize("reason", ["nobody listens", "no such file"])
def test_offline_the_error_says_what_to_put_where(server, cache, reason):
    address = "http://127.0.0.1:9" if reason == "nobody listens" else server[1]
    url = f"{address}/net-01234567.pth"
    with pytest.raises(ConnectionError) as error:
        initial_weights.fetch(url)
    assert url in str(error.value)
    assert str(cache / "net-01234567.pth") in str(error.value)


def test_every_public_name_carries_its_checksum(cache):
    cache.mkdir()
    urls = [url for files in initial_weights.PUBLIC.values() for url in files.values()]
    assert len(set(urls)) == len(urls)
    for url in urls:
        (cache / url.rsplit("/", 1)[-1]).write_bytes(b"")
        if url.endswith(initial_weights.UNPUBLISHED):
            continue
        with pytest.raises(ValueError, match="e3b0c442"):  # the SHA-256 of nothing
            initial_weights.fetch(url)
    for files in initial_weights.PUBLIC.values():
        assert set(files) <= set(models.MODELS)


def test_a_short_name_without_a_public_file_says_so():
    with pytest.raises(ValueError, match="no public 'ap10k' weights of hourglass52"):
        initial_weights.load("ap10k", "hourglass52")


def test_short_name_to_variables(server, cache, monkeypatch):
    torch = pytest.importorskip("torch")
    folder, address, _ = server
    name = "simplebaseline_resnet18"
    state = torch_names.to_torch(models.init(models.build(name), jax.random.key(3)), name)
    state = {n.removeprefix("backbone."): a for n, a in state.items() if "head" not in n}
    tensors = {n: torch.from_numpy(a) for n, a in state.items()}
    torch.save(tensors | {"fc.bias": torch.zeros(1000)}, folder / "file")
    url = f"{address}/{publish(folder, (folder / 'file').read_bytes())}"
    monkeypatch.setitem(initial_weights.PUBLIC["imagenet"], name, url)
    variables, report = initial_weights.load("imagenet", name)
    assert report.ignored == ["fc.bias"]
    np.testing.assert_array_equal(
        variables["params"]["conv1"]["kernel"], state["conv1.weight"].transpose(2, 3, 1, 0)
    )
    monkeypatch.setitem(sys.modules, "torch", None)  # a safetensors file needs no PyTorch
    safetensors.numpy.save_file(state, folder / "net.safetensors")
    again, _ = initial_weights.load(folder / "net.safetensors", name)
    jax.tree.map(np.testing.assert_array_equal, variables, again)
    other, _ = initial_weights.load(folder / "net.safetensors", name, 20, key=jax.random.key(1))
    heads = [x["params"]["deconv0"]["kernel"] for x in (variables, other)]
    assert (heads[0] != heads[1]).all()
    assert other["params"]["head"]["bias"].shape == (20,)


def test_a_misspelt_short_name_is_answered_with_those_there_are():
    with pytest.raises(FileNotFoundError, match="cocoa; short names are imagenet, coco, ap10k"):
        initial_weights.load("cocoa", "hrnet_w32")
