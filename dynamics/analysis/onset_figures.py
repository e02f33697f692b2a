"""Figures about onsets: every definition side by side, and which circuit came before which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ..emergence import Interval, Onset
from .figures import COLOURS, label_width, new_figure, open_axes, step_axis
from .findings import Finding
from .fitting import legend_below

__all__ = ["onsets_by_definition", "order_matrix"]

_INK, _GREY = "#222222", "#888888"
_MARKS = {
    "excess over null": ("o", COLOURS[0]),
    "change point": ("^", COLOURS[1]),
    "half rise": ("D", COLOURS[2]),
    "sigmoid": ("s", COLOURS[3]),
    "first passage": ("X", COLOURS[4]),
}
_ROW = 0.125
"""Inches of one definition's row."""


def onsets_by_definition(findings: Sequence[Finding]) -> Figure:
    """One row for each definition of each circuit: 95% interval, neighbouring checkpoints, estimate.

    Circuits for which no definition finds an onset have one row that says so.

    Args:
        findings: at least one, with the same steps.
    """
    steps = findings[0].steps
    start, last = min(steps), max(steps)
    rows = [max(1, len(_there(f))) for f in findings]
    total = sum(rows) + 1.1 * len(findings)
    figure = new_figure(10.4 + label_width([f.title for f in findings], 3.6), _ROW * total + 1.2)
    axes = figure.subplots()
    y, ticks = 0.0, []
    for index, (finding, count) in enumerate(zip(findings, rows, strict=True)):
        if index % 2 == 0:
            axes.axhspan(y - 1.05, y + count + 0.05, color="#f3f4f6", lw=0, zorder=0)
        ticks.append(y + 0.5 * (count - 1))
        there = _there(finding)
        for row, onset in enumerate(there):
            _one(axes, onset, y + row, start, last)
        if not there:
            absent = finding.emergence.state
            text = absent if absent == "not measurable" else "no definition finds an onset"
            axes.text(0.012, y, text, va="center", fontsize=8, color=_GREY, transform=axes.get_yaxis_transform())
        y += count + 1.1
    axes.set_yticks(ticks, [f.title for f in findings])
    axes.set_ylim(y - 1.05, -1.05)  # the first circuit at the top
    step_axis(axes, steps)
    axes.grid(axis="x", color="#dddddd", lw=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", colors=_INK, length=3)
    open_axes(axes, "left")
    used = {onset.definition for f in findings for onset in f.onsets}
    marks = [
        Line2D([], [], ls="none", marker=mark, ms=5, color=colour, label=name)
        for name, (mark, colour) in _MARKS.items()
        if name in used
    ]
    lines = [
        Line2D([], [], color=_GREY, lw=4.5, alpha=0.35, solid_capstyle="butt", label="between two checkpoints"),
        Line2D([], [], color=_GREY, lw=1.3, label="95% interval"),
    ]
    legend_below(figure, [*marks, *lines])
    return figure


def _there(finding: Finding) -> list[Onset]:
    """The definitions that find an onset."""
    return [o for o in finding.onsets if o.between is not None and o.state not in ("not emerged", "not measurable")]


def _one(axes: Axes, onset: Onset, y: float, start: int, last: int) -> None:
    """A row: the neighbouring checkpoints as a broad bar, the 95% interval as a thin one, the estimate as a mark."""
    mark, colour = _MARKS.get(onset.definition, ("o", COLOURS[6]))

    def ends(interval: Interval) -> tuple[float, float]:
        after = start if interval.after is None else max(interval.after, start)
        return after, last * 1.06 if interval.by is None else min(interval.by, last)

    between = onset.between or Interval(None, None)
    axes.plot(ends(between), [y, y], color=colour, lw=4.5, alpha=0.35, solid_capstyle="butt")
    if onset.range is not None:
        low, high = ends(onset.range)
        axes.plot([low, high], [y, y], color=colour, lw=1.3, solid_capstyle="butt")
        for open_end, at, arrow in ((onset.range.after is None, low, "<"), (onset.range.by is None, high, ">")):
            if open_end:
                axes.plot([at], [y], marker=arrow, ms=3.5, color=colour, ls="none", clip_on=False)
    at = onset.step if onset.step is not None else between.by if between.by is not None else last
    axes.plot([at], [y], marker=mark, ms=4.6, color=colour, mec="white", mew=0.5, ls="none")


def order_matrix(order: Mapping[str, Any]) -> Figure:
    """The probability that the circuit of a row came before that of a column, circuits in the order of their onsets.

    Args:
        order: ``circuits`` (``key``, ``title``) and ``pairs`` (``first``, ``second``, ``before``, ``after``, ``order``);
            at least two circuits.
    """
    titles = [circuit["title"] for circuit in order["circuits"]]
    number = {circuit["key"]: i for i, circuit in enumerate(order["circuits"])}
    n = len(titles)
    share, kind = np.full((n, n), np.nan), np.full((n, n), np.nan)
    for pair in order["pairs"]:
        i, j = number[pair["first"]], number[pair["second"]]
        share[i, j], share[j, i] = pair["before"], pair["after"]
        kind[i, j], kind[j, i] = {"before": (2, 1), "after": (1, 2)}.get(pair["order"], (0, 0))
    figure = new_figure(0.42 * n + 3.4 + label_width(titles, 3.2), 0.31 * n + 1.6)
    axes = figure.subplots()
    colours = ListedColormap(["#e3e5e8", "#f6c9a8", "#a9cbe6"])
    axes.imshow(np.ma.masked_invalid(kind), cmap=colours, vmin=-0.5, vmax=2.5, aspect="auto", interpolation="nearest")
    for i in range(n):
        for j in range(n):
            if i != j:
                axes.text(j, i, _percent(share[i, j]), ha="center", va="center", fontsize=7.5, color=_INK)
    axes.set_yticks(range(n), [f"{i + 1}  {title}" for i, title in enumerate(titles)])
    axes.set_xticks(range(n), [str(i + 1) for i in range(n)])
    axes.xaxis.tick_top()
    axes.set_xlabel("... came before the circuit of this number (% of bootstrap draws)")
    axes.xaxis.set_label_position("top")
    axes.tick_params(length=0, colors=_INK)
    axes.set_xticks(np.arange(-0.5, n), minor=True)
    axes.set_yticks(np.arange(-0.5, n), minor=True)
    axes.grid(which="minor", color="white", lw=1.2)
    axes.tick_params(which="minor", length=0)
    open_axes(axes, "left", "bottom")
    legend_below(
        figure,
        [
            Patch(color="#a9cbe6", label="row before column"),
            Patch(color="#f6c9a8", label="row after column"),
            Patch(color="#e3e5e8", label="cannot be ordered"),
        ],
    )
    return figure


def _percent(share: float) -> str:
    """Whole percent, rounded down, so that 100 stands only where it is reached."""
    whole = int(100 * share + 1e-9)
    return "<1" if whole == 0 and share > 0 else str(whole)
