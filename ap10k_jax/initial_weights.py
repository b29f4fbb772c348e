"""Initial weights: those of a file, or public ones by a short name, downloaded once and verified.

variables, report = initial_weights.load("imagenet", "hrnet_w32")
variables, report = initial_weights.load("resnet50.safetensors", "simplebaseline_resnet50")
"""

import hashlib
import os
import re
import tempfile
import warnings
from pathlib import Path

import pooch
from jaxtyping import Array

from ap10k_jax import convert
from ap10k_jax.convert import weight_files
from ap10k_jax.runtime import files

MMPOSE = "https://download.openmmlab.com/mmpose"
MMPOSE_COCO = f"{MMPOSE}/v1/body_2d_keypoint/topdown_heatmap/coco"
TORCHVISION = "https://download.pytorch.org/models"

# MMPose copied these from the HRNet authors, with their names. Nobody has published the SHA-256 of
# either as a whole, so the digits in the name may be another checksum: the first file is trusted.
UNPUBLISHED = ("hrnet_w32-36af842e.pth", "hrnet_w48-8ef0771d.pth")

# Short name -> model -> address, each as its owner lists it: `imagenet` for HRNet in MMPose's model
# configs, for ResNet in torchvision's models/resnet.py (its pull request 3620); `coco` and `ap10k`
# in MMPose's {hrnet,resnet,hourglass}_{coco,ap10k}.yml. Nobody published an ImageNet Hourglass or
# an AP-10K one.
PUBLIC: dict[str, dict[str, str]] = {
    "imagenet": {
        "hrnet_w32": f"{MMPOSE}/pretrain_models/hrnet_w32-36af842e.pth",
        "hrnet_w48": f"{MMPOSE}/pretrain_models/hrnet_w48-8ef0771d.pth",
        "simplebaseline_resnet18": f"{TORCHVISION}/resnet18-f37072fd.pth",
        "simplebaseline_resnet34": f"{TORCHVISION}/resnet34-b627a593.pth",
        "simplebaseline_resnet50": f"{TORCHVISION}/resnet50-0676ba61.pth",
        "simplebaseline_resnet101": f"{TORCHVISION}/resnet101-63fe2227.pth",
        "simplebaseline_resnet152": f"{TORCHVISION}/resnet152-394f9c45.pth",
    },
    "coco": {
        "hrnet_w32": f"{MMPOSE}/top_down/hrnet/hrnet_w32_coco_256x192-c78dce93_20200708.pth",
        "hrnet_w48": f"{MMPOSE}/top_down/hrnet/hrnet_w48_coco_256x192-b9e0b3ab_20200708.pth",
        "simplebaseline_resnet50": (
            f"{MMPOSE_COCO}/td-hm_res50_8xb64-210e_coco-256x192-04af38ce_20220923.pth"
        ),
        "simplebaseline_resnet101": (
            f"{MMPOSE_COCO}/td-hm_res101_8xb64-210e_coco-256x192-065d3625_20220926.pth"
        ),
        "simplebaseline_resnet152": (
            f"{MMPOSE_COCO}/td-hm_res152_8xb32-210e_coco-256x192-0345f330_20220928.pth"
        ),
        "hourglass52": (
            f"{MMPOSE}/top_down/hourglass/hourglass52_coco_256x256-4ec713ba_20200709.pth"
        ),
    },
    "ap10k": {
        "hrnet_w32": f"{MMPOSE}/animal/hrnet/hrnet_w32_ap10k_256x256-18aac840_20211029.pth",
        "hrnet_w48": f"{MMPOSE}/animal/hrnet/hrnet_w48_ap10k_256x256-d95ab412_20211029.pth",
        "simplebaseline_resnet50": (
            f"{MMPOSE}/animal/resnet/res50_ap10k_256x256-35760eb8_20211029.pth"
        ),
        "simplebaseline_resnet101": (
            f"{MMPOSE}/animal/resnet/res101_ap10k_256x256-9edfafb9_20211029.pth"
        ),
    },
}


def load(
    source: str | Path, model_name: str, num_keypoints: int = 17, *, key: Array | None = None
) -> tuple[dict, convert.Report]:
    """Variables and report from a file (.pth, .safetensors) or a short name (a key of PUBLIC).

    `key` initialises what the file lacks. Beware that COCO has 17 keypoints too: its head, made for
    human joints, is taken as it is.
    """
    if source in PUBLIC:
        path = fetch(public_url(str(source), model_name))
    elif Path(source).is_file():
        path = Path(source)
    else:
        raise FileNotFoundError(f"no weight file {source}; short names are {', '.join(PUBLIC)}")
    state_dict = weight_files.read(path)
    return convert.from_torch(state_dict, model_name, num_keypoints=num_keypoints, key=key)


def public_url(short_name: str, model_name: str) -> str:
    """The address of the public file; ValueError where nobody published one."""
    urls = PUBLIC[short_name]
    if model_name not in urls:
        raise ValueError(
            f"no public {short_name!r} weights of {model_name}, only of {', '.join(urls)}"
        )
    return urls[model_name]


def cache_dir() -> Path:
    """The folder of downloads: $AP10K_JAX_CACHE, or ~/.cache/ap10k_jax."""
    return Path(os.environ.get("AP10K_JAX_CACHE") or "~/.cache/ap10k_jax").expanduser()


def fetch(url: str) -> Path:
    """The file at `url`, from the cache or downloaded into it; its SHA-256 is verified either way.

    Raises ConnectionError, with the address and the place to put the file by hand, when it cannot
    be had, and ValueError when its SHA-256 does not begin as its name says. Of the UNPUBLISHED
    files the SHA-256 of the first is recorded beside it, with a warning, and must stay the same. A
    download appears under its name only when it is whole.
    """
    path = cache_dir() / url.rsplit("/", 1)[-1]
    record = path.with_name(f"{path.name}.sha256")
    if path.exists():
        verify(path, record)
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        partial = Path(folder, path.name)
        download = pooch.HTTPDownloader(progressbar=True, chunk_size=2**20, timeout=30)
        try:
            download(url, str(partial), None)
        except OSError as error:  # and so are all errors of requests, which pooch uses
            raise ConnectionError(
                f"cannot download {url} ({error}); fetch it elsewhere and put it at {path}"
            ) from error
        verify(partial, record)
        partial.replace(path)
    return path


def verify(path: Path, record: Path) -> None:
    """Raises ValueError unless the file's SHA-256 begins with the 8 digits in its name.

    MMPose and torchvision publish no more of it: resnet50-0676ba61.pth,
    res50_ap10k_256x256-35760eb8_20211029.pth. An UNPUBLISHED file must have the SHA-256 in the file
    `record`, which is written with a warning where there is none.
    """
    expected = re.search(r"-([0-9a-f]{8})(_\d{8})?\.pth$", path.name)[1]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest.startswith(expected):
        return
    if path.name not in UNPUBLISHED:
        raise ValueError(
            f"{path} is damaged or another file: its SHA-256 begins {digest[:8]}, not {expected}; "
            "delete it to download it again"
        )
    if not record.exists():
        files.write_text(record, digest + "\n")
        warnings.warn(
            f"{path.name} cannot be verified: its SHA-256 is {digest}, and no digest of it is "
            f"published; it is used, and from now on must stay the same, as {record} says",
            stacklevel=2,
        )
    elif (recorded := record.read_text(encoding="utf-8").strip()) != digest:
        raise ValueError(
            f"{path} has changed: its SHA-256 is {digest}, but {record} says {recorded}; delete "
            "the file to download it again, and the record, too, if the new file is right"
        )
