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

__all__ = ["Shape", "Side", "basis", "gain", "gain_beside", "gain_of_growth", "grid", "growths", "widest"]

Shape = Literal["logistic", "ramp"]

Side = Literal["before", "after"]

LOCATIONS, SCALES = 72, 32
"""Size of the widest grid."""

PIECE = 2**16
"""Products of curves and points of a grid that are looked at together."""


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
    product = np.maximum(_centred(curves, weight) @ flat.T, 0.0)
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
) -> FloatArray:
    """As :func:`gain`, of a shape with growth beside it.

    Nothing where the growth would be steeper than the shape: there, the change is elsewhere.

    Args:
        shape, curves, weight, shapes: as there.
        grown: the growth on each side, (location, scale, checkpoint); see :func:`growths`.
        scales: (scale,) of the grid.
    """
    centred = _centred(curves, weight)
    few = len(curves) < centred.shape[1]
    flat = [column.reshape(-1, column.shape[-1]).T for column in (*grown, shapes)]
    # All that follows is linear in the products of curves and columns: it is done to whichever are fewer, products or columns.
    rows, size, taken = _eliminated(flat, weight, [centred @ column for column in flat] if few else flat)
    rate = [row * inverse for row, inverse in zip(rows, size, strict=True)]
    for i in range(len(rows) - 2, -1, -1):
        for j in range(i + 1, len(rows)):
            rate[i] = rate[i] - taken[i, j] * rate[j]
    steepest = rate[-1] * np.tile((0.25 if shape == "logistic" else 1.0) / scales, shapes.shape[0])
    steeper = [one - steepest for one in rate[:-1]]
    parts = [row * np.sqrt(inverse) for row, inverse in zip(rows, size, strict=True)]
    found = np.empty((len(curves), steepest.shape[1]))
    # In pieces that stay in the processor's own memory: what is done with products takes longer than making them.
    piece = max(1, PIECE // len(curves))
    for start in range(0, found.shape[1], piece):
        here = slice(start, start + piece)

        def product(row: FloatArray, here: slice = here) -> FloatArray:
            return np.array(row[:, here]) if few else np.asarray(centred @ row[:, here])

        explained = np.maximum(product(parts[-1]), 0.0)
        np.square(explained, out=explained)
        for part in parts[:-1]:
            explained += np.square(product(part))
        for one in steeper:
            explained[product(one) > 0.0] = 0.0
        found[:, here] = explained
    return found.reshape(len(curves), *shapes.shape[:2])


def gain_of_growth(curves: FloatArray, weight: FloatArray, grown: Sequence[FloatArray]) -> FloatArray:
    """What growth alone, without a shape, explains beyond a constant: (curve, location, scale).

    Args:
        curves, weight: as of :func:`gain`.
        grown: as of :func:`gain_beside`.
    """
    flat = [column.reshape(-1, column.shape[-1]).T for column in grown]
    centred = _centred(curves, weight)
    products, size, _ = _eliminated(flat, weight, [centred @ column for column in flat])
    explained = sum((row**2 * inverse for row, inverse in zip(products, size, strict=True)), np.zeros_like(products[0]))
    return np.asarray(explained.reshape(len(curves), *grown[0].shape[:2]))


def _centred(curves: FloatArray, weight: FloatArray) -> FloatArray:
    """(curve, checkpoint) the curves less their means, times the weights."""
    return np.asarray((curves - (curves @ (weight / weight.sum()))[:, None]) * weight)


def _eliminated(
    columns: Sequence[FloatArray], weight: FloatArray, rows: Sequence[FloatArray]
) -> tuple[list[FloatArray], list[FloatArray], dict[tuple[int, int], FloatArray]]:
    """Columns less a constant and what those before them explain; ``rows`` are linear in them, and go the same way.

    Args:
        columns: (checkpoint, point of the grid) each.
        weight: (checkpoint,) inverse variances.
        rows: (any, point) each: products with the columns, or the columns themselves.

    Returns:
        The rows; the inverse of what is left of each column's weighted sum of squares, (point,), 0 where nothing is; and
        what of each later column was taken off for an earlier one, (point,) for each pair.
    """
    share, count = weight / weight.sum(), len(columns)
    means = [share @ column for column in columns]
    square = {
        (i, j): weight @ (columns[i] * columns[j]) - weight.sum() * means[i] * means[j]
        for i in range(count)
        for j in range(i, count)
    }
    left, inverse = list(rows), []
    taken: dict[tuple[int, int], FloatArray] = {}
    for i in range(count):
        size = square[i, i]
        known = size > 1e-9 * np.maximum(weight @ columns[i] ** 2, 1e-9 * weight.sum())
        inverse.append(np.where(known, 1.0 / np.where(known, size, 1.0), 0.0))
        for j in range(i + 1, count):
            taken[i, j] = square[i, j] * inverse[i]
        for j in range(i + 1, count):
            left[j] = left[j] - taken[i, j] * left[i]
            for k in range(j, count):
                square[j, k] = square[j, k] - taken[i, j] * square[i, k]
    return left, inverse, taken


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
