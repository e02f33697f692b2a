r"""Features followed through a series: birth, drift, split, merge and death; turning points of the whole dictionary.

*From a crosscoder* (:func:`follow`): the strength of a feature at a checkpoint is its decoder norm. It is present where
its strength exceeds what a feature of ``floor`` x its largest strength would show with the sampling error of the
decoder (:func:`dynamics.features.dictionary.refit`), by the bound that holds at all checkpoints together of
:mod:`dynamics.emergence`. The share is needed because with enough tokens any small leak of another feature into a code
is significant. Births are thus the onsets of the strength curves, deaths the ends of their runs, both intervals between
two checkpoints, with the false discovery rate held over the features. Absence has to be shown as well: before its birth
(after its death) a feature must be less than half as strong as in between by more than the sampling error, with the false
discovery rate held over all such changes; a feature that only grows, or that noise hides at first, is not born.

Two features with one direction at first and two at last have *split* (:func:`partings`); the other way round they have
merged. In a dictionary over all checkpoints the two are there from the start, because their tokens are.

*From matches between neighbours* (:func:`chain`): a match hands a feature's name on, what has no partner is born or
dies, and a new feature near one that is matched otherwise comes from its split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from dynamics.emergence import assess_many, discover, simultaneous_bound
from dynamics.emergence.runs import CODES
from dynamics.numerics.blocked import CosineScores, scan_scores

from .matching import STATUS, Matches

__all__ = ["Chain", "Partings", "Tracks", "Turning", "chain", "changes", "follow", "partings", "turning_points"]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

NONE = -1

HALF = 0.5
"""A feature that was at least this share as strong before (after) is not born (dead) but grows (fades)."""


@dataclass(frozen=True)
class Tracks:
    """One entry per feature; checkpoints are positions in the series.

    Attributes:
        state: (feature,) position in ``dynamics.emergence.runs.CODES``.
        found: (feature,) whether it is beyond its null somewhere, at the false discovery rate.
        born: (feature, 2) absent at the first, present at the second; -1 and -1 where it is not born in the series.
        died: (feature, 2) present at the first, absent at the second; -1 and -1 where it does not die.
        present: (feature, checkpoint) from birth to death.
        drift: (feature, transition) cosine of its decoder at neighbouring checkpoints; NaN unless present at both.
        p_value: (feature,) of "never beyond its null"; NaN where it was not fitted.
    """

    state: IntArray
    found: BoolArray
    born: IntArray
    died: IntArray
    present: BoolArray
    drift: FloatArray
    p_value: FloatArray

    @property
    def births(self) -> IntArray:
        """Features that are born in the series."""
        return np.flatnonzero(self.born[:, 1] >= 0)

    @property
    def deaths(self) -> IntArray:
        """Features that die in the series."""
        return np.flatnonzero(self.died[:, 1] >= 0)


def follow(
    steps: npt.ArrayLike,
    decoder: npt.NDArray[np.floating],
    *,
    variance: npt.ArrayLike,
    error: npt.ArrayLike,
    dimensions: npt.ArrayLike,
    floor: float = 0.25,
    rate: float = 0.05,
    level: float = 0.95,
    draws: int = 400,
    seed: int = 0,
) -> Tracks:
    """Birth, death and drift of the features of a crosscoder.

    Args:
        steps: (checkpoint,) optimizer steps, increasing.
        decoder: (feature, checkpoint, d_model) decoder of a fitted dictionary.
        variance: (feature,) variance of its coefficients (``Dictionary.variance``); NaN where it was not fitted.
        error: (checkpoint,) mean squared length of the reconstruction's error (``Fit.error``).
        dimensions: (checkpoint,) effective dimensions of the error (``Fit.dimensions``).
        floor: share of its largest strength that counts as absence.
        rate: false discovery rate over the features.
        level: of the bound over checkpoints.
        draws: of the null of each feature.
        seed: of them.

    Raises:
        ValueError: shapes do not fit.
    """
    vectors = np.asarray(decoder, dtype=np.float64)
    spread, rest, effective = (np.asarray(a, dtype=np.float64) for a in (variance, error, dimensions))
    features, checkpoints, _ = vectors.shape
    if spread.shape != (features,) or rest.shape != (checkpoints,) or effective.shape != (checkpoints,):
        raise ValueError(
            f"variance, error and dimensions have shapes {spread.shape}, {rest.shape} and {effective.shape}; "
            f"expected ({features},), ({checkpoints},) and ({checkpoints},)"
        )
    strength = np.linalg.norm(vectors, axis=2)
    known = np.flatnonzero(np.isfinite(spread) & (strength.max(axis=1) > 0))
    state = np.full(features, CODES.index("not measurable"), dtype=np.int64)
    found = np.zeros(features, dtype=np.bool_)
    born, died = np.full((features, 2), NONE, dtype=np.int64), np.full((features, 2), NONE, dtype=np.int64)
    present = np.zeros((features, checkpoints), dtype=np.bool_)
    p_value = np.full(features, np.nan)
    if known.size:
        peak = strength[known].max(axis=1)
        effective = np.maximum(effective, 1.0)
        noise = np.sqrt(spread[known, None] * rest)  # (feature, checkpoint) length of the decoder's sampling error
        rng = np.random.default_rng(seed)
        # squared length of a Gaussian vector of so many dimensions, over its mean; and along the decoder
        squared = rng.chisquare(effective[:, None], size=(checkpoints, draws)) / effective[:, None]
        along = rng.standard_normal((checkpoints, draws)) / np.sqrt(effective)[:, None]

        def null(piece: slice) -> FloatArray:
            weak, around = floor * peak[piece, None, None], noise[piece, :, None]
            return np.asarray(np.sqrt(np.maximum(weak**2 + 2 * weak * around * along + around**2 * squared, 0.0)))

        many = assess_many(
            steps, strength[known], null=null, errors=noise / np.sqrt(effective), level=level, count=64, seed=seed
        )
        p_value[known] = many.p_value
        accepted = discover(many.p_value, rate=rate)
        state[known], found[known] = many.state, accepted
        there = accepted & np.isin(many.state, [CODES.index(s) for s in ("emerged", "present from start", "transient")])
        for place in np.flatnonzero(there):
            feature, start = known[place], int(many.start[place])
            if many.before[place] >= 0:
                born[feature] = many.before[place], start
            if many.after[place] >= 0:
                died[feature] = many.stop[place], many.after[place]
        scatter = np.full(strength.shape, np.nan)
        scatter[known] = noise / np.sqrt(effective)
        _keep_shown(born, died, strength, scatter, rate)
        at = np.arange(checkpoints)
        begun = at >= np.where(born[:, 1] >= 0, born[:, 1], 0)[:, None]
        present = begun & (at <= np.where(died[:, 0] >= 0, died[:, 0], checkpoints)[:, None])
        present[np.setdiff1d(np.arange(features), known[there])] = False
    both = present[:, 1:] & present[:, :-1]
    lengths = strength[:, 1:] * strength[:, :-1]
    products = np.einsum("fcd,fcd->fc", vectors[:, 1:], vectors[:, :-1])
    drift = np.where(both & (lengths > 0), products / np.where(lengths > 0, lengths, 1.0), np.nan)
    return Tracks(state, found, born, died, present, drift, p_value)


def _keep_shown(born: IntArray, died: IntArray, strength: FloatArray, scatter: FloatArray, rate: float) -> None:
    """Take back births and deaths before (after) which the feature is not shown to be below :data:`HALF` of its mean."""
    checkpoints = strength.shape[1]
    changes_at = [(born, f) for f in np.flatnonzero(born[:, 1] >= 0)] + [
        (died, f) for f in np.flatnonzero(died[:, 1] >= 0)
    ]
    p = []
    for table, feature in changes_at:
        first = max(int(born[feature, 1]), 0)
        last = int(died[feature, 0]) if died[feature, 1] >= 0 else checkpoints - 1
        run = slice(first, last + 1)
        absent = slice(0, first) if table is born else slice(int(died[feature, 1]), checkpoints)
        difference = HALF * strength[feature, run].mean() - strength[feature, absent].mean()
        weights = ((run, HALF**2), (absent, 1.0))
        variance = sum(w * (scatter[feature, part] ** 2).mean() / scatter[feature, part].size for part, w in weights)
        p.append(float(norm.sf(difference / np.sqrt(max(variance, 1e-300)))))
    for (table, feature), shown in zip(changes_at, discover(p, rate=rate) if p else (), strict=True):
        if not shown:
            table[feature] = NONE


@dataclass(frozen=True)
class Partings:
    """Pairs of features of which the directions part or meet, each (pair,) or (pair, 2).

    Attributes:
        features: (pair, 2).
        split: (pair,) True where they part, False where they merge.
        between: (pair, 2) the last checkpoint of the first state and the first of the second.
    """

    features: IntArray
    split: BoolArray
    between: IntArray


def partings(
    decoder: npt.NDArray[np.floating], present: npt.ArrayLike, *, together: float = 0.9, apart: float = 0.7
) -> Partings:
    """Features that have one direction at first and two at last, or the other way round.

    Args:
        decoder: (feature, checkpoint, d_model).
        present: (feature, checkpoint) of :class:`Tracks`.
        together: cosine from which two features have one direction.
        apart: cosine up to which they have two. Pairs that end between the two are not reported.
    """
    vectors, there = np.asarray(decoder), np.asarray(present, dtype=bool)
    pairs: set[tuple[int, int]] = set()
    for checkpoint in range(vectors.shape[1]):
        here = np.flatnonzero(there[:, checkpoint])
        if here.size > 1:
            some = vectors[here, checkpoint]
            _, _, near = scan_scores(CosineScores(some, some), above=together, most=9)
            pairs |= {(int(here[i]), int(here[j])) for i, j in zip(near.rows, near.columns, strict=True) if i < j}
    features, split, between = [], [], []
    for one, other in sorted(pairs):
        both = np.flatnonzero(there[one] & there[other])
        a, b = vectors[one, both].astype(np.float64), vectors[other, both].astype(np.float64)
        cosine = (a * b).sum(axis=1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-300)
        parts = bool(cosine[0] >= together and cosine[-1] <= apart)
        if parts or (cosine[0] <= apart and cosine[-1] >= together):
            last = int(np.flatnonzero(cosine >= together if parts else cosine <= apart)[-1])
            first = int(np.flatnonzero((cosine <= apart if parts else cosine >= together)[last:])[0]) + last
            features.append((one, other))
            split.append(parts)
            between.append((int(both[last]), int(both[first])))
    return Partings(
        np.array(features, dtype=np.int64).reshape(-1, 2),
        np.array(split, dtype=np.bool_),
        np.array(between, dtype=np.int64).reshape(-1, 2),
    )


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


def changes(decoder: npt.NDArray[np.floating]) -> FloatArray:
    """(feature, transition) how far each decoder moves, over its largest norm: birth, death and rotation alike.

    NaN for a feature without a decoder.
    """
    vectors = np.asarray(decoder, dtype=np.float64)
    peak = np.linalg.norm(vectors, axis=2).max(axis=1)[:, None]
    moved = np.linalg.norm(np.diff(vectors, axis=1), axis=2)
    return np.where(peak > 0, moved / np.where(peak > 0, peak, 1.0), np.nan)


@dataclass(frozen=True)
class Turning:
    """Turning points of a dictionary.

    Attributes:
        change: (transition,) mean change over features.
        upper: (transition,) what it stays below if features change independently of one another, at all transitions
            together.
        at: transitions beyond it.
    """

    change: FloatArray
    upper: FloatArray
    at: IntArray


def turning_points(
    change: npt.NDArray[np.floating], *, level: float = 0.95, draws: int = 1000, seed: int = 0
) -> Turning:
    """Transitions at which the features change together.

    The null shifts every feature's changes by a random number of transitions, around the end: each changes as much and
    in the same order, at a time of its own.

    Args:
        change: (feature, transition), NaN where not known.
        level: of the bound.
        draws: of the null.
        seed: of them.

    Raises:
        ValueError: when nothing is known.
    """
    values = np.asarray(change, dtype=np.float64)
    values = values[np.isfinite(values).any(axis=1)]
    if values.ndim != 2 or not values.size:
        raise ValueError(f"changes have shape {np.shape(change)}; expected (feature, transition) with finite values")
    finite = np.isfinite(values)
    filled = np.where(finite, values, 0.0)
    rng = np.random.default_rng(seed)
    features, transitions = values.shape
    null = np.empty((transitions, draws))
    rows, places = np.arange(features)[:, None], np.arange(transitions)
    for draw in range(draws):
        places_drawn = (places + rng.integers(transitions, size=(features, 1))) % transitions
        count = finite[rows, places_drawn].sum(axis=0)
        null[:, draw] = filled[rows, places_drawn].sum(axis=0) / np.maximum(count, 1)
    count = finite.sum(axis=0)
    mean = np.where(count > 0, filled.sum(axis=0) / np.maximum(count, 1), np.nan)
    upper = simultaneous_bound(null, level).upper
    return Turning(mean, upper, np.flatnonzero(mean > upper))
