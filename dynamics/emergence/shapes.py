r"""Which saturating curve does a measured one follow, and where does it lie? Least squares on a grid, profiled.

.. math:: \mu(x) = f + r\, g\left(\frac{x - \theta}{s}\right), \qquad x = \log_{10}(\text{step} + 1),\; r > 0

with g the logistic function (:math:`\theta` its midpoint) or the ramp :math:`g(u) = \min(\max(u, 0), 1)` (:math:`\theta`
the kink where the rise begins, :math:`\theta + s` the kink where it ends). Given :math:`(\theta, s)` the model is linear,
so that the residual sum of squares of many curves on a grid of :math:`(\theta, s)` is one matrix product and no
iteration can fail. The grid is narrowed around what the data do not exclude until it resolves the interval.

The statistic of a location is the likelihood ratio :math:`T(\theta_0) = \min_s R(\theta_0, s) - \min_{\theta, s}
R(\theta, s)`, R weighted by the inverse variances. Its 95% quantile is not taken from :math:`\chi^2_1`, which does not
hold for kinks nor for a step between two checkpoints, but from curves that have the fitted one for truth and the
noise of the draws: the interval is :math:`\{\theta_0 : T(\theta_0) \le q^*\}` (test inversion with a bootstrap critical
value: Hall 1992, section 3.10; Hansen 2000 for thresholds). Where a rise is steeper than the checkpoints are dense, T
is flat between two of them, and the interval holds all that lies between.

A misfit beyond sampling is either noise of the training, and the interval is widened by it (quasi-likelihood: Wedderburn
1974), or another shape. In the second case the residuals keep their sign from checkpoint to checkpoint: where their
correlation with their neighbours is beyond that of refitted draws, the shape does not fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.optimize import isotonic_regression
from scipy.special import chdtrc, chdtri

from dynamics.emergence.columns import Shape, Side, basis, gain, gain_beside, growths, widest
from dynamics.emergence.crossing import quantile
from dynamics.emergence.noise import Noise
from dynamics.numerics.arrays import FloatArray

__all__ = ["NOT_BY_CHANCE", "ShapeFit", "fit_shape", "plausible"]

NARROWED = 48, 64
"""Size of the grid at every narrowing. For a ramp, location and scale determine each other nearly: where the scales are too
coarse, no location but that of the fit is fitted well, and the interval is too short."""

NARROWINGS = 4
"""Most times that the grid is narrowed: from a range of five decades to a ten-thousandth of one."""

EXCLUDED = 16.0
"""A point of the grid is out of play where its R exceeds the smallest by this (the 0.006% tail of chi-squared 1)."""

NOT_BY_CHANCE = 0.01
"""A misfit less likely than this says that training itself is noisy, beyond the sampling of units."""


@dataclass(frozen=True)
class ShapeFit:
    """A fitted shape. Locations are x = log10(step + 1), scales decades.

    Attributes:
        location, scale, floor, rise: of the best fit.
        location_range, scale_range: 95% intervals; an end at the edge of what was searched is infinite (scale: 0 or
            infinity).
        mean: (checkpoint,) the fitted curve.
        misfit: weighted residual sum of squares; about checkpoints - 4, and less one for every growth, if the shape is right.
        overdispersion: factor on the variance of the draws; above 1 where the misfit cannot be sampling.
        growth: on which sides of the rise the curve grows.
        fits: whether the misfit is noise, of sampling or of training; False where it has a pattern along training. Looked
            at together with the intervals.
    """

    location: float
    scale: float
    floor: float
    rise: float
    location_range: tuple[float, float]
    scale_range: tuple[float, float]
    mean: FloatArray
    misfit: float
    overdispersion: float
    growth: tuple[Side, ...] = ()
    fits: bool = True


def fit_shape(
    shape: Shape,
    x: FloatArray,
    values: FloatArray,
    noise: Noise,
    *,
    growth: tuple[Side, ...] = (),
    level: float = 0.95,
    ranges: bool = True,
) -> ShapeFit:
    """Fit a shape and invert the likelihood-ratio test of its location and scale.

    Args:
        shape: which one.
        x: (checkpoint,) log10(step + 1), increasing.
        values: (checkpoint,) the curve, finite, turned so that emergence is a rise.
        noise: of the curve.
        growth: on which sides of the rise the curve grows.
        level: of the two intervals.
        ranges: whether the intervals are wanted; they are infinite otherwise.
    """
    if not ranges:
        about = noise.measured.tobytes(), noise.variance.tobytes(), noise.function
        return _best(shape, np.ascontiguousarray(x).tobytes(), np.ascontiguousarray(values).tobytes(), about, growth)
    return _fitted(shape, x, values, noise, growth, level)


@lru_cache(maxsize=32)
def _best(
    shape: Shape,
    x: bytes,
    values: bytes,
    noise: tuple[bytes, bytes, tuple[float, float, float] | None],
    growth: tuple[Side, ...],
) -> ShapeFit:
    """A fit without intervals, kept: several definitions ask for that of one curve."""
    at, measured, variance = (np.frombuffer(of) for of in (x, *noise[:2]))
    about = Noise(np.empty((at.size, 0)), measured, variance, noise[2])
    return _fitted(shape, at, np.frombuffer(values), about, growth, None)


def _fitted(
    shape: Shape, x: FloatArray, values: FloatArray, noise: Noise, growth: tuple[Side, ...], level: float | None
) -> ShapeFit:
    """See :func:`fit_shape`; without a level there are no intervals."""
    locations, scales, shapes = widest(shape, x)
    outer = (locations[0], locations[-1], scales[0], scales[-1])
    beside = growths(shape, x, locations, scales, growth)

    def explained_by(curves: FloatArray, weight: FloatArray) -> FloatArray:
        if not growth:
            return gain(curves, weight, shapes)
        return gain_beside(shape, curves, weight, shapes, beside, scales)

    def fitted(row: int, column: int, weight: FloatArray) -> tuple[float, float, FloatArray]:
        at = np.array([locations[row]]), np.array([scales[column]])
        g = basis(shape, x, *at)[0, 0]
        if not growth:
            floor, rise = _line(g, values, weight)
            return floor, rise, floor + rise * g
        columns = np.stack([np.ones(x.size), *(one[0, 0] for one in growths(shape, x, *at, growth)), g], axis=1)
        root = np.sqrt(weight)
        found = np.linalg.lstsq(columns * root[:, None], values * root, rcond=None)[0]
        return float(found[0]), float(found[-1]), columns @ found

    mean = values
    for _ in range(2 if growth else 3):  # weights that depend on the mean: iterated
        weight = 1.0 / noise.scale(mean) ** 2
        explained = explained_by(values[None], weight)[0]
        row, column = (int(i) for i in np.unravel_index(int(explained.argmax()), explained.shape))
        mean = fitted(row, column, weight)[2]
    weight = 1.0 / noise.scale(mean) ** 2
    degrees = max(x.size - 4 - len(growth), 1)

    spread, misfit, t_location, t_scale = 1.0, 0.0, np.zeros(1), np.zeros(1)
    for narrowing in range(NARROWINGS):
        if narrowing:
            shapes = basis(shape, x, locations, scales)
            beside = growths(shape, x, locations, scales, growth)
        share = weight / weight.sum()
        total = float((weight * (values - values @ share) ** 2).sum())
        residual = total - explained_by(values[None], weight)[0]
        misfit = float(residual.min())
        unlikely = x.size > 4 + len(growth) and chdtrc(degrees, max(misfit, 0.0)) < NOT_BY_CHANCE
        spread = max(1.0, misfit / degrees) if unlikely else 1.0
        excess = (residual - misfit) / spread
        t_location, t_scale = excess.min(axis=1), excess.min(axis=0)
        row, column = (int(i) for i in np.unravel_index(int(residual.argmin()), residual.shape))
        location, scale = float(locations[row]), float(scales[column])
        if narrowing == NARROWINGS - 1 or level is None:
            break
        inside, within = np.flatnonzero(t_location <= EXCLUDED), np.flatnonzero(t_scale <= EXCLUDED)
        if len(inside) > 0.5 * len(locations) and len(within) > 0.5 * len(scales):
            break
        first, last = max(inside[0] - 1, 0), min(inside[-1] + 1, len(locations) - 1)
        # Between locations that are farther apart than checkpoints, a jump fits badly wherever it is: not excluded yet.
        resolved = locations[1] - locations[0] < 0.25 * max(float(np.diff(x).min()), float(np.ptp(x)) / 400.0)
        least, most = max(within[0] - 1, 0) if resolved else 0, min(within[-1] + 1, len(scales) - 1)
        locations = np.linspace(locations[first], locations[last], NARROWED[0])
        scales = np.geomspace(scales[least], scales[most], NARROWED[1])

    floor, rise, mean = fitted(row, column, weight)
    location_range, scale_range = (-np.inf, np.inf), (0.0, np.inf)
    fits = True
    if level is not None:
        sigma = np.sqrt(spread) * noise.scale(mean)
        other = mean[None] + noise.residuals.T * sigma
        drawn = explained_by(other, weight / spread)
        best = drawn.max(axis=(1, 2))
        least = float(chdtri(1, 1.0 - level))
        q_location = max(quantile(best - drawn[:, row].max(axis=1), level), least)
        q_scale = max(quantile(best - drawn[:, :, column].max(axis=1), level), least)
        location_range = _inverted(locations, t_location, q_location, outer[0], outer[1], (-np.inf, np.inf))
        scale_range = _inverted(scales, t_scale, q_scale, outer[2], outer[3], (0.0, np.inf))
        if spread > 1.0:
            where = drawn.reshape(len(drawn), -1).argmax(axis=1)
            columns = np.stack([c.reshape(-1, x.size)[where] for c in (np.ones_like(shapes), *beside, shapes)], axis=2)
            by_chance = _correlation(_residuals(columns, other, weight), weight)
            seen = _correlation((values - mean)[None], weight)[0]
            fits = bool(1 + (by_chance >= seen).sum() > NOT_BY_CHANCE * (1 + by_chance.size))
    return ShapeFit(
        location=location,
        scale=scale,
        floor=floor,
        rise=rise,
        location_range=location_range,
        scale_range=scale_range,
        mean=mean,
        misfit=misfit,
        overdispersion=spread,
        growth=growth,
        fits=fits,
    )


def _residuals(columns: FloatArray, curves: FloatArray, weight: FloatArray) -> FloatArray:
    """(curve, checkpoint) what each curve's own columns (curve, checkpoint, column) leave of it."""
    root = np.sqrt(weight)[:, None]
    found = np.linalg.pinv(columns * root) @ (curves[:, :, None] * root)
    return np.asarray(curves - (columns @ found)[:, :, 0])


def _correlation(residuals: FloatArray, weight: FloatArray) -> FloatArray:
    """(curve,) correlation of standardised residuals (curve, checkpoint) with those of the next checkpoint."""
    e = residuals * np.sqrt(weight)
    return np.asarray((e[:, 1:] * e[:, :-1]).sum(axis=1) / np.maximum((e**2).sum(axis=1), 1e-300))


def plausible(
    x: FloatArray, values: FloatArray, noise: Noise, base: FloatArray | None = None
) -> list[tuple[FloatArray, FloatArray, float]]:
    """Curves that the measured one may be a sample of, to simulate from: (mean, noise, location of half its rise).

    Mean and noise are (checkpoint,), the location is in x. Both shapes where they fit; where neither does (the misfit
    is no sampling error, because the curve is measured well and has another shape), the isotonic regression of the
    values, which then are close to the truth themselves.

    Args:
        x: (checkpoint,) log10(step + 1).
        values: (checkpoint,) the curve.
        noise: of the curve.
        base: (checkpoint,) what the curve rises above, such as the bound of its null: the isotonic regression is of the
            height above it, because a curve may move with its null before it rises.
    """
    base = np.zeros(values.shape) if base is None else base
    found = []
    for shape in ("logistic", "ramp"):
        fit = fit_shape(shape, x, values, noise, ranges=False)
        if fit.overdispersion == 1.0:
            half = fit.location + (0.5 * fit.scale if shape == "ramp" else 0.0)
            found.append((fit.mean, noise.scale(fit.mean), half))
    if not found:
        rise = np.asarray(isotonic_regression(values - base, weights=1.0 / noise.scale(values) ** 2).x)
        middle = 0.5 * (rise[0] + rise[-1])
        after = max(int(np.argmax(rise >= middle)), 1)
        location = float(np.interp(middle, rise[after - 1 : after + 1], x[after - 1 : after + 1]))
        found.append((base + rise, noise.scale(base + rise), location))
    return found


def _line(g: FloatArray, values: FloatArray, weight: FloatArray) -> tuple[float, float]:
    """Floor and rise of the weighted least-squares fit of ``values`` to one shape."""
    share = weight / weight.sum()
    centred, level = g - g @ share, float(values @ share)
    size = float((weight * centred**2).sum())
    rise = max(float((weight * centred * values).sum()) / size, 0.0) if size > 1e-10 * weight.sum() else 0.0
    return level - rise * float(g @ share), rise


def _inverted(
    at: FloatArray, statistic: FloatArray, limit: float, low: float, high: float, open_ends: tuple[float, float]
) -> tuple[float, float]:
    """The outermost points where the statistic meets the limit, interpolated; open where they are the edges."""
    kept = np.flatnonzero(statistic <= limit)
    first, last = int(kept[0]), int(kept[-1])

    def edge(inner: int, outer: int) -> float:
        # Where the statistic leaps, as it does beyond a gap that holds a jump, the leap may be just before the outer one.
        leaps = statistic[outer] - statistic[inner] > limit
        share = 1.0 if leaps else (limit - statistic[inner]) / (statistic[outer] - statistic[inner])
        return float(at[inner] + share * (at[outer] - at[inner]))

    start = edge(first, first - 1) if first else (open_ends[0] if at[0] <= low else float(at[0]))
    stop = edge(last, last + 1) if last < len(at) - 1 else (open_ends[1] if at[-1] >= high else float(at[-1]))
    return start, stop
