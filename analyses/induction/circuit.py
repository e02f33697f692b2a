"""The induction circuit: its three onsets, and the composition of its two heads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dynamics.analysis.circuit import CircuitTask
from dynamics.analysis.circuit_task import add_circuit, was_measured
from dynamics.analysis.findings import Definition, Finding, Summary, from_draws
from dynamics.store import Trace

from .pairs import PAIRS

__all__ = ["TASK", "with_circuit"]

TASK = CircuitTask(
    "induction",
    PAIRS,
    "induction circuit",
    label="previous",
    meaning="the word that came before",
    position="successor",
    part="circuit_",
)


def with_circuit(summary: Summary, trace: Trace) -> Summary:
    """The summary with the circuit added, where it was measured."""
    summary = add_circuit(summary, trace, TASK)
    if not was_measured(trace, PAIRS):
        return summary
    finding, note = _composition(trace)
    findings = [*summary.findings, *([] if finding is None else [finding])]
    return replace(
        summary,
        findings=tuple(sorted(findings, key=lambda f: not f.headline)),
        definitions=(*summary.definitions, _DEFINITION),
        notes=(*summary.notes, note),
    )


def _composition(trace: Trace) -> tuple[Finding | None, str]:
    """The edge from a head to another's keys that is strongest in the end, and what it is."""
    sources, readers = ([str(v) for v in trace.probe(PAIRS)[k].values] for k in ("source", "reader"))
    between = np.array([[_is_head(s) and r.endswith(".k") for r in readers] for s in sources])
    scores = np.full((len(trace.steps), 2, len(sources), len(readers)), np.nan)
    for index, values in trace.each(PAIRS, "edge_score"):
        scores[index] = values
    measured = np.flatnonzero(np.isfinite(scores[..., between]).any((1, 2)))
    if not len(measured):
        return None, "K-composition: not measurable, there is no edge from a head to another head's keys."
    last = int(measured[-1])
    possible = between & np.isfinite(scores[last, 0])
    if possible.sum() < 3:
        return None, "K-composition: not measurable, there are fewer than three edges from heads to keys."
    # one half of the prompts chooses the edge, the other is charted
    first = np.where(possible, scores[last, 0], -np.inf)
    source, reader = (int(i) for i in np.unravel_index(int(first.argmax()), first.shape))
    others = possible.copy()
    others[source, reader] = False
    steps = trace.steps
    name = f"{sources[source]} to {readers[reader].removesuffix('.k')}'s keys"
    finding = from_draws(
        "induction.k_composition",
        f"induction: {name}",
        steps=steps,
        tokens=trace.tokens,
        values=scores[:, 1, source, reader],
        draws=None,
        null=scores[:, 1][:, others],
        null_name="other edges from heads to keys",
        metric="EAP-IG attribution (logits)",
        unit="edges",
        definition="attribution of the edge from a head to another head's keys that is strongest at the last checkpoint",
    )
    return (
        finding,
        f"K-composition: of {int(possible.sum())} edges from heads to keys, {name} is the strongest in the end.",
    )


def _is_head(name: str) -> bool:
    return "H" in name


_DEFINITION = Definition(
    "K-composition",
    "EAP-IG attribution of the edge from one head to another head's keys that is largest at the last checkpoint. Half of "
    "the prompts choose it, the other half are charted. Null: all other edges from heads to keys.",
    "Elhage et al. 2021; Hanna et al. 2024",
)
