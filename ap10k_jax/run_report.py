"""A report on a run, of any data set and joints: `python -m ap10k_jax.run_report RUN [RUN ...]`.

Writes report.html, a page that needs nothing but itself, and report.md into the (last) run's
directory: AP with its interval, overall, per species and per family, the curves of training, the
pictures of the best, median and worst animals, and what it was made with. Several runs are put side
by side. `ap10k_jax.reproduce` reports on the paper's tables.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from ap10k_jax import metrics, run_log
from ap10k_jax.report import document, plots
from ap10k_jax.reproduce import paper_report, results
from ap10k_jax.runtime import command_line, errors

OVERALL = ("AP50", "AP75", "APM", "APL", "AR")
READING = (
    "AP is COCO's keypoint AP, the mean over species; in square brackets the 95 % interval from "
    "drawing the test photographs anew 1,000 times, which says nothing about other training runs. "
    "Instance AP: every animal counts alike, not every species. A dash: no animal to measure."
)
UNIFORM = (
    "Nobody has measured how far people differ on these joints, so all have the sigma 0.05: the AP "
    "compares runs on this data set, not data sets."
)


def read(workdir: Path) -> results.Run:
    """A finished run. Raises errors.UserError for a directory that is none."""
    missing = [name for name in ("config.json", "results.json") if not (workdir / name).exists()]
    if missing:
        text = "is no run" if "config.json" in missing else "is a run that has not finished"
        raise errors.UserError(f"{workdir} {text}: there is no {missing[0]}")
    draw, log = workdir / "draw.json", workdir / "metrics.jsonl"
    return results.Run(
        workdir.name,
        *("finished", ""),
        json.loads((workdir / "config.json").read_text()),
        (),
        json.loads((workdir / "results.json").read_text()),
        json.loads((workdir / "environment.json").read_text()),
        json.loads(draw.read_text()) if draw.exists() else {},
        run_log.read(log) if log.exists() else [],
    )


def parts(workdirs: Sequence[Path]) -> list[document.Part]:
    """The report on these runs."""
    runs = [read(workdir) for workdir in workdirs]
    found = [
        document.Table(("run", "data set", "network", "trained on", "step"), list(map(_row, runs)))
    ]
    found += [document.Heading("How good the keypoints are"), document.Text(READING)]
    if any(run.results["sigmas"].startswith("uniform") for run in runs):
        found.append(document.Text(UNIFORM))
    found.append(document.Table(("run", "split", "AP", "instance AP", *OVERALL), _overall(runs)))
    for run in runs:
        for split, scores in results.scored(run):
            title = f"{run.name}, {split}: families and species"
            found.append(document.Table(("", "name", "animals", "AP"), _species(scores), title))
    logs = {run.name: [run.lines] for run in runs if run.lines}
    if logs:
        found.append(document.Heading("Training"))
        found.append(document.Picture(plots.png(plots.curves(logs)), "Loss and validation AP"))
    found.append(document.Heading("The best, median and worst animals"))
    for workdir, run in zip(workdirs, runs, strict=True):
        for split, _ in results.scored(run):
            picture = workdir / f"animals-{split}.png"
            if picture.exists():
                found.append(document.Picture(picture.read_bytes(), f"{run.name}, {split}"))
    found.append(document.Heading("Made with"))
    return [*found, document.Table(("what", "value", "runs"), paper_report.environments(runs))]


def _row(run: results.Run) -> list[str]:
    animals = run.starts[-1]["animals"].get("train")
    model = run.config["model"]
    trained = "nothing: the initial weights" if animals is None else f"{animals} animals"
    network = f"{model['name']}, {model['num_keypoints']} joints, from "
    network += run.config["init_from"] or "random weights"
    return [run.name, run.config["data"]["name"], network, trained, str(run.results["step"])]


def _overall(runs: Sequence[results.Run]) -> list[list[str]]:
    return [
        [
            *(run.name, split),
            *(paper_report.interval(s[k], *s["intervals"][k]) for k in ("AP", "instance_AP")),
            *(metrics.format_ap(s[name]) for name in OVERALL),
        ]
        for run in runs
        for split, s in results.scored(run)
    ]


def _species(scores: dict) -> list[list[str]]:
    rows = []
    for kind in ("family", "species"):
        for name, ap in scores[f"per_{kind}"].items():
            animals = str(scores["num_animals"].get(name, "")) if kind == "species" else ""
            bounds = scores["intervals"][f"per_{kind}"][name]
            rows.append([kind, name, animals, paper_report.interval(ap, *bounds)])
    return rows


def main() -> int:
    """The command line; returns the exit status."""
    parser = command_line.Parser("ap10k_jax.run_report", __doc__)
    parser.add_argument("runs", metavar="RUN", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, help="the folder for the report (the last run's own)")
    flags = parser.parse_args()
    out = flags.out or flags.runs[-1]
    with errors.reported():
        found = parts(flags.runs)
        title = ", ".join(run.name for run in flags.runs)
        out.mkdir(parents=True, exist_ok=True)
        (out / "report.html").write_text(document.page(title, found), encoding="utf-8")
        (out / "report.md").write_text(document.markdown(title, found), encoding="utf-8")
    print(f"{out / 'report.html'}\n{out / 'report.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
