"""Reproduce the paper's tables: train what is missing, score it, write the report.

    python -m ap10k_jax.reproduce --table=all --dry-run       what would run, and for how long
    python -m ap10k_jax.reproduce --table=6 --manual-dir=DOWNLOADS
    python -m ap10k_jax.reproduce --table=3,4 --cells='sl/hrnet_w32-*-split1'
    python -m ap10k_jax.reproduce --table=all --jobs > jobs.txt
    python -m ap10k_jax.reproduce --table=all --report        only the report, of what there is

A table is made of cells, each a run like any other: `ap10k_jax.main` in a directory of its own
below --workdir. Run the same command again at any time: finished cells are found and not repeated,
half-finished ones go on from their last checkpoint, and a failed cell stops only those that start
from its weights. SIGTERM and Ctrl-C are passed on: the cell saves where it is. Tables share cells,
and run them once.

The report goes to WORKDIR/report-TABLES.md, .csv, -species.csv and .html. For Table 11 it says
which photographs AP-10K and Animal-Pose share, and the AP without them (also -shared.csv; needs the
extra `curate`).
"""

import argparse
import fnmatch
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ap10k_jax import run_data, run_directory
from ap10k_jax.reproduce import paper_report, plan, tables
from ap10k_jax.runtime import command_line, errors, signals

EPILOG = """\
on a cluster:
  Build the data first (python -m tfds_ap10k.build --config=all). Then let each line of --jobs be a
  job; those that end in "# after NAME" need the run NAME finished. Write the report at the end.

on a small machine:
  --set model.name=hrnet_tiny --set data.image_size=128 --set epochs=20 --set init_from=
  shrinks every cell (one that starts from another keeps doing so, one that only scores too);
  --set 'cdtl/*:init_from=FILE' only those whose name matches. configs/base.py lists the fields.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    options = parse(arguments)
    try:
        # a cell ends within the usual grace: a little more for this process
        with errors.reported(), signals.handled(signals.GRACE + 3):
            return reproduce(options)
    except signals.Stopped as stopped:
        print(stopped, file=sys.stderr)
        return stopped.status


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = command_line.Parser("ap10k_jax.reproduce", __doc__, epilog=EPILOG)
    known = ",".join(map(str, tables.TITLES))
    parser.add_argument("--table", required=True, help=f"out of {known}; several as 3,4; or all")
    parser.add_argument(
        "--cells", default="*", metavar="GLOB", help="only these cells, and those they start from"
    )
    parser.add_argument(
        "--workdir",
        type=Path,
        default=Path("runs/paper"),
        help="the directory of all runs (default: runs/paper)",
    )
    parser.add_argument("--data-dir", help="where the built data sets are or will be")
    parser.add_argument("--manual-dir", help="the downloads, if something still has to be built")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="[GLOB:]FIELD=VALUE",
        help="a field of the config of every cell, or of those with such a name; may be repeated",
    )
    parser.add_argument(
        "--images-per-second",
        action="append",
        default=[],
        metavar="[MODEL=]N",
        help="training speed to plan with; by default what the runs in --workdir have measured",
    )
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--dry-run", action="store_true", help="show cells and cost, run nothing")
    only.add_argument("--jobs", action="store_true", help="print a shell command for each cell")
    only.add_argument("--report", action="store_true", help="only write the report")
    options = parser.parse_args(arguments)
    chosen = known.split(",") if options.table == "all" else options.table.split(",")
    unknown = [table for table in chosen if table not in known.split(",")]
    if unknown:
        parser.error(f"--table={options.table}: the paper's tables are {known}")
    options.tables = sorted({int(table) for table in chosen})
    try:
        options.rates = dict(parse_rate(text) for text in options.images_per_second)
    except ValueError:
        parser.error("--images-per-second: a number, or as in hrnet_w32=210")
    options.workdir = options.workdir.expanduser().absolute()
    for name in ("data_dir", "manual_dir"):
        if getattr(options, name):
            field = "data.dir" if name == "data_dir" else "data.manual_dir"
            options.set.insert(0, f"{field}={getattr(options, name)}")
    return options


def parse_rate(text: str) -> tuple[str, float]:
    """(model, crops a second) of `hrnet_w32=210`; of a number alone the model is "", any."""
    model, _, number = text.rpartition("=")
    return model, float(number)


def reproduce(options: argparse.Namespace) -> int:
    """Do what the command line asks for; returns the exit status."""
    wanted = [number for table in options.tables for number in tables.numbers(table)]
    everything = tables.cells(wanted)
    chosen = [cell for cell in everything if fnmatch.fnmatchcase(cell.name, options.cells)]
    if not chosen:
        some = ", ".join(cell.name for cell in everything[:3])
        raise errors.UserError(f"no cell matches --cells={options.cells}; some are {some}")
    chosen = with_predecessors(chosen)
    steps = plan.make(chosen, options.set, options.workdir)
    if options.dry_run:
        for table in options.tables:
            print(f"Table {table}. {tables.TITLES[table]}")
        print()
        print(dry_run(steps, plan.measured_rates(options.workdir) | options.rates))
        return 0
    if options.jobs:
        for step in steps:
            if step.state in plan.RUNNABLE:
                print(plan.job(step))
            elif step.state != plan.FINISHED:
                print(f"{step.cell.name}: {step.state}, {step.why}", file=sys.stderr)
        return 0

    failed = {}
    if not options.report:
        # two at once would start the same cells; --jobs is the way to run several
        with run_directory.locked(options.workdir):
            failed = prepare(steps)
            plan.built.cache_clear()
            failed = run(plan.make(chosen, options.set, options.workdir), failed)
    steps = plan.make(everything, options.set, options.workdir)
    files = paper_report.write(options.workdir, options.tables, wanted, steps)
    print(files[0].read_text().split(f"\n## {paper_report.RUNS}\n")[0])
    print("\n".join(f"{name}: {why}" for name, why in failed.items()))
    print("Report: " + ", ".join(map(str, files)))
    return 1 if failed else 0


def with_predecessors(cells: Sequence[tables.Cell]) -> list[tables.Cell]:
    """These cells, each after the one that it starts from."""
    before = tables.predecessors()
    needed = [before[cell.after] for cell in cells if cell.after]
    return list({cell.name: cell for cell in [*needed, *cells]}.values())


def prepare(steps: Sequence[plan.Step]) -> dict[str, str]:
    """Build the data sets that are missing; returns cells without data, with the reason."""
    lacking = {}
    failed = {}
    for step in steps:
        name = step.config.data.name
        if step.state not in plan.RUNNABLE:
            continue
        if name not in lacking:
            lacking[name] = ""
            try:
                run_data.build_dataset(step.config)
            except (errors.UserError, OSError) as error:
                print(f"{name}: {error}", file=sys.stderr)
                lacking[name] = f"{name} could not be built, see above"
        if lacking[name]:
            failed[step.cell.name] = lacking[name]
    return failed


def run(steps: Sequence[plan.Step], failed: dict[str, str]) -> dict[str, str]:
    """Run the cells that can be run, in order; returns names and reasons of all failures."""
    failed = dict(failed)
    for number, step in enumerate(steps, start=1):
        name = step.cell.name
        if step.state == plan.FINISHED or name in failed:
            continue
        if step.state not in plan.RUNNABLE:
            # What the data or the public files lack is no failure: the report says so.
            print(f"[{number}/{len(steps)}] {name}: {step.state}, {step.why}")
            if step.state == plan.OTHER:
                failed[name] = f"{step.state}: {step.why}"
            continue
        if step.cell.after in failed:
            failed[name] = f"not run, it starts from {step.cell.after}"
            continue
        print(f"[{number}/{len(steps)}] {name}", flush=True)
        status = start(step)
        if status:
            failed[name] = f"failed with status {status}: {shlex.join(plan.command(step))}"
            print(failed[name], file=sys.stderr)
    return failed


def start(step: plan.Step) -> int:
    """Run the cell in a new process, which isolates crashes and memory; returns its status.

    A signal to stop is passed on to the cell, which is waited for.
    """
    process = None
    try:
        with signals.deferred():
            process = subprocess.Popen([sys.executable, *plan.command(step)[1:]])
        return process.wait()
    except signals.Stopped:
        if process:
            process.terminate()
            process.wait()
        raise


def dry_run(steps: Sequence[plan.Step], rates: dict[str, float]) -> str:
    """The plan as a table: cells, states, initial weights, crops and hours."""
    width = max(len(step.cell.name) for step in steps)
    lines = [f"{'cell':{width}}  {'state':14}  {'training crops':>14}  {'hours':>6}  starts from"]
    crops, hours, unknown = 0, 0.0, set()
    for step in steps:
        to_do = step.crops if step.state in plan.RUNNABLE else 0
        model = step.config.model.name
        rate = rates.get(model, rates.get(""))
        cost = f"{step.crops / rate / 3600:.2f}" if rate and step.crops else "-"
        crops += to_do
        if rate:
            hours += to_do / rate / 3600
        elif to_do:
            unknown.add(model)
        origin = step.cell.after or step.config.init_from or "random weights"
        why = f" ({step.why})" if step.why else ""
        lines.append(
            f"{step.cell.name:{width}}  {step.state:14}  {step.crops:14,}  {cost:>6}  "
            + (origin if step.cell.after else Path(origin).name)
            + why
        )
    states = ", ".join(f"{n} {state}" for state, n in Counter(s.state for s in steps).items())
    lines += ["", f"{len(steps)} cells: {states}", f"{crops:,} training crops are still to be seen"]
    names = sorted({step.config.data.name for step in steps})
    where = {step.config.data.name: step.config.data.dir for step in steps}
    counted = [name for name in names if plan.built(name, where[name]) is not None]
    lines.append(
        f"Images and animals counted in the built data sets: {', '.join(counted) or 'none'}; "
        "elsewhere split 1's published numbers. Drawn images: about 1.3 animals each."
    )
    if unknown:
        lines.append(
            f"No speed known of {', '.join(sorted(unknown))}: give --images-per-second=MODEL=N, or "
            "let one of their cells log a few lines (its progress bar shows images_s)"
        )
    if hours:
        lines.append(f"{hours:,.1f} hours in all" + (", those models aside" if unknown else ""))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
