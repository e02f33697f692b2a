r"""When did each of a hundred thousand curves emerge? Excess over null for curves that share their checkpoints.

The definition and its states are those of :func:`dynamics.emergence.assess`, without bootstrap draws: no interval of the
onset and no confidence, but a p value for each curve, from which :mod:`dynamics.emergence.discovery` finds those that
emerged at a false discovery rate. Curves are worked on in chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from dynamics.emergence.bound import Bound, simultaneous_bound
from dynamics.emergence.runs import CLEARLY, Runs, scan
from dynamics.numerics.arrays import FloatArray

__all__ = ["Many", "assess_many"]

Lazy = Any
"""A dask array: it has no types of its own, and is not imported for curves that are in memory."""


@dataclass(frozen=True)
class Many(Runs):
    """One entry per curve (curve,); see :class:`dynamics.emergence.Runs` for the runs above the null.

    Attributes:
        p_value: of "the curve follows its null": the null draws that reach as far above the null's mean somewhere.
    """

    p_value: FloatArray


def assess_many(
    steps: npt.ArrayLike,
    values: npt.NDArray[np.floating] | Lazy,
    *,
    null: npt.ArrayLike | Callable[[slice], npt.ArrayLike],
    errors: npt.NDArray[np.floating] | Lazy | Callable[[slice], npt.NDArray[np.floating]] | None = None,
    chunk: int = 1000,
) -> Many:
    """Excess over null for many curves that share their checkpoints.

    Args:
        steps: (checkpoint,) optimizer steps, increasing.
        values: (curve, checkpoint), NaN where not measured; may be memory-mapped, it is read chunk by chunk. A dask
            array is worked on block by block of its curves, in parallel, by the scheduler that is in force (threads
            unless the caller chose another), and never is in memory as a whole.
        null: (checkpoint, null_draw), one null for all, or a callback from a slice of curves to
            (curve, checkpoint, null_draw). It carries the sampling noise.
        errors: standard errors (curve, checkpoint), or (checkpoint,) for all, or a callback from a slice; a dask array
            where ``values`` is one; the null's own scale if not given. They say what is clearly below the bound. A rate
            over n units has sqrt(p (1 - p) / n) with p away from 0 and 1, e.g. (successes + 1/2) / (n + 1).
        chunk: curves at a time (of a dask array: within a block), which bounds memory.

    Returns:
        Arrays over curves. The result depends neither on ``chunk`` nor on the blocks of a dask array.

    Raises:
        ValueError: shapes do not fit, or steps do not increase.
    """
    at = np.asarray(steps)
    if at.ndim != 1 or values.ndim != 2 or values.shape[1] != at.size or at.size < 2:
        raise ValueError(f"values have shape {values.shape}; expected (curve, {at.size}) for {at.size} >= 2 steps")
    if (np.diff(at) <= 0).any():
        raise ValueError("steps do not increase; expected strictly increasing steps")
    shared = None if callable(null) else _SharedNull.of(np.asarray(null, dtype=np.float64)[None])
    if shared is not None and shared.bound.upper.shape[1] != at.size:
        raise ValueError(f"null has {shared.bound.upper.shape[1]} checkpoints; expected {at.size}")

    def piece_of(values: npt.NDArray[np.floating], piece: slice, error: npt.NDArray[np.floating] | None) -> Many:
        """The curves ``piece`` of all: their values (curve, checkpoint), and their errors if they have any."""
        against = shared
        if against is None:
            assert callable(null)
            against = _SharedNull.of(np.asarray(null(piece), dtype=np.float64))
        return _chunk(np.asarray(values, dtype=np.float64), against, error)

    if hasattr(values, "__dask_graph__"):
        return _lazily(piece_of, values, errors, chunk)
    if not len(values):
        raise ValueError("there are no curves; expected at least one")
    cuts = _cut(len(values), chunk)
    return _joined([piece_of(values[piece], piece, _errors_of(errors, piece)) for piece in cuts])


def _errors_of(errors: Any, piece: slice) -> Any:
    """The errors of some curves."""
    if errors is None or callable(errors):
        return None if errors is None else errors(piece)
    return errors if errors.ndim == 1 else errors[piece]


def _cut(curves: int, chunk: int) -> list[slice]:
    """Slices of at most ``chunk`` curves."""
    return [slice(first, min(first + chunk, curves)) for first in range(0, curves, chunk)]


def _joined(parts: Sequence[Many]) -> Many:
    return Many(**{field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Many)})


def _lazily(piece_of: Callable[..., Many], values: Lazy, errors: Any, chunk: int) -> Many:
    """The curves of a dask array: a block is made, assessed and dropped, by the scheduler that is in force."""
    from dask.base import compute
    from dask.delayed import delayed

    values = values.rechunk({1: -1})
    sizes = [int(size) for size in values.chunks[0] if size == size]
    if len(sizes) < values.numblocks[0]:
        raise ValueError("the sizes of the blocks are not known; call compute_chunk_sizes() on the array first")
    lazy = hasattr(errors, "__dask_graph__") and errors.ndim == 2
    blocks = values.to_delayed(optimize_graph=False)[:, 0]  # keys as they are: errors made from the values share them
    with_errors = errors.rechunk(values.chunks).to_delayed(optimize_graph=False)[:, 0] if lazy else [None] * len(blocks)

    def assess(values: npt.NDArray[np.floating], error: npt.NDArray[np.floating] | None, first: int) -> Many:
        parts = []
        for cut in _cut(len(values), chunk):
            piece = slice(first + cut.start, first + cut.stop)
            known = _errors_of(errors, piece) if error is None else error[cut]
            parts.append(piece_of(values[cut], piece, known))
        return _joined(parts)

    starts = np.cumsum([0, *sizes]).tolist()
    tasks = [
        delayed(assess)(block, error, first)
        for block, error, first, size in zip(blocks, with_errors, starts, sizes, strict=False)
        if size
    ]
    if not tasks:
        raise ValueError("there are no curves; expected at least one")
    return _joined(compute(*tasks))  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class _SharedNull:
    """Bound (curve or 1, checkpoint), and the largest studentised excess of every draw (curve or 1, draw), sorted."""

    bound: Bound
    largest: FloatArray

    @classmethod
    def of(cls, null: FloatArray) -> _SharedNull:
        bound = simultaneous_bound(null)
        return cls(bound, np.sort(bound.largest, axis=1))


def _chunk(v: FloatArray, null: _SharedNull, error: npt.NDArray[np.floating] | None) -> Many:
    """The curves of one chunk."""
    upper = np.broadcast_to(null.bound.upper, v.shape)
    noise = null.bound.scale if error is None else np.asarray(error, dtype=np.float64)
    valid = np.isfinite(v) & np.isfinite(upper)
    excess = np.where(valid, v - upper, 0.0)
    rounding = 1e-9 * np.abs(upper)
    runs = scan(excess > rounding, excess <= -CLEARLY * noise, valid)

    scale = np.where(null.bound.scale > 0, null.bound.scale, np.inf)
    reached = np.where(valid, (v - null.bound.mean) / scale, -np.inf).max(axis=1)
    draws = null.largest.shape[1]
    if len(null.largest) == 1:
        below = np.searchsorted(null.largest[0], reached - 1e-9)
    else:
        below = (null.largest < (reached - 1e-9)[:, None]).sum(axis=1)
    return Many(**vars(runs), p_value=(1.0 + draws - below) / (1.0 + draws))
