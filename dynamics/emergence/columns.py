r"""The shapes of a rise as columns of a linear model, on a grid of locations and scales.

With x = log10(step + 1) and u = (x - location) / scale, a shape is the logistic function of u or a ramp, u between 0 and 1. Beside
it, a curve may grow at a constant rate per decade: before a ramp min(u, 0), after it max(u - 1, 0), each times the scale; with
rounded corners (the integral of the logistic function) beside a logistic. Given location and scale the curve is linear in
floor, rise and rates, so that what a model explains of many curves, anywhere on the grid, is a matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
from scipy.special import expit

from dynamics.numerics.arrays import FloatArray

__all__ = ["Shape", "Side", "basis", "gain", "gain_beside", "grid", "growths", "widest"]

Shape = Literal["logistic", "ramp"]

Side = Literal["before", "after"]

LOCATIONS, SCALES = 72, 32
"""Size of the widest grid."""


def basis(shape: Shape, x: FloatArray, location: FloatArray, scale: FloatArray) -> FloatArray:
    """The shapes between 0 and 1, (location, scale, checkpoint)."""
    u = (x - location[:, None, None]) / scale[None, :, None]
    return np.asarray(expit(u) if shape == "logistic" else np.clip(u, 0.0, 1.0))


def growths(
    shape: Shape, x: FloatArray, location: FloatArray, scale: FloatArray, sides: tuple[Side, ...]
) -> tuple[FloatArray, ...]:
    """Growth of one per decade beside a shape, (location, scale, checkpoint) for every side."""
    size = scale[None, :, None]
    u = (x - location[:, None, None]) / size
    made = {
        "before": lambda: -size * np.logaddexp(0.0, -u) if shape == "logistic" else size * np.minimum(u, 0.0),
        "after": lambda: size * np.logaddexp(0.0, u) if shape == "logistic" else size * np.maximum(u - 1.0, 0.0),
    }
    return tuple(np.asarray(made[side]()) for side in sides)


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


def gain_beside(
    shape: Shape,
    curves: FloatArray,
    weight: FloatArray,
    shapes: FloatArray,
    grown: Sequence[FloatArray],
    scales: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """As :func:`gain`, of a shape with growth beside it; and what the growth alone explains.

    Nothing where the growth would be steeper than the shape: there, the change is elsewhere.

    Args:
        shape, curves, weight, shapes: as there.
        grown: the growth on each side, (location, scale, checkpoint); see :func:`growths`.
        scales: (scale,) of the grid.
    """
    columns = [one.reshape(-1, one.shape[-1]) for one in (*grown, shapes)]
    share, count = weight / weight.sum(), len(columns)
    means = [column @ share for column in columns]
    centred = (curves - (curves @ share)[:, None]) * weight
    product = [centred @ column.T for column in columns]
    square = {
        (i, j): (columns[i] * columns[j]) @ weight - weight.sum() * means[i] * means[j]
        for i in range(count)
        for j in range(i, count)
    }
    # Elimination, the shape last: what is left of its product has the sign of the rise.
    factor: dict[tuple[int, int], FloatArray] = {}
    for i in range(count):
        left = square[i, i]
        known = left > 1e-9 * np.maximum((columns[i] ** 2) @ weight, 1e-9 * weight.sum())
        inverse = np.where(known, 1.0 / np.where(known, left, 1.0), 0.0)
        for j in range(i + 1, count):
            factor[i, j] = square[i, j] * inverse
        for j in range(i + 1, count):
            product[j] = product[j] - factor[i, j] * product[i]
            for k in range(j, count):
                square[j, k] = square[j, k] - factor[i, j] * square[i, k]
        factor[i, i] = inverse
    alone = sum((product[i] ** 2 * factor[i, i] for i in range(count - 1)), np.zeros_like(product[0]))
    explained = alone + np.maximum(product[-1], 0.0) ** 2 * factor[count - 1, count - 1]
    rate = [product[i] * factor[i, i] for i in range(count)]
    for i in range(count - 2, -1, -1):
        for j in range(i + 1, count):
            rate[i] = rate[i] - factor[i, j] * rate[j]
    steepest = rate[-1] * np.tile((0.25 if shape == "logistic" else 1.0) / scales, shapes.shape[0])
    full = (len(curves), *shapes.shape[:2])
    return np.where(np.max(rate[:-1], axis=0) > steepest, 0.0, explained).reshape(full), alone.reshape(full)


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
