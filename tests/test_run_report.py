"""A run of any data set is reported from what its directory holds, and only if it has finished."""

import json
import sys

import commands
import cv2
import numpy as np
import pytest
from test_paper_report import made_up

from ap10k_jax import run_report
from ap10k_jax.configs import base


@pytest.fixture
def run(tmp_path):
    """A finished run on two species and joints that are not AP-10K's."""
    workdir = tmp_path / "foxes"
    workdir.mkdir()
    config = base.get_config()
    config.data.name = "own/foxes"
    config.model.num_keypoints = 9
    results = made_up((), species=("dog", "fox"))
    scores = results["test"]  # the very dict of validation
    for kind in ("per_species", "per_family"):
        for part in (scores, scores["intervals"]):
            part[kind] = {f"my {name}": value for name, value in part[kind].items()}
    scores["num_animals"] = {"my dog": 31, "my fox": 47}
    for split in ("validation", "test"):
        assert cv2.imwrite(str(workdir / f"animals-{split}.png"), np.zeros((8, 8, 3), np.uint8))
    environment = {
        **{"python": "3.11.7", "packages": {"jax": "0.10.2"}, "devices": ["V100"]},
        **{"machine": "Linux", "fingerprints": {"test": "fedc" * 16}, "animals": {"train": 228}},
    }
    lines = [{"step": s, "kind": k, "loss": 1 / s, "AP": 0.1} for s in (1, 2) for k in ("train",)]
    for name, content in (
        ("config.json", json.loads(config.to_json())),
        ("results.json", results | {"sigmas": "uniform 0.05"}),
        ("environment.json", [environment]),
    ):
        (workdir / name).write_text(json.dumps(content))
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    return workdir, results


def main(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["run_report", *map(str, arguments)])
    return commands.status(run_report.main)


def test_the_report_has_what_the_run_has(run, monkeypatch, capsys):
    workdir, results = run
    assert main(monkeypatch, workdir) == 0
    text, html = ((workdir / f"report.{kind}").read_text() for kind in ("md", "html"))
    assert str(workdir / "report.html") in capsys.readouterr().out
    test = results["test"]
    low, high = test["intervals"]["AP"]
    assert f"| foxes | test | {test['AP']:.3f} [{low:.3f}, {high:.3f}] |" in text
    assert f"| species | my fox | 47 | {test['per_species']['my fox']:.3f} [" in text
    assert f"| family | my Canidae |  | {test['per_family']['my Canidae']:.3f} [" in text
    for words in ("own/foxes", "9 joints, from random weights", "228 animals", "fedc" * 16):
        assert words in text
        assert words in html
    assert run_report.UNIFORM in text
    assert html.count("<img") == 3
    assert "http" not in html


def test_runs_are_put_side_by_side(run, monkeypatch, tmp_path):
    workdir, results = run
    (tmp_path / "copy").mkdir()
    for path in workdir.iterdir():
        (tmp_path / "copy" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "copy" / "results.json").write_text(json.dumps(results))  # sigmas of the paper
    assert main(monkeypatch, workdir, tmp_path / "copy", f"--out={tmp_path / 'both'}") == 0
    text = (tmp_path / "both" / "report.md").read_text()
    assert "# foxes, copy" in text
    assert "| copy | validation |" in text
    assert "| foxes | validation |" in text


@pytest.mark.parametrize(
    ("missing", "text"),
    [("config.json", "is no run"), ("results.json", "is a run that has not finished")],
)
def test_what_is_no_finished_run_is_refused(run, monkeypatch, capsys, missing, text):
    (run[0] / missing).unlink()
    assert main(monkeypatch, run[0]) == 1
    assert text in capsys.readouterr().err
    assert not (run[0] / "report.html").exists()
