r"""Features of a crosscoder followed through a series: birth, drift, split, merge and death; turning points of the whole.

The strength of a feature at a checkpoint is its decoder norm, and its sampling error that of the decoder
(:func:`dynamics.learning.dictionary.refit`): :func:`follow` finds births and deaths with the statistics of
:mod:`dynamics.emergence.lives`.

Two features with one direction at first and two at last have *split* (:func:`partings`); the other way round they have
merged. In a dictionary over all checkpoints the two are there from the start, because their tokens are.

Features of a chain are joined by matches instead: :mod:`dynamics.learning.chains`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from dynamics.emergence import simultaneous_bound
from dynamics.numerics.arrays import BoolArray, FloatArray, IntArray
from dynamics.numerics.blocked import CosineScores, scan_scores
from dynamics.numerics.draws import FINE_DRAWS

from ..emergence.lives import FLOOR, Lives, live

__all__ = ["Partings", "Tracks", "Turning", "changes", "follow", "partings", "turning_points"]

SHIFTS = 1000
"""Draws of the null of turning points; each is one number per transition, so that many cost little."""


@dataclass(frozen=True)
class Tracks(Lives):
    """The features of a crosscoder; see :class:`dynamics.emergence.lives.Lives` for the rest, curves being features.

    Attributes:
        error: (feature, checkpoint) sampling error of the strength; NaN where the decoder was not fitted.
        drift: (feature, transition) cosine of its decoder at neighbouring checkpoints; NaN unless present at both.
    """

    error: FloatArray
    drift: FloatArray


def follow(
    steps: npt.ArrayLike,
    decoder: npt.NDArray[np.floating],
    *,
    variance: npt.ArrayLike,
    error: npt.ArrayLike,
    dimensions: npt.ArrayLike,
) -> Tracks:
    """Birth, death and drift of the features of a crosscoder.

    Args:
        steps: (checkpoint,) optimizer steps, increasing.
        decoder: (feature, checkpoint, d_model) decoder of a fitted dictionary.
        variance: (feature,) variance of its coefficients (``Dictionary.variance``); NaN where it was not fitted.
        error: (checkpoint,) mean squared length of the reconstruction's error (``Fit.error``).
        dimensions: (checkpoint,) effective dimensions of the error (``Fit.dimensions``).

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
    peak = strength.max(axis=1)
    effective = np.maximum(effective, 1.0)
    noise = np.sqrt(spread[:, None] * rest)  # (feature, checkpoint) length of the decoder's sampling error
    rng = np.random.default_rng(0)
    # squared length of a Gaussian vector of so many dimensions, over its mean; and along the decoder
    squared = rng.chisquare(effective[:, None], size=(checkpoints, FINE_DRAWS)) / effective[:, None]
    along = rng.standard_normal((checkpoints, FINE_DRAWS)) / np.sqrt(effective)[:, None]

    def null(some: IntArray) -> FloatArray:
        weak, around = FLOOR * peak[some, None, None], noise[some, :, None]
        return np.asarray(np.sqrt(np.maximum(weak**2 + 2 * weak * around * along + around**2 * squared, 0.0)))

    scatter = noise / np.sqrt(effective)
    lives = live(steps, strength, scatter, null=null, independent=True)
    both = lives.present[:, 1:] & lives.present[:, :-1]
    lengths = strength[:, 1:] * strength[:, :-1]
    products = np.einsum("fcd,fcd->fc", vectors[:, 1:], vectors[:, :-1])
    drift = np.where(both & (lengths > 0), products / np.where(lengths > 0, lengths, 1.0), np.nan)
    return Tracks(**{f.name: getattr(lives, f.name) for f in fields(lives)}, error=scatter, drift=drift)


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


def turning_points(change: npt.NDArray[np.floating]) -> Turning:
    """Transitions at which the features change together.

    The null shifts every feature's changes by a random number of transitions, around the end: each changes as much and
    in the same order, at a time of its own.

    Args:
        change: (feature, transition), NaN where not known.

    Raises:
        ValueError: when nothing is known.
    """
    values = np.asarray(change, dtype=np.float64)
    values = values[np.isfinite(values).any(axis=1)]
    if values.ndim != 2 or not values.size:
        raise ValueError(f"changes have shape {np.shape(change)}; expected (feature, transition) with finite values")
    finite = np.isfinite(values)
    filled = np.where(finite, values, 0.0)
    rng = np.random.default_rng(0)
    features, transitions = values.shape
    null = np.empty((transitions, SHIFTS))
    rows, columns = np.arange(features)[:, None], np.arange(transitions)
    for draw in range(SHIFTS):
        shifted = (columns + rng.integers(transitions, size=(features, 1))) % transitions
        count = finite[rows, shifted].sum(axis=0)
        null[:, draw] = filled[rows, shifted].sum(axis=0) / np.maximum(count, 1)
    count = finite.sum(axis=0)
    mean = np.where(count > 0, filled.sum(axis=0) / np.maximum(count, 1), np.nan)
    upper = simultaneous_bound(null).upper
    return Turning(mean, upper, np.flatnonzero(mean > upper))
