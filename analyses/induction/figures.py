"""Figures of induction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.ticker import MaxNLocator

from dynamics.analysis.circuit_figures import circuit_figures
from dynamics.analysis.figures import COLOURS, curve_grid, draw_line, heat_maps, new_figure, training_axes

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
            data["step"].values,
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
    names = {"heads_above_0_3": "score > 0.3", "heads_above_0_4": "score > 0.4"}
    names |= {"heads_found": "above its own control (FDR 5%)"}
    for colour, (name, label) in zip(COLOURS, names.items(), strict=False):
        draw_line(axes, steps, data[name].values, colour, label, lw=None, marker="", drawstyle="steps-post")
    training_axes(axes, steps, metric="prefix-matching heads")
    axes.set_ylim(0, max(1.0, axes.get_ylim()[1]))  # an axis of heads, also where there are none
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize=8)
    return figure
