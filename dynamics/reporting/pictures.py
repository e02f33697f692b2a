"""Figures of a report, as SVG and PNG: drawn where they or what they show are new, and kept where nothing changed.

Drawing takes most of a report's time. Beside their folder lies ``figures.json``: of every set of figures a key of all that it
was drawn from (what was found, the code, the version of matplotlib), the digest of every file, what is seen in it, and what
it shows as data, where that is all that it shows. A file that is missing or is not the one that was drawn is drawn again.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checkpoints.foreign import read_json
from checkpoints.paths import replace_bytes, replace_text

from ..analysis.panels import caption_of, panels_of
from ..analysis.sources import code_digest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..progress import Reporter

__all__ = ["Picture", "Pictures", "png_of"]


@dataclass(frozen=True)
class Picture:
    """A figure that was drawn.

    Attributes:
        name: of its files, without their ending.
        data: its SVG, as a page holds it.
        caption: what is seen in it.
        panels: what it shows, where that is nothing but lines over training (:func:`dynamics.analysis.panels.panels_of`).
    """

    name: str
    data: str
    caption: str
    panels: list[dict[str, Any]] | None


class Pictures:
    """The figures of one report.

    Args:
        folder: where the pictures are; it exists.
        reporter: is told when something is drawn.
    """

    def __init__(self, folder: Path, reporter: Reporter) -> None:
        self._folder = folder
        self._reporter = reporter
        self._drawn = folder.with_name("figures.json")
        self._before = _read(self._drawn)
        self._now: dict[str, Any] = {}

    def of(self, name: str, shown: Any, module: str, draw: Callable[[], Mapping[str, Figure]]) -> dict[str, Picture]:
        """Key of each figure of a set to what was drawn.

        Args:
            name: of the set, with which the names of its files begin.
            shown: what the figures show, and all of it: anything that dask can tokenize.
            module: whose code draws them.
            draw: called only where they are to be drawn.
        """
        import matplotlib as mpl
        from dask.base import tokenize

        key = tokenize(shown, code_digest([module, __name__]), mpl.__version__)
        kept = self._kept(name, key)
        if kept is None:
            self._reporter.say(f"drawing figures of {name or 'the overview'} ...")
            files: dict[str, dict[str, bytes]] = {}
            about: dict[str, dict[str, Any]] = {}
            from .measuring import texts_kept

            with texts_kept():
                for which, figure in draw().items():
                    about[which] = {"caption": caption_of(figure), "panels": panels_of(figure)}
                    files[which] = self._save(figure, _stem(name, which))
        else:
            files, about = kept
        self._now[name] = {
            "key": key,
            "figures": {
                which: {kind: _digest(data) for kind, data in drawn.items()}
                | {"about": about[which], "known": _digest(json.dumps(about[which]).encode())}
                for which, drawn in files.items()
            },
        }
        return {
            which: Picture(
                _stem(name, which),
                "data:image/svg+xml;base64," + base64.b64encode(drawn["svg"]).decode(),
                about[which]["caption"],
                about[which]["panels"],
            )
            for which, drawn in files.items()
        }

    def finish(self) -> None:
        """Say what was drawn, and remove figures that the report no longer has."""
        names = {_stem(name, which) for name, drawn in self._now.items() for which in drawn["figures"]}
        replace_text(self._drawn, json.dumps(self._now) + "\n")
        for file in self._folder.iterdir():
            if file.suffix in (".svg", ".png", ".partial") and file.stem not in names:
                file.unlink()

    def _kept(self, name: str, key: str) -> tuple[dict[str, dict[str, bytes]], dict[str, dict[str, Any]]] | None:
        """The files of a set that was drawn before from the same, and what is known of them; None where one of them is not
        there as it was drawn."""
        before = self._before.get(name)
        if not isinstance(before, dict) or before.get("key") != key:
            return None
        found: dict[str, dict[str, bytes]] = {}
        about: dict[str, dict[str, Any]] = {}
        try:
            for which, digests in before["figures"].items():
                stem = _stem(name, which)
                about[which] = digests["about"]
                if _digest(json.dumps(about[which]).encode()) != digests["known"]:
                    return None
                found[which] = {kind: (self._folder / f"{stem}.{kind}").read_bytes() for kind in ("svg", "png")}
                if any(_digest(data) != digests[kind] for kind, data in found[which].items()):
                    return None
        except (OSError, AttributeError, KeyError, TypeError):
            return None
        return found, about

    def _save(self, figure: Figure, stem: str) -> dict[str, bytes]:
        """Both kinds of a figure, written; the page gets the SVG as data, so that it needs no other file."""
        import matplotlib as mpl
        from matplotlib.backends.backend_svg import FigureCanvasSVG, RendererSVG

        class Canvas(FigureCanvasSVG):
            """One renderer measures all text while a figure is laid out; without, every measurement makes one."""

            def get_renderer(self) -> RendererSVG:
                return renderer

        from .measuring import answers_kept

        svg = io.BytesIO()
        with mpl.rc_context({"svg.hashsalt": "dynamics"}), answers_kept():  # the same figure is the same file
            # What `savefig` does, which draws a figure twice for each file, once to lay it out.
            dpi = figure.get_dpi()
            figure.set_dpi(72)
            renderer = RendererSVG(*figure.bbox.size, io.StringIO(), image_dpi=72)  # type: ignore[no-untyped-call]
            canvas = Canvas(figure)
            if (engine := figure.get_layout_engine()) is not None:
                engine.execute(figure)
            figure.set_layout_engine("none")
            figure.set_dpi(dpi)  # of images within the SVG
            about = {"Date": None, "Creator": "circuit-dynamics"}
            canvas.print_svg(svg, metadata=about)  # type: ignore[no-untyped-call]
            written = {"svg": svg.getvalue(), "png": png_of(figure)}
        for kind, data in written.items():
            replace_bytes(self._folder / f"{stem}.{kind}", data)
        return written


def png_of(figure: Figure) -> bytes:
    """A figure that was laid out, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    drawn = io.BytesIO()
    figure.set_dpi(160)
    FigureCanvasAgg(figure).print_png(drawn, pil_kwargs={"compress_level": 3})  # type: ignore[no-untyped-call]
    return drawn.getvalue()


def _stem(name: str, which: str) -> str:
    """Name of a figure's files."""
    return f"{name}-{which}" if name else which


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _read(file: Path) -> dict[str, Any]:
    """What was drawn before; nothing where that cannot be known."""
    try:
        found: dict[str, Any] = read_json(file, dict)
    except (OSError, ValueError):
        return {}
    return found
