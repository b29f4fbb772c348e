"""Run directories with results as if every run had given the paper's numbers exactly.

They are written from the printed tables and the names of the runs, not from `tables.numbers`, so
that a table that is read the wrong way round shows in the report.
"""

import json
import math
from collections import defaultdict
from pathlib import Path

from ap10k_jax.reproduce import plan, tables
from tfds_ap10k import taxonomy

NETWORKS = {
    "hrnet_w32": "hrnet_w32",
    "hrnet_w48": "hrnet_w48",
    "resnet50": "simplebaseline_resnet50",
    "resnet101": "simplebaseline_resnet101",
    "hourglass": "hourglass52",
}
# Three values with mean 0 and population standard deviation 1.
STEPS = {1: -math.sqrt(1.5), 2: 0.0, 3: math.sqrt(1.5)}


def write(workdir: Path, settings: tuple[str, ...]) -> list[plan.Step]:
    """All runs of Tables 3 to 11 below `workdir`; their plan, in which all are finished."""
    cells = tables.cells([n for table in tables.TITLES for n in tables.numbers(table)])
    values = printed()
    for step in plan.make(cells, settings, workdir):
        step.workdir.mkdir(parents=True)
        (step.workdir / "config.json").write_text(step.config.to_json())
        results = results_of(values.pop(step.cell.name))
        (step.workdir / "results.json").write_text(json.dumps(results))
    assert not values, f"no cell runs {list(values)}"
    return plan.make(cells, settings, workdir)


def printed() -> dict[str, dict[tuple[str, ...], float]]:
    """Run directory -> place in results.json -> number, as the paper prints its tables."""
    paper, runs = tables.paper(), defaultdict(dict)

    def add(name: str, path: tuple[str, ...], value: list[float]) -> None:
        """One number in the three repetitions; `name` has {} in place of their numbers."""
        mean, deviation = value
        for n, step in STEPS.items():
            runs[name.format(n)].setdefault(path, mean + step * deviation)

    for initial, columns in paper["3"]["rows"].items():
        for network, value in columns.items():
            add(f"sl/{NETWORKS[network]}-{initial}-210-split{{}}", ("validation", "AP"), value)
    for initial, columns in paper["4"]["rows"].items():
        for epochs, value in columns.items():
            add(f"sl/hrnet_w32-{initial}-{epochs}-split{{}}", ("validation", "AP"), value)
    for epochs, columns in paper["5"]["rows"].items():
        for statistic, value in columns.items():
            add(f"cdtl/coco-{epochs}-split{{}}", ("validation", statistic), value)
    for table in "678":
        for tested, columns in paper[table]["rows"].items():
            for left_out, value in columns.items():
                if left_out != "average":
                    name = f"dg_intra/without-{left_out.replace(' ', '_')}-split{{}}"
                    add(name, ("test", "per_species", tested), value)
    for family, parts in paper["9"]["rows"].items():
        for group in (parts["train"], *parts["test"].values()):
            for name, value in group.items():
                is_family = name.capitalize() in taxonomy.FAMILIES
                place = ("per_family", name.capitalize()) if is_family else ("per_species", name)
                add(f"dg_inter/{family.capitalize()}-split{{}}", ("test", *place), value)
    for species, columns in paper["10"]["rows"].items():
        for kind, value in columns.items():
            add(f"transfer/{species}-{kind}-seed{{}}", ("test", "AP"), value)
    for row, columns in paper["11"]["rows"].items():
        target = row.split(" to ")[1]
        for neck in ("", "_midpoint"):
            for kind, (value,) in columns.items():
                name = f"cross_dataset/{target}{neck}-{kind}"
                if (target, kind) == ("ap10k", "train"):
                    name = "sl/hrnet_w32-imagenet-210-split1"
                runs[name]["test", "AP"] = value
                runs[name]["test", "instance_AP"] = value
    return runs


def results_of(numbers: dict[tuple[str, ...], float]) -> dict:
    """results.json with these numbers; other APs of the same split are 0."""
    results = {"step": 1, "sigmas": "paper"}
    for split in {path[0] for path in numbers}:
        scores = dict.fromkeys(("AP", "AP50", "AP75", "APM", "APL", "AR", "instance_AP"), 0.0)
        scores |= {"per_species": {}, "per_family": {}}
        for (part, *path), value in numbers.items():
            if part == split:
                inner = scores if len(path) == 1 else scores[path[0]]
                inner[path[-1]] = value
        scores["num_animals"] = dict.fromkeys(scores["per_species"], 1)
        scores["AP_by_sigmas"] = dict.fromkeys(("paper", "corrected"), scores["AP"])
        intervals = {name: [scores[name]] * 2 for name in ("AP", "instance_AP")}
        for kind in ("per_species", "per_family"):
            intervals[kind] = {name: [value] * 2 for name, value in scores[kind].items()}
        results[split] = scores | {"intervals": intervals}
    return results
