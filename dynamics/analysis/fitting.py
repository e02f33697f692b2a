"""Figures in which everything has room: long titles are broken into lines, and the figure grows until nothing is cut off.

Constrained layout makes room for tick labels and legends, but ignores titles that are wider than their axes, labels that
are taller, and legends that are larger; and it gives up where too little is left for the axes. Here text is measured after
each layout, and what does not fit changes the text or the figure, until all does.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from textwrap import wrap

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text
from matplotlib.transforms import Transform

__all__ = ["FittingLayout", "legend_below"]

_ROUNDS = 8
"""Layouts after which nothing more is changed; two or three are usual."""

_ROOM = 0.55
"""Of the width and height that a subplot would have without labels, what it has at least."""


class FittingLayout(ConstrainedLayoutEngine):
    """Constrained layout, in which text is broken into lines and the figure grows where something does not fit.

    Args:
        width, height: size of the figure in inches that it was designed for.
    """

    def __init__(self, width: float, height: float) -> None:
        super().__init__()
        self._designed = (width, height)

    def execute(self, fig: Figure) -> None:
        """Lay out, measure, and change what does not fit, until everything does."""
        for _ in range(_ROUNDS):
            with warnings.catch_warnings():  # that axes have no room is what is mended here
                warnings.filterwarnings("ignore", message="constrained_layout not applied")
                super().execute(fig)
            if not (_break_lines(fig) | self._grow(fig)):
                return

    def _grow(self, fig: Figure) -> bool:
        """Make the figure larger where something sticks out or a subplot has too little room; whether it was changed."""
        size = fig.get_size_inches()
        box = fig.get_tightbbox()
        more = [max(0.0, -box.x0) + max(0.0, box.x1 - size[0]), max(0.0, -box.y0) + max(0.0, box.y1 - size[1])]
        for axes in fig.axes:
            spec = axes.get_subplotspec()
            if spec is None or not axes.get_visible():
                continue
            share = spec.get_position(fig).size
            inside = axes.get_position(original=True).size
            needed = _legend_size(axes, fig.dpi_scale_trans)
            for side in (0, 1):
                least = max(_ROOM * share[side] * self._designed[side], needed[side])
                more[side] = max(more[side], (least - inside[side] * size[side]) / share[side])
        if max(more) < 0.01:
            return False
        fig.set_size_inches(size[0] + more[0], size[1] + more[1], forward=False)
        return True


def _legend_size(axes: Axes, dpi_scale: Transform) -> tuple[float, float]:
    """Inches that a legend within the axes takes."""
    legend = axes.get_legend()
    if legend is None or legend.get_bbox_to_anchor().bounds != axes.bbox.bounds:
        return 0.0, 0.0
    box = legend.get_window_extent().transformed(dpi_scale.inverted())
    return box.width + 0.1, box.height + 0.1


def _break_lines(fig: Figure) -> bool:
    """Break titles and labels that are longer than what they belong to; whether any was changed."""
    changed = False
    for axes in fig.axes:
        if axes.get_visible():
            box = axes.get_window_extent()
            titles = [child for child in axes.get_children() if isinstance(child, Text) and child not in axes.texts]
            for text in (*titles, axes.xaxis.label):
                changed |= _break(text, box.width, 0)
            changed |= _break(axes.yaxis.label, box.height, 1)
    parts: tuple[Figure | SubFigure, ...] = (fig, *fig.subfigs)
    for part in parts:
        for text in part.texts:
            side = int(text.get_rotation() == 90)
            changed |= _break(text, part.bbox.size[side], side)
    return changed


def _break(text: Text, room: float, side: int) -> bool:
    """Break a text into lines that are not longer than ``room`` pixels, as far as its words allow."""
    said = text.get_text()
    length = text.get_window_extent().size[side]
    if not said or length <= room:
        return False
    longest = max(map(len, said.splitlines()))
    lines = "\n".join(wrap(said, max(1, int(longest * room / length)), break_long_words=False, break_on_hyphens=False))
    if lines == said:
        return False
    text.set_text(lines)
    return True


def legend_below(figure: Figure, handles: Sequence[Artist]) -> None:
    """A legend below everything, in as many columns as the figure is wide."""
    for columns in range(len(handles), 0, -1):
        legend = figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=8)
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return
        legend.remove()
