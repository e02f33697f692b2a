"""Whether everything in a figure can be read: what is cut off, and which titles, labels and legends lie on each other."""

from __future__ import annotations

from itertools import combinations

from matplotlib.artist import Artist
from matplotlib.figure import Figure, SubFigure
from matplotlib.text import Text

__all__ = ["unreadable"]

_TOLERANCE = 0.03
"""Inches."""


def unreadable(figure: Figure) -> list[str]:
    """What cannot be read when the figure is drawn; nothing where all is well."""
    figure.draw_without_rendering()
    width, height = figure.get_size_inches()
    box = figure.get_tightbbox()
    found = []
    if min(box.x0, box.y0, width - box.x1, height - box.y1) < -_TOLERANCE:
        found.append(f"cut off: {box} in a figure of {width:.2f} x {height:.2f}")
    scale = figure.dpi_scale_trans.inverted()
    boxes = [(name, artist.get_window_extent().transformed(scale)) for name, artist in _words(figure)]
    for (one, a), (other, b) in combinations(boxes, 2):
        across, up = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        if across > _TOLERANCE and up > _TOLERANCE:
            found.append(f"{one} lies on {other}")
    for axes in figure.axes:
        inside = axes.get_window_extent().transformed(scale)
        if axes.get_visible() and axes.get_subplotspec() is not None and min(inside.width, inside.height) < 0.1:
            found.append(f"axes {axes.get_title('left')!r} are {inside.width:.2f} x {inside.height:.2f}")
    return found


def _words(figure: Figure) -> list[tuple[str, Artist]]:
    parts: list[Figure | SubFigure] = [figure, *figure.subfigs]
    words: list[tuple[str, Artist]] = [(f"legend of {part}", legend) for part in parts for legend in part.legends]
    texts = [text for part in parts for text in part.texts]
    for axes in filter(lambda a: a.get_visible(), figure.axes):
        texts += [child for child in axes.get_children() if isinstance(child, Text) and child not in axes.texts]
        texts += [axes.xaxis.label, axes.yaxis.label]
        if (legend := axes.get_legend()) is not None:
            words.append((f"legend of {axes.get_title('left')!r}", legend))
    return words + [(repr(text.get_text()), text) for text in texts if text.get_text().strip() and text.get_visible()]
