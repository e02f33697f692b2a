r"""Which feature of one dictionary is which feature of another?

A *score* for each pair is the cosine of their decoder directions, or the Pearson correlation of their activations over
the same tokens. A *match* is a pair

- ``mutual``: each is the other's nearest; or
- ``assignment``: chosen one to one so that the sum of scores above the threshold is largest (the linear assignment
  problem of Jonker and Volgenant 1987 on the sparse graph of the pairs above it: ``scipy``'s
  ``min_weight_full_bipartite_matching``; a feature may stay alone),

whose score is beyond chance. Chance is how near the *nearest* of all features would be:

- ``rotation``: to a direction drawn uniformly, i.e. to the dictionary turned at random as a whole;
- ``covariance``: to a random mixture of the dictionary's own directions, which has their second moment. Features of a
  trained model share a few large directions, and are nearer to one another than on a sphere;
- correlations: to the features on *shuffled tokens*. Features that fire on few tokens correlate highly by chance, so
  that a feature is compared with those of similar frequency (within a factor of two, or the 32 nearest).

A p value is the share of these as large, (1 + k)/(1 + n). The false discovery rate over the features is held at
:data:`RATE` (Benjamini and Hochberg 1995); a feature without a partner counts with p = 1, so that choosing the best pairs
first makes nothing significant. Shuffling tokens one by one treats neighbouring tokens as independent: on text with
long repeats take one token per document.

Cosine and correlation answer different questions: a feature that is rotated by training keeps its tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dynamics.emergence import discover
from dynamics.numerics.arrays import FloatArray, IntArray
from dynamics.numerics.blocked import (
    BLOCK,
    CorrelationScores,
    CosineScores,
    Nearest,
    ScoreBlocks,
    ScoredPairs,
    scan_scores,
)

__all__ = ["NO_MATCH", "STATUS", "Matches", "Side", "match_activations", "match_decoders"]

Method = Literal["mutual", "assignment"]

NO_MATCH = -1
"""The index of a partner that is not there."""

STATUS = ("matched", "not mutual", "below null", "tie", "dead")
"""Meaning of :attr:`Side.status`: has a partner; its nearest is near enough but has another partner; nothing is nearer
than chance; two partners are equally near; it has no direction or never fires."""

TIE = 1e-5
"""Scores that differ by less are equal: the rounding of 32-bit products over thousands of dimensions."""

RATE = 0.05
"""False discovery rate over the features."""

SHUFFLES = 10
"""How many times the tokens are shuffled. The null of a feature has this many draws for each feature of similar frequency,
so that few shuffles give many draws."""

FEWEST = 32
"""Features in a group of similar frequency, where there are as many: the null of a group must have enough draws."""


@dataclass(frozen=True)
class Side:
    """The features of one of the two dictionaries, each (feature,).

    Attributes:
        partner: index in the other dictionary; :data:`NO_MATCH` without one.
        status: position in :data:`STATUS`, which says why there is none.
        nearest: index of the largest score, partner or not; :data:`NO_MATCH` for a dead feature, and in a tie.
        nearest_score: that score; NaN for a dead feature.
        p_value: of ``nearest_score``; NaN for a dead feature.
    """

    partner: IntArray
    status: IntArray
    nearest: IntArray
    nearest_score: FloatArray
    p_value: FloatArray


@dataclass(frozen=True)
class Matches:
    """Which feature is which.

    Attributes:
        one, other: the two dictionaries' features.
        score: (feature of ``one``,) score of the match; NaN without one.
        cut: largest p value that is beyond chance at the chosen rate; 0 if none is.
    """

    one: Side
    other: Side
    score: FloatArray
    cut: float

    def reversed(self) -> Matches:
        """The same matches seen from the other dictionary."""
        partner = self.other.partner
        score = np.where(partner >= 0, self.score[partner], np.nan)
        return Matches(self.other, self.one, score, self.cut)


def match_decoders(
    one: npt.NDArray[Any],
    other: npt.NDArray[Any],
    *,
    method: Method = "mutual",
    null: Literal["covariance", "rotation"] = "covariance",
    draws: int = 2000,
    block: int = BLOCK,
    seed: int = 0,
) -> Matches:
    """Match by the cosine of decoder directions; memory does not grow with features x features.

    Args:
        one: (feature, d_model) decoder directions, of any length; zeros for a dead feature.
        other: (feature, d_model) of the other dictionary, which may have another number of features.
        method: see the module's docstring.
        null: what chance is.
        draws: of the null. The smallest p value is 1/(1 + draws): where few of many features match, take more.
        block: features at a time.
        seed: of the null's draws.

    Raises:
        ValueError: shapes do not fit.
    """
    scores = CosineScores(one, other)
    drawn = []
    for own, theirs in ((one, other), (other, one)):
        rng = np.random.default_rng(seed)  # the same for both sides: backwards the matches are the same
        vectors = rng.standard_normal((draws, own.shape[1]), dtype=np.float32)
        if null == "covariance":
            vectors = _mixtures(own, draws, rng, block)
        nearest, _, _ = scan_scores(CosineScores(vectors, theirs), block=block)
        drawn.append(_Chance.pooled(nearest.score, len(own)))
    return _match(scores, drawn[0], drawn[1], method, block)


def match_activations(
    one: Any,
    other: Any,
    *,
    method: Method = "mutual",
    block: int = BLOCK,
    seed: int = 0,
) -> Matches:
    """Match by the correlation of activations over the same tokens.

    Args:
        one: (token, feature) activations, a scipy sparse array or a plain one.
        other: (token, feature) of the other dictionary on the same tokens.
        method, block, seed: as of :func:`match_decoders`.

    Raises:
        ValueError: shapes do not fit.
    """
    from scipy.sparse import csc_array

    left, right = csc_array(one, dtype=np.float64), csc_array(other, dtype=np.float64)
    scores = CorrelationScores(left, right)
    rng = np.random.default_rng(seed)
    rows, columns = [], []
    by_row = left.tocsr()
    for _ in range(SHUFFLES):
        shuffled = csc_array(by_row[rng.permutation(left.shape[0])])
        for_row, for_column, _ = scan_scores(CorrelationScores(shuffled, right), block=block)
        rows.append(for_row.score)
        columns.append(for_column.score)
    return _match(scores, _Chance.by_frequency(rows, left), _Chance.by_frequency(columns, right), method, block)


@dataclass(frozen=True)
class _Chance:
    """What the nearest scores of chance are: sorted draws of each group, and the group of every feature."""

    draws: list[npt.NDArray[np.float32]]
    group: IntArray

    @classmethod
    def pooled(cls, draws: npt.NDArray[np.float32], features: int) -> _Chance:
        return cls([np.sort(draws[np.isfinite(draws)])], np.zeros(features, dtype=np.int64))

    @classmethod
    def by_frequency(cls, draws: list[npt.NDArray[np.float32]], table: Any) -> _Chance:
        counts = np.diff(table.indptr)
        octave = np.floor(np.log2(np.maximum(counts, 1)))
        group = np.zeros(counts.size, dtype=np.int64)
        number, size = 0, 0
        for value in np.unique(octave):  # from the rarest on; a group that is too small takes the next octave too
            if size >= FEWEST and (octave >= value).sum() >= FEWEST:
                number, size = number + 1, 0
            mine = octave == value
            group[mine] = number
            size += int(mine.sum())
        drawn = np.stack(draws)
        parts = [drawn[:, group == g] for g in range(number + 1)]
        return cls([np.sort(part[np.isfinite(part)]) for part in parts], group)

    def p(self, features: IntArray, scores: npt.NDArray[np.floating]) -> FloatArray:
        """(pair,) p values of scores of these features; NaN for a score that is not finite."""
        result = np.full(features.size, np.nan)
        for number, draws in enumerate(self.draws):
            mine = (self.group[features] == number) & np.isfinite(scores)
            larger = draws.size - np.searchsorted(draws, scores[mine].astype(np.float32), side="left")
            result[mine] = (1.0 + larger) / (1.0 + draws.size)
        return result

    def least(self) -> float:
        """A score below which no feature has a p value of :data:`RATE` or less."""
        smallest = np.inf
        for draws in self.draws:
            allowed = int(np.floor(RATE * (1.0 + draws.size) + 1e-9)) - 1  # draws that may be as large
            if allowed >= 0:
                smallest = min(smallest, float(draws[draws.size - allowed - 1]) if allowed < draws.size else -1.0)
        return smallest


def _match(scores: ScoreBlocks, rows: _Chance, columns: _Chance, method: Method, block: int) -> Matches:
    if method not in ("mutual", "assignment"):
        raise ValueError(f"method is {method!r}; expected 'mutual' or 'assignment'")
    least = max(rows.least(), columns.least())
    above = least if method == "assignment" else None
    for_row, for_column, pairs = scan_scores(scores, above=above, block=block)
    tied_rows, tied_columns = _tied(for_row), _tied(for_column)

    def p_of(left: IntArray, right: IntArray, score: npt.NDArray[np.floating]) -> FloatArray:
        return np.maximum(rows.p(left, score), columns.p(right, score))

    if method == "mutual":
        left = np.flatnonzero((for_row.index >= 0) & ~tied_rows)
        right = for_row.index[left]
        keep = (for_column.index[right] == left) & ~tied_columns[right]
        left, right, score = left[keep], right[keep], for_row.score[left[keep]].astype(np.float64)
        ambiguous_rows = tied_rows | _of_a_tie(for_row, for_column, tied_columns)
        ambiguous_columns = tied_columns | _of_a_tie(for_column, for_row, tied_rows)
    else:
        possible = p_of(pairs.rows, pairs.columns, pairs.scores) <= RATE
        pairs = ScoredPairs(pairs.rows[possible], pairs.columns[possible], pairs.scores[possible])
        left, right, score, ambiguous_rows, ambiguous_columns = _assigned(pairs, scores.shape, least)
    p = p_of(left, right, score)
    alive = max(int((for_row.index >= 0).sum()), int((for_column.index >= 0).sum()))
    found = discover(np.r_[p, np.ones(alive - p.size)], rate=RATE)[: p.size]
    cut = float(p[found].max()) if found.any() else 0.0
    left, right, score = left[found], right[found], score[found]
    height, width = scores.shape
    partner, back = np.full(height, NO_MATCH, dtype=np.int64), np.full(width, NO_MATCH, dtype=np.int64)
    partner[left], back[right] = right, left
    matched = np.full(height, np.nan)
    matched[left] = score
    one = _side(for_row, partner, ambiguous_rows, tied_rows, rows.p)
    other = _side(for_column, back, ambiguous_columns, tied_columns, columns.p)
    return Matches(one, other, matched, cut)


def _tied(nearest: Nearest) -> npt.NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        return np.asarray((nearest.index >= 0) & (nearest.score - nearest.second <= TIE))


def _of_a_tie(nearest: Nearest, back: Nearest, tied: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Which features are one of the equals among which their own nearest cannot choose."""
    target = np.maximum(nearest.index, 0)
    with np.errstate(invalid="ignore"):
        return np.asarray((nearest.index >= 0) & tied[target] & (back.score[target] - nearest.score <= TIE))


def _side(
    nearest: Nearest,
    partner: IntArray,
    ambiguous: npt.NDArray[np.bool_],
    tied: npt.NDArray[np.bool_],
    p_of: Callable[[IntArray, npt.NDArray[np.floating]], FloatArray],
) -> Side:
    dead = nearest.index < 0
    p = p_of(np.arange(partner.size), nearest.score)
    status = np.select(
        [dead, partner >= 0, ~discover(p, rate=RATE), ambiguous],
        [STATUS.index("dead"), STATUS.index("matched"), STATUS.index("below null"), STATUS.index("tie")],
        STATUS.index("not mutual"),
    ).astype(np.int64)
    score = np.where(dead, np.nan, nearest.score.astype(np.float64))
    return Side(partner, status, np.where(tied, NO_MATCH, nearest.index), score, p)


def _assigned(
    pairs: ScoredPairs, shape: tuple[int, int], least: float
) -> tuple[IntArray, IntArray, FloatArray, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """One-to-one pairs, and which rows and columns could as well have had another partner."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    height, width = shape
    # Only rows that have a candidate, each with a column of its own for staying alone.
    rows, compact = np.unique(pairs.rows, return_inverse=True)
    alone = np.arange(rows.size)
    gain = pairs.scores.astype(np.float64) - least
    # Every full matching has as many edges, so that a constant changes nothing; a cost of 0 would be no edge.
    cost = np.r_[3.0 - gain, np.full(rows.size, 3.0)]
    graph = csr_array(
        (cost, (np.r_[compact, alone], np.r_[pairs.columns, width + alone])), shape=(rows.size, width + rows.size)
    )
    ambiguous_rows, ambiguous_columns = np.zeros(height, dtype=np.bool_), np.zeros(width, dtype=np.bool_)
    if not rows.size:
        return rows, rows, np.empty(0), ambiguous_rows, ambiguous_columns
    left, right = min_weight_full_bipartite_matching(graph)
    partner = np.full(height, NO_MATCH, dtype=np.int64)
    partner[rows[left]] = np.where(right < width, right, NO_MATCH)
    chosen = partner[pairs.rows] == pairs.columns
    row_score, column_score = np.full(height, np.nan), np.full(width, np.nan)
    row_score[pairs.rows[chosen]] = pairs.scores[chosen]
    column_score[pairs.columns[chosen]] = pairs.scores[chosen]
    # Equal pairs in the row or in the column of a match: which one it is, is an accident of their order.
    rival = ~chosen & (
        (np.abs(row_score[pairs.rows] - pairs.scores) <= TIE)
        | (np.abs(column_score[pairs.columns] - pairs.scores) <= TIE)
    )
    ambiguous_rows[pairs.rows[rival]] = True
    ambiguous_columns[pairs.columns[rival]] = True
    unsure = chosen & (ambiguous_rows[pairs.rows] | ambiguous_columns[pairs.columns])
    ambiguous_rows[pairs.rows[unsure]] = True
    ambiguous_columns[pairs.columns[unsure]] = True
    keep = chosen & ~ambiguous_rows[pairs.rows] & ~ambiguous_columns[pairs.columns]
    return (
        pairs.rows[keep],
        pairs.columns[keep],
        pairs.scores[keep].astype(np.float64),
        ambiguous_rows,
        ambiguous_columns,
    )


def _mixtures(vectors: npt.NDArray[Any], draws: int, rng: np.random.Generator, block: int) -> npt.NDArray[np.float32]:
    """(draw, d_model) Gaussian vectors with the second moment of the directions of ``vectors``."""
    total = np.zeros((draws, vectors.shape[1]), dtype=np.float32)
    for first in range(0, len(vectors), block):
        part = np.asarray(vectors[first : first + block], dtype=np.float32)
        length = np.linalg.norm(part, axis=1, keepdims=True)
        unit = np.divide(part, length, out=np.zeros_like(part), where=length > 0)
        total += rng.standard_normal((draws, len(part)), dtype=np.float32) @ unit
    return total
