"""An installed package is whole, and its commands run in any folder."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = ("ap10k_jax", "tfds_ap10k", "configs", "pyproject.toml", "README.md", "LICENSE")
SMALL = (
    *("--config.model.name=hrnet_tiny", "--config.epochs=1", "--config.data.image_size=64"),
    *("--config.data.synthetic_images=48", "--config.batch_size=16", "--config.eval.batch_size=16"),
)


def test_every_package_is_listed():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    packages = [
        ".".join(path.parent.relative_to(ROOT).parts)
        for folder in ("ap10k_jax", "tfds_ap10k")
        for path in (ROOT / folder).rglob("__init__.py")
    ]
    assert sorted(listed) == sorted([*packages, "ap10k_jax.configs"])


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder in which the wheel is installed, alone."""
    folder = tmp_path_factory.mktemp("wheel")
    for part in PARTS:
        whole = ROOT / part
        ignore = shutil.ignore_patterns("__pycache__")
        if whole.is_dir():
            shutil.copytree(whole, folder / "source" / part, ignore=ignore)
        else:
            shutil.copy(whole, folder / "source" / part)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", f"--wheel-dir={folder}"]
    subprocess.run([*pip, *build, folder / "source"], check=True, timeout=300)
    (wheel,) = folder.glob("*.whl")
    target = folder / "installed"
    subprocess.run([*pip, "install", "--no-deps", f"--target={target}", wheel], check=True)
    with zipfile.ZipFile(wheel) as file:
        names = {name.split("/")[0] for name in file.namelist()}
    assert names == {"ap10k_jax", "tfds_ap10k", f"{'-'.join(wheel.stem.split('-')[:2])}.dist-info"}
    return target


@pytest.mark.slow
def test_the_wheel_holds_every_file(installed):
    for folder, place in (("ap10k_jax", ""), ("tfds_ap10k", ""), ("configs", "ap10k_jax")):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert (installed / place / path.relative_to(ROOT)).exists(), path.name


@pytest.mark.slow
@pytest.mark.parametrize("has_foreign_configs", [False, True])
def test_commands_run_in_a_folder_of_the_users(installed, tmp_path, has_foreign_configs):
    if has_foreign_configs:  # another project's package
        (tmp_path / "configs").mkdir()
        (tmp_path / "configs" / "__init__.py").write_text("raise ImportError('not ours')\n")
    environment = os.environ | {"PYTHONPATH": str(installed), "JAX_NUM_CPU_DEVICES": "1"}

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    assert "18 cells: 18 to run" in run("ap10k_jax.reproduce", "--table=6", "--dry-run")
    assert "dg_intra.py" in run("ap10k_jax.reproduce", "--table=6", "--jobs")
    assert "--num-keypoints" in run("ap10k_jax.convert", "--help")
    assert "validation: AP" in run("ap10k_jax.main", "--config=configs/quickstart.py", *SMALL)
    assert (tmp_path / "runs/quickstart/results.json").exists()
