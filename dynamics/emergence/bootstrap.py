"""Resampling: how much would a curve move with other prompts, and where would it lie if the model knew nothing?

- :func:`unit_bootstrap`: the nonparametric bootstrap of Efron (1979) over the sampling unit (prompt, seed, head), or
  over clusters of units (Field and Welsh 2007) where units share a template. A draw resamples **once for all
  checkpoints**, because the prompts are the same ones at each: a draw is a whole curve, and its dependence along
  training is that of the data. Two curves on the same units in the same order, with the same seed, are resampled
  together: their draws are paired.
- :func:`shuffled_match_null`: the permutation null of accuracy (Fisher 1935). Answers are dealt out anew among the
  prompts (of a group), again once for all checkpoints. A model that always says the most frequent answer scores
  exactly its null.
- :func:`sign_flip_null`: the sign-flip null of paired differences (Fisher 1935).

All are deterministic.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dynamics.emergence.types import Trend
from dynamics.numerics.arrays import FloatArray
from dynamics.numerics.draws import DRAWS, FINE_DRAWS

__all__ = ["random_signs", "shuffled_match_null", "sign_flip_null", "unit_bootstrap"]


def unit_bootstrap(
    units: npt.ArrayLike, *, draws: int = DRAWS, seed: int = 0, clusters: npt.ArrayLike | None = None
) -> FloatArray:
    """Means over resampled units, the same resampling at every checkpoint.

    Args:
        units: (checkpoint, unit) values; a NaN unit is left out at its checkpoint.
        draws: number of bootstrap draws.
        seed: of the resampling.
        clusters: (unit,) labels; whole clusters are resampled, in the order of their sorted labels.

    Returns:
        (checkpoint, draw) means in the units of ``units``; NaN where a draw holds no finite unit.

    Raises:
        ValueError: shapes do not fit, there is no unit, or ``draws`` is not positive.

    >>> unit_bootstrap([[1.0, 1.0], [0.0, np.nan]], draws=2).shape
    (2, 2)
    """
    table = np.asarray(units, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] == 0:
        raise ValueError(f"units have shape {table.shape}; expected (checkpoint, unit) with at least one unit")
    _check_draws(draws)
    finite = np.isfinite(table)
    total, count = np.where(finite, table, 0.0), finite.astype(np.float64)
    if clusters is not None:
        # A mean over resampled clusters needs only each cluster's sum and size.
        labels = _labels("clusters", clusters, table.shape[1])
        order, starts = np.argsort(labels, kind="stable"), np.searchsorted(np.sort(labels), np.unique(labels))
        total, count = (np.add.reduceat(array[:, order], starts, axis=1) for array in (total, count))
    resampled = total.shape[1]
    rng = np.random.default_rng(seed)
    # Drawing n of n with replacement = multinomial counts: the bootstrap becomes one matrix product.
    times = rng.multinomial(resampled, np.full(resampled, 1.0 / resampled), size=draws).T.astype(np.float64)
    size = count @ times
    means: FloatArray = np.divide(total @ times, size, out=np.full(size.shape, np.nan), where=size > 0)
    return means


def shuffled_match_null(
    predicted: npt.ArrayLike,
    answers: npt.ArrayLike,
    *,
    groups: npt.ArrayLike | None = None,
    questions: npt.ArrayLike | None = None,
    draws: int = DRAWS,
) -> FloatArray:
    """The accuracy of the same predictions under shuffled answers: the permutation null of accuracy.

    Args:
        predicted: (checkpoint, unit) predicted classes or token ids; NaN (in a float array) where there was no
            prediction: left out at its checkpoint.
        answers: (unit,) right classes or token ids.
        groups: (unit,) labels; answers are shuffled within a group, so that what the group alone gives away (the
            template, the range of the operands) stays in the null.
        questions: (unit,) labels; units of one question (the same question in two templates) have one answer, and are
            dealt one answer by every shuffle. Without this, units that are answered alike would make the null too
            narrow.
        draws: number of shuffles.

    Returns:
        (checkpoint, draw) accuracies in [0, 1]; NaN where a checkpoint has no prediction.

    Raises:
        ValueError: shapes do not fit, there is no unit, or ``draws`` is not positive.

    >>> shuffled_match_null([[7, 7, 7, 7]], [7, 7, 7, 3], draws=3)  # always the most frequent answer: no better than it
    array([[0.75, 0.75, 0.75]])
    """
    guess, truth = np.asarray(predicted), np.asarray(answers)
    if guess.ndim != 2 or guess.shape[1] == 0:
        raise ValueError(f"predicted has shape {guess.shape}; expected (checkpoint, unit) with at least one unit")
    if truth.shape != guess.shape[1:]:
        raise ValueError(f"answers have shape {truth.shape}; expected {guess.shape[1:]}: one per unit of predicted")
    _check_draws(draws)
    asked = guess.shape[1]
    strata = np.zeros(asked, dtype=np.int64) if groups is None else _labels("groups", groups, asked)
    question = np.arange(asked) if questions is None else _labels("questions", questions, asked)
    first = np.unique(question, return_index=True)[1]
    if (truth[first][question] != truth).any() or (strata[first][question] != strata).any():
        raise ValueError("a question has two answers or is in two groups; expected one of each")
    truth, labels, units = truth[first], strata[first], len(first)
    rng = np.random.default_rng(0)
    # Sorting random keys within groups lines up random members of each group with its members in order.
    order = np.lexsort((rng.random((draws, units)), np.broadcast_to(labels, (draws, units))), axis=-1)
    shuffled = np.empty((draws, units), dtype=truth.dtype)
    shuffled[:, np.argsort(labels, kind="stable")] = truth[order]
    shuffled = shuffled[:, question]
    made = np.isfinite(guess)
    null = np.full((guess.shape[0], draws), np.nan)
    for checkpoint in np.flatnonzero(made.any(axis=1)):  # one at a time: bounds memory by (draw, unit)
        where = made[checkpoint]
        null[checkpoint] = (shuffled[:, where] == guess[checkpoint, where]).mean(axis=1)
    return null


def random_signs(rng: np.random.Generator, units: int, draws: int, clusters: npt.ArrayLike | None = None) -> FloatArray:
    """(draw, unit) signs at random, one for all units of a cluster."""
    cluster = np.arange(units) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    return np.asarray(rng.choice([-1.0, 1.0], size=(draws, int(cluster.max()) + 1))[:, cluster])


def sign_flip_null(
    units: FloatArray,
    control: FloatArray | None = None,
    *,
    direction: Trend = "up",
    clusters: npt.ArrayLike | None = None,
) -> FloatArray:
    """(checkpoint, draw) null of paired differences: their deviations from the mean, with random signs.

    Without an effect a unit's difference is noise about zero. The observed mean is taken off first, so that a large
    effect does not widen its own null. The same signs are used at every checkpoint: a draw is a whole curve.

    Args:
        units: (checkpoint, unit) differences.
        control: (checkpoint, unit) the same differences where there cannot be an effect. What they show (say, of the
            position in the prompt) is added to the null where it goes in the curve's direction; where it goes against
            it, it is ignored, because an effect may harm its own control.
        direction: of the curve.
        clusters: (unit,) labels; units of one cluster have one sign, because they err together.
    """
    rng = np.random.default_rng(1)

    def noise(of: FloatArray) -> FloatArray:
        signs = random_signs(rng, of.shape[1], FINE_DRAWS, clusters)
        return np.asarray((of - of.mean(axis=1, keepdims=True)) @ signs.T / of.shape[1])

    null = noise(units)
    if control is not None:
        bias = control.mean(axis=1, keepdims=True)
        null = null + noise(control) + (np.maximum(bias, 0) if direction == "up" else np.minimum(bias, 0))
    return null


def _labels(name: str, labels: npt.ArrayLike, units: int) -> npt.NDArray[np.int64]:
    """Any labels as the numbers 0 .. k-1 of their sorted distinct values: independent of the order of units."""
    array = np.asarray(labels)
    if array.shape != (units,):
        raise ValueError(f"{name} have shape {array.shape}; expected {(units,)}: one label per unit")
    return np.unique(array, return_inverse=True)[1].astype(np.int64)


def _check_draws(draws: int) -> None:
    if draws < 1:
        raise ValueError(f"draws is {draws}; expected at least 1")
