"""An analysis that is one circuit on one probe: what it asks for, and what it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pydantic import BaseModel, ConfigDict, Field

from ..measurements import Activations, Circuit, SourceEffects
from ..probes import LAST, Probe
from ..store import Trace
from .base import Request
from .circuit import DEFINITIONS, CircuitTask, circuit_parts, dataset_of
from .findings import Definition, Summary

__all__ = ["TaskOptions", "add_circuit", "circuit_request", "task_summary", "was_measured"]


class TaskOptions(BaseModel):
    """Options of an analysis that is one circuit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompts: int = Field(120, ge=20, description="Prompts, half of them to find the circuit, half to check it.")
    seed: int = Field(0, ge=0, description="Chooses the prompts.")
    patch_at: tuple[str, ...] = Field((), description="Named positions at which parts are also patched alone.")


def circuit_request(
    probe: Probe,
    *,
    position: str | None = LAST,
    patch_at: tuple[str, ...] = (),
) -> Request:
    """The circuit of a probe with answers, foils and corrupted twins.

    Args:
        probe: the prompts.
        position: where a label is decoded; None where none is.
        patch_at: named positions at which sources are also patched alone.
    """
    activations = () if position is None else (Activations("resid_post", (position,)),)
    return Request(probe, (Circuit(), SourceEffects(patch_at), *activations))


def was_measured(trace: Trace, probe: str) -> bool:
    """Whether a trace holds the circuit of a probe (not where the architecture's wiring is not known)."""
    return probe in trace.probes and "edge_score" in trace.probe(probe)


def add_circuit(summary: Summary, trace: Trace, *tasks: CircuitTask) -> Summary:
    """A summary with its circuits' findings, notes and arrays added; with a note instead for those not measured."""
    missing = [task.name for task in tasks if not was_measured(trace, task.probe)]
    found = [circuit_parts(trace, task) for task in tasks if was_measured(trace, task.probe)]
    notes = list(summary.notes)
    if missing:
        notes.append(
            f"{', '.join(missing)}: not patched, because what reads and writes where in this model is not known."
        )
    data = summary.data
    for parts in found:
        notes += parts.notes
        data = data.merge(dataset_of(parts))
    findings = [*summary.findings, *(finding for parts in found for finding in parts.findings)]
    return replace(
        summary,
        findings=tuple(sorted(findings, key=lambda f: not f.headline)),
        definitions=(*summary.definitions, *(DEFINITIONS if found else ())),
        notes=tuple(notes),
        data=data,
    )


def task_summary(
    trace: Trace, task: CircuitTask, *, title: str, question: str, definitions: Sequence[Definition] = ()
) -> Summary:
    """Everything about one circuit, from the trace alone."""
    parts = circuit_parts(trace, task)
    return Summary(
        analysis=task.analysis,
        title=title,
        question=question,
        findings=tuple(sorted(parts.findings, key=lambda f: not f.headline)),
        definitions=(*definitions, *DEFINITIONS),
        notes=parts.notes,
        data=dataset_of(parts),
    )
