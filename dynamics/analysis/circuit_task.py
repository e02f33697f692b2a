"""An analysis that is one circuit on one probe: what it asks for, and what it says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import Field

from ..measurements import Activations, Circuit, SourceEffects
from ..probes import LAST, Probe
from ..store import Trace
from .base import AnalysisOptions, Context, Request
from .circuit import CircuitTask, circuit_section
from .section import Section

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .section import Summary

__all__ = [
    "CircuitAnalysis",
    "CircuitOptions",
    "circuit_analysis",
    "circuit_request",
    "circuit_sections",
    "was_measured",
]


class CircuitOptions(AnalysisOptions):
    """Options of an analysis that is one circuit."""

    prompts: int = Field(120, ge=20, description="Prompts, half of them to find the circuit, half to check it.")
    seed: int = Field(0, ge=0, description="Chooses the prompts.")
    patch_at: tuple[str, ...] = Field((), description="Named positions at which parts are also patched alone.")
    points: int = Field(5, ge=1, description="Points of the integrated gradient by which edges are ranked.")
    sizes: int = Field(
        12, ge=2, description="Sizes of circuits that are tried; the smallest is searched for between them."
    )
    passes: float = Field(
        30.0, gt=0, description="Passes of the model through the prompts that patching single parts may take."
    )


class CircuitAnalysis(NamedTuple):
    """The names that a module which is such an analysis has; see :class:`dynamics.analysis.Analysis`."""

    Options: type[CircuitOptions]
    plan: Callable[[Context, CircuitOptions], Sequence[Request]]
    summarise: Callable[[Trace, CircuitOptions], Section]
    figures: Callable[[Summary], Mapping[str, Figure]]


def circuit_analysis(probe: Callable[[Any, int, int], Probe], task: CircuitTask) -> CircuitAnalysis:
    """An analysis that is one circuit on one probe.

    >>> from analyses.ioi import Options, plan
    >>> Options().prompts
    120

    Args:
        probe: makes the prompts from the tokenizer, their number and a seed.
        task: what to chart about the circuit.
    """

    def plan(context: Context, options: CircuitOptions) -> Sequence[Request]:
        made = probe(context.tokenizer, options.prompts, options.seed)
        how = options.model_dump(include={"patch_at", "points", "sizes", "passes"})
        return [circuit_request(made, **how)]

    def summarise(trace: Trace, options: CircuitOptions) -> Section:
        return circuit_section(trace, task)

    def figures(summary: Summary) -> Mapping[str, Figure]:
        from .circuit_figures import circuit_figures

        return circuit_figures(summary)

    return CircuitAnalysis(CircuitOptions, plan, summarise, figures)


def circuit_request(
    probe: Probe,
    *,
    position: str | None = LAST,
    patch_at: tuple[str, ...] = (),
    points: int = 5,
    sizes: int = 12,
    passes: float = 30.0,
) -> Request:
    """The circuit of a probe with answers, foils and corrupted twins.

    Args:
        probe: the prompts.
        position: where a label is decoded; None where none is.
        patch_at: named positions at which sources are also patched alone.
        points: of the integrated gradient.
        sizes: how many sizes of circuits are tried.
        passes: how many passes through the prompts patching sources may take.
    """
    activations = () if position is None else (Activations("resid_post", (position,)),)
    return Request(probe, (Circuit(points, points=sizes), SourceEffects(patch_at, passes, points), *activations))


def was_measured(trace: Trace, probe: str) -> bool:
    """Whether a trace holds the circuit of a probe (not where the architecture's wiring is not known)."""
    return probe in trace.probes and "edge_score" in trace.probe(probe)


def circuit_sections(trace: Trace, *tasks: CircuitTask) -> Section:
    """Several circuits together; a note instead of those that were not measured."""
    missing = [task.name for task in tasks if not was_measured(trace, task.probe)]
    section = Section()
    if missing:
        section.notes.append(
            f"{', '.join(missing)}: not patched, because what reads and writes where in this model is not known."
        )
    for task in tasks:
        if was_measured(trace, task.probe):
            section += circuit_section(trace, task)
    return section
