"""Figures of the census: fit, births and turning points; labels; the gallery."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dynamics.analysis.figures import COLOURS, curve_grid, draw_line, grid_of, new_figure, open_axes, training_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dynamics.analysis import Summary

__all__ = ["figures"]

_GREY = "#888888"
_SIZE, _WIDE = 8.5, 0.602  # points; width of a character of the monospaced font over its height
_LINE = 13.5


def figures(summary: Summary) -> dict[str, Figure]:
    """``present``, and for each dictionary ``<name>_census``, ``_effects``, ``_labels`` and ``_gallery``."""
    data = summary.data
    names = [str(v).removesuffix("_fvu") for v in data.data_vars if str(v).endswith("_fvu")]
    result: dict[str, Figure] = {}
    if summary.findings:
        result["present"] = curve_grid(
            [(f.title.removeprefix("features: "), [("present", f)]) for f in summary.findings]
        )
    for name in names:
        result[f"{name}_census"] = _census(data, name)
        if f"{name}_top_effect" in data:
            result[f"{name}_effects"] = _effects(data, name)
        if f"{name}_enriched" in data:
            result[f"{name}_labels"] = _labels(data, name)
        if f"{name}_token_line" in data:
            result[f"{name}_gallery"] = _gallery(data, name)
    return result


def _census(data: Any, name: str) -> Figure:
    """Fit, loss recovered, features present, births and deaths, turning points, over training."""
    steps = data["step"].values

    def curve(axes: Axes, key: str, colour: str, label: str, style: str = "-") -> None:
        marker = "o" if style == "-" else ""
        draw_line(axes, steps, data[f"{name}_{key}"].values, colour, label, ls=style, lw=1.5, marker=marker)

    panels = ["fit"]
    panels += [panel for panel, key in (("present", "present"), ("events", "born")) if f"{name}_{key}" in data]
    panels += ["change"] if f"{name}_change" in data else []
    figure, grid = grid_of(len(panels), 2, 4.6, 2.5)
    for axes, panel in zip(grid, panels, strict=False):
        if panel == "fit":
            curve(axes, "fvu", COLOURS[0], "variance unexplained")
            if np.isfinite(data[f"{name}_loss_recovered"].values).any():
                curve(axes, "loss_recovered", COLOURS[1], "loss recovered")
            low, high = axes.get_ylim()
            axes.set_ylim(
                min(0.0, low), max(1.02, min(high, 1.25))
            )  # where little is lost, little noise is a large share
            title = f"How well {name} fits"
        elif panel == "present":
            curve(axes, "present", COLOURS[0], "present")
            axes.set_ylim(bottom=0)
            title = "Features present"
        elif panel == "events":
            for key, colour, label in (
                ("born", COLOURS[2], "born by this step"),
                ("died", COLOURS[1], "gone by this step"),
            ):
                curve(axes, key, colour, label)
            axes.set_ylim(bottom=0)
            title = "Births and deaths between neighbouring checkpoints"
        else:
            curve(axes, "change", COLOURS[0], "mean change since the checkpoint before")
            curve(axes, "change_bound", _GREY, "bound if each moves at a time of its own", "--")
            axes.set_ylim(bottom=0)
            title = "Turning points"
        training_axes(axes, steps, title)
        axes.legend(frameon=False, fontsize=7.5)
    return figure


def _effects(data: Any, name: str) -> Figure:
    """Effect and strength of the features that are worth most in the end, through training, with 95% intervals."""
    steps, labels = data["step"].values, [str(t) for t in data[f"{name}_top"].values]
    figure = new_figure(9.2, 3.5)
    titles = {"effect": "Effect: rise of the loss without it (nats per token)", "strength": "Strength"}
    panels = figure.subplots(1, 2)
    for axes, (what, title) in zip(panels, titles.items(), strict=True):
        values, errors = data[f"{name}_top_{what}"].values, data[f"{name}_top_{what}_error"].values
        for j, label in enumerate(labels):
            seen, colour = np.isfinite(values[:, j]), COLOURS[j % len(COLOURS)]
            x, y, e = steps[seen], values[seen, j], 1.96 * np.nan_to_num(errors[seen, j])
            axes.plot(x, y, color=colour, lw=1.5, marker="o", ms=2.2, label=label)
            axes.fill_between(x, y - e, y + e, color=colour, alpha=0.15, lw=0)
        training_axes(axes, steps, title)
    figure.legend(
        *panels[0].get_legend_handles_labels(), frameon=False, fontsize=7.5, loc="outside lower center", ncols=3
    )
    return figure


def _labels(data: Any, name: str) -> Figure:
    """How many features stand out for each label."""
    titles = [str(t) for t in data[f"{name}_label"].values][::-1]
    found, tested = (data[f"{name}_{key}"].values[::-1] for key in ("enriched", "tested"))
    figure = new_figure(8.4, 0.24 * len(titles) + 1.0)
    axes = figure.subplots()
    axes.barh(range(len(titles)), tested, color=_GREY, alpha=0.3, lw=0, label="answer at least 5 of the prompts")
    axes.barh(range(len(titles)), found, color=COLOURS[0], lw=0, height=0.5, label="stand out for a value (FDR 5%)")
    axes.set_yticks(range(len(titles)), titles, fontsize=8)
    axes.set_xlabel(f"features of {name}, last checkpoint")
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    open_axes(axes)
    return figure


def _gallery(data: Any, name: str) -> Figure:
    """A block of lines for each feature: what it is for, examples with tokens shaded by activation, effect on logits."""
    titles = [str(t) for t in data[f"{name}_gallery"].values]
    logits = [str(t) for t in data[f"{name}_logits"].values]
    tokens = [str(t) for t in data[f"{name}_token"].values]
    line, level = data[f"{name}_token_line"].values, data[f"{name}_token_level"].values
    feature_of = data[f"{name}_line_feature"].values
    width, step = 10.4 * 72, _SIZE * _WIDE
    rows = sum(2.5 + int((feature_of == i).sum()) + bool(logits[i]) - 0.5 for i in range(len(titles))) + 1
    figure = new_figure(width / 72, rows * _LINE / 72)
    figure.set_layout_engine("none")  # everything is placed by hand
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(rows * _LINE, 0)
    y = _LINE
    style: dict[str, Any] = {"fontsize": _SIZE, "va": "baseline", "parse_math": False}
    for i, title in enumerate(titles):
        axes.text(8, y, title, fontweight="bold", **style)
        y += _LINE
        for row in np.flatnonzero(feature_of == i):
            x = 20.0
            for t in np.flatnonzero(line == row):
                bare = tokens[t].rstrip()
                if level[t] > 0.02:
                    axes.add_patch(_shade(x, y, len(bare) * step, float(level[t])))
                axes.text(x, y, bare, family="monospace", **style)
                x += len(tokens[t]) * step
            y += _LINE
        if logits[i]:
            axes.text(20, y, logits[i], color="#555555", **style)
            y += _LINE
        y += 0.9 * _LINE
    return figure


def _shade(x: float, y: float, width: float, level: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(
        (x - 0.5, y - 0.82 * _SIZE), width + 1, 1.12 * _SIZE, color=COLOURS[4], alpha=min(1.0, level), lw=0
    )
