r"""What makes a feature answer? Its activation over prompts against the prompts' labels, and against operands.

For the activation x of a feature on n prompts and a label with values v on n_v of them, means x̄_v and x̄:

- *explained*: :math:`\eta^2 = \sum_v n_v (\bar x_v - \bar x)^2 / \sum (x - \bar x)^2`, the share of the variance that the
  label explains (Fisher 1925).
- *best value*: the value v whose prompts against all others explain most,
  :math:`n_v (\bar x_v - \bar x)^2 / (1 - n_v / n) / \sum (x - \bar x)^2`, of those on which the feature is stronger. Its p
  value comes from labels dealt anew among the prompts (of one group), with the best value taken of every deal
  (Westfall and Young 1993), so that choosing it gains nothing; the false discovery rate is held over the features.
- *magnitude*: R² of a straight line on a number, and Spearman's rank correlation.

On the 10 x 10 table of mean activations by the operands' ones digits i and j the sum of squares has orthogonal parts,
because (i + j) mod 10 is a Latin square: what i explains alone, what j does, what the diagonals (i + j) mod 10 do ("the
sum ends in 5"), and of the remainder what one cell does ("6 + 9"; with its mirror where that explains more). The parts
and the rest sum to the whole (the lookup-table features of Lindsey et al. 2025, "On the Biology of a Large Language
Model").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from dynamics.emergence import discover
from dynamics.numerics.arrays import BoolArray, FloatArray, IntArray
from dynamics.numerics.draws import DRAWS

__all__ = [
    "Enrichment",
    "Magnitude",
    "OperandShares",
    "enrich",
    "explained",
    "explained_draws",
    "magnitude",
    "operand_shares",
    "operand_table",
]


LEAST_ANSWERED = 5
"""Features that answer fewer prompts are not tested."""

RATE = 0.05
"""False discovery rate over the features."""

_TIE = 1e-9


@dataclass(frozen=True)
class Enrichment:
    """One entry per feature, unless it says otherwise.

    Attributes:
        values: (value,) the label's values, sorted.
        explained: eta squared; NaN for a feature that is the same on all prompts.
        best: index in ``values`` of the best value; -1 where there is none.
        share: of the variance that the best value explains against all others.
        p_value: of the best value; NaN where too few prompts are answered.
        found: whether it is found at the false discovery rate.
    """

    values: npt.NDArray[np.generic]
    explained: FloatArray
    best: IntArray
    share: FloatArray
    p_value: FloatArray
    found: BoolArray


@dataclass(frozen=True)
class Magnitude:
    """One entry per feature.

    Attributes:
        r2: of a straight line; NaN for a feature that is the same on all prompts.
        spearman: rank correlation.
        p_value: of ``r2``; NaN where too few prompts are answered.
        found: whether it is found at the false discovery rate.
    """

    r2: FloatArray
    spearman: FloatArray
    p_value: FloatArray
    found: BoolArray


@dataclass(frozen=True)
class OperandShares:
    """Shares of a feature's variance over the 10 x 10 table of ones digits, one entry per feature; they sum to 1.

    NaN for a feature that is the same everywhere.

    Attributes:
        total: variance over the table.
        first, second: of the operands' digits alone.
        ends: of the ones digit of the sum beyond them.
        cell: of one pair of digits, with or without its mirror, beyond all of these.
        rest: what remains.
        digit: the ones digit of the sum for which it is strongest.
        pair: (feature, 2) the pair of digits; -1 where there is none.
    """

    total: FloatArray
    first: FloatArray
    second: FloatArray
    ends: FloatArray
    cell: FloatArray
    rest: FloatArray
    digit: IntArray
    pair: IntArray


def explained(activations: npt.ArrayLike, labels: npt.ArrayLike) -> FloatArray:
    """(feature,) eta squared; NaN for a feature that is the same on all prompts.

    Args:
        activations: (prompt, feature).
        labels: (prompt,).

    >>> explained([[0.0, 1.0], [0.0, 0.0], [2.0, 1.0], [2.0, 0.0]], ["a", "a", "b", "b"]).tolist()
    [1.0, 0.0]
    """
    x = _checked(activations, labels)
    values, classes = np.unique(np.asarray(labels), return_inverse=True)
    whole = _squares(x)
    return np.where(whole > 0, _between(x, classes, len(values)).sum(axis=0) / np.where(whole > 0, whole, 1.0), np.nan)


def explained_draws(
    activation: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    clusters: npt.ArrayLike | None = None,
    draws: int = DRAWS,
) -> FloatArray:
    """(draw,) eta squared of one feature on resampled clusters of prompts; NaN where a draw is the same everywhere.

    Draws repeat prompts, which raises eta squared: use their spread, not their mean.

    Args:
        activation: (prompt,).
        labels: (prompt,).
        clusters: (prompt,) what is resampled together, in the order of sorted labels, with the counts that
            :func:`dynamics.emergence.unit_bootstrap` draws.
        draws: how many.
    """
    x = _checked(np.asarray(activation)[:, None], labels)[:, 0]
    x = x - x.mean()
    values, classes = np.unique(np.asarray(labels), return_inverse=True)
    unit = np.arange(len(x)) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    units = int(unit.max()) + 1
    times = np.random.default_rng(0).multinomial(units, np.full(units, 1 / units), size=draws)[:, unit]
    member = (classes[:, None] == np.arange(len(values))).astype(np.float64)
    count, total = times @ member, times @ (member * x[:, None])
    size, mean = times.sum(axis=1), total.sum(axis=1)
    between = np.divide(total**2, count, out=np.zeros_like(total), where=count > 0).sum(axis=1) - mean**2 / size
    whole = times @ x**2 - mean**2 / size
    return np.where(whole > 0, between / np.where(whole > 0, whole, 1.0), np.nan)


def enrich(
    activations: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    groups: npt.ArrayLike | None = None,
    draws: int = 999,
    least: int = LEAST_ANSWERED,
    seed: int = 0,
) -> Enrichment:
    """Which value of a label each feature is for.

    Args:
        activations: (prompt, feature).
        labels: (prompt,) of any kind that sorts.
        groups: (prompt,) labels are dealt anew within groups.
        draws: labels dealt anew, for p values down to 1/1000. Features that beat all of them get as many more as the false discovery rate needs to
            tell so few among so many, so that few finds are not lost for want of draws.
        least: features that answer fewer prompts are not tested.
        seed: of the deals.
    """
    x = _checked(activations, labels)
    values, classes = np.unique(np.asarray(labels), return_inverse=True)
    counts = np.bincount(classes, minlength=len(values)).astype(np.float64)
    whole = _squares(x)
    safe = np.where(whole > 0, whole, 1.0)
    rest = np.maximum(1.0 - counts / len(x), _TIE)[:, None]
    mean = x.mean(axis=0)

    def single(sums: _Sums, classes: IntArray, some: BoolArray | slice) -> FloatArray:
        """(value, feature) share of one value against all others, 0 where the feature is weaker there."""
        above = np.maximum(sums(classes) / counts[:, None] - mean[some], 0.0)
        return np.asarray(counts[:, None] * above**2 / rest / safe[some])

    alone = single(_Sums(x, len(values)), classes, slice(None))
    share = alone.max(axis=0, initial=0.0)

    def beaten(sums: _Sums, dealt: IntArray, some: BoolArray) -> BoolArray:
        return np.asarray(single(sums, classes[dealt], some).max(axis=0, initial=0.0) >= share[some] * (1 - _TIE))

    tested = (whole > 0) & ((x != 0).sum(axis=0) >= least) & (len(values) > 1)
    p = _p_values(x, len(values), beaten, tested, draws, groups, seed)
    eta = np.where(whole > 0, _between(x, classes, len(values)).sum(axis=0) / safe, np.nan)
    best = np.where((whole > 0) & (share > 0), alone.argmax(axis=0), -1)
    return Enrichment(values, eta, best, np.where(whole > 0, share, np.nan), p, discover(p, rate=RATE))


def magnitude(activations: npt.ArrayLike, numbers: npt.ArrayLike, *, draws: int = 999) -> Magnitude:
    """How far each feature follows a number; arguments as of :func:`enrich`, with numbers as labels."""
    from scipy.stats import rankdata  # takes a second to import

    x = _checked(activations, numbers)
    y = np.asarray(numbers, dtype=np.float64)
    y = y - y.mean()
    whole, spread = _squares(x), float((y**2).sum())
    safe = np.where(whole * spread > 0, whole * spread, 1.0)
    classes = np.zeros(len(y), dtype=np.int64)
    r2 = _Sums(x, 1)(classes, y)[0] ** 2 / safe

    def beaten(sums: _Sums, dealt: IntArray, some: BoolArray) -> BoolArray:
        return np.asarray(sums(classes, y[dealt])[0] ** 2 / safe[some] >= r2[some] * (1 - _TIE))

    tested = (whole * spread > 0) & ((x != 0).sum(axis=0) >= LEAST_ANSWERED)
    p = _p_values(x, 1, beaten, tested, draws)
    order, ranks = rankdata(y), rankdata(x, axis=0)
    order, ranks = order - order.mean(), ranks - ranks.mean(axis=0)
    size = np.sqrt((order**2).sum() * (ranks**2).sum(axis=0))
    spearman = np.where(size > 0, order @ ranks / np.where(size > 0, size, 1.0), np.nan)
    return Magnitude(np.where(whole * spread > 0, r2, np.nan), spearman, p, discover(p, rate=RATE))


def operand_table(activations: npt.ArrayLike, first: npt.ArrayLike, second: npt.ArrayLike) -> FloatArray:
    """(10, 10, feature) mean activation by the ones digits of two operands; NaN where no prompt has the pair.

    Args:
        activations: (prompt, feature).
        first, second: (prompt,) operands.
    """
    x = _checked(activations, first)
    classes = 10 * (np.asarray(first) % 10) + np.asarray(second) % 10
    counts = np.bincount(classes, minlength=100)[:, None]
    sums = _Sums(x, 100)(classes)
    means = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
    return np.asarray(means.reshape(10, 10, -1))


def operand_shares(table: npt.ArrayLike) -> OperandShares:
    """Where the variance of features over pairs of ones digits comes from.

    Args:
        table: (10, 10, feature) of :func:`operand_table`.

    >>> i, j = np.indices((10, 10))
    >>> found = operand_shares(((i + j) % 10 == 5)[..., None])
    >>> round(float(found.ends[0]), 6), int(found.digit[0])
    (1.0, 5)
    """
    values = np.asarray(table, dtype=np.float64)
    if values.ndim != 3 or values.shape[:2] != (10, 10):
        raise ValueError(f"the table has shape {values.shape}; expected (10, 10, feature)")
    flat = values.reshape(100, -1)
    known = np.isfinite(flat).all(axis=0)
    flat = np.where(known, flat, 0.0)
    flat = flat - flat.mean(axis=0)
    whole = (flat**2).sum(axis=0)
    known &= whole > _TIE**2
    safe = np.where(known, whole, 1.0)
    effects = []
    remainder = flat
    for of in _classes():
        means = np.stack([flat[of == value].mean(axis=0) for value in range(10)])
        effects.append(means)
        remainder = remainder - means[of]
    squares = [10.0 * (e**2).sum(axis=0) / safe for e in effects]
    along = _cells() @ remainder  # (candidate, feature)
    cell = (np.maximum(along, 0.0) ** 2).max(axis=0) / safe
    pair = _pairs()[along.argmax(axis=0)]
    one, other, ends, cell = (np.where(known, s, np.nan) for s in (*squares, cell))
    rest = 1.0 - (one + other + ends + cell)
    pair = np.where((known & (cell > 0))[:, None], pair, -1)
    return OperandShares(
        np.where(known, whole / 100.0, np.nan), one, other, ends, cell, rest, effects[2].argmax(axis=0), pair
    )


def _classes() -> tuple[IntArray, IntArray, IntArray]:
    """(100,) digit of the first operand, of the second, and of the sum, for every cell."""
    i, j = np.indices((10, 10)).reshape(2, 100)
    return i, j, (i + j) % 10


@cache
def _pairs() -> IntArray:
    """(candidate, 2) every cell by itself, then every cell with its mirror."""
    alone = [(i, j) for i in range(10) for j in range(10)]
    return np.array([*alone, *((i, j) for i, j in alone if i < j)])


@cache
def _cells() -> FloatArray:
    """(candidate, 100) unit vectors of cells beyond what rows, columns and diagonals explain of them."""
    pairs = _pairs()
    indicator = np.zeros((len(pairs), 100))
    indicator[np.arange(len(pairs)), 10 * pairs[:, 0] + pairs[:, 1]] = 1.0
    indicator[np.arange(100, len(pairs)), 10 * pairs[100:, 1] + pairs[100:, 0]] = 1.0
    basis = np.hstack([np.ones((100, 1)), *((of[:, None] == np.arange(10)) for of in _classes())])
    kept = indicator - indicator @ basis @ np.linalg.pinv(basis)
    return np.asarray(kept / np.linalg.norm(kept, axis=1, keepdims=True))


class _Sums:
    """Sums of activations by class, over the prompts that are answered: features are sparse."""

    def __init__(self, x: FloatArray, classes: int) -> None:
        self.rows, self.columns = np.nonzero(x)
        self.values = x[self.rows, self.columns]
        self.shape = (classes, x.shape[1])

    def __call__(self, classes: IntArray, weights: FloatArray | None = None) -> FloatArray:
        """(class, feature) sums, given the class of each prompt (prompt,)."""
        at = classes[self.rows] * self.shape[1] + self.columns
        values = self.values if weights is None else self.values * weights[self.rows]
        sums = np.bincount(at, values, minlength=self.shape[0] * self.shape[1])
        return sums.astype(np.float64).reshape(self.shape)  # of nothing it counts in integers


def _between(x: FloatArray, classes: IntArray, values: int) -> FloatArray:
    """(value, feature) sum of squares between values."""
    counts = np.bincount(classes, minlength=values).astype(np.float64)[:, None]
    return np.asarray(counts * (_Sums(x, values)(classes) / counts - x.mean(axis=0)) ** 2)


def _squares(x: FloatArray) -> FloatArray:
    whole = ((x - x.mean(axis=0)) ** 2).sum(axis=0)
    return np.where(whole > _TIE**2 * np.maximum((x**2).sum(axis=0), 1e-300), whole, 0.0)


def _p_values(
    x: FloatArray,
    classes: int,
    beaten: Callable[[_Sums, IntArray, BoolArray], BoolArray],
    tested: BoolArray,
    draws: int,
    groups: npt.ArrayLike | None = None,
    seed: int = 0,
) -> FloatArray:
    """(feature,) permutation p values; NaN where not tested.

    ``beaten`` says whether prompts in a new order (prompt,) do as well as the features (some,) of given sums.
    """
    deals = _deals(len(x), groups, seed)
    larger, drawn = np.zeros(x.shape[1]), np.full(x.shape[1], draws)
    sums = _Sums(x[:, tested], classes)
    for _ in range(draws if tested.any() else 0):
        larger[tested] += beaten(sums, next(deals), tested)
    best = tested & (larger == 0)
    if best.any():  # one among hundreds needs a p value of a ten-thousandth
        more = int(np.ceil(2.0 * tested.sum() / (RATE * best.sum()))) - draws
        sums = _Sums(x[:, best], classes)
        for _ in range(max(0, more)):
            larger[best] += beaten(sums, next(deals), best)
        drawn[best] += max(0, more)
    return np.where(tested, (1.0 + larger) / (1.0 + drawn), np.nan)


def _deals(prompts: int, groups: npt.ArrayLike | None, seed: int) -> Iterator[IntArray]:
    """Prompts in new orders, each within its group."""
    rng = np.random.default_rng(seed)
    kind = np.zeros(prompts, dtype=int) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    members = [np.flatnonzero(kind == k) for k in range(int(kind.max()) + 1)]
    while True:
        order = np.arange(prompts)
        for mine in members:
            order[mine] = rng.permutation(mine)
        yield order


def _checked(activations: npt.ArrayLike, labels: npt.ArrayLike) -> FloatArray:
    x = np.asarray(activations, dtype=np.float64)
    if x.ndim != 2 or np.shape(labels) != x.shape[:1] or not len(x):
        raise ValueError(
            f"activations have shape {x.shape}, labels {np.shape(labels)}; expected (prompt, feature), (prompt,)"
        )
    if not np.isfinite(x).all():
        raise ValueError("activations are not finite; leave such checkpoints out")
    return x
