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
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from scipy.optimize import isotonic_regression
from scipy.special import expit
from scipy.stats import chi2

from dynamics.emergence.crossing import quantile
from dynamics.emergence.noise import Noise
from dynamics.numerics.arrays import FloatArray

__all__ = ["Shape", "ShapeFit", "basis", "fit_shape", "gain", "grid", "plausible", "widest"]

Shape = Literal["logistic", "ramp"]

LOCATIONS, SCALES = 72, 32
"""Size of the widest grid."""

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
        misfit: weighted residual sum of squares; about checkpoints - 4 if the shape is right.
        overdispersion: factor on the variance of the draws; above 1 where the misfit cannot be sampling.
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


def basis(shape: Shape, x: FloatArray, location: FloatArray, scale: FloatArray) -> FloatArray:
    """The shapes between 0 and 1, (location, scale, checkpoint)."""
    u = (x - location[:, None, None]) / scale[None, :, None]
    return np.asarray(expit(u) if shape == "logistic" else np.clip(u, 0.0, 1.0))


def gain(curves: FloatArray, weight: FloatArray, shapes: FloatArray) -> FloatArray:
    """What a shape explains beyond a constant: weighted sum of squares (curve, location, scale), 0 for a fall.

    Args:
        curves: (curve, checkpoint).
        weight: (checkpoint,) inverse variances.
        shapes: (location, scale, checkpoint), see :func:`basis`.
    """
    share = weight / weight.sum()
    flat = shapes.reshape(-1, shapes.shape[-1])
    # The curves are centred, not the shapes, of which there are more: the products are the same.
    size = weight.sum() * ((flat**2 @ share) - (flat @ share) ** 2)
    # A shape that is constant over the checkpoints (numerically) explains nothing.
    known = size > 1e-10 * weight.sum()
    product = np.maximum(((curves - (curves @ share)[:, None]) * weight) @ flat.T, 0.0)
    explained = np.square(product, out=product)
    explained *= np.where(known, 1.0 / np.where(known, size, 1.0), 0.0)
    return np.asarray(explained.reshape(len(curves), *shapes.shape[:2]))


def grid(shape: Shape, x: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The widest grid of locations and scales for checkpoints at ``x``."""
    gaps, length = np.diff(x), float(x[-1] - x[0])
    low, high = float(x[0]), float(x[-1])
    # Of checkpoints at random some two nearly coincide: nothing is that steep, and the grid would get coarse.
    # The steepest shape is a jump between two checkpoints, wherever between them it is.
    least = max(float(gaps.min()), length / 400.0) / (100.0 if shape == "logistic" else 50.0)
    most = length / 2.5 if shape == "logistic" else 1.5 * length
    return np.linspace(low, high, LOCATIONS), np.geomspace(least, max(most, 2 * least), SCALES)


def widest(shape: Shape, x: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Locations, scales and shapes (location, scale, checkpoint) of the widest grid for checkpoints at ``x``.

    They are kept, because a curve is fitted several times, and many curves have the same checkpoints.
    """
    return _widest(shape, np.ascontiguousarray(x).tobytes())


@lru_cache(maxsize=8)
def _widest(shape: Shape, points: bytes) -> tuple[FloatArray, FloatArray, FloatArray]:
    x = np.frombuffer(points)
    locations, scales = grid(shape, x)
    found = locations, scales, basis(shape, x, locations, scales)
    for array in found:
        array.flags.writeable = False
    return found


def fit_shape(
    shape: Shape, x: FloatArray, values: FloatArray, noise: Noise, *, level: float = 0.95, ranges: bool = True
) -> ShapeFit:
    """Fit a shape and invert the likelihood-ratio test of its location and scale.

    Args:
        shape: which one.
        x: (checkpoint,) log10(step + 1), increasing.
        values: (checkpoint,) the curve, finite, turned so that emergence is a rise.
        noise: of the curve.
        level: of the two intervals.
        ranges: whether the intervals are wanted; they are infinite otherwise.
    """
    locations, scales, shapes = widest(shape, x)
    outer = (locations[0], locations[-1], scales[0], scales[-1])
    mean = values
    for _ in range(3):  # weights that depend on the mean: iterated
        weight = 1.0 / noise.scale(mean) ** 2
        location, scale, floor, rise = _best(values, weight, locations, scales, shapes)
        mean = floor + rise * basis(shape, x, np.array([location]), np.array([scale]))[0, 0]
    weight = 1.0 / noise.scale(mean) ** 2
    degrees = max(x.size - 4, 1)

    spread, misfit, t_location, t_scale = 1.0, 0.0, np.zeros(1), np.zeros(1)
    for narrowing in range(NARROWINGS):
        if narrowing:
            shapes = basis(shape, x, locations, scales)
        share = weight / weight.sum()
        total = float((weight * (values - values @ share) ** 2).sum())
        residual = total - gain(values[None], weight, shapes)[0]
        misfit = float(residual.min())
        unlikely = x.size > 4 and chi2.sf(misfit, degrees) < NOT_BY_CHANCE
        spread = max(1.0, misfit / degrees) if unlikely else 1.0
        excess = (residual - misfit) / spread
        t_location, t_scale = excess.min(axis=1), excess.min(axis=0)
        row, column = np.unravel_index(int(residual.argmin()), residual.shape)
        location, scale = float(locations[row]), float(scales[column])
        if narrowing == NARROWINGS - 1 or not ranges:
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

    g = basis(shape, x, np.array([location]), np.array([scale]))[0, 0]
    floor, rise = _line(g, values, weight)
    mean = floor + rise * g
    nowhere = (-np.inf, np.inf), (0.0, np.inf)
    location_range, scale_range = nowhere
    if ranges:
        sigma = np.sqrt(spread) * noise.scale(mean)
        other = mean[None] + noise.residuals.T * sigma
        explained = gain(other, weight / spread, shapes)
        best = explained.max(axis=(1, 2))
        least = float(chi2.isf(1.0 - level, 1))
        q_location = max(quantile(best - explained[:, row].max(axis=1), level), least)
        q_scale = max(quantile(best - explained[:, :, column].max(axis=1), level), least)
        location_range = _inverted(locations, t_location, q_location, outer[0], outer[1], (-np.inf, np.inf))
        scale_range = _inverted(scales, t_scale, q_scale, outer[2], outer[3], (0.0, np.inf))
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
    )


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


def _best(
    values: FloatArray, weight: FloatArray, locations: FloatArray, scales: FloatArray, shapes: FloatArray
) -> tuple[float, float, float, float]:
    explained = gain(values[None], weight, shapes)[0]
    row, column = np.unravel_index(int(explained.argmax()), explained.shape)
    floor, rise = _line(shapes[row, column], values, weight)
    return float(locations[row]), float(scales[column]), floor, rise


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
