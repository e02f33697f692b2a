"""What a figure shows, as data: lines over training that a page draws anew, so that a reader can point at them.

The functions that draw (:func:`.axes.draw_line`, :func:`.axes.draw_curve`, :func:`.figures.heat_maps`) note on the axes
what they drew. A figure all of whose axes are over training, with nothing on them but noted lines and straight rules, is
described by :func:`panels_of`; of any other a page shows the picture. Nothing of this is said by an analysis: whoever draws
with these functions gets both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import to_hex

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from ..emergence import Emergence

__all__ = ["caption_of", "note_curve", "note_line", "note_map", "note_training", "panels_of"]

_NOTED = "_dynamics_noted"
_MOST, _MAPS = 4, 6
"""Lines of a panel, and maps, that a caption names."""


@dataclass
class _Noted:
    """What was drawn on one axes.

    Attributes:
        training: whether the horizontal axis is that of training.
        lines: (description for a page, emergence of a finding or None) of every noted line, in the order drawn.
        artists: the lines of matplotlib that belong to them.
        bands: how many filled areas belong to them.
        map: what rows are called, their names, and (row, checkpoint) values of a heat map.
    """

    training: bool = False
    lines: list[tuple[dict[str, Any], Emergence | None]] = field(default_factory=list)
    artists: list[Line2D] = field(default_factory=list)
    bands: int = 0
    map: tuple[str, list[str], np.ndarray] | None = None


def _noted(axes: Axes) -> _Noted:
    if not hasattr(axes, _NOTED):
        setattr(axes, _NOTED, _Noted())
    noted: _Noted = getattr(axes, _NOTED)
    return noted


def note_training(axes: Axes) -> None:
    """The horizontal axis is that of training."""
    _noted(axes).training = True


def note_line(
    axes: Axes,
    artist: Line2D,
    values: np.ndarray,
    label: str,
    band: tuple[np.ndarray, np.ndarray] | None = None,
) -> None:
    """A line through (checkpoint,) ``values`` was drawn, with a band between (checkpoint,) ends."""
    noted = _noted(axes)
    line = _look(artist, label) | {"values": _numbers(values)}
    if band is not None:
        line |= {"low": _numbers(band[0]), "high": _numbers(band[1])}
    noted.lines.append((line, None))
    noted.artists.append(artist)
    noted.bands += band is not None


def note_curve(axes: Axes, artists: Sequence[Line2D], label: str, key: str, emergence: Emergence, bands: int) -> None:
    """The curve of a finding was drawn, with its null; the page takes its numbers from the finding of this key."""
    noted = _noted(axes)
    noted.lines.append((_look(artists[0], label) | {"key": key}, emergence))
    noted.artists += artists
    noted.bands += bands


def note_map(axes: Axes, row_title: str, rows: Sequence[str], values: np.ndarray) -> None:
    """A heat map of (row, checkpoint) values was drawn."""
    _noted(axes).map = (row_title, list(rows), np.asarray(values, dtype=float))


def panels_of(figure: Figure) -> list[dict[str, Any]] | None:
    """Every axes of a figure as JSON values, with ``title``, ``metric``, ``log``, ``limits``, ``levels``, ``marks`` and
    ``lines``; None where something is on it that only the picture shows.

    A line has ``label``, ``colour``, ``dash`` and ``stepped``, and either the ``key`` of a finding or ``values`` at every
    checkpoint, with ``low`` and ``high`` where it has a band.
    """
    panels = []
    for axes in figure.axes:
        if axes.get_visible():
            panel = _panel(axes)
            if panel is None:
                return None
            panels.append(panel)
    return panels or None


def _panel(axes: Axes) -> dict[str, Any] | None:
    noted = _noted(axes)
    if not noted.training or not noted.lines or axes.images or axes.containers:
        return None
    levels, marks = [], []
    for line in axes.lines:
        if line in noted.artists:
            continue
        x, y = (np.asarray(end, dtype=float) for end in (line.get_xdata(), line.get_ydata()))
        if line.get_transform() == axes.get_yaxis_transform("grid") and np.ptp(y) == 0:
            levels.append(float(y[0]))
        elif line.get_transform() == axes.get_xaxis_transform("grid") and np.ptp(x) == 0:
            marks.append([float(x[0]), _said(line.get_label())])
        else:
            return None
    if len(axes.collections) > noted.bands:
        return None
    return {
        "title": axes.get_title("left") or axes.get_title(),
        "metric": axes.get_ylabel(),
        "log": axes.get_yscale() == "log",
        "limits": None if axes.get_autoscaley_on() else [float(end) for end in axes.get_ylim()],
        "levels": levels,
        "marks": marks,
        "lines": [line for line, _ in noted.lines],
    }


def caption_of(figure: Figure) -> str:
    """What is seen in a figure, in a sentence or two, made from its numbers; empty where nothing is known of it."""
    shown = [(axes.get_title("left") or axes.get_title(), _noted(axes)) for axes in figure.axes if axes.get_visible()]
    curves = [
        (_name(title, line["label"], len(noted.lines), len(shown)), emergence)
        for title, noted in shown
        for line, emergence in noted.lines
        if emergence is not None
    ]
    said = _when(curves) if curves else ""
    if not curves:
        ends = [words for title, noted in shown if (words := _ends(title, noted))]
        said = " ".join(ends)
    maps = [words for title, noted in shown if noted.map is not None and (words := _strongest(title, *noted.map))]
    if maps:
        said = (
            f"{said} Largest at the last checkpoint: {'; '.join(maps)}. Rows from the bottom up, a column a checkpoint."
        )
    return said.strip() or "; ".join(dict.fromkeys(title for title, _ in shown if title))


def _name(title: str, label: str, lines: int, panels: int) -> str:
    """What a line is called in the caption of its figure."""
    if lines == 1 or not label:
        return title or label
    return f"{title} ({label})" if panels > 1 and title else label


def _when(curves: Sequence[tuple[str, Emergence]]) -> str:
    """When the curves of a figure rose above their nulls, in the order of their dates; those of one date together."""
    groups: dict[tuple[float, str], list[str]] = {}
    for name, e in curves:
        if e.state in ("emerged", "transient") and e.onset is not None:
            after, by = e.onset.after, e.onset.by
            when = f"between steps {after} and {by}" if None not in (after, by) else f"by step {by}"
            key = (float(by or 0), f"rise above their null {when}" + _lost(e))
        else:
            absent = (math.inf, "were not measurable")
            key = {
                "present from start": (-1.0, "are above their null at the first checkpoint already"),
                "not emerged": (math.inf, "do not exceed their null"),
            }.get(e.state, absent)
        groups.setdefault(key, []).append(name)
    parts = [f"{_listed(list(dict.fromkeys(groups[key])))} {_singular(key[1], groups[key])}" for key in sorted(groups)]
    return "; ".join(parts) + "."


def _lost(e: Emergence) -> str:
    return ", and are lost again" if e.state == "transient" else ""


def _singular(what: str, names: Sequence[str]) -> str:
    if len(set(names)) > 1:
        return what
    for plural, one in (
        ("rise above", "rises above"),
        ("are lost", "is lost"),
        ("are above", "is above"),
        ("do not", "does not"),
        ("their null", "its null"),
        ("were not", "was not"),
    ):
        what = what.replace(plural, one)
    return what


def _listed(names: Sequence[str]) -> str:
    shown = [f"“{name}”" for name in names]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _ends(title: str, noted: _Noted) -> str:
    """Where lines without a null end."""
    ends = []
    for line, _ in noted.lines:
        values = [v for v in line.get("values", ()) if v is not None]
        if values and line["label"]:
            ends.append(f"{line['label']} {values[-1]:.3g}")
    if not ends:
        return ""
    more = f" and {len(ends) - _MOST} more" if len(ends) > _MOST else ""
    return f"{title + ', in the end: ' if title else 'In the end: '}{'; '.join(ends[:_MOST])}{more}."


def _strongest(title: str, row_title: str, rows: Sequence[str], values: np.ndarray) -> str:
    """The largest value at the last checkpoint of a heat map that was measured."""
    measured = np.flatnonzero(np.isfinite(values).any(axis=0))
    if not measured.size:
        return f"{title or 'this map'} was not measured"
    column = values[:, measured[-1]]
    row = int(np.nanargmax(column))
    if column[row] <= np.nanmin(column):
        where = "every row" if len(rows) > 1 else rows[row]
    else:
        where = f"{row_title} {rows[row]}" if rows[row].isdigit() else rows[row]
    return f"{title + ': ' if title else ''}{where} ({column[row]:.2g})"


def _look(artist: Line2D, label: str) -> dict[str, Any]:
    dashes = {"-": "solid", "--": "dashed", ":": "dotted", "-.": "dashed"}
    return {
        "label": label,
        "colour": to_hex(artist.get_color()).lower(),
        "dash": dashes.get(str(artist.get_linestyle()), "solid"),
        "stepped": str(artist.get_drawstyle()).startswith("steps"),
    }


def _numbers(values: np.ndarray) -> list[float | None]:
    return [float(v) if np.isfinite(v) else None for v in np.asarray(values, dtype=float)]


def _said(label: Any) -> str:
    text = str(label)
    return "" if text.startswith("_") else text
