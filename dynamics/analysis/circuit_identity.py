"""Is it the same circuit all along? Its edges at every checkpoint against the final ones and the ones before.

Attribution from a sample of prompts is noisy, so that two checkpoints never agree wholly. Scores are therefore compared
between different halves of the prompts, and held against what the two halves of one checkpoint agree on (the ceiling):

- overlap with the final circuit, and with the checkpoint before: weighted overlap of |scores| (see
  :mod:`dynamics.numerics.overlap`), mean of half 0 against half 1 and half 1 against half 0;
- *turnover*: the overlap with the checkpoint before is less than half of the smaller of their two ceilings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr

from ..measurements.pairs import discovery_half
from ..numerics.draws import COSTLY_DRAWS
from ..numerics.overlap import dealt_anew, jaccard, jaccards, weighted_overlap, weighted_overlaps
from ..store import Trace

__all__ = ["CURVES", "Identity", "checking_half", "identity", "values_at", "with_circuit"]

CURVES = (
    "with_final",
    "with_previous",
    "ceiling",
    "edges_jaccard",
    "nodes_jaccard",
    "edges_null",
    "nodes_null",
    "edges",
)
"""The attributes of :class:`Identity` that are one number per checkpoint."""

_TURNOVER = 0.5
LEVEL = 0.05
"""Share of series without a difference between prompts and twins in which some checkpoint has a circuit all the same."""


@dataclass(frozen=True)
class Identity:
    """A circuit through training; NaN where it could not be measured.

    Attributes:
        final: index of the checkpoint that the others are compared with, or None where no circuit was found at all.
        with_final, with_previous, ceiling: (checkpoint,) weighted overlaps of edges.
        null: (checkpoint, draw) overlap with the final scores dealt anew.
        edges_jaccard, nodes_jaccard: (checkpoint,) of the smallest faithful circuit with the final one.
        edges_null, nodes_null: (checkpoint,) the same of random circuits, 95th percentile.
        edges: (checkpoint,) how many edges the smallest faithful circuit has.
        strength: (checkpoint, source) |score| of the edges that leave a source, summed.
        turnover: indices of checkpoints at which the circuit became another one.
        kept: (source, reader) the final circuit.
    """

    final: int | None
    with_final: np.ndarray
    with_previous: np.ndarray
    ceiling: np.ndarray
    null: np.ndarray
    edges_jaccard: np.ndarray
    nodes_jaccard: np.ndarray
    edges_null: np.ndarray
    nodes_null: np.ndarray
    edges: np.ndarray
    strength: np.ndarray
    turnover: tuple[int, ...]
    kept: np.ndarray


def identity(trace: Trace, probe: str) -> Identity:
    """Compare the circuits of a probe that was measured with ``Circuit``, one checkpoint in memory at a time.

    Args:
        trace: the trace.
        probe: name of the probe.
    """
    n = len(trace.steps)
    sizes = trace.probe(probe).sizes
    curves = {name: np.full(n, np.nan) for name in CURVES}
    strength = np.full((n, sizes["source"]), np.nan)
    null = np.full((n, COSTLY_DRAWS), np.nan)
    kept_final = np.zeros((sizes["source"], sizes["reader"]), dtype=bool)
    found = with_circuit(trace, probe)
    final = found[-1] if found else None
    turnover: list[int] = []
    if final is None:
        return Identity(None, null=null, strength=strength, turnover=(), kept=kept_final, **curves)
    scores = values_at(trace, probe, "edge_score", final)
    kept_final = np.asarray(values_at(trace, probe, "edge_kept", final) == 1)
    possible = np.isfinite(scores[0])
    dealt = [dealt_anew(np.nan_to_num(half), possible, COSTLY_DRAWS, seed=i) for i, half in enumerate(scores)]
    random = dealt_anew(kept_final, possible, COSTLY_DRAWS, seed=2) > 0
    before: tuple[int, np.ndarray] | None = None
    for index, score in trace.each(probe, "edge_score"):
        if not np.isfinite(score[:, possible]).all():
            continue
        score = np.where(possible, score, 0.0)
        strength[index] = np.abs(score).mean(0).sum(1)
        ceiling = curves["ceiling"][index] = weighted_overlap(score[0], score[1])
        curves["with_final"][index] = _crossed(score, np.nan_to_num(scores))
        null[index] = (weighted_overlaps(score[0], dealt[1]) + weighted_overlaps(score[1], dealt[0])) / 2
        if before is not None:
            shared = curves["with_previous"][index] = _crossed(score, before[1])
            both = index in found and before[0] in found
            if both and shared < _TURNOVER * min(ceiling, curves["ceiling"][before[0]]):
                turnover.append(index)
        before = (index, score)
    for index, kept in trace.each(probe, "edge_kept"):
        if index in found:
            curves["edges"][index] = (kept == 1).sum()
            curves["edges_jaccard"][index] = jaccard(kept == 1, kept_final)
            curves["nodes_jaccard"][index] = jaccard(_nodes(kept == 1), _nodes(kept_final))
            curves["edges_null"][index] = np.quantile(jaccards(kept == 1, random), 0.95)
            curves["nodes_null"][index] = np.quantile(jaccards(_nodes(kept == 1), _nodes(random)), 0.95)
    return Identity(final, null=null, strength=strength, turnover=tuple(turnover), kept=kept_final, **curves)


def with_circuit(trace: Trace, probe: str) -> list[int]:
    """Indices of checkpoints that have a circuit: the prompts that check it differ from their twins beyond the series' noise.

    ``Circuit`` asks each checkpoint by itself; of many, some would pass by chance (Bonferroni, two-sided, by Student's t).
    """
    checking = checking_half(trace, probe)
    clean, twins = (
        trace.values(probe, f"{of}_difference").astype(np.float64)[:, checking] for of in ("clean", "corrupted")
    )
    apart, n = clean - twins, int(checking.sum())
    with np.errstate(invalid="ignore", divide="ignore"):
        p = 2 * stdtr(n - 1, -np.abs(apart.mean(1)) / (apart.std(1, ddof=1) / np.sqrt(n)))
    apart_enough = p * np.isfinite(p).sum() < LEVEL
    return [index for index, kept in trace.each(probe, "edge_kept") if apart_enough[index] and (kept == 1).any()]


def checking_half(trace: Trace, probe: str) -> np.ndarray:
    """(prompt,) which prompts ``Circuit`` checked circuits on, as it was measured."""
    about = trace.probe(probe)
    return ~discovery_half(about.sizes["prompt"], _seed(about.attrs.get("measurements", ())))


def _seed(measurements: Iterable[object]) -> int:
    """The seed of the halves, of what a probe says was measured on it.

    >>> _seed(["Activations(site='embed')", "Circuit(steps=5, threshold=0.8, points=12, seed=3)"]), _seed([])
    (3, 0)
    """
    found = (re.fullmatch(r"Circuit\(.*\bseed=(\d+)\b.*\)", str(measurement)) for measurement in measurements)
    return next((int(match[1]) for match in found if match), 0)


def values_at(trace: Trace, probe: str, variable: str, checkpoint: int) -> np.ndarray:
    """A variable of a probe at one checkpoint that has it."""
    return next(values for index, values in trace.each(probe, variable) if index == checkpoint)


def _crossed(one: np.ndarray, other: np.ndarray) -> float:
    """Overlap of (half, source, reader) scores between different halves."""
    return (weighted_overlap(one[0], other[1]) + weighted_overlap(one[1], other[0])) / 2


def _nodes(kept: np.ndarray) -> np.ndarray:
    """(..., source) sources that an edge of the circuit leaves."""
    return np.asarray(kept.any(-1))
