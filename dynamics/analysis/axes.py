"""What every plot over training shares: the step axis, lines with bands, one curve against its null.

The step axis is symmetric-logarithmic: step 0 is shown, everything above 1 is logarithmic. Colours are Okabe and
Ito's, which colour-blind readers can tell apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from ..emergence import Emergence
from .panels import note_curve, note_line, note_training

__all__ = [
    "COLOURS",
    "GREY",
    "INK",
    "Drawable",
    "draw_curve",
    "draw_line",
    "open_axes",
    "short_step",
    "step_axis",
    "tidy",
    "training_axes",
]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999933")
INK, GREY = "#222222", "#888888"


class Drawable(Protocol):
    """What is drawn as one curve: a :class:`.findings.Finding`, by its attributes."""

    @property
    def title(self) -> str: ...
    @property
    def steps(self) -> Sequence[int]: ...
    @property
    def values(self) -> Sequence[float]: ...
    @property
    def low(self) -> Sequence[float]: ...
    @property
    def high(self) -> Sequence[float]: ...
    @property
    def null_mean(self) -> Sequence[float]: ...
    @property
    def emergence(self) -> Emergence: ...


def step_axis(axes: Axes, steps: Sequence[int] | np.ndarray, *, label: bool = True) -> None:
    """Symmetric-log step axis with ticks at 0 and powers of ten; the last step, too, where these are few."""
    last = max(steps)
    axes.set_xscale("symlog", linthresh=1, linscale=0.35)
    powers = [10**k for k in range(int(np.log10(max(last, 1))) + 1)]
    ticks = [0, *powers] if min(steps) == 0 else [p for p in powers if p >= min(steps)]
    if len(ticks) < 2:
        ticks = sorted({min(steps), last})
    elif len(ticks) < 4 and last >= 3 * ticks[-1]:
        ticks.append(last)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_step(value)))
    note_training(axes)
    axes.set_xlim(min(steps) - 0.1 if min(steps) == 0 else min(steps) * 0.94, max(last * 1.06, 1))
    if label:
        axes.set_xlabel("optimizer step")


def short_step(value: float) -> str:
    return f"{value / 1000:g}k" if value >= 10_000 else f"{value:g}"


def open_axes(axes: Axes, *sides: str) -> None:
    """Take the frame off at the top, at the right and at other sides."""
    axes.spines[["top", "right", *sides]].set_visible(False)


def training_axes(axes: Axes, steps: Sequence[int] | np.ndarray, title: str = "", metric: str = "") -> None:
    """What axes over training share: the step axis, a title, what the vertical axis shows, no frame."""
    step_axis(axes, steps)
    axes.set_title(title, loc="left")
    axes.set_ylabel(metric)
    open_axes(axes)


def draw_line(
    axes: Axes,
    steps: np.ndarray,
    values: np.ndarray,
    colour: str,
    label: str,
    *,
    band: tuple[np.ndarray, np.ndarray] | None = None,
    **look: Any,
) -> None:
    """A line over training through what was measured, with the band between lower and upper ends; ``look`` is as of
    :meth:`matplotlib.axes.Axes.plot`."""
    seen = np.isfinite(values)
    drawn: dict[str, Any] = {"lw": 1.6, "marker": "o", "ms": 2.2, **look}
    (line,) = axes.plot(steps[seen], values[seen], color=colour, label=label, **drawn)
    note_line(axes, line, values, label, band)
    if band is not None:
        known = np.isfinite(band).all(0)
        axes.fill_between(steps, *band, where=known.tolist(), color=colour, alpha=0.18, lw=0)


def tidy(axes: Axes) -> None:
    open_axes(axes)
    axes.tick_params(colors=INK, length=3)


def draw_curve(axes: Axes, finding: Drawable, colour: str, *, label: str | None = None, alone: bool = True) -> None:
    """One curve with its bootstrap band, its null's mean and upper bound, and the onset interval as a strip."""
    steps, values = np.array(finding.steps), np.array(finding.values)
    seen, before = np.isfinite(values), len(axes.collections)
    name = label or finding.title
    drawn = axes.plot(steps[seen], values[seen], color=colour, label=name, lw=1.6, marker="o", ms=2.2)
    low, high = np.array(finding.low), np.array(finding.high)
    known = np.isfinite(low) & np.isfinite(high)
    axes.fill_between(steps[known], low[known], high[known], color=colour, alpha=0.18, lw=0)
    upper = np.array(finding.emergence.null_upper)
    bounded = np.isfinite(upper)
    if bounded.any():
        shade, alpha = (GREY, 1) if alone else (colour, 0.7)
        drawn += axes.plot(steps[bounded], upper[bounded], color=shade, lw=0.9, ls=(0, (4, 2)), alpha=alpha)
        if alone:
            mean = np.array(finding.null_mean)
            mean = np.where(np.isfinite(mean), mean, upper)
            axes.fill_between(steps[bounded], mean[bounded], upper[bounded], color=GREY, alpha=0.12, lw=0)
    note_curve(axes, drawn, name, getattr(finding, "key", ""), finding.emergence, len(axes.collections) - before)
    onset = finding.emergence.onset
    if onset is not None and onset.after is not None and onset.by is not None:
        axes.axvspan(onset.after, onset.by, color=colour, alpha=0.13, lw=0)
