"""Figures of induction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import MaxNLocator

from dynamics.analysis.circuit_figures import circuit_figures
from dynamics.analysis.figures import COLOURS, curve_grid, heat_maps, new_figure, open_axes, step_axis

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dynamics.analysis import Summary

__all__ = ["figures"]


def figures(summary: Summary) -> dict[str, Figure]:
    """``behaviour``, ``heads`` (every head over training) and ``counts`` (the threshold definitions in use)."""
    found = summary.by_key
    panels = [
        ("Prefix-matching head", [("prefix matching", found["prefix_matching"])]),
        ("Repetition predicted", [("copying", found["copying"])]),
        ("Previous-token head", [("previous token", found["previous_token"])]),
        ("In-context score", [("in-context score", found["in_context"])]),
    ]
    data = summary.data
    layers, heads = data.sizes["layer"], data.sizes["head"]
    rows = [f"L{layer}H{head}" for layer in range(layers) for head in range(heads)]
    maps = [
        (title, data[name].values.reshape(len(data["step"]), -1).T)
        for name, title in (("prefix_matching", "Prefix matching"), ("previous_token", "Previous token"))
    ]
    circuit = circuit_figures(summary, "circuit_") if "circuit_done" in found else {}
    return {
        "behaviour": curve_grid(panels),
        "heads": heat_maps(
            maps,
            data["step"].values.tolist(),
            rows=rows,
            row_title="head",
            value_title="attention probability",
        ),
        "counts": _counts(summary),
        **circuit,
    }


def _counts(summary: Summary) -> Figure:
    """How many heads pass the thresholds in use: the same circuit, dated by other definitions."""
    data = summary.data
    steps = data["step"].values
    figure = new_figure(4.6, 2.7)
    axes = figure.subplots()
    for colour, name in zip(COLOURS, ("heads_above_0_3", "heads_above_0_4"), strict=False):
        values = data[name].values
        seen = np.isfinite(values)
        axes.step(steps[seen], values[seen], where="post", color=colour, label=f"score > {name[-3:].replace('_', '.')}")
    found = data["heads_found"].values
    seen = np.isfinite(found)
    label = "above its own control (FDR 5%)"
    axes.step(steps[seen], found[seen], where="post", color=COLOURS[2], label=label)
    step_axis(axes, steps.tolist())
    axes.set_ylabel("prefix-matching heads")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=8)
    open_axes(axes)
    return figure
