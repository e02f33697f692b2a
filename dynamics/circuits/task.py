"""An analysis that is one circuit on one probe: what it asks for, and what it says."""

from __future__ import annotations

from collections.abc import Sequence

from ..findings import Definition, Summary
from ..measurements import Activations, Circuit, SourceEffects
from ..plan import Request
from ..probes import LAST, Probe
from ..store import Trace
from .summary import DEFINITIONS, CircuitTask, circuit_parts, dataset_of

__all__ = ["circuit_request", "task_summary"]


def circuit_request(probe: Probe, *, position: str | None = LAST, steps: int = 5, threshold: float = 0.8) -> Request:
    """The circuit of a probe with answers, foils and corrupted twins.

    Args:
        probe: the prompts.
        position: where a label is decoded; None where none is.
        steps, threshold: as in ``Circuit``.
    """
    activations = () if position is None else (Activations("resid_post", (position,)),)
    return Request(probe, (Circuit(steps=steps, threshold=threshold), SourceEffects(), *activations))


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
