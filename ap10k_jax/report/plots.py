"""The report's pictures: matrices of APs, ours beside the paper's, species, training curves."""

import io
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

OURS, PAPER, QUIET = "#b3471d", "#1f6f8b", "#888888"
LINES = ("#1f6f8b", "#b3471d", "#5b8c2a", "#7d4f9e", "#c99a1d")
DASHES = ("-", "--", ":")


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight", facecolor="white")
    return buffer.getvalue()


def heat_map(
    rows: Sequence[str],
    columns: Sequence[str],
    ours: Float[np.ndarray, "r c"],
    paper: Float[np.ndarray, "r c"],
    *,
    framed: Collection[tuple[int, int]] = (),
) -> Figure:
    """Tables 6 to 8, ours beside the paper's: row = species tested, column = training set.

    nan is a hatched cell. `framed` are the (row, column) of species that training had not seen.
    """
    width = max(2.6, 0.5 * len(columns) + 0.6)
    figure = Figure(figsize=(2 * width + 1.5, 0.42 * len(rows) + 1.6))
    axes = figure.subplots(1, 2, sharey=True, gridspec_kw={"wspace": 0.06})
    for axis, values, title in zip(axes, (ours, paper), ("ours", "paper"), strict=True):
        picture = axis.imshow(values, cmap="viridis", vmin=0, vmax=1, aspect="auto")
        axis.patch.set(hatch="///", edgecolor="#bbbbbb", facecolor="#eeeeee")
        axis.set_xticks(range(len(columns)), columns, rotation=45, ha="right")
        axis.set_yticks(range(len(rows)), rows)
        axis.tick_params(length=0, labelsize=9)
        axis.set_title(title, fontsize=11)
        axis.set_xlabel("training set")
        axis.spines[:].set_visible(False)
        for (r, c), value in np.ndenumerate(values):
            if np.isfinite(value):
                _write(axis, c, r, value)
            if (r, c) in framed:
                axis.add_patch(_frame(c, r))
        if columns[-1] == "average":
            axis.axvline(len(columns) - 1.5, color="white", linewidth=4)
    axes[0].set_ylabel("species tested")
    bar = figure.colorbar(picture, ax=axes, fraction=0.03, pad=0.02)
    bar.set_label("AP")
    bar.outline.set_visible(False)
    return figure


def _write(axis: Axes, column: int, row: int, value: float) -> None:
    red, green, blue, _ = colormaps["viridis"](value)
    light = 0.3 * red + 0.59 * green + 0.11 * blue > 0.5
    # the paper's numbers have three digits: ours, when it is the same, must not round another way
    text = f"{round(value, 3):.2f}".removeprefix("0")
    color = "black" if light else "white"
    axis.text(column, row, text, ha="center", va="center", fontsize=8.5, color=color)


def _frame(column: int, row: int) -> Rectangle:
    box = (column - 0.42, row - 0.42), 0.84, 0.84
    return Rectangle(*box, fill=False, edgecolor=OURS, linewidth=2, zorder=3)


def beside_paper(
    labels: Sequence[str],
    ours: Float[np.ndarray, "n 2"],
    paper: Float[np.ndarray, "n 2"],
) -> Figure:
    """A line for every number: ours and the paper's as mean and standard deviation.

    nan is what is not known. Our deviations are of the population.
    """
    figure = Figure(figsize=(7, 0.24 * len(labels) + 1.1))
    axis = figure.subplots()
    y = np.arange(len(labels))
    for values, color, name, shift, face in (
        (paper, PAPER, "paper", -0.14, "white"),
        (ours, OURS, "ours", 0.14, OURS),
    ):
        spread = np.nan_to_num(values[:, 1])
        style = {"fmt": "o", "markersize": 5, "color": color, "markerfacecolor": face}
        axis.errorbar(values[:, 0], y + shift, xerr=spread, label=name, elinewidth=1.2, **style)
    _plain(axis, labels)
    axis.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2)
    return figure


def species(
    groups: Mapping[str, Mapping[str, tuple[float, float, float]]], counts: Mapping[str, int]
) -> Figure:
    """AP with its interval for every species, by family: family -> species -> (AP, low, high)."""
    names = [(family, name) for family, members in groups.items() for name in members]
    figure = Figure(figsize=(7, 0.2 * len(names) + 1.0))
    axis = figure.subplots()
    for y, (family, name) in enumerate(names):
        ap, low, high = groups[family][name]
        color = LINES[list(groups).index(family) % 2]
        axis.plot([low, high], [y, y], color=color, linewidth=1.5, alpha=0.5)
        axis.plot(ap, y, "o", color=color, markersize=4.5)
        axis.text(1.02, y, f"{counts[name]}", fontsize=8, va="center", color=QUIET)
    axis.text(1.02, -1, "animals", fontsize=8, va="center", color=QUIET)
    first = [name for i, (family, name) in enumerate(names) if not i or names[i - 1][0] != family]
    labels = [f"{family}   {name}" if name in first else name for family, name in names]
    _plain(axis, labels)
    return figure


def _plain(axis: Axes, labels: Sequence[str]) -> None:
    axis.set_yticks(range(len(labels)), labels, fontsize=9)
    axis.set_ylim(len(labels) - 0.4, -0.6)
    axis.set_xlim(-0.01, 1.01)
    axis.set_xlabel("AP")
    axis.grid(axis="x", color="#e4e4e4", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(length=0)
    axis.spines[["top", "right", "left"]].set_visible(False)


def curves(runs: Mapping[str, Sequence[Sequence[dict]]]) -> Figure:
    """Loss and validation AP by step; `runs` are the lines of metrics.jsonl of each repetition,
    by the name of what they repeat.
    """
    figure = Figure(figsize=(10, 3.6))
    panels = figure.subplots(1, 2, gridspec_kw={"wspace": 0.22})
    for i, (name, repetitions) in enumerate(runs.items()):
        style = {"color": LINES[i % 5], "linestyle": DASHES[i // 5 % 3], "linewidth": 1.3}
        for n, lines in enumerate(repetitions):
            for axis, kind, key in zip(
                panels, ("train", "validation"), ("loss", "AP"), strict=True
            ):
                chosen = [x for x in lines if x["kind"] == kind and x.get(key) is not None]
                points = [(x["step"], x[key]) for x in chosen]
                marker = "." if len(points) < 40 else ""
                label = name if not n else None
                axis.plot(*np.reshape(points, (-1, 2)).T, marker=marker, label=label, **style)
    for axis, title in zip(panels, ("training loss", "validation AP"), strict=True):
        axis.set_title(title, fontsize=11)
        axis.set_xlabel("step")
        axis.grid(color="#e4e4e4", linewidth=0.8)
        axis.spines[["top", "right"]].set_visible(False)
    if any(line.get_xdata().size for line in panels[0].lines):
        panels[0].set_yscale("log")
    panels[1].legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.02))
    return figure


def pseudo_labels(lines: Sequence[dict], points: int = 60) -> Figure:
    """Number and quality of a teacher's labels by step, and its validation AP.

    `lines` are those of metrics.jsonl of a run of semi.py; they are averaged to so many points.
    """
    steps = [line for line in lines if line["kind"] == "train" and "pseudo_accepted" in line]
    figure = Figure(figsize=(10, 4.4))
    panels = figure.subplots(1, 2, gridspec_kw={"wspace": 0.12, "bottom": 0.34}, sharey=True)
    groups = np.array_split(np.arange(len(steps)), min(points, max(1, len(steps))))
    for i, (key, label) in enumerate(
        {
            "pseudo_accepted": "accepted, of all joints",
            "pseudo_pck": "accepted joints within PCK 0.1",
            "pseudo_oks": "accepted joints' OKS",
            "pseudo_pck_of_all": "all joints within PCK 0.1, unfiltered",
            "pseudo_unseen": "accepted, but labelled by nobody",
        }.items()
    ):
        drawn = []
        for group in groups:
            values = [steps[n][key] for n in group if steps[n][key] is not None]
            if values:  # without a hidden truth there are none
                drawn.append((steps[group[-1]]["step"], float(np.mean(values))))
        if drawn:
            panels[0].plot(*zip(*drawn, strict=True), color=LINES[i], linewidth=1.4, label=label)
    scored = [(x["step"], x["AP"]) for x in lines if x["kind"] == "validation"]
    panels[1].plot(*np.reshape(scored, (-1, 2)).T, ".-", color=OURS, label="teacher's AP")
    for axis, title in zip(panels, ("pseudo-labels", "validation"), strict=True):
        axis.set_title(title, fontsize=11)
        axis.set_xlabel("step")
        axis.set_ylim(0, 1)
        axis.grid(color="#e4e4e4", linewidth=0.8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(  # below the axes: there is no corner that no curve reaches
            loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, frameon=False, fontsize=8
        )
    return figure
