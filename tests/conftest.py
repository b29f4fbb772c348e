"""Eight CPU devices, one small synthetic data set for all tests, a network that compiles fast."""

import os

os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")

from pathlib import Path

import jax
import lively
import nano as network
import pytest
from ml_collections import ConfigDict

from ap10k_jax import models
from ap10k_jax.configs import quickstart
from ap10k_jax.predict import Predictor
from ap10k_jax.runtime import sharding
from tfds_ap10k import build, synthetic


@pytest.fixture(scope="session", autouse=True)
def compile_once(tmp_path_factory):
    """Functions that several tests compile are compiled once."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@pytest.fixture(scope="session", autouse=True)
def nano():
    """The name of a tiny model, known for the tests' duration."""
    network.register()
    yield "nano"
    del models.MODELS["nano"]


@pytest.fixture(scope="session")
def one_device():
    return sharding.shardings(jax.devices()[:1])


@pytest.fixture(scope="session")
def synthetic_dir(tmp_path_factory) -> Path:
    """A data directory with 48 drawings, built as ap10k/split1."""
    folder = tmp_path_factory.mktemp("synthetic")
    drawn = synthetic.generate(folder / "drawn", images=48)
    build.build("split1", manual_dir=drawn, data_dir=folder)
    return folder


@pytest.fixture(scope="session")
def config_of(nano):
    """A function: data directory -> the config of a run of two short epochs that takes seconds."""

    def make(data_dir: Path) -> ConfigDict:
        config = quickstart.get_config()
        config.model.name = nano
        config.epochs = 2
        config.batch_size = 16
        config.data.dir = str(data_dir)
        config.data.synthetic_images = 48
        config.data.image_size = 64
        config.eval.every_epochs = 1
        config.eval.batch_size = 16
        config.log_every_steps = 2
        config.checkpoint_every_epochs = 1
        config.optimizer.warmup_steps = 2
        return config

    return make


@pytest.fixture
def config(config_of, synthetic_dir):
    return config_of(synthetic_dir)


@pytest.fixture(scope="session")
def checkpoint_dir(nano, tmp_path_factory) -> Path:
    """An exported checkpoint whose heatmaps depend on the image, although it was never trained."""
    return lively.export(tmp_path_factory.mktemp("checkpoint") / "exported")


@pytest.fixture(scope="session")
def predictor(checkpoint_dir) -> Predictor:
    return Predictor.load(checkpoint_dir, batch_sizes=(1, 8))
