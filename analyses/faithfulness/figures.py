"""Figures of faithfulness."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from dynamics.analysis.figures import COLOURS, curve_grid, draw_line, heat_maps, new_figure, open_axes, step_axis

from .states import STATES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dynamics.analysis import Finding, Summary

__all__ = ["figures"]

_GREY = "#888888"
_RIBBON = dict(zip(STATES, ("#e3e5e8", COLOURS[1], COLOURS[4], COLOURS[0]), strict=True))
_RATES = (
    ("resists", "right under a wrong hint", COLOURS[0], "-"),
    ("misled", "hinted under a wrong hint", COLOURS[1], "-"),
    ("unaided", "right without a hint", COLOURS[2], (0, (4, 2))),
)


def figures(summary: Summary) -> dict[str, Figure]:
    """``states``, ``answers``, ``inside``; ``shares`` and ``tokens`` where tokens were attributed."""
    found = summary.by_key
    data = summary.data
    drawn = {
        "states": _states(summary),
        "answers": curve_grid(
            [
                ("The right answer is said", _named(found, ("unaided", "without a hint"), ("aided", "right hint"))),
                ("A wrong hint is followed", [("switch rate", found["switch"])]),
                (
                    "Log-probability of the right answer",
                    _named(found, ("unaided.logprob", "without a hint"), ("aided.logprob", "right hint")),
                ),
                ("Log-odds that a wrong hint adds", [("log-odds", found["switch.logodds"])]),
            ]
        ),
        "inside": curve_grid(
            [
                ("Right answer known under a wrong hint", [("all sums", found["represented"])]),
                ("... on sums where the hint is said", [("hint said", found["hidden"])]),
            ]
        ),
        "layers": heat_maps(
            [
                ("All prompts with a wrong hint", data["represented_by_layer"].values.T),
                ("Where the hint is said", data["hidden_by_layer"].values.T),
            ],
            data["step"].values,
            rows=data["layer"].values,
            row_title="layer",
            value_title="decoding accuracy",
        ),
    }
    if "attribution_share" not in data:
        return drawn
    return drawn | {
        "shares": _shares(summary),
        "tokens": curve_grid(
            [
                (
                    "Change of logit(right) - logit(hinted)",
                    _named(found, ("hint_used", "hint exchanged"), ("operands_used", "operands exchanged (loss)")),
                ),
                (
                    "What is said follows the exchange",
                    _named(found, ("hint_used.said", "the other hint"), ("operands_used.said", "the other sum")),
                ),
            ]
        ),
    }


def _named(found: Mapping[str, Finding], *curves: tuple[str, str]) -> list[tuple[str, Finding]]:
    return [(label, found[key]) for key, label in curves]


def _states(summary: Summary) -> Figure:
    """For every difficulty: the rates of right and hinted answers, and a ribbon of states under them."""
    data = summary.data
    steps, names = data["step"].values, [str(d) for d in data["difficulty"].values]
    figure = new_figure(4.6 * len(names), 3.9)
    grid = figure.subplots(2, len(names), squeeze=False, height_ratios=(8, 1), sharex="col")
    for column, name in enumerate(names):
        rates, ribbon = grid[0, column], grid[1, column]
        for key, label, colour, style in _RATES:
            values, low, high = (data[f"share_{key}{end}"].values[:, column] for end in ("", "_low", "_high"))
            draw_line(rates, steps, values, colour, label, band=(low, high), ls=style)
        rates.set_ylim(-0.02, 1.02)
        rates.set_title(f"{name.capitalize()} sums", loc="left")
        rates.tick_params(length=3)
        if column == 0:
            rates.set_ylabel("share of sums")
        _ribbon(ribbon, steps, data["state"].values[:, column])
        step_axis(ribbon, steps)
        open_axes(rates)
    handles: list[Any] = [
        Line2D([], [], color=colour, ls=style, lw=1.6, marker="o", ms=3, label=label)
        for _, label, colour, style in _RATES
    ]
    handles += [Patch(color=colour, lw=0, label=state) for state, colour in _RIBBON.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=8, handlelength=3)
    return figure


def _ribbon(axes: Axes, steps: np.ndarray, states: np.ndarray) -> None:
    """One colour per checkpoint, from half way after the one before to half way to the next on the axis' scale."""
    known = np.flatnonzero(np.isfinite(states))
    if len(known):
        at = np.log10(steps[known] + 1.0)
        middle = 10 ** ((at[1:] + at[:-1]) / 2) - 1
        edges = np.concatenate([[steps[known[0]]], middle, [steps[known[-1]]]])
        for i, checkpoint in enumerate(known):
            colour = _RIBBON[STATES[int(states[checkpoint])]]
            axes.axvspan(edges[i], edges[i + 1], color=colour, lw=0)
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    open_axes(axes, "left")


def _shares(summary: Summary) -> Figure:
    """Share of the hint in attribution and exchange by difficulty, and what each group of tokens counts for."""
    data = summary.data
    steps, names = data["step"].values, [str(d) for d in data["difficulty"].values]
    figure = new_figure(8.8, 5.4)
    grid = figure.subplots(2, 2, squeeze=False)
    for axes, key, title in (
        (grid[0, 0], "attribution", "Share of the hint: integrated gradients"),
        (grid[0, 1], "exchange", "Share of the hint: tokens exchanged"),
    ):
        for i, name in enumerate(names):
            values, low, high = (data[f"{key}_share{end}"].values[:, i] for end in ("", "_low", "_high"))
            draw_line(axes, steps, values, COLOURS[i], f"{name} sums", band=(low, high))
        axes.axhline(0.5, color=_GREY, lw=0.8, ls=":")
        axes.set_ylim(-0.02, 1.02)
        axes.set_title(title, loc="left")
        axes.set_ylabel("hint / (hint + operands)")
        if any(np.isfinite(data[f"{key}_share"].values).ravel()):
            axes.legend(frameon=False, fontsize=8, loc="best")
        else:
            axes.text(0.5, 0.5, "not measurable", transform=axes.transAxes, ha="center", color=_GREY)
    groups = [str(g) for g in data["token_group"].values]
    for axes, key, title in (
        (grid[1, 0], "attribution", "Attribution to logit(right) - logit(hinted)"),
        (grid[1, 1], "exchange", "Change of it when tokens are exchanged"),
    ):
        for i, group in enumerate(groups):
            draw_line(axes, steps, data[f"{key}_by_group"].values[:, i], COLOURS[(1, 0, 7)[i]], group)
        axes.axhline(0, color=_GREY, lw=0.8)
        axes.set_title(title, loc="left")
        axes.set_ylabel("logits")
        axes.legend(frameon=False, fontsize=8, loc="best")
    for axes in grid.flat:
        step_axis(axes, steps, label=axes in grid[1])
        open_axes(axes)
    return figure
