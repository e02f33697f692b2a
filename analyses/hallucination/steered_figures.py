"""What is said when the stream is steered along the direction between known and unknown, over strength and training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dynamics.analysis.figures import COLOURS, curve_grid, new_figure, open_axes

from .knowing import DIRECTIONS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dynamics.analysis import Summary

__all__ = ["steered_figures"]

_GREY = "#888888"
_SHOWN = 4
_KEYS = (("answered", "Unknown entities answered"), ("declined", "Known entities declined"))


def steered_figures(summary: Summary) -> dict[str, Figure]:
    """``steered`` (over training) and ``said`` (over strength), of the directions that were measured."""
    found = summary.by_key
    parts = {task.part: task.name for _, task in DIRECTIONS.values() if f"{task.part}used" in found}
    panels = [
        (words + ", beyond random ones", [(name.split(" at ")[-1], found[part + key]) for part, name in parts.items()])
        for key, words in _KEYS
        if all(part + key in found for part in parts)
    ]
    return ({"steered": curve_grid(panels)} if panels else {}) | {"said": _said(summary, parts)}


def _said(summary: Summary, parts: Mapping[str, str]) -> Figure:
    """A row for each direction: shares over strength at some checkpoints, after the layer where most changes in the end."""
    data = summary.data
    strengths = data["strength"].values.astype(float)
    order = np.argsort(strengths)
    figure = new_figure(8.8, 2.9 * len(parts) + 0.4)
    grid = figure.subplots(len(parts), 2, squeeze=False, sharex=True, sharey=True)
    handles: tuple[list[Any], list[Any]] = ([], [])
    for row, (part, name) in enumerate(parts.items()):
        for axes, (key, words) in zip(grid[row], _KEYS, strict=True):
            shares, random, base = (data[f"{part}{key}{end}"].values for end in ("", "_random", "_base"))
            known = np.flatnonzero(np.isfinite(shares).any((1, 2)))
            axes.axvline(0, color=_GREY, lw=0.7)
            if len(known):
                towards = int(strengths.argmax() if key == "answered" else strengths.argmin())
                layer = int(np.nanargmax(shares[known[-1], :, towards]))
                for colour, c in zip(COLOURS, _checkpoints(known), strict=False):
                    label = f"step {int(data['step'].values[c])}"
                    _response(axes, strengths[order], shares[c, layer][order], base[c], colour, label)
                last = known[-1]
                _response(
                    axes, strengths[order], random[last, layer][order], base[last], _GREY, "random, last step", "--"
                )
                axes.set_title(f"{words}: at {name.split(' at ')[-1]}, after layer {layer}", loc="left")
                axes.set_xticks(sorted({0.0, *strengths.tolist()}))
                handles = axes.get_legend_handles_labels()
            axes.set_ylim(-0.02, 1.02)
            open_axes(axes)
        grid[row, 0].set_ylabel("share of questions")
    for axes in grid[-1]:
        axes.set_xlabel("strength (+ towards known, distances between the classes)")
    if handles[0]:
        figure.legend(*handles, loc="outside lower center", ncols=len(handles[0]), frameon=False, fontsize=8)
    return figure


def _response(
    axes: Axes, strengths: np.ndarray, values: np.ndarray, base: float, colour: str, label: str, style: str = "-"
) -> None:
    """The response over strength, with what it is without steering at 0."""
    at = np.searchsorted(strengths, 0.0)
    x, y = np.insert(strengths, at, 0.0), np.insert(values, at, base)
    axes.plot(x, y, color=colour, ls=style, lw=1.5, marker="o", ms=3, label=label)


def _checkpoints(known: np.ndarray) -> list[int]:
    """A few of the checkpoints, evenly spaced over the later half, the last one with them."""
    late = known[len(known) // 2 :] if len(known) > _SHOWN else known
    return sorted({int(late[round(i)]) for i in np.linspace(0, len(late) - 1, min(_SHOWN, len(late)))})
