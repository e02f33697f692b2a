"""Which frequencies does a representation of numbers use?

A network that adds modulo p represents a number *n* by cos and sin of 2 pi k n / p for a handful of *key frequencies* k (Nanda et al.
2023, "Progress measures for grokking via mechanistic interpretability"); language models use periods 2, 5, 10 and 100 and a linear
term (Zhou et al. 2024; Kantamneni and Tegmark 2025).

- *Share of power* of a period T: what cos, sin(2 pi n / T) explain of the variance of the representations over numbers, beyond the
  constant and, where it is fitted, the linear term. Over all residues modulo p, without the linear term, the shares of all
  frequencies add up to 1.
- *Null*: the numbers renamed at random. A representation that tells numbers apart and has no order among them spreads its power
  over all frequencies. The largest share of any frequency is taken of every renaming, so that looking at many gains nothing.
- *Key*: found one by one. The largest share of what the key frequencies found so far leave over is key where it is above the ``level``
  quantile of the same of the numbers renamed, and it has at least ``least`` of all power: networks also have weak frequencies that no
  null explains, and that do little.

Rows of one number are averaged first.

Example:
    >>> import numpy as np
    >>> n = np.arange(113)
    >>> x = np.stack([f(2 * np.pi * k * n / 113) for k in (14, 35, 41) for f in (np.cos, np.sin)], axis=1)
    >>> found = key_frequencies(x, n, periods=residue_periods(113))
    >>> [int(113 / period) for period in found.key_periods], found.share.sum().round(3).item()
    ([14, 35, 41], 1.0)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from checkpoints.errors import UserError, shown

from .draws import COSTLY_DRAWS

__all__ = ["Frequencies", "FrequencyFits", "key_frequencies", "residue_periods"]


@dataclass(frozen=True)
class Frequencies:
    """The power of one representation by period.

    Attributes:
        periods: (frequency,) in numbers.
        share: (frequency,) share of power; NaN where the representations do not vary or are not finite.
        null: (draw,) largest share of any frequency where the numbers are renamed.
        key: (frequency,) whether it is a key frequency.
    """

    periods: tuple[Fraction, ...]
    share: np.ndarray
    null: np.ndarray
    key: np.ndarray

    @property
    def key_periods(self) -> tuple[Fraction, ...]:
        """The periods of the key frequencies, in the order given."""
        return tuple(period for period, key in zip(self.periods, self.key, strict=True) if key)


def residue_periods(modulus: int) -> tuple[Fraction, ...]:
    """The periods p/k of all frequencies k of numbers modulo p, k = 1 .. p // 2.

    >>> [str(period) for period in residue_periods(7)]
    ['7', '7/2', '7/3']

    Raises:
        UserError: for a modulus below 2.
    """
    if isinstance(modulus, bool) or not isinstance(modulus, int | np.integer) or modulus < 2:
        raise UserError(
            f"the modulus is {shown(modulus)}",
            expected="a whole number, at least 2",
            remedy="give p of addition modulo p",
        )
    return tuple(Fraction(int(modulus), k) for k in range(1, int(modulus) // 2 + 1))


class FrequencyFits:
    """Fits of every frequency to representations of the same numbers, and to those of the numbers renamed.

    Args:
        numbers: (number,) what each representation is of; each may occur more than once.
        periods: at least one, each above 0: whole, rational or real.
        linear: whether a linear term is taken away first.
        draws: renamings.
        seed: of them.

    Raises:
        UserError: for fewer than three different numbers, no period, or one that is not above 0.
    """

    def __init__(
        self,
        numbers: np.ndarray,
        periods: Sequence[float | Fraction],
        *,
        linear: bool = False,
        draws: int = COSTLY_DRAWS,
        seed: int = 0,
    ) -> None:
        values = np.asarray(numbers)
        names, index = np.unique(values, return_inverse=True)
        if values.ndim != 1 or values.dtype.kind not in "iuf" or len(names) < 3:
            raise UserError(
                f"the numbers are {shown(numbers)}",
                expected="at least three different numbers (number,)",
                remedy="give the number that each row of the representations is of",
            )
        if not len(periods) or not all(0 < float(period) < np.inf for period in periods):
            raise UserError(
                f"the periods are {shown(tuple(map(float, periods)))}",
                expected="at least one, each above 0",
                remedy="give the periods to look for, or residue_periods(p)",
            )
        self.periods = tuple(Fraction(p).limit_denominator(10**6) for p in periods)
        self._average = np.eye(len(names))[index].T / np.bincount(index)[:, None]  # (different number, number)
        line = names[:, None].astype(np.float64) if linear else np.empty((len(names), 0))
        self._base = _orthonormal(np.hstack([np.ones((len(names), 1)), line]))
        turn = 2 * np.pi * names / np.array([[float(p)] for p in self.periods])
        self._waves = np.stack([np.cos(turn), np.sin(turn)], axis=-1)  # (frequency, number, 2)
        self._orders = np.stack([np.random.default_rng(seed + d).permutation(len(names)) for d in range(draws)])

    def share(self, representations: np.ndarray) -> np.ndarray:
        """(..., frequency) share of power of representations (..., number, feature)."""
        x = self._averaged(representations)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(_power(x, self._columns(self._base)) / self._whole(x)[..., None])

    def null(self, representations: np.ndarray) -> np.ndarray:
        """(..., draw) largest share of any frequency, with the numbers renamed."""
        x = self._averaged(representations)
        columns = self._columns(self._base)
        with np.errstate(invalid="ignore", divide="ignore"):
            drawn = [_power(x[..., order, :], columns).max(-1) / self._whole(x) for order in self._orders]
        return np.stack(drawn, axis=-1)

    def keys(self, representations: np.ndarray, level: float, least: float) -> np.ndarray:
        """(frequency,) which are key, of representations (number, feature)."""
        x, base = self._averaged(representations), self._base
        key, total = np.zeros(len(self.periods), dtype=bool), float(self._whole(x))
        if not np.isfinite(total) or total <= 0:
            return key
        share = _power(x, self._columns(base)) / total
        while not key.all():
            left = x - base @ (base.T @ x)
            size = (left**2).sum()
            if size <= 1e-12 * total:
                break
            columns = self._columns(base)
            power = np.where(key, 0.0, _power(left, columns))
            best = int(power.argmax())
            drawn = []
            for order in self._orders:
                renamed = left[order] - base @ (base.T @ left[order])
                drawn.append(_power(renamed, columns).max() / (renamed**2).sum())
            if power[best] / size <= np.quantile(drawn, level, method="higher"):
                break
            key[best] = True
            base = np.hstack([base, _orthonormal(self._waves[best] - base @ (base.T @ self._waves[best]))])
        return key & (share >= least)

    def _averaged(self, representations: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):  # infinities of a broken model become NaN
            x = self._average @ np.asarray(representations, dtype=np.float64)
            return np.asarray(x - x.mean(-2, keepdims=True))

    @staticmethod
    def _whole(x: np.ndarray) -> np.ndarray:
        total = (x**2).sum((-2, -1))
        return np.asarray(np.where(total > 0, total, np.nan))

    def _columns(self, base: np.ndarray) -> np.ndarray:
        """(number, frequency and wave) orthonormal waves of every frequency, less what the base has."""
        waves = self._waves - base @ (base.T @ self._waves)
        u, size, _ = np.linalg.svd(waves, full_matrices=False)
        u = (
            u * (size > 1e-9 * np.sqrt(waves.shape[1]))[:, None, :]
        )  # waves that these numbers cannot tell from the base
        return np.asarray(u.transpose(1, 0, 2).reshape(len(base), -1))


def _power(x: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(..., frequency) sum of squares of x (..., number, feature) in the two waves of every frequency."""
    squared = ((columns.T @ x) ** 2).sum(-1)
    return np.asarray(squared.reshape(*squared.shape[:-1], -1, 2).sum(-1))


def _orthonormal(columns: np.ndarray) -> np.ndarray:
    u, size, _ = np.linalg.svd(columns, full_matrices=False)
    return np.asarray(u[:, size > 1e-9 * max(float(size.max(initial=0)), 1e-300)])


def key_frequencies(
    representations: np.ndarray,
    numbers: np.ndarray,
    *,
    periods: Sequence[float | Fraction],
    linear: bool = False,
    draws: int = 200,
    level: float = 0.99,
    least: float = 0.01,
    seed: int = 0,
) -> Frequencies:
    """Which frequencies one representation of numbers uses (see the module's docstring).

    Args:
        representations: (number, feature), e.g. the rows of an embedding matrix.
        numbers: (number,) what each row is of.
        periods: to look for; :func:`residue_periods` are those of addition modulo p.
        linear: whether a linear term is taken away first, as for numbers that also have a size.
        draws: renamings behind the null.
        level: quantile of the null that a key frequency exceeds.
        least: share of all power that a key frequency has at least.
        seed: of the renamings.

    Raises:
        UserError: when the representations are not one row for each number, or numbers or periods cannot be used.
    """
    fits = FrequencyFits(numbers, periods, linear=linear, draws=draws, seed=seed)
    given = np.asarray(representations)
    if given.ndim != 2 or len(given) != len(np.asarray(numbers)):
        raise UserError(
            f"the representations are of shape {given.shape} for {len(np.asarray(numbers))} numbers",
            expected="(number, feature), a row for each number",
            remedy="choose one layer and one position, and give the numbers of these rows",
        )
    return Frequencies(fits.periods, fits.share(given), fits.null(given), fits.keys(given, level, least))
