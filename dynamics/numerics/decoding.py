"""Linear decoding with cross-validation and shuffled labels, in closed form.

Ridge regression on one-hot classes (or on a number): W = (X'X + n*ridge*I)^-1 X'Y with X standardised on the training
prompts. The factorisation does not depend on Y, so that all shuffled labels cost one matrix product more.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.linalg.lapack import dposv

__all__ = ["ClassDecoder", "decode_number", "folds_of"]

RIDGE = 0.1


def folds_of(units: np.ndarray, folds: int = 5, seed: int = 0) -> np.ndarray:
    """(prompt,) fold of each prompt; prompts of one unit (say one operand pair) share a fold.

    >>> sorted(set(folds_of(np.arange(10), folds=5).tolist()))
    [0, 1, 2, 3, 4]
    """
    _, inverse = np.unique(units, return_inverse=True)
    count = int(inverse.max()) + 1
    order = np.random.default_rng(seed).permutation(count) % folds
    return np.asarray(order[inverse])


def _standardised(x: np.ndarray, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(training prompt, feature) and (test prompt, feature), by mean and spread of the former."""
    rows = x[train]
    mean = rows.mean(0)
    rows = rows - mean
    scale = np.sqrt((rows * rows).mean(0))
    # dead units carry nothing
    scale = np.where(scale > 1e-6 * max(1e-30, float(scale.max(initial=0.0))), scale, np.inf)
    return rows / scale, (x[test] - mean) / scale


def _gram(a: np.ndarray) -> tuple[np.ndarray, bool]:
    """The smaller of two equivalent systems, and whether it is that of prompts."""
    dual = len(a) < a.shape[1]
    gram = a @ a.T if dual else a.T @ a
    gram[np.diag_indices_from(gram)] += RIDGE * len(a)
    return gram, dual


@np.errstate(invalid="ignore")  # infinities of a broken model become NaN
def _weights(x: np.ndarray, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """(test prompt, training prompt) by which ridge predictions weigh targets less their mean; NaN where no fit is possible."""
    a, b = _standardised(x, train, test)
    gram, dual = _gram(a)
    _, solved, failed = dposv(gram, a @ b.T if dual else b.T, lower=1)
    if failed or not np.isfinite(gram).all():  # a model that returned NaN or infinity
        return np.full((len(test), len(train)), np.nan)
    return np.asarray((solved if dual else a @ solved).T)


@np.errstate(invalid="ignore")  # infinities of a broken model become NaN
def _fit_predict(x: np.ndarray, y: np.ndarray, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """(test prompt, target) ridge predictions; NaN where the fit is impossible."""
    a, b = _standardised(x, train, test)
    gram, dual = _gram(a)
    offset = y[train].mean(0)
    target = y[train] - offset
    try:
        solved = cho_solve(cho_factor(gram, lower=True, check_finite=True), target if dual else a.T @ target)
    except (LinAlgError, ValueError):  # a model that returned NaN or infinity
        return np.full((len(test), y.shape[1]), np.nan)
    return np.asarray((b @ a.T if dual else b) @ solved + offset)


class ClassDecoder:
    """Decodes classes from many activations of the same prompts, training within one group and testing in every group.

    For each group *g* and fold *f*, a classifier is trained on the prompts of *g* outside *f* and predicts all prompts
    in *f*, of every group: the diagonal is ordinary cross-validation, the rest is transfer from one context to
    another.

    Args:
        labels: (prompt,) classes, any hashable values.
        fold: (prompt,) fold numbers (see :func:`folds_of`).
        group: (prompt,) contexts.
        shuffles: how many label shuffles (within each group).
        seed: of the shuffles.
        shuffled: (prompt, shuffle) labels shuffled already, for a null that keeps more than the groups; all of them must
            occur among ``labels``.
    """

    def __init__(
        self,
        labels: np.ndarray,
        fold: np.ndarray,
        group: np.ndarray,
        *,
        shuffles: int = 40,
        seed: int = 0,
        shuffled: np.ndarray | None = None,
    ) -> None:
        rng = np.random.default_rng(seed)
        classes, codes = np.unique(labels, return_inverse=True)
        groups = np.unique(group)
        if shuffled is not None:
            y = np.column_stack([codes, np.searchsorted(classes, shuffled)])
        else:
            y = np.repeat(codes[:, None], shuffles + 1, axis=1)  # (prompt, 1 + shuffle)
            for name in groups:
                rows = np.flatnonzero(group == name)
                for column in range(1, shuffles + 1):
                    y[rows, column] = codes[rng.permutation(rows)]
        hot = np.eye(len(classes))[y].reshape(len(y), -1)  # (prompt, (1 + shuffle) * class)
        self._codes, self._shape = codes, (len(groups), *y.shape)
        # of every group and fold: who trains, who is tested, the targets less their mean, and that
        self._parts = [
            (g, train, test, hot[train] - hot[train].mean(0), hot[train].mean(0))
            for g, name in enumerate(groups)
            for f in np.unique(fold)
            for train, test in [(np.flatnonzero((group == name) & (fold != f)), np.flatnonzero(fold == f))]
        ]

    def hits(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Whether the classifiers of each group are right.

        Args:
            x: (prompt, feature) activations.

        Returns:
            hits (group, prompt): 1.0 where the classifier of that group is right, NaN where the activations are not
            finite; and null hits (group, prompt, shuffle): the same for classifiers trained on shuffled labels.
        """
        x = np.asarray(x, dtype=np.float64)
        hits = np.full(self._shape, np.nan)
        for g, train, test, target, offset in self._parts:
            weight = _weights(x, train, test)
            # of one-hot targets a prediction is finite where its weights are
            predicted = (weight @ target + offset).reshape(len(test), self._shape[2], -1)
            right = (predicted.argmax(-1) == self._codes[test, None]).astype(float)
            right[~np.isfinite(weight).all(1)] = np.nan
            hits[g, test] = right
        return hits[..., 0], hits[..., 1:]


def decode_number(
    x: np.ndarray, values: np.ndarray, fold: np.ndarray, *, shuffles: int = 40, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Cross-validated R^2 of a linear read-out of a number, as contributions that average to R^2.

    Args:
        x: (prompt, feature) activations.
        values: (prompt,) numbers.
        fold: (prompt,) fold numbers.

    Returns:
        (prompt,) 1 - error^2 / variance, whose mean is R^2 (negative where the read-out is worse than the mean), and
        (shuffle,) R^2 for shuffled numbers.
    """
    rng = np.random.default_rng(seed)
    x = np.asarray(x, dtype=np.float64)
    y = np.stack([values, *(rng.permutation(values) for _ in range(shuffles))], axis=1).astype(np.float64)
    predicted = np.full_like(y, np.nan)
    for f in np.unique(fold):
        train, test = np.flatnonzero(fold != f), np.flatnonzero(fold == f)
        predicted[test] = _fit_predict(x, y, train, test)
    variance = y.var(0)
    share = 1 - (predicted - y) ** 2 / np.where(variance > 0, variance, np.nan)
    return share[:, 0], share[:, 1:].mean(0)
