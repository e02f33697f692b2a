r"""Features of a chain followed through a series: tracks, their strength and what they are worth, births, splits and deaths.

A match between neighbours hands a feature's name on, what has no partner begins or ends a *track*, and a new feature near
one that is matched otherwise comes from its split (:func:`chain`).

The strength of a track at a checkpoint is the mean activation of its feature there (:func:`along`); where it has none, there
is no such feature and its strength is 0. But decoders turn, features split, and two trainings differ: a track may end while
its tokens go on to be another feature's. Where the activations of its first (last) feature correlate with those of a feature
of the checkpoint before (after) by at least :data:`SAME`, absence is not shown and the strength there is not known (NaN).
Births and deaths are found in these curves (:func:`follow_chain`) with the statistics of
:mod:`dynamics.emergence.lives`. Errors of one track at two checkpoints come from the same rows of text and are not taken to
be independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..emergence.lives import FLOOR, NONE, Lives, live
from ..numerics.arrays import BoolArray, FloatArray, IntArray
from ..numerics.draws import FINE_DRAWS
from .matching import STATUS, Matches

__all__ = ["SAME", "Chain", "along", "chain", "continued", "follow_chain", "moves"]


SAME = 0.5
"""From this correlation of their activations on, a feature has the tokens of another one."""


@dataclass(frozen=True)
class Chain:
    """Features of dictionaries of neighbouring checkpoints, joined by their matches.

    Attributes:
        track: for each checkpoint (feature,) the number of the track that a feature belongs to; -1 for a dead feature.
        first, last: (track,) checkpoints at which it is seen first and last. One that begins after the first checkpoint
            is born between ``first - 1`` and ``first``; one that ends early dies between ``last`` and ``last + 1``.
        splits: (event, 3) transition, old feature, new feature: new, near the old one, which is matched with another.
        merges: (event, 3) transition, old feature, new feature: the old one ends near a new one that continues another.
    """

    track: list[IntArray]
    first: IntArray
    last: IntArray
    splits: IntArray
    merges: IntArray


def chain(matches: Sequence[Matches]) -> Chain:
    """Join the matches of neighbouring checkpoints (transition) into tracks; gaps are not bridged.

    Raises:
        ValueError: when the features of one transition's end are not those of the next one's start.
    """
    if not matches:
        raise ValueError("there are no matches; expected one per transition")
    dead, otherwise = STATUS.index("dead"), STATUS.index("not mutual")

    def begin(alive: BoolArray, at: int) -> IntArray:
        names = np.full(alive.size, NONE, dtype=np.int64)
        names[alive] = np.arange(len(first), len(first) + int(alive.sum()))
        first.extend([at] * int(alive.sum()))
        last.extend([at] * int(alive.sum()))
        return names

    first: list[int] = []
    last: list[int] = []
    splits: list[tuple[int, int, int]] = []
    merges: list[tuple[int, int, int]] = []
    track = [begin(matches[0].one.status != dead, 0)]
    for number, match in enumerate(matches):
        if match.one.partner.size != track[-1].size:
            raise ValueError(
                f"transition {number} starts from {match.one.partner.size} features; expected {track[-1].size}"
            )
        partner = match.other.partner
        names = begin((match.other.status != dead) & (partner < 0), number + 1)
        going_on = np.flatnonzero(partner >= 0)
        names[going_on] = track[-1][partner[going_on]]
        for name in names[going_on]:
            last[name] = number + 1
        track.append(names)
        for side, other, events in ((match.other, match.one, splits), (match.one, match.other, merges)):
            for feature in np.flatnonzero((side.status == otherwise) & (side.nearest >= 0)):
                near = int(side.nearest[feature])
                if other.partner[near] >= 0:
                    pair = (near, int(feature)) if events is splits else (int(feature), near)
                    events.append((number, *pair))
    return Chain(
        track,
        np.array(first, dtype=np.int64),
        np.array(last, dtype=np.int64),
        np.array(splits, dtype=np.int64).reshape(-1, 3),
        np.array(merges, dtype=np.int64).reshape(-1, 3),
    )


def continued(chained: Chain, matches: Sequence[Matches]) -> BoolArray:
    """(track, 2) whether a feature had its tokens before it began, and has them after it ended.

    Args:
        chained: the tracks.
        matches: for each transition, by the correlation of activations
            (:func:`dynamics.learning.matching.match_activations`).
    """
    found = np.zeros((len(chained.first), 2), dtype=np.bool_)
    for number, match in enumerate(matches):
        old, new = (
            names[(names >= 0) & (side.nearest_score >= SAME)]
            for names, side in ((chained.track[number], match.one), (chained.track[number + 1], match.other))
        )
        found[new[chained.first[new] == number + 1], 0] = True
        found[old[chained.last[old] == number], 1] = True
    return found


def along(chained: Chain, values: npt.NDArray[np.floating], unknown: BoolArray | None = None) -> FloatArray:
    """(track, checkpoint) a value of its feature at every checkpoint: 0 where a track has none.

    Args:
        chained: the tracks.
        values: (checkpoint, feature).
        unknown: (track, 2) of :func:`continued`: tracks of which the value is NaN before they begin, and after they end.
    """
    checkpoints = len(chained.track)
    found = np.zeros((len(chained.first), checkpoints))
    for number, names in enumerate(chained.track):
        there = names >= 0
        found[names[there], number] = values[number, : len(names)][there]
    if unknown is not None:
        at = np.arange(checkpoints)
        found[unknown[:, :1] & (at < chained.first[:, None])] = np.nan
        found[unknown[:, 1:] & (at > chained.last[:, None])] = np.nan
    return found


def moves(chained: Chain, directions: Sequence[npt.NDArray[np.floating]]) -> FloatArray:
    """(track, transition) how far a track's decoder moves: the distance of unit vectors.

    1, the whole length, where the track begins or ends between the two checkpoints; NaN where it has no feature at either.

    Args:
        chained: the tracks.
        directions: for each checkpoint (feature, d_model) unit decoders.
    """
    found = np.full((len(chained.first), len(directions) - 1), np.nan)
    for number in range(len(directions) - 1):
        before, after = (np.full(len(chained.first), NONE, dtype=np.int64) for _ in range(2))
        for feature, names in ((before, chained.track[number]), (after, chained.track[number + 1])):
            feature[names[names >= 0]] = np.flatnonzero(names >= 0)
        both = (before >= 0) & (after >= 0)
        found[(before >= 0) ^ (after >= 0), number] = 1.0
        one, other = directions[number][before[both]], directions[number + 1][after[both]]
        found[both, number] = np.linalg.norm(other.astype(np.float64) - one, axis=1)
    return found


def follow_chain(steps: npt.ArrayLike, strength: FloatArray, errors: FloatArray) -> Lives:
    """Births and deaths of tracks.

    Args:
        steps: (checkpoint,) optimizer steps, increasing.
        strength: (track, checkpoint) mean activations of :func:`along`.
        errors: (track, checkpoint) their standard errors, in the same way.
    """
    values = np.asarray(strength, dtype=np.float64)
    spread = np.where(np.isnan(values), 0.0, np.asarray(errors, dtype=np.float64))
    peak = np.nan_to_num(values).max(axis=1)
    noise = np.random.default_rng(0).standard_normal((values.shape[1], FINE_DRAWS))

    def null(some: IntArray) -> FloatArray:
        return np.asarray(FLOOR * peak[some, None, None] + spread[some, :, None] * noise)

    return live(steps, values, spread, null=null, independent=False)
