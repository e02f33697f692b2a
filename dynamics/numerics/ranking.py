"""How well does a score tell two classes apart? The area under the ROC curve, its bootstrap, and shuffled labels.

With scores s, ``AUROC = P(s_1 > s_0) + P(s_1 = s_0) / 2`` for a member of class 1 and one of class 0, drawn at random:
the Mann-Whitney U statistic over the number of pairs (Hanley and McNeil 1982). 1/2 is chance, 0 is a perfect score that
points the wrong way.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .arrays import FloatArray

__all__ = ["resampled_counts", "shuffled_labels", "weighted_auroc"]


def weighted_auroc(scores: npt.ArrayLike, up: npt.ArrayLike, down: npt.ArrayLike) -> FloatArray:
    """AUROC of weighted prompts.

    Args:
        scores: (..., prompt).
        up: (draw, prompt) weights of the prompts as members of class 1.
        down: (draw, prompt) weights as members of class 0.

    Returns:
        (..., draw); NaN where a score is not finite or a class has no weight.
    """
    s = np.asarray(scores, dtype=np.float64)
    one, other = np.asarray(up, dtype=np.float64), np.asarray(down, dtype=np.float64)
    pairs = one.sum(1) * other.sum(1)
    flat = s.reshape(-1, s.shape[-1])
    result = np.full((len(flat), len(one)), np.nan)
    for row, values in enumerate(flat):
        if np.isfinite(values).all():
            won = 0.5 + 0.5 * np.sign(values[:, None] - values[None])
            result[row] = ((one @ won) * other).sum(1) / np.where(pairs > 0, pairs, np.nan)
    return result.reshape(*s.shape[:-1], len(one))


def resampled_counts(
    prompts: int, *, clusters: npt.ArrayLike | None, draws: int, share: float = 1.0, seed: int = 0
) -> FloatArray:
    """(draw, prompt) how often each prompt is in a bootstrap draw.

    Args:
        prompts: how many.
        clusters: (prompt,) labels; whole clusters are resampled, in the order of their sorted labels, with the counts
            that :func:`dynamics.emergence.unit_bootstrap` draws from the same seed: draws of both are paired.
        draws: number of draws.
        share: of the clusters, how many each draw holds.
        seed: of the resampling.
    """
    unit = np.arange(prompts) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    units = int(unit.max()) + 1
    size = max(1, round(share * units))
    drawn = np.random.default_rng(seed).multinomial(size, np.full(units, 1 / units), size=draws)
    return np.asarray(drawn[:, unit], dtype=np.float64)


def shuffled_labels(
    positive: npt.ArrayLike, *, units: npt.ArrayLike | None = None, shuffles: int = 20, seed: int = 0
) -> npt.NDArray[np.bool_]:
    """(shuffle, prompt) labels dealt anew, as a permutation test of paired or clustered prompts needs them.

    Args:
        positive: (prompt,) members of class 1.
        units: (prompt,) what belongs together. Where every unit has prompts of both classes, labels are dealt within
            units (of a pair, which is which is chosen at random); where every unit has one class, units are dealt whole;
            otherwise, and without units, prompts are.
        shuffles: how many.
        seed: of the shuffles.

    >>> shuffled_labels([True, False, True, False], units=["a", "a", "b", "b"], shuffles=50).reshape(50, 2, 2).sum(2).max()
    np.int64(1)
    """
    one = np.asarray(positive, dtype=bool)
    rng = np.random.default_rng(seed)
    unit = np.zeros(one.size, dtype=int) if units is None else np.unique(np.asarray(units), return_inverse=True)[1]
    share = np.bincount(unit, weights=one) / np.bincount(unit)
    if np.isin(share, (0.0, 1.0)).all():  # one class in every unit
        dealt = np.array([rng.permutation(share == 1)[unit] for _ in range(shuffles)])
        return dealt.reshape(shuffles, one.size)
    if np.isin(share, (0.0, 1.0)).any():
        unit = np.zeros(one.size, dtype=int)
    order = np.lexsort((rng.random((shuffles, one.size)), np.broadcast_to(unit, (shuffles, one.size))), axis=-1)
    dealt = np.empty((shuffles, one.size), dtype=bool)
    dealt[:, np.argsort(unit, kind="stable")] = one[order]
    return dealt
