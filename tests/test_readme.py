"""Every command of the README runs, with small data in the place of what a reader would have."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tfds_ap10k import synthetic

ROOT = Path(__file__).parents[1]
SMALL = (
    *("--config.model.name=hrnet_tiny", "--config.epochs=1", "--config.data.image_size=64"),
    *("--config.batch_size=16", "--config.eval.batch_size=16", "--config.data.dir=data"),
)

ELSEWHERE = None  # runs in another place: see the comment beside it

# What stands in the README -> what is added so that it takes seconds; a reader's files are made by
# `reader`.
COMMANDS = {
    "python3 -m venv .venv": ELSEWHERE,  # .ci/run runs these five as they stand
    ".venv/bin/pip install -e .": ELSEWHERE,
    ".venv/bin/python -m ap10k_jax.main --config=configs/quickstart.py": ELSEWHERE,
    ".venv/bin/pip install -e '.[test]'": ELSEWHERE,
    ".venv/bin/python -m pytest": ELSEWHERE,
    "python -m tfds_ap10k.build --manual-dir=DOWNLOADS --config=all": ["--data-dir=data"],
    "python -m tfds_ap10k.describe DOWNLOADS --figure=species.png --sheet=examples.png": [],
    # test_animal_pose, test_coco_keypoints
    "python -m tfds_ap10k.build --dataset=animal_pose --manual-dir=DOWNLOADS": ELSEWHERE,
    "python -m tfds_ap10k.build --dataset=coco_keypoints --manual-dir=DOWNLOADS": ELSEWHERE,
    "python -m ap10k_jax.main --config=configs/sl.py --config.data.manual_dir=DOWNLOADS": SMALL,
    "python -m ap10k_jax.main --config=configs/sl.py --config.model.name=hrnet_w48 "
    "--config.data.name=ap10k/split2 --workdir=runs/w48-split2": SMALL,
    # test_weights downloads from loopback
    "python -m ap10k_jax.main --config=configs/sl.py --config.init_from=imagenet "
    "--workdir=runs/imagenet": ELSEWHERE,
    "python -m ap10k_jax.main --config=configs/cdtl.py --config.epochs=40 --workdir=runs/cdtl-40": [
        *SMALL,
        "--config.init_from=runs/sl",
    ],
    # test_semi; 48 drawings are too few for 5 of a species and others
    "python -m ap10k_jax.main --config=configs/few_label.py:5,quickstart": ELSEWHERE,
    "python -m ap10k_jax.main --config=configs/semi.py:5,quickstart": ELSEWHERE,
    # test_two_processes, without a cluster
    "srun --nodes=2 --ntasks-per-node=4 --gpus-per-node=4 python -m ap10k_jax.main "
    "--config=configs/sl.py --workdir=/shared/sl": ELSEWHERE,
    'gcloud compute tpus tpu-vm ssh POD --worker=all --command="python -m ap10k_jax.main '
    '--config=configs/sl.py --workdir=/shared/sl"': ELSEWHERE,
    "python -m ap10k_jax.reproduce --table=all --dry-run": [],
    "python -m ap10k_jax.reproduce --table=6 --manual-dir=DOWNLOADS": ELSEWHERE,  # test_reproduce
    "python -m ap10k_jax.models": [],
    # test_convert
    "python -m ap10k_jax.convert hrnet_w32.pth runs/w32 --model=hrnet_w32": ELSEWHERE,
    "python -m ap10k_jax.predict runs/sl photos/ --boxes=detections.json "
    "--write=coco,csv,drawn": [],
    # test_job; test_demo; test_export, with the runner
    "python -m ap10k_jax.predict runs/sl cat.mp4 --write=dlc,drawn --smooth": ELSEWHERE,
    "python -m ap10k_jax.demo runs/sl": ELSEWHERE,
    "python -m ap10k_jax.export runs/sl fox --format=onnx": ELSEWHERE,
    "python examples/run_onnx.py fox.onnx fox.jpg 120 40 300 260": ELSEWHERE,
}


def readme_commands():
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def test_every_command_of_the_readme_is_accounted_for():
    assert readme_commands() == list(COMMANDS)


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """A folder with a reader's downloads, photographs and boxes, small ones."""
    folder = tmp_path_factory.mktemp("reader")
    drawn = synthetic.generate(folder / "drawn", images=48)
    for part in ("annotations", "data"):
        shutil.copytree(drawn / part, folder / "DOWNLOADS" / part)
    photographs = sorted((drawn / "data").glob("*.jpg"))[:3]
    (folder / "photos").mkdir()
    for photograph in photographs:
        shutil.copy(photograph, folder / "photos")
    shutil.copy(drawn / "annotations" / "ap10k-train-split1.json", folder / "detections.json")
    shutil.copytree(ROOT / "configs", folder / "configs")
    return folder


@pytest.mark.slow
def test_the_commands_of_the_readme_run_in_their_order(reader):
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1"}
    for command, more in COMMANDS.items():
        if more is ELSEWHERE:
            continue
        arguments = [*shlex.split(command), *more]
        assert arguments[0] == "python"
        done = subprocess.run(
            [sys.executable, *arguments[1:]],
            cwd=reader,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        # 1 is "done, with problems" of predict: boxes of photographs that are not in the folder
        assert done.returncode in ((0, 1) if "predict" in command else (0,)), (
            f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        )
    for made in (
        "species.png",
        "examples.png",
        "runs/sl/results.json",
        "runs/cdtl-40/results.json",
    ):
        assert (reader / made).exists(), made
    assert list((reader / "predictions" / "drawn").iterdir())
