"""Figures of the taxonomy: every head through training, how many of each kind, the final map, the curves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from dynamics.analysis.figures import COLOURS, curve_grid, draw_line, heat_maps, new_figure, training_axes

from .kinds import KINDS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dynamics.analysis import Summary

__all__ = ["figures"]

_NOTHING = "#e4e4e4"
_MARKS = {"copying": "C", "negative_copying": "N", "successor": "S"}
_COLOURS = {
    "previous_token": COLOURS[0],
    "current_token": COLOURS[5],
    "first_token": COLOURS[7],
    "delimiter": COLOURS[4],
    "duplicate_token": COLOURS[3],
    "induction": COLOURS[1],
    "copying": COLOURS[2],
    "negative_copying": COLOURS[6],
    "successor": "#888888",
}


def figures(summary: Summary) -> dict[str, Figure]:
    """``kinds``, ``counts``, ``map``, ``behaviour`` and, with more than one layer, ``composition``."""
    data = summary.data
    rows = [f"L{layer}H{head}" for layer in range(data.sizes["layer"]) for head in range(data.sizes["head"])]
    shown = [kind for kind in KINDS if kind.name in data]
    panels = [(kind.title.capitalize(), kind.name) for kind in shown] + [("Entropy of attention", "attention_entropy")]
    steps = data["step"].values
    drawn = {
        "map": _map(summary),
        "counts": _counts(summary),
        "kinds": heat_maps(
            [(title, data[name].values.reshape(len(steps), -1).T) for title, name in panels],
            steps,
            rows=rows,
            row_title="head",
            value_title="score",
            alike=False,
            columns=3,
        ),
        "behaviour": curve_grid(
            [(f"Largest {kind.title}", [(kind.title, summary.finding(kind.name))]) for kind in shown], columns=3
        ),
    }
    composed = [f for key, f in summary.by_key.items() if key.startswith("composition")]
    pairs = [(f.title.removeprefix("heads: "), [(f.title, f)]) for f in composed]
    if pairs:
        drawn["composition"] = curve_grid([(t[0].upper() + t[1:], curves) for t, curves in pairs])
    return drawn


def _counts(summary: Summary) -> Figure:
    """How many heads are of each kind, and how many are found at all."""
    data = summary.data
    steps = data["step"].values
    figure = new_figure(9.2, 3.0)
    for axes, (what, title) in zip(
        figure.subplots(1, 2), (("named", "Heads of the kind"), ("found", "Heads found above their null")), strict=True
    ):
        for kind in KINDS:
            if kind.name not in data:
                continue
            style = "-" if kind.group == "attention" else "--"
            look: dict[str, Any] = {"ls": style, "lw": 1.5, "marker": "", "drawstyle": "steps-post"}
            draw_line(axes, steps, data[f"{kind.name}_{what}"].values, _COLOURS[kind.name], kind.title, **look)
        training_axes(axes, steps, title, "heads")
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize=8)
    return figure


def _map(summary: Summary) -> Figure:
    """Layer by head at the last checkpoint: the colour is where a head looks, the letter what it does with tokens."""
    data = summary.data
    last = int(np.flatnonzero(np.isfinite(data["attention_entropy"].values).any((1, 2)))[-1])
    looks, does = data["attention_kind"].values[last], data["token_kind"].values[last]
    layers, heads = looks.shape
    figure = new_figure(max(4.6, 0.42 * heads + 3.0), max(2.4, 0.34 * layers + 1.2))
    axes = figure.subplots()
    colours = ListedColormap([_NOTHING, *(_COLOURS[kind.name] for kind in KINDS)])
    axes.imshow(looks + 1, cmap=colours, vmin=-0.5, vmax=len(KINDS) + 0.5, origin="lower", aspect="auto")
    for layer, head in np.argwhere(does >= 0):
        mark = _MARKS[KINDS[int(does[layer, head])].name]
        axes.text(head, layer, mark, ha="center", va="center", fontsize=9, fontweight="bold",
                  color="white" if looks[layer, head] >= 0 else "black")  # fmt: skip
    axes.set_xticks(np.arange(-0.5, heads), minor=True)
    axes.set_yticks(np.arange(-0.5, layers), minor=True)
    axes.grid(which="minor", color="white", lw=1.5)
    axes.tick_params(which="minor", length=0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("head")
    axes.set_ylabel("layer")
    axes.set_title(f"Heads at step {data['step'].values[last]}", loc="left")
    handles = [
        Patch(color=_COLOURS[kind.name], label=kind.title)
        for number, kind in enumerate(KINDS)
        if kind.group == "attention" and (looks == number).any()
    ]
    if (looks < 0).any():
        handles.append(Patch(color=_NOTHING, label="of no kind"))
    handles += [
        Patch(color="none", label=f"{letter}: {kind.title}")
        for number, kind in enumerate(KINDS)
        if (letter := _MARKS.get(kind.name)) is not None and (does == number).any()
    ]
    figure.legend(handles=handles, loc="outside right center", frameon=False, fontsize=8)
    return figure
