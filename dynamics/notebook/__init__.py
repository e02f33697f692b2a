"""How objects look at the end of a notebook's cell: tables and small curves, in HTML without scripts or outside files.

Text is escaped by ``markupsafe``; only what is built here is markup. Words and grid lines have the colour of the page around
them, and every other colour is seen on white and on black (at least 3 to 1), so that no theme has to be known.

>>> table(["circuit"], [["<b>sums</b>"]], name="a")
Markup('<table class="cd-a"><thead><tr><th>circuit</th></tr></thead><tbody><tr><td>&lt;b&gt;sums&lt;/b&gt;</td></tr></tbody></table>')
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

__all__ = ["COLOURS", "box", "details", "facts", "one_line", "sparkline", "state_mark", "status_strip", "table"]

COLOURS = {
    "emerged": "#2e9e5b",
    "present from start": "#3b82c4",
    "transient": "#c07a00",
    "not emerged": "#808080",
    "not measurable": "#d1495b",
    "complete": "#2e9e5b",
    "pending": "#808080",
    "failed": "#d1495b",
    "masked": "#c07a00",
}
"""The colour of every state of a curve and every status of a checkpoint."""

_STYLE = """
.cd-box{font-size:13px;line-height:1.45;max-width:72em}
.cd-box .cd-head{font-weight:600;margin:0 0 .25em}
.cd-box .cd-soft{opacity:.72}
.cd-box table{border-collapse:collapse;border:none;margin:.35em 0}
.cd-box table th,.cd-box table td{text-align:left;vertical-align:middle;padding:2px 12px 2px 0;border:none;
border-bottom:1px solid rgba(128,128,128,.35);background:none;color:inherit;white-space:normal;max-width:34em}
.cd-box table th{font-weight:600;opacity:.72}
.cd-box table.cd-findings td:nth-child(n+2){white-space:nowrap}
.cd-box table.cd-facts td:first-child{opacity:.72;white-space:nowrap}
.cd-box code{font-size:11.5px;background:none;color:inherit;opacity:.72}
.cd-box summary{cursor:pointer}
.cd-box svg{vertical-align:middle;overflow:visible}
"""


def box(head: str, *parts: str) -> str:
    """A whole representation: a bold line, and what stands below it; every part is escaped unless it is markup."""
    inside = Markup("").join(Markup("{}").format(part) for part in parts if part)
    head = Markup('<div class="cd-head">{}</div>').format(head)
    return str(Markup('<div class="cd-box"><style>{}</style>{}{}</div>').format(Markup(_STYLE), head, inside))


def table(head: Sequence[str], rows: Iterable[Sequence[object]], *, name: str = "table") -> Markup:
    """A table; ``name`` ends its class (``cd-findings`` and ``cd-facts`` have a look of their own)."""
    top = Markup("").join(Markup("<th>{}</th>").format(cell) for cell in head)
    body = Markup("").join(
        Markup("<tr>{}</tr>").format(Markup("").join(Markup("<td>{}</td>").format(cell) for cell in row))
        for row in rows
    )
    above = Markup("<thead><tr>{}</tr></thead>").format(top) if head else Markup("")
    return Markup('<table class="cd-{}">{}<tbody>{}</tbody></table>').format(name, above, body)


def facts(known: Mapping[str, object]) -> Markup:
    """A table of names and values; what is empty is left out."""
    return table([], [(name, value) for name, value in known.items() if value not in (None, "")], name="facts")


def details(head: str, inside: str, *, opened: bool = False) -> Markup:
    """A part that folds when its first line is clicked."""
    return Markup("<details{}><summary>{}</summary>{}</details>").format(" open" if opened else "", head, inside)


def one_line(text: str) -> str:
    """A text for a terminal: what cannot be printed, such as control sequences, becomes a space.

    >>> one_line("sums\\x1b[2J\\nof two")
    'sums [2J of two'
    """
    return "".join(c if c.isprintable() else " " for c in text)


def state_mark(state: str, note: str = "") -> Markup:
    """A state or status in words after a dot of its colour."""
    dot = Markup('<span style="color:{}">●</span>').format(COLOURS.get(state, "#808080"))
    return Markup("{} {}{}").format(dot, state, Markup(' <span class="cd-soft">{}</span>').format(note) if note else "")


def sparkline(
    steps: npt.ArrayLike,
    values: npt.ArrayLike,
    *,
    low: npt.ArrayLike | None = None,
    high: npt.ArrayLike | None = None,
    bound: npt.ArrayLike | None = None,
    onset: tuple[float | None, float | None] | None = None,
    colour: str = COLOURS["present from start"],
    label: str = "",
    size: tuple[int, int] = (170, 34),
) -> Markup:
    """A small curve over log10(step + 1) as SVG; the vertical axis goes from its least value to its largest.

    Args:
        steps: (checkpoint,) optimizer steps.
        values: (checkpoint,) the curve; it is interrupted where it is NaN.
        low, high: (checkpoint,) its band.
        bound: (checkpoint,) the upper bound of its null, dashed.
        onset: the onset interval, as a strip; None on a side that is open.
        colour: of the curve, its band and the strip.
        label: what it shows, for those who do not see it.
        size: width and height, pixels.
    """
    width, height = size
    x_of = np.log10(np.maximum(np.asarray(steps, float), 0) + 1)
    start, end = (float(x_of.min()), float(x_of.max())) if x_of.size else (0.0, 1.0)

    def x_at(step: float) -> float:
        place = (np.log10(max(step, 0) + 1) - start) / ((end - start) or 1)
        return float(3 + (width - 6) * min(max(place, 0), 1))

    xs = [x_at(float(step)) for step in np.asarray(steps, float)]
    lines = {name: _floats(given, len(xs)) for name, given in (("v", values), ("l", low), ("h", high), ("b", bound))}
    finite = np.concatenate([line[np.isfinite(line)] for line in lines.values()])
    least, most = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)

    def points(line: np.ndarray, at: Sequence[int]) -> str:
        heights = height - 3 - (height - 6) * (line - least) / ((most - least) or 1)
        return " ".join(f"{xs[i]:.1f},{heights[i]:.1f}" for i in at)

    parts = []
    if onset is not None and onset != (None, None):
        left = 3.0 if onset[0] is None else x_at(onset[0])
        right = width - 3.0 if onset[1] is None else x_at(onset[1])
        parts.append(
            Markup('<rect x="{:.1f}" y="0" width="{:.1f}" height="{}" fill="{}" fill-opacity=".28"/>').format(
                left, max(right - left, 1), height, colour
            )
        )
    for run in _runs(np.isfinite(lines["l"]) & np.isfinite(lines["h"])):
        around = f"{points(lines['h'], run)} {points(lines['l'], run[::-1])}"
        parts.append(Markup('<polygon points="{}" fill="{}" fill-opacity=".25"/>').format(around, colour))
    for run in _runs(np.isfinite(lines["b"])):
        parts.append(
            Markup(
                '<polyline points="{}" fill="none" stroke="currentColor" stroke-opacity=".6" stroke-dasharray="3 2"/>'
            ).format(points(lines["b"], run))
        )
    for run in _runs(np.isfinite(lines["v"])):
        line = Markup('<polyline points="{}" fill="none" stroke="{}" stroke-width="1.6" stroke-linejoin="round"/>')
        dot = Markup('<circle cx="{}" cy="{}" r="1.8" fill="{}"/>')
        seen = points(lines["v"], run)
        parts.append(line.format(seen, colour) if len(run) > 1 else dot.format(*seen.split(","), colour))
    if not np.isfinite(lines["v"]).any():
        parts.append(
            Markup('<text x="3" y="{}" font-size="11" fill="currentColor" fill-opacity=".7">no value</text>').format(
                height // 2 + 4
            )
        )
    return _svg(size, label, parts)


def status_strip(statuses: Sequence[str], *, width: int = 420) -> Markup:
    """The status of every checkpoint of a series, side by side, as SVG."""
    size = (width, 10)
    each = width / max(1, len(statuses))
    parts, at = [], 0
    while at < len(statuses):  # one rectangle for all that are alike
        end = at
        while end < len(statuses) and statuses[end] == statuses[at]:
            end += 1
        faint = 0.35 if statuses[at] == "pending" else 0.9
        colour = COLOURS.get(statuses[at], "#808080")
        parts.append(
            Markup('<rect x="{:.1f}" y="0" width="{:.1f}" height="10" fill="{}" fill-opacity="{}"/>').format(
                at * each, (end - at) * each, colour, faint
            )
        )
        at = end
    counts = {status: list(statuses).count(status) for status in dict.fromkeys(statuses)}
    return _svg(size, ", ".join(f"{n} {status}" for status, n in counts.items()), parts)


def _svg(size: tuple[int, int], label: str, parts: Sequence[Markup]) -> Markup:
    return Markup(
        '<svg role="img" aria-label="{}" width="{w}" height="{h}" viewBox="0 0 {w} {h}"><title>{}</title>{}</svg>'
    ).format(label, label, Markup("").join(parts), w=size[0], h=size[1])


def _floats(given: npt.ArrayLike | None, length: int) -> np.ndarray:
    """(checkpoint,) floats; NaN where nothing was given, or not as much."""
    line = np.full(length, np.nan)
    known = np.asarray([] if given is None else given, float)[:length]
    line[: len(known)] = known
    return line


def _runs(there: np.ndarray) -> list[list[int]]:
    """Indices that follow each other without a gap, run by run."""
    at = np.flatnonzero(there)
    return [run.tolist() for run in np.split(at, np.flatnonzero(np.diff(at) > 1) + 1) if run.size]
