"""Reports made by hand, whose numbers are known: what a page of one has to show."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import xarray as xr

from dynamics.analysis import CurveSpec, Finding, Null, Summary, curve_grid, from_units, heat_maps
from dynamics.analysis.figures import COLOURS, draw_line, new_figure, training_axes
from dynamics.analysis.panels import caption_of, panels_of
from dynamics.reporting.content import report_content, row
from dynamics.reporting.page import report_page
from dynamics.reporting.pictures import Picture

PIXEL = "data:image/svg+xml;base64,PHN2ZyB4bWxucz0iaHR0cDovL3d3dy53My5vcmcvMjAwMC9zdmciLz4="
HOSTILE = '</script><script>window.ran=1</script><img src=x onerror="window.ran=1">\'"&{{7*7}}=1+1\u2028'
FAILED, MASKED = 7, 11
"""Checkpoints without numbers."""
UNITS = 40


def steps_of(checkpoints: int) -> np.ndarray:
    """Step 0 and then, at equal distances of logarithms, to 2,000."""
    every = np.unique(np.concatenate([[0], np.geomspace(1, 2000, 3 * checkpoints).round().astype(int)]))
    return every[np.linspace(0, len(every) - 1, checkpoints).round().astype(int)]


@cache
def curve(checkpoints: int, place: float | None, seed: int = 0) -> Finding:
    """A circuit planted at 10^place, or nowhere; two checkpoints have no numbers."""
    steps = steps_of(checkpoints)
    x = np.log10(steps + 1.0)
    rate = np.full(x.size, 0.1) if place is None else 0.1 + 0.8 / (1 + np.exp(-(x - place) / 0.15))
    rng = np.random.default_rng(seed)
    units = (rng.random((x.size, UNITS)) < rate[:, None]).astype(float)
    units[[FAILED, MASKED]] = np.nan
    null = rng.binomial(UNITS, 0.1, size=(x.size, 100)) / UNITS
    spec = CurveSpec("share of prompts", clusters=np.arange(UNITS), headline=True)
    trace: Any = SimpleNamespace(steps=steps, tokens=4096.0 * steps)
    return from_units("one", "circuit: one", units, Null(null, "chance"), spec).assessed(trace)


class _Trace:
    """What a report asks of a trace."""

    def __init__(self, checkpoints: int, said: str) -> None:
        self.steps = steps_of(checkpoints)
        self.tokens = 4096.0 * self.steps
        self.status = ["complete"] * checkpoints
        self.status[FAILED], self.status[MASKED] = "failed", "masked"
        self.reasons = [""] * checkpoints
        self.reasons[FAILED], self.reasons[MASKED] = f"cut short{said}", f"the weights of another step{said}"
        self.complete = np.array([s == "complete" for s in self.status])
        self.attributes = {"run_config": {"description": f"made by hand {said}"}, "origin": said, "model_config": {}}
        self.probes: list[str] = []
        none = ("checkpoint", np.zeros(checkpoints, dtype=int))
        self.tree = SimpleNamespace(to_dataset=lambda: xr.Dataset({"nonfinite": none, "overflowed": none}))


def made_page(checkpoints: int = 40, analyses: int = 2, *, hostile: bool = False) -> tuple[str, dict[str, Any]]:
    """A page, and what its ``report.json`` says.

    Every analysis has a circuit with ``represented``, ``used``, ``done`` and one that never formed; a figure of curves with two
    panels, one of lines without a null, and a heat map that is a picture.
    """
    said = HOSTILE if hostile else ""
    results, images, headlines = [], [], []
    drawn: dict[str, Picture] = {}
    for number in range(analyses):
        name = f"made{number}"
        parts = {"done": 2.4, "used": 2.2, "represented": 1.8, "never": None}
        found = [
            replace(curve(checkpoints, place), key=f"{name}.{part}", title=f"circuit {number}{said}: {part}", metric=f"share{said}",
                    definition=said)
            for part, place in parts.items()
        ]  # fmt: skip
        summary = Summary(name, f"Circuit {number}{said}", f"When?{said}", tuple(found), (), (f"a note {said}",))
        headlines += found
        results.append(SimpleNamespace(summary=summary, analysis=None))
        drawn = drawn or _pictures(found, checkpoints, said)
        images.append([_of(number, picture) for picture in drawn.values()])
    trace: Any = _Trace(checkpoints, said)
    content = report_content(f"made{said}", trace, results)  # type: ignore[arg-type]
    sections = [
        {**summary, "images": shown, "rows": [{**row(f), "definition": f.definition} for f in result.summary.findings]}
        for summary, shown, result in zip(content["analyses"], images, results, strict=True)
    ]
    overview = {"timeline": Picture("timeline", PIXEL, "", None)}
    return report_page(content, headlines, sections, overview), content


def _pictures(found: Sequence[Finding], checkpoints: int, said: str) -> dict[str, Picture]:
    """Figures of the first analysis, which are not drawn as pictures."""
    steps = steps_of(checkpoints)
    drawn = {
        "curves": curve_grid(
            [(f"Done{said}", [("done", found[0])]), ("Parts", [(f"{f.title}", f) for f in found[1:]])]
        ),
        "lines": _lines(steps, said),
        "map": heat_maps([("a map", np.outer(np.arange(3.0), np.arange(checkpoints)))], steps, rows=["a", "b", f"c{said}"],
                         row_title="head", value_title="score"),
    }  # fmt: skip
    return {name: Picture(f"made0-{name}", PIXEL, caption_of(f), panels_of(f)) for name, f in drawn.items()}


def _of(number: int, picture: Picture) -> Picture:
    """The same picture with the curves of another analysis."""
    panels = json.loads(json.dumps(picture.panels).replace('"made0.', f'"made{number}.'))
    return replace(picture, name=picture.name.replace("made0", f"made{number}"), panels=panels)


def _lines(steps: np.ndarray, said: str) -> Any:
    figure = new_figure(4, 3)
    axes = figure.subplots()
    draw_line(axes, steps, np.sqrt(steps), COLOURS[0], f"root{said}")
    draw_line(axes, steps, np.log(steps + 1.0), COLOURS[6], "logarithm", ls="--", marker="", drawstyle="steps-post")
    axes.axhline(3.0, color="#888888")
    axes.axvline(100, color="#cc79a7", label=f"turnover{said}")
    training_axes(axes, steps, "Growth", "number")
    axes.set_yscale("log")
    axes.set_ylim(0.5, 100)
    return figure
