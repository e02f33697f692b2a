"""What matplotlib asks again and again while it lays a figure out and draws it is answered once.

A layout asks each label some ten times how large it is, and each axis six times which ticks it has; every time they are
computed anew, which took half of all drawing. Where a text's lines lie from its own point depends on what is written and how;
an axis's ticks, and where their labels are, on what it shows and where. With the answers kept, files are the same byte by byte.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from matplotlib.axis import Axis
from matplotlib.spines import Spine
from matplotlib.text import Text

__all__ = ["answers_kept", "texts_kept"]


@contextmanager
def texts_kept() -> Iterator[None]:
    """While it is open, texts that are alike are measured once."""
    with _kept(Text, "_get_layout", _text):
        yield


@contextmanager
def answers_kept() -> Iterator[None]:
    """While it is open, ticks and spines of axes that stay as they are are computed once; nobody may change them."""
    with ExitStack() as stack:
        for kind, method in ((Axis, "_update_ticks"), (Axis, "_get_ticklabel_bboxes"), (Spine, "get_window_extent")):
            stack.enter_context(_kept(kind, method, _shown))
        yield


@contextmanager
def _kept(kind: type, method: str, about: Callable[..., Hashable | None]) -> Iterator[None]:
    """A method's answers are kept by what they depend on, unless that is not known; a matplotlib without it is left as it is."""
    ask = kind.__dict__.get(method)
    known: dict[Hashable, Any] = {}

    def answer(self: Any, *given: Any, **named: Any) -> Any:
        try:
            key = None if named else about(self, *given)
        except (
            AttributeError,
            TypeError,
        ):  # a matplotlib that keeps it elsewhere: nothing is known of what it depends on
            key = None
        if key is None:
            return ask(self, *given, **named)  # type: ignore[misc]
        if key not in known:
            known[key] = self, ask(self, *given)  # type: ignore[misc]
        return known[key][1]

    if ask is not None:
        setattr(kind, method, answer)
    try:
        yield
    finally:
        if ask is not None:
            setattr(kind, method, ask)


def _text(text: Any, renderer: Any) -> Hashable | None:
    if text.get_usetex() or text.get_wrap():  # TeX has a cache of its own; lines wrap by where they are
        return None
    return (
        type(renderer),
        text.get_figure(root=True).dpi,
        text.get_text(),
        hash(text.get_fontproperties()),
        text.get_rotation(),
        text.get_rotation_mode(),
        text.get_horizontalalignment(),
        text.get_verticalalignment(),
        text._get_multialignment(),
        text._linespacing,
        text.get_parse_math(),
    )


def _shown(part: Any, ticks: Any = None, renderer: Any = None) -> Hashable:
    """Of an axis or a spine: which it is, where its axes are and what they show."""
    axes, figure = part.axes, part.get_figure(root=True)
    view = (*axes.viewLim.intervalx, *axes.viewLim.intervaly)
    of = tuple(map(id, ticks)) if isinstance(ticks, list) else type(ticks)
    return id(part), axes.bbox.bounds, view, figure.dpi, of, type(renderer)
