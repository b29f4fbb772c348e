"""The report: results of the runs beside the paper's numbers, as Markdown, CSV and HTML.

Every number is read from the run directories that are named with it, and from nothing else.
"""

import csv
import io
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ap10k_jax import metrics
from ap10k_jax.report import document, plots
from ap10k_jax.reproduce import overlap, plan, results, tables
from ap10k_jax.runtime import files

READING = (
    "Ours / the paper's. With more than one run a number is the mean over runs, +- the population "
    "standard deviation (divided by n: the paper's own averages have that one, and of its other "
    "deviations it does not say which they are). A table of differences, ours minus the paper's, "
    "follows. An asterisk: the two differ by more than either deviation. In square brackets: 95 % "
    "intervals from drawing the test images anew 1,000 times (ap10k_jax.bootstrap); "
    "they say nothing about other training runs."
)


def write(
    workdir: Path,
    chosen: Sequence[int],
    numbers: Sequence[tables.Number],
    steps: Sequence[plan.Step],
) -> list[Path]:
    """Write the report on these tables below `workdir`; the files, Markdown first."""
    runs = {step.cell.name: results.read(step) for step in steps}
    values = [results.value(number, runs) for number in numbers]
    everything = tuple(chosen) == tuple(tables.TITLES)
    stem = "report-" + ("all" if everything else "-".join(map(str, chosen)))
    title = "AP-10K: " + (
        "Tables 3 to 11" if everything else f"Table {', '.join(map(str, chosen))}"
    )
    everything_run = list(runs.values())
    parts = [*summary(values), *impossible(everything_run)]
    parts += [*departures(everything_run), *doubts(everything_run)]
    extra = {}
    for table in chosen:
        parts += table_parts(table, [v for v in values if v.number.table == table], runs)
        if table == overlap.TABLE:
            seen = overlap.exposures(workdir, steps)
            parts += overlap.report_parts(seen)
            extra[f"{stem}-shared.csv"] = as_csv(overlap.FIELDS, overlap.rows(seen))
    parts += evidence(list(runs.values()))
    contents = {
        f"{stem}.md": document.markdown(title, parts),
        f"{stem}.csv": numbers_csv(values),
        f"{stem}-species.csv": species_csv(list(runs.values())),
        f"{stem}.html": document.page(title, parts),
    } | extra
    workdir.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        files.write_text(workdir / name, text)
    return [workdir / name for name in contents]


def summary(values: Sequence[results.Value]) -> list[document.Part]:
    """The number of values that exist, and of those that agree with the paper."""
    known = [v for v in values if not v.lack]
    beyond = sum(v.beyond for v in known)
    text = (
        f"{len(known)} of {len(values)} numbers are there; {beyond} of them differ from the paper "
        "by more than either deviation."
    )
    if known:
        text += f" The largest difference is {max(abs(v.difference) for v in known):.3f}."
    return [document.Text(text), document.Text(READING)]


def impossible(runs: Sequence[results.Run]) -> list[document.Part]:
    """Runs that nobody can repeat, or that the data set has no animals for, with the reason."""
    reasons = defaultdict(list)
    for run in runs:
        if run.state == plan.IMPOSSIBLE:
            reasons[run.why].append(run.name)
    return [
        document.Text(
            f"{len(names)} of {len(runs)} runs cannot be made, {why}: {', '.join(names)}."
        )
        for why, names in reasons.items()
    ]


def departures(runs: Sequence[results.Run]) -> list[document.Part]:
    """Fields that were set to something else than the paper's recipe, and in how many runs."""
    counts = Counter(field for run in runs if run.results for field in run.changed)
    if not counts:
        return []
    total = sum(bool(run.results) for run in runs)
    fields = [f"{field} ({n} of {total} runs)" for field, n in counts.items()]
    return [document.Text(f"These are not the paper's recipe: {', '.join(fields)}.")]


def doubts(runs: Sequence[results.Run]) -> list[document.Part]:
    """Warnings about numbers that cannot be compared or are too good."""
    texts = []
    vectors = Counter(run.results["sigmas"] for run in runs if run.results)
    if len(vectors) > 1:
        counts = ", ".join(f"“{name}” in {n} runs" for name, n in vectors.items())
        texts.append(f"NOT COMPARABLE with each other: OKS sigmas {counts}.")
    areas = {
        f"{scores['area_over_box']:g} of the boxes' in {run.name}, {split}"
        for run in runs
        for split, scores in results.scored(run)
        if scores.get("area_over_box", 1) != 1
    }
    if areas:
        texts.append(f"NOT COMPARABLE with AP-10K's areas: {'; '.join(sorted(areas))}.")
    shared = {
        (run.config["data"]["name"], text)
        for run in runs
        for start in run.starts
        for text in start.get("photographs_in_two_splits", ())
    }
    if shared:
        listed = "; ".join(f"{text} ({name})" for name, text in sorted(shared)[:20])
        texts.append(
            f"TRAINED ON AND TESTED ON, to the byte: {len(shared)} photographs are in two splits "
            f"of their data set: {listed}{'; ...' if len(shared) > 20 else '.'}"
        )
    return [document.Text(text) for text in texts]


def table_parts(
    table: int, values: Sequence[results.Value], runs: Mapping[str, results.Run]
) -> list[document.Part]:
    """A table in the paper's layout, its plots, and the runs behind its numbers."""
    rows = list(dict.fromkeys(v.number.row for v in values))
    columns = list(dict.fromkeys(v.number.column for v in values))
    at = {(v.number.row, v.number.column): v for v in values}
    parts = [document.Heading(f"Table {table}. {tables.TITLES[table]}")]
    parts += [document.Text(text) for text in notes(table, values, runs)]
    for show, title in ((entry, ""), (difference, "Differences, ours minus the paper's:")):
        body = [[row, *(show(at.get((row, column))) for column in columns)] for row in rows]
        parts += [document.Text(title)] if title else []
        parts.append(document.Table(["", *columns], body))
    if any(not v.lack for v in values):
        paper = np.array([(*v.number.paper, math.nan)[:2] for v in values])
        ours = np.array([(v.mean, v.deviation) for v in values])
        caption = f"Table {table}, ours and the paper's"
        if table in (6, 7, 8):
            caption += "; framed: training had not seen the species"
            matrices = [part[:, 0].reshape(len(rows), -1) for part in (ours, paper)]
            unseen = {(i, columns.index(tables.training_set(row))) for i, row in enumerate(rows)}
            figure = plots.heat_map(rows, columns, *matrices, framed=unseen)
        else:
            labels = [f"{v.number.row}, {v.number.column}" for v in values]
            figure = plots.beside_paper(labels, ours, paper)
        parts.append(document.Picture(plots.png(figure), caption))
    logs = training_logs(values, runs)
    if logs:
        parts.append(document.Picture(plots.png(plots.curves(logs)), "Training, all repetitions"))
    parts.append(document.Table(("runs", "numbers"), sources(values), "Where the numbers are from"))
    return parts


def notes(
    table: int, values: Sequence[results.Value], runs: Mapping[str, results.Run]
) -> list[str]:
    """The note that a reader of this table needs."""
    if table != 9:
        return [tables.NOTES[table]] if table in tables.NOTES else []
    used = [runs[cell.name] for v in values for cell in v.number.cells]
    schedules = {run.config["epochs_of_whole_split"]: run.config["epochs"] for run in used}
    meanings = {
        False: "{} passes over the family's images, as the paper says: “the same training setting "
        "as the pretraining on ImageNet in the SL track”",
        True: "as many images as {} epochs of supervised learning on the whole split show "
        "(epochs_of_whole_split), which is longer than the paper says",
    }
    texts = [meanings[whole].format(epochs) for whole, epochs in schedules.items()]
    return [f"Trained for {'; or for '.join(texts)}."]


def difference(value: results.Value | None) -> str:
    """Ours minus the paper's, as +.012, and an asterisk where it exceeds both deviations."""
    if value is None or value.lack:
        return ""
    text = f"{value.difference:+.3f}" if value.difference else "0.000"
    return text.replace("0.", ".", 1) + (" *" if value.beyond else "")


def entry(value: results.Value | None) -> str:
    """A number in its table: ours / the paper's, and an asterisk if they disagree."""
    if value is None:
        return ""
    ours = value.lack or with_deviation(value.mean, value.deviation)
    printed = with_deviation(*(*value.number.paper, math.nan)[:2])
    return f"{ours} / {printed}" + (" *" if value.beyond else "")


def with_deviation(mean: float, deviation: float) -> str:
    return f"{mean:.3f}" + ("" if math.isnan(deviation) else f" +- {deviation:.3f}")


def sources(values: Sequence[results.Value]) -> list[list[str]]:
    """The run directories and the numbers that are read from them."""
    by_runs = defaultdict(list)
    for v in values:
        if v.runs:
            by_runs[v.runs].append(f"{v.number.row}, {v.number.column}")
    return [[" ".join(runs), "; ".join(names)] for runs, names in by_runs.items()]


def training_logs(
    values: Sequence[results.Value], runs: Mapping[str, results.Run]
) -> dict[str, list[list[dict]]]:
    """Lines of metrics.jsonl by what the runs repeat, runs without training aside."""
    logs = defaultdict(dict)
    for v in values:
        for cell in v.number.cells:
            if runs[cell.name].lines:
                logs[cell.name.rpartition("-")[0]][cell.name] = runs[cell.name].lines
    return {name: list(repeated.values()) for name, repeated in logs.items()}


def evidence(runs: Sequence[results.Run]) -> list[document.Part]:
    """The runs one by one, their species, and what they were made with."""
    finished = [run for run in runs if run.results]
    parts = [document.Heading(RUNS), document.Table(RUN_COLUMNS, [run_row(run) for run in runs])]
    parts.append(document.Heading("Species and families"))
    for run in finished:
        for split, _ in results.scored(run):
            rows = [
                [*row[2:4], str(row[4]), interval(*row[5:])]
                for row in results.species_rows(run, split)
            ]
            header = ("", "name", "animals", "AP")
            parts.append(document.Table(header, rows, f"{run.name}, {split}"))
    best = max(
        finished, key=lambda run: len(results.scored(run)[0][1]["per_species"]), default=None
    )
    if best:
        split, scores = results.scored(best)[-1]
        picture = plots.png(plots.species(results.by_family(scores), scores["num_animals"]))
        parts.append(document.Picture(picture, f"{best.name}, {split}: AP and 95 % interval"))
    parts.append(document.Heading("Made with"))
    for name in sorted({run.results["sigmas"] for run in finished}):
        vector = " ".join(f"{sigma:g}" for sigma in metrics.SIGMAS.get(name, ()))
        users = sum(run.results["sigmas"] == name for run in finished)
        parts.append(document.Text(f"OKS sigmas “{name}”, {users} runs: {vector}"))
    return [*parts, document.Table(("what", "value", "runs"), environments(runs))]


RUNS = "Runs"
RUN_COLUMNS = (
    *("run", "state", "starts from", "training animals", "step", "AP", "instance AP"),
    *("AP by paper / corrected sigmas", "images drawn (sha256)"),
)


def run_row(run: results.Run) -> list[str]:
    """A run's line; where several splits were scored, one after the other."""
    scores = results.scored(run)
    animals = run.starts[-1]["animals"].get("train", "-") if run.starts else "-"
    return [
        run.name,
        run.state + (f": {run.why}" if run.why else ""),
        run.config["init_from"] or "random weights",
        str(animals),
        str(run.results.get("step", "-")),
        "; ".join(f"{split} {interval(s['AP'], *s['intervals']['AP'])}" for split, s in scores),
        "; ".join(interval(s["instance_AP"], *s["intervals"]["instance_AP"]) for _, s in scores),
        "; ".join(
            " / ".join(
                metrics.format_ap(s["AP_by_sigmas"][name]) for name in ("paper", "corrected")
            )
            for _, s in scores
        ),
        run.draw.get("sha256", "")[:16],
    ]


def interval(ap: float | None, low: float, high: float) -> str:
    return f"{metrics.format_ap(ap)} [{low:.3f}, {high:.3f}]"


def environments(runs: Sequence[results.Run]) -> list[list[str]]:
    """Fingerprints of the splits, versions and hardware, each with the runs that have it."""
    users = defaultdict(dict)
    for run in runs:
        for start in run.starts:
            for split, print_ in start["fingerprints"].items():
                part = "all splits" if run.draw else split
                users[f"{run.config['data']['name']} {part}", f"sha256 {print_}"][run.name] = 1
            for package, version in start["packages"].items():
                users[package, version][run.name] = 1
            users["Python", start["python"]][run.name] = 1
            devices = f"{len(start['devices'])} x {start['devices'][0]}, {start['machine']}"
            users["hardware", devices][run.name] = 1
        if run.draw:
            drawn = f"sha256 {run.draw['sha256']}"
            species, seed = run.config["data"]["species"], run.draw["seed"]
            users[f"images drawn of {species}, seed {seed}", drawn][run.name] = 1
    total = sum(bool(run.starts) for run in runs)
    return [
        [*what, "all" if len(names) == total else " ".join(names)]
        for what, names in sorted(users.items())
    ]


def numbers_csv(values: Sequence[results.Value]) -> str:
    """A line for every number of the tables."""
    header = ("table", "row", "column", "ours", "population_deviation", "runs")
    header += ("paper", "paper_deviation")
    rows = [
        [
            *v.number[:3],
            *(plain(v.mean), plain(v.deviation), len(v.runs)),
            *(plain(n) for n in (*v.number.paper, math.nan)[:2]),
            *(plain(v.difference), int(v.beyond), v.lack, " ".join(v.runs)),
        ]
        for v in values
    ]
    return as_csv((*header, "difference", "beyond_both", "lack", "run_directories"), rows)


def species_csv(runs: Sequence[results.Run]) -> str:
    """A line for every species and family of every run."""
    header = ("run", "split", "kind", "name", "animals", "AP", "low", "high")
    rows = [
        [*row[:5], *map(plain, row[5:])]
        for run in runs
        for split, _ in results.scored(run)
        for row in results.species_rows(run, split)
    ]
    return as_csv(header, rows)


def plain(number: float) -> str:
    return "" if math.isnan(number) else f"{number:.6f}"


def as_csv(header: Sequence[str], rows: Sequence[Sequence]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([header, *rows])
    return buffer.getvalue()
