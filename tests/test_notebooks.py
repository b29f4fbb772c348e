"""The notebooks run from top to bottom on a run that has just been trained."""

from pathlib import Path

import pytest

from ap10k_jax.run import run

nbclient = pytest.importorskip("nbclient", reason="the extra `test` brings nbclient")
nbformat = pytest.importorskip("nbformat")

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


@pytest.fixture(scope="module")
def finished(tmp_path_factory, synthetic_dir, config_of):
    config = config_of(synthetic_dir)
    config.model.name = "hrnet_tiny"  # `nano` is not known outside the tests
    config.epochs = 1
    workdir = tmp_path_factory.mktemp("notebooks") / "run"
    run(config, workdir)
    return config, workdir


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_runs(finished, path, tmp_path, monkeypatch):
    config, workdir = finished
    monkeypatch.setenv("AP10K_RUN", str(workdir))
    monkeypatch.setenv("AP10K_DATA", config.data.dir)
    monkeypatch.setenv("AP10K_OWN", str(tmp_path / "own"))
    monkeypatch.setenv("AP10K_EPOCHS", "1")
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "commit it without outputs"
    nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    pictures = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert pictures
