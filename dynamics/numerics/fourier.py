"""Periodic structure of number representations.

Zhou et al. 2024 and Kantamneni and Tegmark 2025 find that language models represent a number *n* by Fourier features
of periods 2, 5, 10 and 100 and a linear term. Here: the share R^2 of the variance of the representations over numbers
that a least-squares fit on those features explains.

Two nulls. *Shuffled numbers* asks whether the representation depends on the number at all. *Relabelled digits* keeps
that dependence and asks whether it is periodic and ordered: the ten digits are renamed at random, in the tens and in
the ones separately, so that a representation that merely tells digits apart loses nothing.
"""

from __future__ import annotations

import numpy as np

__all__ = ["PERIODS", "fourier_basis", "fourier_r2", "relabelled_digits"]

PERIODS = (2, 5, 10, 100)


def fourier_basis(numbers: np.ndarray, periods: tuple[int, ...] = PERIODS, *, linear: bool = True) -> np.ndarray:
    """(number, feature): constant, n, and cos/sin(2 pi n / T) for every period T (the sine of period 2 vanishes)."""
    n = np.asarray(numbers, dtype=np.float64)
    columns = [np.ones_like(n)]
    if linear:
        columns.append((n - n.mean()) / max(float(n.std()), 1e-12))
    for period in periods:
        columns.append(np.cos(2 * np.pi * n / period))
        if period != 2:
            columns.append(np.sin(2 * np.pi * n / period))
    return np.stack(columns, axis=1)


def fourier_r2(representations: np.ndarray, numbers: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Share of variance over numbers explained by the Fourier features.

    Args:
        representations: (..., number, feature); leading axes (say layers) are fitted apart.
        numbers: (number,) integers, or (draw, number) to fit many relabellings of the same representations.
        weights: (draw, number) bootstrap counts of the numbers, or None.

    Returns:
        (...) R^2, or (draw, ...) with ``weights`` or two-dimensional ``numbers``. NaN where the representations do
        not vary or are not finite.
    """
    x = np.asarray(representations, dtype=np.float64)
    draws = (
        None if weights is None and np.ndim(numbers) == 1 else (len(weights) if weights is not None else len(numbers))
    )
    results = []
    for d in range(1 if draws is None else draws):
        labels = numbers[d] if np.ndim(numbers) == 2 else numbers
        w = np.ones(x.shape[-2]) if weights is None else weights[d].astype(np.float64)
        root = np.sqrt(w)[:, None]
        q, _ = np.linalg.qr(root * fourier_basis(labels))
        centred = root * (x - np.einsum("n,...nf->...f", w / w.sum(), x)[..., None, :])
        total = (centred**2).sum((-2, -1))
        explained = (np.einsum("nk,...nf->...kf", q, centred) ** 2).sum((-2, -1))
        with np.errstate(invalid="ignore", divide="ignore"):
            results.append(np.where(total > 0, explained / total, np.nan))
    return np.stack(results) if draws is not None else results[0]


def relabelled_digits(numbers: np.ndarray, draws: int, seed: int = 0) -> np.ndarray:
    """(draw, number): two-digit numbers with their tens and ones digits renamed by random permutations.

    The first digit keeps to 1-9, so that the numbers stay in 10-99.
    """
    rng = np.random.default_rng(seed)
    tens, ones = np.asarray(numbers) // 10, np.asarray(numbers) % 10
    result = np.empty((draws, len(tens)), dtype=np.int64)
    for d in range(draws):
        result[d] = 10 * (1 + rng.permutation(9))[tens - 1] + rng.permutation(10)[ones]
    return result
