"""The induction circuit: its three onsets, and the composition of its two heads."""

from __future__ import annotations

import numpy as np

from dynamics.analysis import Curve, CurveSpec, Definition, Null, Section, Trace
from dynamics.analysis.circuit import CircuitTask
from dynamics.analysis.circuit_task import circuit_sections, was_measured

from .pairs import PAIRS

__all__ = ["induction_circuit"]

_TASK = CircuitTask(
    PAIRS,
    "induction circuit",
    label="previous",
    meaning="the word that came before",
    position="successor",
    part="circuit_",
)


def induction_circuit(trace: Trace) -> Section:
    """The circuit and the composition of its heads; a note where it was not measured."""
    section = circuit_sections(trace, _TASK)
    return section + _composition(trace) if was_measured(trace, PAIRS) else section


def _composition(trace: Trace) -> Section:
    """The edge from a head to another's keys that is strongest in the end, and what it is."""
    section = Section(definitions=(_DEFINITION,))
    sources, readers = ([str(v) for v in trace.probe(PAIRS)[k].values] for k in ("source", "reader"))
    between = np.array([[_is_head(s) and r.endswith(".k") for r in readers] for s in sources])
    scores = np.full((len(trace.steps), 2, len(sources), len(readers)), np.nan)
    for index, values in trace.each(PAIRS, "edge_score"):
        scores[index] = values
    measured = np.flatnonzero(np.isfinite(scores[..., between]).any((1, 2)))
    if not len(measured):
        section.notes.append("K-composition: not measurable, there is no edge from a head to another head's keys.")
        return section
    last = int(measured[-1])
    possible = between & np.isfinite(scores[last, 0])
    if possible.sum() < 3:
        section.notes.append("K-composition: not measurable, there are fewer than three edges from heads to keys.")
        return section
    # one half of the prompts chooses the edge, the other is charted
    first = np.where(possible, scores[last, 0], -np.inf)
    source, reader = (int(i) for i in np.unravel_index(int(first.argmax()), first.shape))
    others = possible.copy()
    others[source, reader] = False
    name = f"{sources[source]} to {readers[reader].removesuffix('.k')}'s keys"
    section.findings.append(
        Curve(
            "k_composition",
            f"induction: {name}",
            scores[:, 1, source, reader],
            None,
            Null(scores[:, 1][:, others], "other edges from heads to keys"),
            CurveSpec(
                "EAP-IG attribution (logits)",
                "edges",
                definition="attribution of the edge from a head to another head's keys that is strongest at the last "
                "checkpoint",
            ),
        )
    )
    section.notes.append(
        f"K-composition: of {int(possible.sum())} edges from heads to keys, {name} is the strongest in the end."
    )
    return section


def _is_head(name: str) -> bool:
    return "H" in name


_DEFINITION = Definition(
    "K-composition",
    "EAP-IG attribution of the edge from one head to another head's keys that is largest at the last checkpoint. Half of "
    "the prompts choose it, the other half are charted. Null: all other edges from heads to keys.",
    "Elhage et al. 2021; Hanna et al. 2024",
)
