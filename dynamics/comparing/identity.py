"""Is it the same circuit in two runs, and are it the same features?

*Circuits*: the edges of the last checkpoint at which a circuit was found, on one probe in both runs. Their scores are compared by
weighted overlap and the smallest faithful circuits by Jaccard (:mod:`dynamics.numerics.overlap`), each held against what circuits share
by chance: the 95th percentile of the other run's edges dealt anew among the sources that a reader could read.

Heads have names, and the same name means the same head only where both trainings began with the same weights. Otherwise heads of
a layer are in no order that two trainings share, and edges are compared by layer and kind alone (``L1H.q`` for the queries of all
heads of layer 1), which no order of heads changes.

*Features*, where both runs have a dictionary of one name: matched by the correlation of their activations over the same prompts
(:func:`dynamics.learning.matching.match_activations`), at the last checkpoint of each, against the same on shuffled prompts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from checkpoints.errors import UserError

from ..analysis.circuit_identity import values_at, with_circuit
from ..learning.matching import match_activations
from ..numerics.arrays import BoolArray, FloatArray
from ..numerics.draws import COSTLY_DRAWS
from ..numerics.overlap import dealt_anew, jaccard, jaccards, weighted_overlap, weighted_overlaps
from ..store import FeatureTable, Trace, dictionaries_in
from .loading import ComparedRun

__all__ = ["Overlap", "circuit_overlap", "identities"]


@dataclass(frozen=True)
class Overlap:
    """How far two circuits are the same.

    Attributes:
        weighted: overlap of the scores of all edges.
        weighted_null: what that reaches by chance, 95th percentile.
        edges: Jaccard of the smallest faithful circuits; NaN where heads have no common names.
        edges_null: what that reaches by chance.
        named: whether heads are compared by name, not by layer.
    """

    weighted: float
    weighted_null: float
    edges: float
    edges_null: float
    named: bool


def circuit_overlap(
    one: FloatArray,
    other: FloatArray,
    kept_one: BoolArray,
    kept_other: BoolArray,
    sources: Sequence[str],
    readers: Sequence[str],
    *,
    named: bool,
) -> Overlap:
    """Compare two circuits on the same graph.

    Args:
        one, other: (source, reader) scores of edges; NaN where there can be none.
        kept_one, kept_other: (source, reader) the smallest faithful circuits.
        sources, readers: names of nodes, such as ``L0H1`` and ``L1H0.q``.
        named: whether a head's name means the same in both.
    """
    possible = np.isfinite(one) & np.isfinite(other)
    a, b = (np.abs(np.where(possible, scores, 0.0)) for scores in (one, other))
    dealt = dealt_anew(b, possible, COSTLY_DRAWS)
    if not named:
        by_source, by_reader = _merged(sources), _merged(readers)
        a, b, dealt = (by_source.T @ scores @ by_reader for scores in (a, b, dealt))
    edges, edges_null = float("nan"), float("nan")
    if named:
        edges = jaccard(kept_one, kept_other)
        edges_null = float(
            np.nanquantile(jaccards(kept_one, dealt_anew(kept_other, possible, COSTLY_DRAWS, seed=1) > 0), 0.95)
        )
    return Overlap(
        weighted_overlap(a, b), float(np.nanquantile(weighted_overlaps(a, dealt), 0.95)), edges, edges_null, named
    )


def _merged(names: Sequence[str]) -> FloatArray:
    """(name, kind) which names are of one layer and kind."""
    kinds = [re.sub(r"H\d+", "H", name) for name in names]
    distinct = list(dict.fromkeys(kinds))
    return np.array([[float(kind == one) for one in distinct] for kind in kinds])


def identities(runs: Sequence[ComparedRun]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Circuits and dictionaries of every run against those of the first, as JSON values; only runs whose traces are here."""
    circuits: list[dict[str, Any]] = []
    features: list[dict[str, Any]] = []
    if runs[0].path is None:
        return circuits, features
    base = Trace(runs[0].path)
    for run in runs[1:]:
        if run.path is None:
            continue
        other = Trace(run.path)
        about = {"run": run.name, "against": runs[0].name}
        same = {p for p in runs[0].prompts.keys() & run.prompts.keys() if runs[0].prompts[p] == run.prompts[p]}
        for probe in sorted(runs[0].prompts.keys() & run.prompts.keys()):
            with suppress(UserError):  # what is damaged is said by `dynamics verify`
                if (found := _circuit(base, other, probe)) is not None:
                    circuits.append(about | {"probe": probe, "same_prompts": probe in same} | found)
        for name in sorted(set(dictionaries_in(base)) & set(dictionaries_in(other))):
            with suppress(UserError):
                if (matched := _features(base, other, name, sorted(same))) is not None:
                    features.append(about | {"dictionary": name} | matched)
    return circuits, features


def _circuit(base: Trace, other: Trace, probe: str) -> dict[str, Any] | None:
    parts = []
    for trace in (base, other):
        dataset = trace.probe(probe)
        if not {"edge_kept", "edge_score"} <= set(dataset.data_vars):
            return None
        if not (found := with_circuit(trace, probe)):
            return None
        scores = np.asarray(values_at(trace, probe, "edge_score", found[-1]), dtype=np.float64).mean(axis=0)
        kept = np.asarray(values_at(trace, probe, "edge_kept", found[-1]) == 1)
        names = [[str(n) for n in dataset[axis].values] for axis in ("source", "reader")]
        parts.append((scores, kept, names, int(trace.steps[found[-1]])))
    (a, kept_a, names, step_a), (b, kept_b, others, step_b) = parts
    if names != others:  # another architecture
        return None
    found_overlap = circuit_overlap(a, b, kept_a, kept_b, names[0], names[1], named=_same_start(base, other))
    return {"steps": [step_b, step_a], "by_name": found_overlap.named} | {
        key: None if np.isnan(value := getattr(found_overlap, key)) else round(value, 4)
        for key in ("weighted", "weighted_null", "edges", "edges_null")
    }


def _same_start(base: Trace, other: Trace) -> bool:
    """Whether two trainings began with the same weights, as far as their first checkpoints say."""
    first, second = (
        str(trace.digests[0]) if len(trace.steps) and trace.steps[0] == 0 else "" for trace in (base, other)
    )
    return bool(first) and first == second


def _features(base: Trace, other: Trace, name: str, probes: Sequence[str]) -> dict[str, Any] | None:
    tables = FeatureTable(base, name), FeatureTable(other, name)
    both = [p for p in probes if all(p in table.probes for table in tables)]
    rows: tuple[list[FloatArray], list[FloatArray]] = ([], [])
    for probe in both:
        positions = [[str(p) for p in table.read(probe)["position"].values] for table in tables]
        for position in [p for p in positions[0] if p in positions[1]]:
            for table, side in zip(tables, rows, strict=True):
                side.append(np.asarray(table.activations(probe, position, len(table.steps) - 1), dtype=np.float64))
    if not rows[0]:
        return None
    one, two = (np.concatenate(side) for side in rows)
    matches = match_activations(one, two)
    alive = int((one > 0).any(axis=0).sum()), int((two > 0).any(axis=0).sum())
    matched = matches.one.partner >= 0
    score = matches.score[matched]
    return {
        "prompts": len(one),
        "matched": int(matched.sum()),
        "alive": [alive[1], alive[0]],
        "correlation": round(float(np.median(score)), 4) if len(score) else None,
    }
