"""Operand plots: what features answer, by the digits of the operands, through training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dynamics.analysis.figures import curve_grid, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dynamics.analysis import Summary

__all__ = ["feature_figures"]

_MAP = "RdBu_r"


def feature_figures(summary: Summary) -> dict[str, Figure]:
    """``features`` and, for each dictionary, ``features_<name>_digits`` and ``features_<name>_grid``; nothing without one."""
    curves = {key.split(".")[1]: f for key, f in summary.by_key.items() if key.startswith("features.")}
    if not curves:
        return {}
    panels = [(f"Best ones-digit feature, dictionary {name}", [("all contexts", f)]) for name, f in curves.items()]
    figures = {"features": curve_grid(panels)}
    for name in curves:
        if f"{name}_tables" in summary.data:
            figures[f"features_{name}_digits"] = _digits(summary.data, name)
        if f"{name}_grid" in summary.data:
            figures[f"features_{name}_grid"] = _grid(summary.data, name)
    return figures


def _digits(data: Any, name: str) -> Figure:
    """A block for each feature: a row for each context and a column for each checkpoint; of one checkpoint one row."""
    tables = data[f"{name}_tables"].values  # (feature, time, context, i, j)
    contexts = [str(c) for c in data["sum_context"].values]
    columns = [f"step {t}" for t in data[f"{name}_time"].values]
    tables = np.moveaxis(tables, 2, 1)  # (feature, context, time, i, j)
    rows = contexts
    if len(columns) == 1:
        tables, rows, columns = np.moveaxis(tables, 2, 1), columns, contexts
    titles = [str(t) for t in data[f"{name}_shown"].values]
    what = "ones digit of the second operand (vertical: of the first); colour: mean answer"
    return _blocks(tables, titles, rows, columns, (0, 5, 9), what, 1.12)


def _grid(data: Any, name: str) -> Figure:
    """A row for each feature, a column for each checkpoint; of one checkpoint a column for each feature."""
    grid = data[f"{name}_grid"].values[:, None]  # (feature, 1, time, a, b)
    titles = [str(t) for t in data[f"{name}_wide"].values]
    columns = [f"step {t}" for t in data[f"{name}_when"].values]
    if len(columns) == 1:
        grid, titles, columns = grid[None, None, :, 0, 0], columns, [title.split(":")[0] for title in titles]
    return _blocks(
        grid, titles, [""], columns, (10, 50, 90), "second operand (vertical: first operand); colour: answer", 1.95
    )


def _blocks(
    values: np.ndarray,
    titles: list[str],
    rows: list[str],
    columns: list[str],
    ticks: tuple[int, ...],
    what: str,
    size: float,
) -> Figure:
    """A block of squares (row, column) for each feature, on a colour scale of its own; squares of ``size`` inches."""
    figure = new_figure(max(size * len(columns) + 1.4, 5.6), len(titles) * (0.93 * size * len(rows) + 0.42) + 0.4)
    for block, part, title in zip(figure.subfigures(len(titles), 1, squeeze=False)[:, 0], values, titles, strict=True):
        limit = float(np.nanmax(np.abs(part))) or 1.0
        block.suptitle(title, x=0.01, ha="left", fontsize=9.5)
        axes = block.subplots(len(rows), len(columns), squeeze=False)
        image: Any = None
        for row, at in np.ndindex(*axes.shape):
            image = _square(axes[row, at], part[row, at], limit, ticks[0])
            axes[row, at].set_xticks(ticks if row == len(rows) - 1 else [])
            axes[row, at].set_yticks(ticks if at == 0 else [])
            if row == 0:
                axes[row, at].set_title(columns[at], fontsize=8)
            if at == 0:
                axes[row, at].set_ylabel(rows[row], fontsize=8)
        block.colorbar(image, ax=list(axes.flat), shrink=0.85, pad=0.01)
    figure.supxlabel(what, fontsize=8.5)
    return figure


def _square(axes: Any, values: np.ndarray, limit: float, first: int) -> Any:
    """Values over two operands that begin at ``first``; nothing measured is white."""
    end = first + len(values) - 0.5
    extent = (first - 0.5, end, first - 0.5, end)
    axes.tick_params(length=2, labelsize=7)
    return axes.imshow(
        np.ma.masked_invalid(values), origin="lower", extent=extent, cmap=_MAP, vmin=-limit, vmax=limit,
        interpolation="nearest",
    )  # fmt: skip
