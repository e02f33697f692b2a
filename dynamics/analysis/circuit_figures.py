"""Figures that every circuit has: its onsets, its identity, what its parts do, and how small it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .figures import COLOURS, curve_grid, draw_line, heat_maps, new_figure, open_axes, training_axes
from .fitting import legend_below

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .section import Summary

__all__ = ["circuit_figures"]

_GREY = "#888888"
_THIN: dict[str, Any] = {"lw": 1.4, "ms": 2}
_ONSETS = (
    ("represented", "Represented"),
    ("used", "Used"),
    ("done", "Done"),
    ("preferred", "Done, as a share of prompts"),
)


def circuit_figures(summary: Summary, part: str = "", title: str = "") -> dict[str, Figure]:
    """``<part>onsets``, ``<part>identity``, ``<part>sources``, ``<part>faithfulness``; ``<part>positions`` where measured.

    Args:
        summary: with the arrays and findings of ``circuit_section``.
        part: of the task.
        title: put before the panels' titles where an analysis has several circuits.
    """
    found = summary.by_key
    before = f"{title}: " if title else ""
    panels = [(before + words, [(words, found[part + key])]) for key, words in _ONSETS if part + key in found]
    data = summary.data
    steps, sources = data["step"].values, data["source"].values
    maps = [
        (before + "effect of patching (logits)", data[f"{part}source_effect"].values.T),
        (before + "direct effect on the logits", data[f"{part}direct_effect"].values.T),
    ]
    words: Any = {"row_title": "source", "value_title": "logits"}
    found_figures = {
        f"{part}onsets": curve_grid(panels),
        f"{part}identity": _identity(summary, part, before),
        f"{part}sources": heat_maps(maps, steps, rows=sources, **words),
        f"{part}faithfulness": _faithfulness(summary, part, before),
    }
    if f"{part}source_effect_at" in data:
        at = data[f"{part}source_effect_at"]
        positions = data[f"{part}patched_at"].values
        panels_at = [(f"{before}patched at {str(name)!r} alone", at.values[:, i].T) for i, name in enumerate(positions)]
        found_figures[f"{part}positions"] = heat_maps(panels_at, steps, rows=sources, **words)
    return found_figures


def _identity(summary: Summary, part: str, before: str) -> Figure:
    """Overlap with the final circuit and with the checkpoint before; how many edges it takes."""
    data = summary.data
    steps = data["step"].values
    figure = new_figure(8.6, 2.9)
    left, right = figure.subplots(1, 2)
    curves = (
        ("with_final", "with the final circuit", COLOURS[0], "-"),
        ("with_previous", "with the checkpoint before", COLOURS[1], "-"),
        ("ceiling", "between two samples of prompts", _GREY, "--"),
    )
    for name, label, colour, style in curves:
        draw_line(left, steps, data[part + name].values, colour, label, ls=style, **_THIN)
    upper = np.array(summary.finding(part + "identity").emergence.null_upper)
    draw_line(left, steps, upper, COLOURS[0], "bound of the null", ls=":", **_THIN)
    for index in np.flatnonzero(data[f"{part}turnover"].values == 1):
        left.axvline(steps[index], color=COLOURS[3], lw=1, alpha=0.7, label="turnover")
    left.set_ylim(0, 1)
    draw_line(right, steps, data[f"{part}edges"].values, COLOURS[2], "edges of the smallest circuit", ls="-", **_THIN)
    right.set_yscale("log")
    right.set_ylim(0.8, float(data["size"].values[-1]) * 1.2)
    right.axhline(float(data["size"].values[-1]), color=_GREY, ls="--", lw=0.9)
    training_axes(left, steps, before + "is it the same circuit?", "weighted overlap of edges")
    training_axes(right, steps, "smallest circuit with faithfulness 0.8", "edges (dashed: all)")
    handles, labels = left.get_legend_handles_labels()
    legend_below(figure, list(dict(zip(labels, handles, strict=True)).values()))
    return figure


def _faithfulness(summary: Summary, part: str, before: str) -> Figure:
    """Faithfulness and completeness over circuit size, at a few checkpoints from the first circuit to the last."""
    data = summary.data
    sizes = data["size"].values
    known = np.flatnonzero(np.isfinite(data[f"{part}found_faithfulness"].values))
    chosen = (
        sorted({int(known[i]) for i in np.linspace(0, len(known) - 1, 4).round().astype(int)}) if len(known) else []
    )
    figure = new_figure(8.6, 2.9)
    pair = figure.subplots(1, 2, sharey=True)
    for axes, name, words in zip(
        pair, ("faithfulness", "completeness"), ("of the circuit alone", "of the model without it"), strict=True
    ):
        for i, index in enumerate(chosen):
            label = f"step {int(data['step'].values[index])}"
            axes.plot(sizes, data[part + name].values[index], "o-", color=COLOURS[i], lw=1.5, ms=2.5, label=label)
        axes.axhline(1, color=_GREY, lw=0.8)
        axes.axhline(0, color=_GREY, lw=0.8)
        axes.set_xscale("log")
        axes.set_xlabel("edges")
        axes.set_title(f"{before}{name} {words}", loc="left")
        open_axes(axes)
    if chosen:
        values = np.concatenate([data[part + n].values[chosen].ravel() for n in ("faithfulness", "completeness")])
        low, high = np.nanquantile(values, [0.01, 0.99])
        pair[0].set_ylim(min(-0.1, max(low, -1) - 0.05), max(1.1, min(high, 2) + 0.05))
        pair[0].legend(frameon=False, fontsize=8)
    else:
        pair[0].text(0.5, 0.5, "not measurable", transform=pair[0].transAxes, ha="center")
    pair[0].set_ylabel("share of the logit difference")
    return figure
