"""Linear decoding with cross-validation and shuffled labels, in closed form.

Ridge regression on one-hot classes (or on a number): W = (X'X + n*ridge*I)^-1 X'Y with X standardised on the training
prompts. The factorisation does not depend on Y, so that all shuffled labels cost one matrix product more.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

__all__ = ["decode_classes", "decode_number", "folds_of"]

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


@np.errstate(invalid="ignore")  # infinities of a broken model become NaN
def _fit_predict(x: np.ndarray, y: np.ndarray, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """(test prompt, target) ridge predictions; NaN where the fit is impossible."""
    rows = x[train]
    mean = rows.mean(0)
    rows = rows - mean
    scale = np.sqrt((rows * rows).mean(0))
    # dead units carry nothing
    scale = np.where(scale > 1e-6 * max(1e-30, float(scale.max(initial=0.0))), scale, np.inf)
    a = rows / scale
    dual = len(train) < a.shape[1]  # the smaller of the two equivalent systems
    gram = a @ a.T if dual else a.T @ a
    gram[np.diag_indices_from(gram)] += RIDGE * len(train)
    offset = y[train].mean(0)
    target = y[train] - offset
    try:
        factor, target = cho_factor(gram, lower=True, check_finite=True), target if dual else a.T @ target
        if target.shape[1] > len(gram):  # the inverse is then the faster way, and a product with it as exact as the fit
            solved = cho_solve(factor, np.eye(len(gram)), check_finite=False) @ target
        else:
            solved = cho_solve(factor, target)
    except (LinAlgError, ValueError):  # a model that returned NaN or infinity
        return np.full((len(test), y.shape[1]), np.nan)
    b = (x[test] - mean) / scale
    return np.asarray((b @ a.T if dual else b) @ solved + offset)


def decode_classes(
    x: np.ndarray,
    labels: np.ndarray,
    fold: np.ndarray,
    group: np.ndarray,
    *,
    shuffles: int = 40,
    seed: int = 0,
    shuffled: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Decode a class from activations, training within one group and testing in every group.

    For each group *g* and fold *f*, a classifier is trained on the prompts of *g* outside *f* and predicts all prompts
    in *f*, of every group: the diagonal is ordinary cross-validation, the rest is transfer from one context to
    another.

    Args:
        x: (prompt, feature) activations.
        labels: (prompt,) classes, any hashable values.
        fold: (prompt,) fold numbers (see :func:`folds_of`).
        group: (prompt,) contexts.
        shuffles: how many label shuffles (within each group).
        shuffled: (prompt, shuffle) labels shuffled already, for a null that keeps more than the groups; all of them must
            occur among ``labels``.

    Returns:
        hits (group, prompt): 1.0 where the classifier of that group is right, NaN where the activations are not
        finite; and null hits (group, prompt, shuffle): the same for classifiers trained on shuffled labels.
    """
    rng = np.random.default_rng(seed)
    x = np.asarray(x, dtype=np.float64)
    classes, codes = np.unique(labels, return_inverse=True)
    groups = np.unique(group)
    if shuffled is not None:
        shuffles = shuffled.shape[1]
        y = np.column_stack([codes, np.searchsorted(classes, shuffled)])
    else:
        y = np.repeat(codes[:, None], shuffles + 1, axis=1)  # (prompt, 1 + shuffle)
        for name in groups:
            rows = np.flatnonzero(group == name)
            for column in range(1, shuffles + 1):
                y[rows, column] = codes[rng.permutation(rows)]
    hot = np.eye(len(classes))[y].reshape(len(x), -1)  # (prompt, (1 + shuffle) * class)
    hits = np.full((len(groups), len(x), shuffles + 1), np.nan)
    for g, name in enumerate(groups):
        for f in np.unique(fold):
            train, test = np.flatnonzero((group == name) & (fold != f)), np.flatnonzero(fold == f)
            predicted = _fit_predict(x, hot, train, test).reshape(len(test), shuffles + 1, len(classes))
            right = (predicted.argmax(-1) == codes[test, None]).astype(float)
            right[~np.isfinite(predicted).all(axis=(1, 2))] = np.nan
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
