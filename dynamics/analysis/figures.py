"""Plots that analyses share: curves with intervals and nulls, heat maps over training, the timeline of all circuits.

What they have in common with a plot of one curve is in :mod:`.axes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.textpath import text_to_path

from checkpoints.errors import UserError

from .axes import COLOURS, GREY, INK, draw_curve, draw_line, open_axes, short_step, step_axis, tidy, training_axes
from .findings import Finding
from .fitting import FittingLayout, legend_below
from .panels import note_map

__all__ = [
    "COLOURS",
    "colour_bar",
    "curve_grid",
    "draw_curve",
    "draw_line",
    "grid_of",
    "heat_maps",
    "label_width",
    "new_figure",
    "open_axes",
    "step_axis",
    "timeline",
    "training_axes",
]

_STYLE: dict[str, Any] = {"font.size": 9, "svg.fonttype": "none", "svg.hashsalt": "dynamics", "axes.titlesize": 9.5}


def new_figure(width: float, height: float) -> Figure:
    """A figure in the project's style (inches), which grows where something does not fit; it needs no display."""
    import matplotlib as mpl

    mpl.rcParams.update(_STYLE)  # type: ignore[arg-type]
    return Figure(figsize=(width, height), layout=FittingLayout(width, height))


def grid_of(panels: int, columns: int, width: float, height: float, more: float = 0.0) -> tuple[Figure, list[Axes]]:
    """A figure, ``more`` inches higher than its panels of this size, and its axes, at most ``columns`` side by side; those
    that are left over are not visible."""
    columns = min(columns, max(1, panels))
    rows = -(-panels // columns)
    figure = new_figure(width * columns, height * rows + more)
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid[panels:]:
        axes.set_visible(False)
    return figure, grid


def curve_grid(panels: Sequence[tuple[str, Sequence[tuple[str, Finding]]]], *, columns: int = 2) -> Figure:
    """Panels of curves that share the step axis.

    Args:
        panels: (title, curves) with each curve as (label, finding); where there are several, each null has its
            curve's colour.
        columns: panels side by side.

    Raises:
        UserError: when there are no panels, or one has no curve.
    """
    if not panels or not all(curves for _, curves in panels):
        raise UserError(
            "a figure of curves has no panel, or a panel no curve",
            expected="(title, [(label, finding), ...]) for each panel",
            remedy="leave the figure out where there is nothing to draw",
        )
    figure, grid = grid_of(len(panels), columns, 4.3, 2.75)
    for index, (axes, (title, curves)) in enumerate(zip(grid, panels, strict=False)):
        for i, (label, finding) in enumerate(curves):
            draw_curve(axes, finding, COLOURS[i % len(COLOURS)], label=label, alone=len(curves) == 1)
        step_axis(axes, curves[0][1].steps, label=index >= len(panels) - min(columns, len(panels)))
        axes.set_title(title, loc="left", color=INK)
        axes.set_ylabel(curves[0][1].metric)
        tidy(axes)
        if not any(np.isfinite(finding.values).any() for _, finding in curves):
            axes.set_yticks([])
            axes.text(0.5, 0.5, "no value at any checkpoint", color=GREY, ha="center", transform=axes.transAxes)
        elif len(curves) > 1:
            axes.legend(frameon=False, fontsize=8, loc="best")
    bound = "bound of the null, in the curve's colour where there are several"
    legend_below(
        figure,
        [
            Line2D([], [], color=GREY, lw=1, ls=(0, (4, 2)), label=bound),
            Patch(color=COLOURS[0], alpha=0.25, lw=0, label="onset interval / 95% bootstrap band"),
        ],
    )
    return figure


def heat_maps(
    panels: Sequence[tuple[str, np.ndarray]],
    steps: Sequence[int] | np.ndarray,
    *,
    rows: Sequence[Any] | np.ndarray,
    row_title: str,
    value_title: str,
    alike: bool = True,
    columns: int = 2,
) -> Figure:
    """Heat maps of (row, checkpoint) values over training.

    Checkpoints are drawn side by side at equal width, each labelled with its step where there is room: log-spaced
    series would otherwise hide their early checkpoints.

    Args:
        panels: (title, values) with values (row, checkpoint); NaN is left white.
        rows: labels of the rows, as text or number, the first at the bottom.
        alike: whether the panels are of one quantity, and so on one colour scale.
    """
    names = [str(row) for row in rows]
    height = max(1.5, min(0.16 * len(rows), 6.0) + 0.9)  # hundreds of heads become thin rows, not a tall page
    figure, grid = grid_of(len(panels), columns, 4.6 + label_width(names, 0.6), height, 0.2)
    shared = _colour_range([values for _, values in panels])
    image: Any = None
    for axes, (title, values) in zip(grid, panels, strict=False):
        low, high = shared if alike else _colour_range([values])
        pixels = np.ma.masked_invalid(values)
        image = axes.imshow(
            pixels, vmin=low, vmax=high, cmap="viridis", aspect="auto", origin="lower", interpolation="nearest"
        )
        note_map(axes, row_title, names, values)
        axes.set_title(title, loc="left", color=INK)
        stride = max(1, -(-len(steps) // 9))
        shown = sorted({*range(0, len(steps), stride)} - {len(steps) - 2} | {len(steps) - 1})
        if len(shown) > 1 and shown[-1] - shown[-2] < stride / 2:
            shown.pop(-2)
        axes.set_xticks(shown, [short_step(steps[i]) for i in shown])
        axes.set_xlabel("optimizer step (one column a checkpoint)")
        every = max(1, len(rows) // 12)
        axes.set_yticks(range(0, len(rows), every), names[::every])
        axes.set_ylabel(row_title)
        axes.tick_params(length=2)
        if not alike:
            colour_bar(figure, image, [axes], value_title)
    if image is not None and alike:
        colour_bar(figure, image, grid, value_title)
    return figure


def _colour_range(values: Sequence[np.ndarray]) -> tuple[float, float]:
    """The smallest and the largest finite value, between which colours change; 0 and 1 where nothing was measured."""
    finite = np.concatenate([v[np.isfinite(v)] for v in values]) if values else np.array([])
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)


def colour_bar(figure: Figure, image: Any, axes: Sequence[Axes], title: str) -> None:
    """A bar beside ``axes`` that says which values the colours mean."""
    low, high = image.get_clim()
    low, high = (0.0 if abs(end) < 0.001 * (high - low) else end for end in (low, high))
    figure.colorbar(image, ax=list(axes), label=f"{title}, {low:.2g} to {high:.2g}", shrink=0.9, pad=0.01)


def label_width(labels: Sequence[str], room: float) -> float:
    """Inches that the longest label of a row is longer than ``room``."""
    font = FontProperties(size=_STYLE["font.size"])
    widths = [text_to_path.get_text_width_height_descent(label, font, False)[0] / 72 for label in labels if label]
    return max(0.0, max(widths, default=0.0) - room)


def timeline(findings: Sequence[Finding]) -> Figure:
    """All circuits on one step axis: bootstrap range of the onset, onset to completion, midpoint.

    Circuits that did not emerge or could not be measured are listed too, in words.
    """
    shown = list(findings)
    figure = new_figure(10.4 + label_width([f.title for f in shown], 3.6), 0.32 * len(shown) + 1.3)
    axes = figure.subplots()
    steps = shown[0].steps if shown else (0, 1)
    last = max(steps)
    analyses = list(dict.fromkeys(f.key.split(".")[0] for f in shown))
    beside = axes.get_yaxis_transform()  # words at the left edge, wherever the steps begin
    for row, finding in enumerate(reversed(shown)):
        e = finding.emergence
        colour = COLOURS[analyses.index(finding.key.split(".")[0]) % len(COLOURS)]
        if e.state in ("emerged", "transient") and e.onset is not None and e.onset.by is not None:
            end = e.loss if e.state == "transient" else e.completion
            stop = end.by if end is not None and end.by is not None else last
            if e.onset_range is not None and (e.onset_range.after, e.onset_range.by) != (None, None):
                start = e.onset_range.after if e.onset_range.after is not None else min(steps)
                until = e.onset_range.by if e.onset_range.by is not None else last
                axes.plot([start, until], [row, row], color=colour, lw=1.2, alpha=0.75, solid_capstyle="butt")
                axes.plot([start, until], [row, row], ls="none", marker="|", ms=7, color=colour, alpha=0.75)
            axes.barh(row, max(0, stop - e.onset.by), left=e.onset.by, height=0.46, color=colour, alpha=0.35, lw=0)
            axes.barh(row, e.onset.by - (e.onset.after or 0), left=e.onset.after or 0, height=0.46, color=colour, lw=0)
            if e.midpoint is not None and e.midpoint >= (e.onset.after or 0):
                axes.plot([e.midpoint], [row], marker="D", ms=4.5, color="white", mec=INK, mew=0.9)
            if e.state == "transient":
                box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
                axes.text(stop * 1.05, row, "transient", va="center", fontsize=8, color=INK, bbox=box)
        elif e.state == "present from start":
            axes.barh(row, last - min(steps), left=min(steps), height=0.16, color=colour, alpha=0.3, lw=0)
            axes.text(0.012, row, "present from start", va="center", fontsize=8, color=INK, transform=beside)
        else:
            axes.text(0.012, row, e.state, va="center", fontsize=8, color=GREY, transform=beside)
    axes.set_yticks(range(len(shown)), [f.title for f in reversed(shown)])
    axes.set_ylim(-0.6, len(shown) - 0.4)
    step_axis(axes, steps)
    axes.grid(axis="x", color="#dddddd", lw=0.6)
    axes.set_axisbelow(True)
    tidy(axes)
    legend_below(
        figure,
        [
            Patch(color=GREY, lw=0, label="onset interval"),
            Patch(color=GREY, alpha=0.35, lw=0, label="onset to completion (90%)"),
            Line2D([], [], color=GREY, lw=1.2, marker="|", ms=7, label="95% bootstrap range of the onset"),
            Line2D([], [], ls="none", marker="D", ms=4.5, color="white", mec=INK, label="midpoint"),
        ],
    )
    return figure
