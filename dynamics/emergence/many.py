r"""When did each of a hundred thousand curves emerge? Excess over null, with bootstrap draws that are never stored.

The definition and its states are those of :func:`dynamics.emergence.assess`. Curves are worked on in chunks; a chunk
makes its draws, uses them and drops them. Draws come from a callback, or from a standard error for each value: normal
noise, one set of standard normal curves (checkpoint, draw) for all curves of a chunk, because every curve is
bootstrapped on its own and needs no noise that differs from its neighbour's.

The runs above the bound are followed for 64 draws at a time, one bit each: whether a draw is in a run, whether it has
dipped, and where a run began are words, and the rule of :mod:`dynamics.emergence.runs` is a few bitwise operations.

The interval of the onset of a curve is that of its draws, about a *smoothed* curve: a draw about the values would carry
the noise twice. The smooth curve is the best logistic one on a grid. The interval holds the central 95% of the error of
the draws' onset, in checkpoints, reflected at the observed one (the basic bootstrap: Davison and Hinkley 1997). It
costs a hundredth of the test inversion of :func:`assess`, and is coarser: use that for curves that matter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from dynamics.emergence.bound import Bound, simultaneous_bound
from dynamics.emergence.runs import CODES, NONE, scan
from dynamics.emergence.shapes import basis, grid
from dynamics.numerics.arrays import FloatArray, IntArray

__all__ = ["Many", "assess_many"]

Words = npt.NDArray[np.uint64]
Table = npt.NDArray[np.float32]
Lazy = Any
"""A dask array: it has no types of its own, and is not imported for curves that are in memory."""

CLEARLY = 1.645
WORD = 64


@dataclass(frozen=True)
class Many:
    """One entry per curve (curve,). Places are numbers of checkpoints; see :class:`dynamics.emergence.Runs`.

    Attributes:
        state: position in :data:`dynamics.emergence.runs.CODES`.
        before, start: the onset lies after ``before`` (-1: left-censored) and by ``start`` (number of checkpoints:
            right-censored).
        stop, after: last checkpoint of the run, and the one by which it was lost (-1: it was not).
        episodes: runs above the null.
        range_before, range_start: 95% interval of the onset, in the same way; equal to the onset without draws.
        confidence: share of draws about the smoothed curve with the curve's state; NaN without draws.
        p_value: of "the curve follows its null": the null draws that reach as far above the null's mean somewhere.
    """

    state: IntArray
    before: IntArray
    start: IntArray
    stop: IntArray
    after: IntArray
    episodes: IntArray
    range_before: IntArray
    range_start: IntArray
    confidence: FloatArray
    p_value: FloatArray


def assess_many(
    steps: npt.ArrayLike,
    values: npt.NDArray[np.floating] | Lazy,
    *,
    null: npt.ArrayLike | Callable[[slice], npt.ArrayLike],
    errors: npt.NDArray[np.floating] | Lazy | Callable[[slice], npt.NDArray[np.floating]] | None = None,
    draws: Callable[[slice], npt.NDArray[np.floating]] | None = None,
    count: int = 200,
    level: float = 0.95,
    chunk: int = 1000,
    seed: int = 0,
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
            where ``values`` is one. A rate over n units has sqrt(p (1 - p) / n) with p away from 0 and 1, e.g.
            (successes + 1/2) / (n + 1).
        draws: instead of ``errors``, a callback from a slice of curves to bootstrap draws (curve, checkpoint, draw);
            they are centred, and serve as noise about the smoothed curve.
        count: draws of each curve, for ``errors``.
        level: of the bound.
        chunk: curves at a time (of a dask array: within a block): memory is about 16 bytes x chunk x checkpoints x
            (draws / 8 + 40), and the grid's, for each thread.
        seed: of the noise.

    Returns:
        Arrays over curves. The result depends neither on ``chunk`` nor on the blocks of a dask array.

    Raises:
        ValueError: shapes do not fit, or both ``errors`` and ``draws`` are given.
    """
    at = np.asarray(steps)
    if at.ndim != 1 or values.ndim != 2 or values.shape[1] != at.size or at.size < 2:
        raise ValueError(f"values have shape {values.shape}; expected (curve, {at.size}) for {at.size} >= 2 steps")
    if (np.diff(at) <= 0).any():
        raise ValueError("steps do not increase; expected strictly increasing steps")
    if errors is not None and draws is not None:
        raise ValueError("both errors and draws are given; expected one of them or none")
    shared = None if callable(null) else _Null.of(np.asarray(null, dtype=np.float64)[None], level)
    if shared is not None and shared.bound.upper.shape[1] != at.size:
        raise ValueError(f"null has {shared.bound.upper.shape[1]} checkpoints; expected {at.size}")
    noise = np.random.default_rng(seed).standard_normal((at.size, count), dtype=np.float32)
    x = np.log10(at + 1.0)
    pieces = _Pieces(x, shared, null, draws, noise, level)
    if hasattr(values, "__dask_graph__"):
        return _lazily(pieces, values, errors, chunk)
    if not len(values):
        raise ValueError("there are no curves; expected at least one")
    cuts = _cut(len(values), chunk)
    return _joined([pieces.assess(values[piece], piece, _errors_of(errors, piece)) for piece in cuts])


@dataclass(frozen=True)
class _Pieces:
    """What every piece of the curves is assessed with."""

    x: FloatArray
    shared: _Null | None
    null: Any
    draws: Callable[[slice], npt.NDArray[np.floating]] | None
    noise: Table
    level: float

    def assess(self, values: npt.NDArray[np.floating], piece: slice, errors: npt.NDArray[np.floating] | None) -> Many:
        """The curves ``piece`` of all: their values (curve, checkpoint), and their errors if they have any."""
        v = np.asarray(values, dtype=np.float64)
        against = self.shared or _Null.of(np.asarray(self.null(piece), dtype=np.float64), self.level)
        if self.draws is not None:
            given = np.asarray(self.draws(piece), dtype=np.float32)
            table = given - given.mean(axis=2, keepdims=True)
            return _chunk(self.x, v, against, table.std(axis=2, ddof=1).astype(np.float64), table)
        error = None if errors is None else np.broadcast_to(np.asarray(errors, dtype=np.float64), v.shape)
        return _chunk(self.x, v, against, error, self.noise)


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


def _lazily(pieces: _Pieces, values: Lazy, errors: Any, chunk: int) -> Many:
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
            parts.append(pieces.assess(values[cut], piece, known))
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
class _Null:
    """Bound (curve or 1, checkpoint), and the largest studentised excess of every draw (curve or 1, draw), sorted."""

    bound: Bound
    largest: FloatArray

    @classmethod
    def of(cls, null: FloatArray, level: float) -> _Null:
        bound = simultaneous_bound(null, level)
        return cls(bound, np.sort(bound.largest, axis=1))


def _chunk(x: FloatArray, v: FloatArray, null: _Null, error: FloatArray | None, table: Table) -> Many:
    """The curves of one chunk."""
    curves, checkpoints = v.shape
    upper = np.broadcast_to(null.bound.upper, v.shape)
    noise = np.broadcast_to(null.bound.scale, v.shape) if error is None else error
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
    known = {
        "state": runs.state,
        "before": runs.before,
        "start": runs.start,
        "stop": runs.stop,
        "after": runs.after,
        "episodes": runs.episodes,
        "p_value": (1.0 + draws - below) / (1.0 + draws),
    }
    if error is None:
        nothing = np.full(curves, np.nan)
        return Many(**known, range_before=runs.before, range_start=runs.start, confidence=nothing)
    smooth = _smooth(x, v, error, valid)
    starts, present, ever = _starts(smooth, upper, error, valid, table)
    drawn = table.shape[-1]
    share = {
        "not emerged": drawn - ever,
        "emerged": starts[:, :checkpoints].sum(axis=1) - present,
        "present from start": present,
        "transient": ever - starts[:, :checkpoints].sum(axis=1),
        "not measurable": np.zeros(curves),
    }
    confidence = np.choose(runs.state, [share[name] for name in CODES]) / drawn
    # Onset of the smoothed curve itself, and how far the draws' fall from it.
    above = valid & (smooth > upper)
    true = np.where(above.any(axis=1), above.argmax(axis=1), checkpoints)
    cumulated = starts.cumsum(axis=1) / drawn
    low, high = (cumulated < 0.025).sum(axis=1), (cumulated < 0.975).sum(axis=1)
    start = np.where(runs.state == CODES.index("present from start"), 0, runs.start)
    earliest = np.clip(np.minimum(start - (high - true), start), 0, checkpoints)
    latest = np.clip(np.maximum(start - (low - true), start), 0, checkpoints)
    unsure = (runs.state != CODES.index("transient")) & (runs.state != CODES.index("not measurable"))
    return Many(
        **known,
        range_before=np.where(unsure, np.minimum(runs.before, earliest - 1), runs.before),
        range_start=np.where(unsure, np.maximum(runs.start, latest), runs.start),
        confidence=np.asarray(confidence, dtype=np.float64),
    )


def _smooth(x: FloatArray, v: FloatArray, error: FloatArray, valid: npt.NDArray[np.bool_]) -> FloatArray:
    """(curve, checkpoint) the logistic curve of least squares of each, on a coarse grid, or a constant."""
    locations, scales = grid("logistic", x)
    shapes = basis("logistic", x, locations[::2], scales[::2]).reshape(-1, x.size).astype(np.float32)
    typical = np.maximum(error, 0.1 * np.sqrt((error**2).mean(axis=1, keepdims=True)) + 1e-12)
    w = np.where(valid, 1.0 / typical**2, 0.0)
    total = np.maximum(w.sum(axis=1, keepdims=True), 1e-300)
    w = (w / total).astype(np.float32)
    level = (w * np.where(valid, v, 0.0)).sum(axis=1, keepdims=True)
    y = np.where(valid, v - level, 0.0).astype(np.float32)
    mean = w @ shapes.T
    size = np.maximum(w @ (shapes**2).T - mean**2, 1e-6)
    product = np.maximum((w * y) @ shapes.T, 0.0)
    best = (product**2 / size).argmax(axis=1)
    rows = np.arange(len(v))
    rise = product[rows, best] / size[rows, best]
    return np.asarray(level + rise[:, None] * (shapes[best] - mean[rows, best][:, None]), dtype=np.float64)


def _starts(
    smooth: FloatArray, upper: FloatArray, error: FloatArray, valid: npt.NDArray[np.bool_], table: Table
) -> tuple[IntArray, IntArray, IntArray]:
    """Where the lasting runs of the draws start.

    Returns:
        (curve, checkpoint + 1) draws whose last run starts there and reaches the end (last column: none does);
        (curve,) draws that are above from their first valid checkpoint on; (curve,) draws that were ever above.
    """
    curves, checkpoints = smooth.shape
    drawn = table.shape[-1]
    words = -(-drawn // WORD)
    # A draw is above where its noise exceeds the gap between bound and curve, in units of the noise.
    shared = table.ndim == 2
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = (upper - smooth) / (error if shared else 1.0)
    clear = gap - CLEARLY * (1.0 if shared else error)
    gap, clear = (np.where(valid, np.nan_to_num(one, posinf=3e38, neginf=-3e38), 3e38) for one in (gap, clear))
    gap, clear = gap.astype(np.float32), clear.astype(np.float32)

    fresh = np.zeros((checkpoints, curves, words), dtype=np.uint64)
    running = np.zeros((curves, words), dtype=np.uint64)
    dipped, ever = np.zeros_like(running), np.zeros_like(running)
    for c in range(checkpoints):
        noise = table[c] if shared else table[:, c]
        here = np.where(valid[:, c], ~np.uint64(0), np.uint64(0))[:, None]
        rises = _packed(noise > gap[:, c, None], words) & here
        low = _packed(noise <= clear[:, c, None], words) & here
        fresh[c] = rises & ~running
        ever |= rises
        dips = running & ~rises & here
        ends = dips & (dipped | low)
        dipped = (dipped | dips) & ~rises & ~ends
        running = (running | rises) & ~ends
    starts = np.zeros((curves, checkpoints + 1), dtype=np.int64)
    first = np.where(valid.any(axis=1), valid.argmax(axis=1), NONE)
    for c in range(checkpoints - 1, -1, -1):
        begun = fresh[c] & running
        starts[:, c] = np.bitwise_count(begun).sum(axis=1)
        running &= ~begun
    starts[:, checkpoints] = drawn - starts.sum(axis=1)
    present = np.where(first >= 0, np.take_along_axis(starts, np.maximum(first, 0)[:, None], axis=1)[:, 0], 0)
    return starts, present, np.bitwise_count(ever).sum(axis=1).astype(np.int64)


def _packed(bits: npt.NDArray[np.bool_], words: int) -> Words:
    """(curve, draw) as (curve, word); the bits beyond the draws are 0."""
    packed = np.packbits(bits, axis=1)
    padded = np.zeros((len(bits), words * 8), dtype=np.uint8)
    padded[:, : packed.shape[1]] = packed
    return padded.view(np.uint64)
