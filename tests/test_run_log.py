"""What a run has written is there once, whatever happened in between."""

import json

from ap10k_jax import run_log


def steps(path):
    return [line["step"] for line in run_log.read(path)]


def test_a_run_that_goes_on_forgets_what_came_after_its_checkpoint(tmp_path):
    with run_log.RunLog(tmp_path, step=0, total_steps=4) as log:
        for step in (1, 2, 3):
            log.write(step, "train", {"loss": 0.5})
    with run_log.RunLog(tmp_path, step=2, total_steps=4) as log:
        log.write(3, "train", {"loss": 0.25})
    lines = run_log.read(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert lines[-1]["loss"] == 0.25


def test_a_line_cut_short_by_a_kill_is_dropped(tmp_path):
    with run_log.RunLog(tmp_path, step=0, total_steps=4) as log:
        log.write(1, "train", {"loss": 0.5})
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 2, "lo')
    with run_log.RunLog(tmp_path, step=1, total_steps=4) as log:
        log.write(2, "train", {"loss": 0.5})
    assert steps(path) == [1, 2]


def test_flushed_lines_survive_without_closing(tmp_path):
    with run_log.RunLog(tmp_path, step=0, total_steps=4) as log:
        log.write(1, "train", {"loss": 0.5})
        log.flush()
        assert steps(tmp_path / "metrics.jsonl") == [1]


def test_numbers_that_are_not_there_become_null(tmp_path):
    with run_log.RunLog(tmp_path, step=0, total_steps=4) as log:
        log.write(1, "validation", {"APM": float("nan"), "per_species": {"dog": 0.5}})
    line = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=lambda c: 1 / 0)
    assert line == {"step": 1, "kind": "validation", "APM": None, "per_species": {"dog": 0.5}}
