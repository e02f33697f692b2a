"""Periodic structure of number representations.

Zhou et al. 2024 and Kantamneni and Tegmark 2025 find that language models represent a number *n* by Fourier features
of periods 2, 5, 10 and 100 and a linear term. Here: the share R^2 of the variance of the representations over numbers
that a least-squares fit on those features explains.

The null *renamed digits* keeps that the representation depends on the number and asks whether it is ordered or periodic:
the digits are renamed at random, so that a representation that merely tells digits apart loses nothing.
"""

from __future__ import annotations

import numpy as np

__all__ = ["MAGNITUDE", "PERIODS", "FourierFits", "fourier_basis", "fourier_r2", "relabelled_digits"]

PERIODS = (2, 5, 10, 100)
MAGNITUDE = (100,)
"""Within 10-99 a period of 100 is order, not periodicity: any smooth map of the number fits it."""


def fourier_basis(numbers: np.ndarray, periods: tuple[int, ...] = PERIODS) -> np.ndarray:
    """(number, feature): constant, n, and cos/sin(2 pi n / T) for every period T (the sine of period 2 vanishes)."""
    n = np.asarray(numbers, dtype=np.float64)
    columns = [np.ones_like(n), (n - n.mean()) / max(float(n.std()), 1e-12)]
    for period in periods:
        columns.append(np.cos(2 * np.pi * n / period))
        if period != 2:
            columns.append(np.sin(2 * np.pi * n / period))
    return np.stack(columns, axis=1)


class FourierFits:
    """The fits of many representations on the Fourier features of the same numbers.

    Args:
        numbers: (number,) integers, or (draw, number) to fit many relabellings of the same representations.
        weights: (draw, number) bootstrap counts of the numbers, or None.
        periods: the periods fitted beside the constant and the linear term.
    """

    def __init__(
        self, numbers: np.ndarray, weights: np.ndarray | None = None, *, periods: tuple[int, ...] = PERIODS
    ) -> None:
        self._many = weights is not None or np.ndim(numbers) == 2
        labels = np.atleast_2d(numbers)
        w = np.ones((1, labels.shape[1])) if weights is None else np.asarray(weights, dtype=np.float64)
        root = np.sqrt(w)[:, :, None]
        basis = np.stack([fourier_basis(row, periods) for row in labels])  # (draw or 1, number, column)
        q, size, _ = np.linalg.svd(root * basis, full_matrices=False)
        q = q * (size > 1e-9 * size[:, :1])[:, None, :]  # features that these numbers cannot tell apart count once
        self._weights, self._fitted = w, root * q  # (draw, number), (draw, number, column)

    def r2(self, representations: np.ndarray) -> np.ndarray:
        """Share of variance over numbers explained by the Fourier features.

        Args:
            representations: (..., number, feature); leading axes (say layers) are fitted apart.

        Returns:
            (...) R^2, or (..., draw) with weights or relabellings. NaN where the representations do not vary or are not
            finite.
        """
        x, w, fitted = np.asarray(representations, dtype=np.float64), self._weights, self._fitted
        with np.errstate(invalid="ignore"):  # infinities of a broken model become NaN
            x = x - x.mean(-2, keepdims=True)  # costs nothing in exactness, keeps the Gram matrix well scaled
        gram = x @ np.swapaxes(x, -1, -2)  # all that the fits need of the features, however many there are
        share = w / w.sum(1, keepdims=True)
        # The Gram matrix of the representations centred on their weighted mean is, for every draw, that of all less what the
        # mean takes away in rows, in columns and (twice taken) in both. Only its trace and its part in the fit are needed.
        mean = np.einsum("...nm,dm->...dn", gram, share)
        both = np.einsum("...dn,dn->...d", mean, share)
        total = np.einsum("...nn,dn->...d", gram, w) - 2 * np.einsum("...dn,dn->...d", mean, w) + both * w.sum(1)
        column = fitted.sum(1)
        explained = (
            np.einsum("...dnc,dnc->...d", gram[..., None, :, :] @ fitted, fitted)
            - 2 * np.einsum("...dn,dn->...d", mean, np.einsum("dnc,dc->dn", fitted, column))
            + both * (column**2).sum(1)
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            r2 = np.where(
                total > 1e-12 * np.maximum(np.abs(gram).max((-2, -1)), 1e-300)[..., None], explained / total, np.nan
            )
        return np.asarray(r2 if self._many else r2[..., 0])


def fourier_r2(
    representations: np.ndarray,
    numbers: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    periods: tuple[int, ...] = PERIODS,
) -> np.ndarray:
    """:meth:`FourierFits.r2` of one set of representations."""
    return FourierFits(numbers, weights, periods=periods).r2(representations)


def relabelled_digits(numbers: np.ndarray, draws: int, seed: int = 0) -> np.ndarray:
    """(draw, number): two-digit numbers with the digits 1 to 9 renamed by one random permutation a draw.

    Tens and ones are renamed alike, because a model has one vector for a digit wherever it stands: renaming them apart
    would break what they share, and make the null too narrow. Zero keeps its name, so that numbers stay in 10-99.
    """
    rng = np.random.default_rng(seed)
    tens, ones = np.asarray(numbers) // 10, np.asarray(numbers) % 10
    result = np.empty((draws, len(tens)), dtype=np.int64)
    for d in range(draws):
        named = np.concatenate([[0], 1 + rng.permutation(9)])
        result[d] = 10 * named[tens] + named[ones]
    return result
