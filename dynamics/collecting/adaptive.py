r"""Which checkpoint to look at next: the ones that most narrow the onsets of the headline curves.

Where a curve leaves its null is known up to the gap between two measured checkpoints, and because the curve is noisy,
up to several gaps. With :math:`p_c` the probability that checkpoint *c* is above the null's bound (normal, from the
curve's bootstrap interval), the onset lies in the gap before *c* with probability
:math:`w_c = (1 - p_{c-1}) \prod_{k \ge c} p_k`, because the onset is the time from which the curve stays above. A gap
with *n* checkpoints that were not visited hides :math:`w \log_2(n + 1)` bits. Each round halves the gap in which each
headline curve seems to have its onset, all analyses together; one checkpoint may serve several curves. When those gaps
have nothing left to visit, the other gaps follow in which an onset lies with a probability of more than :data:`LEAST`,
those that hide the most bits first, until there is none left or the budget is spent.

A rise and fall between two visited checkpoints is not seen. That is the price of not visiting; the coarse grid bounds it.

How exact the onsets can get is limited by the null: its bound is a quantile of as many draws as there are, and what
checkpoints that were not visited add to it is estimated from their neighbours (:mod:`dynamics.emergence.bound`). Where a
curve rises slowly beside its noise, another bound is another onset, with all checkpoints as well
(``benchmarks/adaptive.py`` prints how many).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from ..analysis.findings import Finding

__all__ = ["LEAST", "Wanted", "next_checkpoints", "onset_gaps"]

LEAST = 0.1
"""A gap in which the onset lies with less probability than this is not looked into."""

PER_ROUND = 4
"""Checkpoints of one round: few enough that each round knows what the one before it found."""


@dataclass(frozen=True)
class Wanted:
    """A checkpoint to visit.

    Attributes:
        index: in the series.
        reasons: keys of the headline curves whose onset it narrows, the most important first.
    """

    index: int
    reasons: tuple[str, ...]


def onset_gaps(finding: Finding) -> list[tuple[int, int, float]]:
    """(index before, index at, probability) of every gap in which a curve's onset may lie; before is -1 at the start.

    Empty where nothing emerged, or nothing can be said.

    Args:
        finding: a curve whose values are NaN at checkpoints that were not visited.
    """
    emergence = finding.emergence
    if emergence.state not in ("emerged", "present from start", "transient") or emergence.onset is None:
        return []
    sign = 1.0 if emergence.direction == "up" else -1.0
    values, bound = np.array(finding.values) * sign, np.array(emergence.null_upper) * sign
    spread = (np.array(finding.high) - np.array(finding.low)) / (2 * norm.ppf(0.975))
    known = np.flatnonzero(np.isfinite(values) & np.isfinite(bound))
    if emergence.state == "transient" and emergence.loss is not None and emergence.loss.by is not None:
        # what came after the loss says nothing about the onset
        known = known[[finding.steps[i] < emergence.loss.by for i in known]]
    if not len(known):
        return []
    noise = np.where(np.isfinite(spread[known]) & (spread[known] > 0), spread[known], 1e-12)
    above = norm.cdf((values[known] - bound[known]) / noise)
    stays = np.cumprod(above[::-1])[::-1]
    before = np.concatenate([[0.0], above[:-1]])
    weight = (1 - before) * stays
    edges = np.concatenate([[-1], known[:-1]])
    return [(int(a), int(b), float(w)) for a, b, w in zip(edges, known, weight, strict=True) if w > 0]


def next_checkpoints(
    findings: Sequence[Finding],
    visited: Collection[int],
    usable: Collection[int],
) -> list[Wanted]:
    """The :data:`PER_ROUND` checkpoints of the next round, the most telling first; none when every onset is as narrow as it can be.

    Args:
        findings: headline curves.
        visited: indices that were visited, whatever came of it.
        usable: indices that may be visited.
    """
    left = sorted(set(usable) - set(visited))
    likely: dict[int, dict[str, float]] = {}
    possible: dict[int, dict[str, float]] = {}
    for finding in findings:
        onset = finding.emergence.onset
        for before, at, weight in onset_gaps(finding):
            inside = [i for i in left if before < i < at]
            here = onset is not None and onset.by == finding.steps[at]
            if not inside or (weight < LEAST and not here):
                continue
            middle = (likely if here else possible).setdefault(inside[len(inside) // 2], {})
            middle[finding.key] = middle.get(finding.key, 0.0) + weight * float(np.log2(len(inside) + 1))
    bits = likely or possible
    ranked = sorted(bits.items(), key=lambda item: (-sum(item[1].values()), item[0]))
    return [Wanted(index, tuple(sorted(gains, key=lambda key: -gains[key]))) for index, gains in ranked[:PER_ROUND]]
