"""Figures that every direction has: its onsets, where it can be read, and what more or less of it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .figures import COLOURS, curve_grid, heat_maps, new_figure, open_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .section import Summary

__all__ = ["direction_figures"]

_GREY = "#888888"
_ONSETS = (
    ("represented", "Represented: AUROC, best layer"),
    ("used", "Used: steered along, best layer"),
    ("needed", "Needed: ablated at all layers"),
    ("represented_random", "Represented, against random directions"),
)
_MAPS = (
    ("auroc", "AUROC of held-out prompts"),
    ("auroc_shuffled", "shuffled labels, one of twenty"),
    ("auroc_random", "random directions, turned the right way"),
)


def direction_figures(summary: Summary, part: str = "", title: str = "") -> dict[str, Figure]:
    """``<part>direction`` (onsets), ``<part>auroc`` (layer by step) and ``<part>dose`` (response at some checkpoints).

    Args:
        summary: with the findings and arrays of :func:`dynamics.analysis.direction.direction_section`.
        part: of the task.
        title: put before the panels' titles where an analysis has several directions.
    """
    found = summary.by_key
    before = f"{title}: " if title else ""
    panels = [(before + words, [(words, found[part + key])]) for key, words in _ONSETS]
    data = summary.data
    maps = [(before + words, data[f"{part}direction_{name}"].values.T) for name, words in _MAPS]
    return {
        f"{part}direction": curve_grid(panels),
        f"{part}auroc": heat_maps(
            maps,
            data["step"].values,
            rows=data["layer"].values,
            row_title="after layer",
            value_title="AUROC",
            columns=3,
        ),
        f"{part}dose": _dose(summary, part, before),
    }


def _dose(summary: Summary, part: str, before: str) -> Figure:
    """Response to every strength, at the layer where it is steepest in the end, at a few checkpoints; with controls."""
    data = {
        name: summary.data[f"{part}direction_{name}"].values
        for name in ("slope", "dose", "dose_low", "dose_high", "dose_random", "dose_shuffled")
    }
    steps, strengths = summary.data["step"].values, summary.data["strength"].values
    figure = new_figure(8.6, 3.1)
    left, right = figure.subplots(1, 2)
    known = np.flatnonzero(np.isfinite(data["slope"]).any(1))
    if not len(known):
        left.text(0.5, 0.5, "not measurable", ha="center", transform=left.transAxes, color=_GREY)
        right.set_visible(False)
        return figure
    last = int(known[-1])
    layer = int(np.nanargmax(data["slope"][last]))
    shown = known[np.unique(np.linspace(0, len(known) - 1, 5).round().astype(int))]
    along = np.argsort([*strengths, 0.0])

    def through_zero(values: np.ndarray) -> np.ndarray:
        return np.array([*values, 0.0])[along]

    x = through_zero(strengths)
    band = through_zero(np.nan_to_num(np.fmax(data["dose_random"][last, layer], data["dose_shuffled"][last, layer])))
    left.fill_between(x, -band, band, color=_GREY, alpha=0.2, lw=0, label="random or shuffled, last step (rms)")
    for colour, index in zip(COLOURS, shown, strict=False):
        dose = data["dose"][index, layer]
        left.plot(x, through_zero(dose), color=colour, lw=1.5, label=f"step {steps[index]}")
        error = np.abs(np.stack([data["dose_low"][index, layer], data["dose_high"][index, layer]]) - dose)
        left.errorbar(strengths, dose, error, fmt="o", ms=3, color=colour, lw=1, capsize=2)
    left.set_title(f"{before}steered after layer {layer}", loc="left")
    for colour, at in zip(COLOURS, range(data["dose"].shape[1]), strict=False):
        dose = data["dose"][last, at]
        if np.isfinite(dose).all():
            right.plot(x, through_zero(dose), "o-", ms=3, color=colour, lw=1.3, label=f"after layer {at}")
    right.set_title(f"{before}every layer, step {steps[last]}", loc="left")
    for axes in (left, right):
        axes.axhline(0, color=_GREY, lw=0.6)
        axes.axvline(0, color=_GREY, lw=0.6)
        axes.set_xlabel("strength (distances between the classes)")
        axes.legend(frameon=False, fontsize=7.5, loc="best")
        open_axes(axes)
    left.set_ylabel("change of logit(answer) - logit(foil)")
    return figure
