"""Reads the run directories of a table's cells, and computes the table's numbers."""

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ap10k_jax import run_directory, run_log
from ap10k_jax.reproduce import plan, tables
from tfds_ap10k import taxonomy


class Run(NamedTuple):
    """The contents of a run directory; the dicts are empty until the run has written them."""

    name: str
    state: str
    why: str
    config: dict
    changed: tuple[str, ...]  # fields of the config that are not the paper's
    results: dict
    starts: list[dict]  # environment.json
    draw: dict
    lines: list[dict]  # metrics.jsonl


class Value(NamedTuple):
    number: tables.Number
    mean: float  # nan where there is none
    deviation: float  # population standard deviation; nan of a single value
    runs: tuple[str, ...]  # the directories that it is from
    lack: str  # why there is no value

    @property
    def difference(self) -> float:
        """Ours minus the paper's, to the three digits that it prints; nan without a value.

        The paper's number is rounded: a difference of half a unit of its last digit is 0.
        """
        difference = self.mean - self.number.paper[0]
        return 0.0 if abs(difference) <= 0.0005 + 1e-9 else round(difference, 3)

    @property
    def beyond(self) -> bool:
        """True if ours and the paper's differ by more than either deviation."""
        spreads = [d for d in (self.deviation, *self.number.paper[1:]) if not math.isnan(d)]
        return bool(spreads) and abs(self.difference) > max(spreads) + 1e-9


def read(step: plan.Step) -> Run:
    """Read a run directory; its results count only if they are of the cell's own config."""

    def content(name: str, empty: dict | list) -> dict | list:
        path = step.workdir / name
        return run_directory.read_json(path, type(empty)) if path.exists() else empty

    log = step.workdir / "metrics.jsonl"
    has_begun = step.state in (plan.FINISHED, plan.BEGUN)
    return Run(
        step.cell.name,
        step.state,
        step.why,
        json.loads(step.config.to_json()),
        plan.changed(step),
        content("results.json", {}) if step.state == plan.FINISHED else {},
        content("environment.json", []) if has_begun else [],
        content("draw.json", {}) if has_begun else {},
        run_log.read(log) if has_begun and log.exists() else [],
    )


def value(number: tables.Number, runs: Mapping[str, Run]) -> Value:
    """The number from the finished runs among its sources, or the reason for its absence.

    A number of several sources needs a value of each: an average over fewer is another average.
    """
    by_source = [values_of(source, runs) for source in number.sources]
    used = tuple(dict.fromkeys(name for values in by_source for name in values))
    if not all(by_source):
        some = sum(map(bool, by_source))
        lack = f"{some} of {len(by_source)} trainings" if some else why_none(number, runs)
        return Value(number, math.nan, math.nan, (), lack)
    means = [float(np.mean([*values.values()])) for values in by_source]
    sample = means if len(means) > 1 else [*by_source[0].values()]
    deviation = float(np.std(sample)) if len(sample) > 1 else math.nan
    return Value(number, float(np.mean(sample)), deviation, used, "")


def values_of(source: tables.Source, runs: Mapping[str, Run]) -> dict[str, float]:
    """The source's value in every finished run that has one, by run."""
    finished = [cell.name for cell in source.cells if runs[cell.name].results]
    values = {name: look_up(runs[name].results, source.path) for name in finished}
    return {name: value for name, value in values.items() if value is not None}


def why_none(number: tables.Number, runs: Mapping[str, Run]) -> str:
    """The reason why no run has a value for this number."""
    states = {runs[cell.name].state: runs[cell.name].why for cell in number.cells}
    state, why = next(iter(states.items()))
    if any(runs[cell.name].results for cell in number.cells) or "no animals" in why:
        return "no animals"
    return why or ("not run" if state == plan.TO_RUN else state)


def look_up(results: dict, path: Sequence[str]) -> float | None:
    """The value at the end of the path; None if there is none."""
    for name in path:
        results = results.get(name)
        if results is None:
            return None
    return results


def scored(run: Run) -> list[tuple[str, dict]]:
    """The splits that a finished run was scored on."""
    return [(name, scores) for name, scores in run.results.items() if isinstance(scores, dict)]


def species_rows(run: Run, split: str) -> list[list]:
    """run, split, kind, name, animals, AP, low, high of every family and species."""
    scores = run.results[split]
    rows = []
    for kind in ("family", "species"):
        for name, ap in scores[f"per_{kind}"].items():
            members = taxonomy.species_in(name) if kind == "family" else [name]
            animals = sum(scores["num_animals"].get(member, 0) for member in members)
            bounds = scores["intervals"][f"per_{kind}"][name]
            rows.append([run.name, split, kind, name, animals, ap, *bounds])
    return rows


def by_family(scores: dict) -> dict[str, dict[str, tuple[float, float, float]]]:
    """family -> species -> AP, low, high."""
    families = defaultdict(dict)
    for name, ap in scores["per_species"].items():
        bounds = scores["intervals"]["per_species"][name]
        families[taxonomy.family_of(name)][name] = (ap, *bounds)
    return families
