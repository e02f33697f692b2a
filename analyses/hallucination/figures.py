"""Figures of hallucination."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dynamics.analysis.direction_figures import direction_figures
from dynamics.analysis.figures import COLOURS, curve_grid, draw_line, new_figure, open_axes, training_axes

from .calibration import BINS
from .knowing import DIRECTIONS
from .steered_figures import steered_figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dynamics.analysis import Summary

__all__ = ["figures"]

_GREY = "#888888"
_PANELS = 4
_TWINS = ("answers.logprob", "answers.picked")


def figures(summary: Summary) -> dict[str, Figure]:
    """``answers``, ``misfires``, ``calibration``, ``reliability``; those of the direction where it was measured."""
    found = summary.by_key
    frequencies = [k.removeprefix("answers.") for k in found if k.startswith("answers.") and not k.startswith(_TWINS)]
    drawn = {
        "answers": curve_grid(
            [
                ("Known entities answered", [(f, found[f"answers.{f}"]) for f in frequencies]),
                ("Unknown declined, beyond known ones", [("declines", found["discerns"])]),
                ("Log-probability of what is known", [(f, found[f"answers.logprob.{f}"]) for f in frequencies]),
                ("Log-odds of declining, unknown minus known", [("log-odds", found["discerns.odds"])]),
            ]
        ),
        "misfires": _misfires(summary),
        "calibration": curve_grid(
            [
                ("Calibration error, bins of equal width", [("error", found["ece"])]),
                ("Calibration error, bins of equal mass", [("error", found["ece.mass"])]),
            ]
        ),
    }
    if shown := _chosen(summary):
        drawn["reliability"] = _reliability(summary, shown)
    for _, task in DIRECTIONS.values():
        if f"{task.part}represented" in found:
            drawn |= direction_figures(summary, task.part, task.name.capitalize())
            drawn |= steered_figures(summary)
    return drawn


def _misfires(summary: Summary) -> Figure:
    """Answering, declining and both misfires over training; confidence beside them."""
    data = summary.data
    steps = data["step"].values
    figure = new_figure(9.6, 3.7)
    left, right = figure.subplots(1, 2)

    def line(axes: Axes, key: str, colour: str, label: str, style: str = "-") -> None:
        values, low, high = (data[f"{key}{end}"].values for end in ("", "_low", "_high"))
        draw_line(axes, steps, values, colour, label, band=(low, high), ls=style)

    for key, colour, label, style in (
        ("right_known", COLOURS[0], "known: answered right", "-"),
        ("declined_unknown", COLOURS[2], "unknown: declined", "-"),
        ("declined_known", COLOURS[4], "known: declined (misfire)", "--"),
        ("confident_unknown", COLOURS[1], "unknown: confident answer (misfire)", "--"),
    ):
        line(left, key, colour, label, style)
    training_axes(left, steps, "Answers, declining and misfires", "share of questions")
    for name, colour in (("known", COLOURS[0]), ("unknown", COLOURS[2])):
        line(right, f"confidence_{name}", colour, name)
    training_axes(right, steps, "Confidence: probability of the first choice", "mean probability")
    for axes in (left, right):
        axes.set_ylim(-0.02, 1.02)
        axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    return figure


def _chosen(summary: Summary) -> list[int]:
    """Up to four checkpoints with a reliability curve: first, onset of answering, in between, last."""
    data = summary.data
    there = np.flatnonzero(np.isfinite(data["reliability_count"].values).any(1))
    if not len(there):
        return []
    onset = summary.finding("answers").emergence.onset
    steps = data["step"].values
    wanted = [steps[there[0]], steps[there[-1]]]
    if onset is not None and onset.by is not None:
        wanted += [onset.by, 10 ** ((np.log10(onset.by + 1) + np.log10(steps[there[-1]] + 1)) / 2)]
    indices = {int(there[np.abs(np.log10(steps[there] + 1.0) - np.log10(w + 1.0)).argmin()]) for w in wanted}
    return sorted(indices)[:_PANELS]


def _reliability(summary: Summary, shown: Sequence[int]) -> Figure:
    """Accuracy against confidence, bin by bin, with the number of questions as the bars below."""
    data = summary.data
    figure = new_figure(2.6 * len(shown) + 0.5, 3.3)
    grid = figure.subplots(2, len(shown), squeeze=False, height_ratios=(4, 1), sharex=True, sharey="row")
    for column, index in enumerate(shown):
        axes, bars = grid[:, column]
        curve = {k: data[f"reliability_{k}"].values[index] for k in ("count", "confidence", "accuracy", "low", "high")}
        there = curve["count"] > 0
        axes.plot([0, 1], [0, 1], color=_GREY, lw=0.9, ls=(0, (4, 2)))
        error = np.abs(np.stack([curve["accuracy"] - curve["low"], curve["high"] - curve["accuracy"]]))
        axes.errorbar(
            curve["confidence"][there],
            curve["accuracy"][there],
            yerr=error[:, there],
            color=COLOURS[0],
            marker="o",
            ms=3.5,
            lw=1.2,
            elinewidth=0.9,
        )
        axes.set_title(f"Step {int(data['step'].values[index])}", loc="left")
        bars.bar((np.arange(BINS) + 0.5) / BINS, curve["count"], width=0.9 / BINS, color="#c9d6e2")
        bars.set_xlabel("confidence")
        axes.set_xlim(0, 1)
        axes.set_ylim(-0.02, 1.02)
        if column == 0:
            axes.set_ylabel("share right")
            bars.set_ylabel("questions")
        open_axes(axes)
        open_axes(bars)
    return figure
