"""An analysis that is others together, without their causal halves: what ``dynamics validate`` asks of its organisms.

When a world's circuit forms is seen in what the model does. Which heads and edges do it, the analyses measure too, at
twenty times the cost, and no verdict of the validation needs it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import Field

from ..analysis.base import AnalysisOptions, Context, Request
from ..analysis.section import Section, Summary
from ..runs.plan import find_analysis

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..store import Trace

__all__ = ["QUESTION", "TITLE", "Options", "figures", "plan", "summarise"]

TITLE = "Planted worlds"
QUESTION = "Did every world emerge after it entered the data, and only then?"


class Options(AnalysisOptions):
    """Options of this analysis."""

    of: tuple[str, ...] = Field(min_length=1, description="Names of the analyses.")


def plan(context: Context, options: Options) -> Sequence[Request]:
    """All their probes, planned as for a model whose wiring is not known."""
    requests: list[Request] = []
    for name in options.of:
        analysis, defaults = find_analysis(name)
        requests += analysis.plan(replace(context, wired=False), defaults)
    return requests


def summarise(trace: Trace, options: Options) -> Section:
    """All their findings."""
    section = Section()
    for name in options.of:
        analysis, defaults = find_analysis(name)
        section.findings += analysis.summary(trace, defaults).findings
    return section


def figures(summary: Summary) -> Mapping[str, Figure]:
    """None: the validation is read as a table."""
    return {}
