"""Figures of sycophancy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dynamics.analysis.direction_figures import direction_figures
from dynamics.analysis.figures import COLOURS, curve_grid, draw_line, new_figure, training_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dynamics.analysis import Summary

__all__ = ["figures"]

_PANELS = (
    ("done", "Log-odds of praise gained by compliments"),
    ("rate", "Praise preferred, beyond neutral sentences"),
    ("views", "Log-odds gained by the stated view"),
    ("views_rate", "Matching answer preferred, beyond no view"),
    ("published", "Published questions: log-odds"),
    ("published_rate", "Published questions: share beyond one half"),
)
_QUALITIES = {"good": "good work", "bad": "bad work", "none": "nothing said of it"}
_STANCES = {"for": "view for", "against": "view against", "none": "no view"}


def figures(summary: Summary) -> dict[str, Figure]:
    """``behaviour``, ``rates`` (what is preferred after what), and ``direction``, ``auroc``, ``dose``."""
    found = summary.by_key
    panels = [(words, [(words, found[key])]) for key, words in _PANELS if key in found]
    return {"behaviour": curve_grid(panels), "rates": _rates(summary), **direction_figures(summary)}


def _rates(summary: Summary) -> Figure:
    """Share of prompts on which praise, or the answer for, is preferred: what a reader can picture."""
    data = summary.data
    steps = data["step"].values
    panels = [
        ("Praise preferred after compliments", data["praise_rate"], "quality", _QUALITIES),
        ("Praise preferred after neutral sentences", data["praise_rate_neutral"], "quality", _QUALITIES),
    ]
    if "views_rate" in data:
        panels.append(("Answer for preferred to its opposite", data["views_rate"], "stance", _STANCES))
    figure = new_figure(4.1 * len(panels), 3.0)
    grid = figure.subplots(1, len(panels), sharey=True)
    for column, (axes, (title, rates, over, words)) in enumerate(zip(grid, panels, strict=True)):
        for i, name in enumerate(data[over].values):
            # thinner lines on thicker ones: often several are at the same height
            draw_line(axes, steps, rates.values[:, i], COLOURS[i], words[str(name)], lw=3.8 - 1.3 * i, marker="")
        training_axes(axes, steps, title, "share of prompts" if column == 0 else "")
        axes.set_ylim(-0.03, 1.03)
        if column != 1:
            axes.legend(frameon=False, fontsize=8)
    return figure
