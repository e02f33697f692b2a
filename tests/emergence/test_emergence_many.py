"""Many curves at once: the same answers as one by one, whatever the chunk, and false discoveries counted."""

from __future__ import annotations

import threading
import weakref
from dataclasses import fields

import dask
import dask.array as da
import numpy as np
import pytest

from dynamics.emergence import Interval, Many, assess, assess_many, count_onset, discover, found_since
from dynamics.emergence.runs import CODES

STEPS = np.concatenate([[0], np.round(np.geomspace(2, 143_000, 29)).astype(np.int64)])
X = np.log10(STEPS + 1.0)


def curves(count: int, seed: int = 0, noise: float = 0.05) -> np.ndarray:
    rng = np.random.default_rng(seed)
    place = rng.uniform(1, 4, size=(count, 1))
    rise = np.where(np.arange(count)[:, None] % 2 == 0, 0.5, 0.0)
    return rise / (1 + np.exp(-(X - place) / 0.2)) + noise * rng.normal(size=(count, X.size))


def null(draws: int = 500, noise: float = 0.05) -> np.ndarray:
    return noise * np.random.default_rng(9).normal(size=(X.size, draws))


def test_every_curve_has_the_state_and_onset_that_it_has_alone() -> None:
    values = curves(60)
    values[3, 5:8] = np.nan
    against = null()
    errors = np.full(values.shape, 0.05)
    many = assess_many(STEPS, values, null=against, errors=errors, chunk=7)
    for row, curve in enumerate(values):
        noise = np.random.default_rng(1).normal(size=(X.size, 4000))
        noise = 0.05 * (noise - noise.mean(1, keepdims=True)) / noise.std(1, ddof=1, keepdims=True)
        alone = assess(STEPS, curve, draws=curve[:, None] + noise[:, :50], null=against, null_name="noise")
        assert CODES[many.state[row]] == alone.state
        if alone.state == "emerged":
            assert Interval(int(STEPS[many.before[row]]), int(STEPS[many.start[row]])) == alone.onset


def test_chunks_make_no_difference() -> None:
    values, against = curves(50), null()
    one, other = (assess_many(STEPS, values, null=against, errors=np.full(30, 0.05), chunk=n) for n in (50, 7))
    same(one, other)


def test_false_discoveries_stay_below_the_stated_rate_over_ten_thousand_curves() -> None:
    rng = np.random.default_rng(0)
    values = 0.05 * rng.normal(size=(10_000, X.size))
    planted = np.arange(10_000) < 500
    values[planted] += 0.2 / (1 + np.exp(-(X - 3) / 0.2))
    many = assess_many(STEPS, values, null=null(4000))
    for method in ("bh", "by"):
        found = discover(many.p_value, rate=0.05, method=method)  # type: ignore[arg-type]
        assert (found & ~planted).sum() / max(found.sum(), 1) <= 0.05 + 0.02
        assert method == "by" or found[planted].mean() > 0.6
    alone = many.p_value[~planted] <= 0.05
    assert alone.mean() <= 0.06
    assert not discover(many.p_value[~planted]).any()


def test_a_set_of_heads_emerges_when_half_of_those_found_have_risen() -> None:
    rng = np.random.default_rng(0)
    entry = np.full(100, 30)
    entry[:8] = [10, 10, 14, 15, 15, 15, 20, 25]
    units = 0.02 * rng.normal(size=(100, 30)) + 0.5 * (np.arange(30) >= entry[:, None])
    since = found_since(STEPS, units, null=null(2000, 0.02), chunk=9)
    np.testing.assert_array_equal(since, np.where(entry < 30, entry, 30))
    onset = count_onset(STEPS, since, tokens=STEPS * 10.0)
    assert onset.between == Interval(int(STEPS[14]), int(STEPS[15]))
    assert onset.tokens == (STEPS[14] * 10, STEPS[15] * 10)
    assert onset.range.covers(onset.between)
    first = count_onset(STEPS, since, share=0.02, of="all")
    assert first.between.by == STEPS[10]
    none = count_onset(STEPS, found_since(STEPS, units[8:], null=null(2000, 0.02)))
    assert (none.state, none.between) == ("not emerged", Interval(int(STEPS[-1]), None))


def test_mistakes_are_named() -> None:
    values, against = curves(3), null(50)
    with pytest.raises(ValueError, match=r"values have shape \(3, 30\); expected \(curve, 4\)"):
        assess_many([0, 1, 2, 3], values, null=against)
    with pytest.raises(ValueError, match="steps do not increase"):
        assess_many(STEPS[::-1], values, null=against)
    with pytest.raises(ValueError, match="null has 4 checkpoints; expected 30"):
        assess_many(STEPS, values, null=against[:4])
    with pytest.raises(ValueError, match="there are no curves"):
        assess_many(STEPS, values[:0], null=against)
    with pytest.raises(ValueError, match="share is 0"):
        count_onset(STEPS, [3, 4], share=0)


def same(one: Many, other: Many) -> None:
    for field in fields(Many):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name), err_msg=field.name)


@pytest.mark.parametrize("blocks", [(50,), (20, 30), (7,) * 7 + (1,), (0, 49, 1)])
def test_a_dask_array_gives_what_the_array_in_memory_gives(blocks: tuple[int, ...]) -> None:
    values, against = curves(50), null()
    values[3, 5:8] = np.nan
    errors = 0.05 + 0.01 * np.random.default_rng(1).random(values.shape)
    lazy, lazy_errors = (da.from_array(a, chunks=(blocks, 11)) for a in (values, errors))
    kept = assess_many(STEPS, values, null=against, errors=errors)
    same(kept, assess_many(STEPS, lazy, null=against, errors=lazy_errors))
    same(kept, assess_many(STEPS, lazy, null=against, errors=errors, chunk=4))
    same(kept, assess_many(STEPS, lazy, null=against, errors=lazy_errors.rechunk(13), chunk=4))
    with dask.config.set(scheduler="synchronous"):
        same(
            assess_many(STEPS, values, null=against, errors=errors[0]),
            assess_many(STEPS, lazy, null=against, errors=lazy_errors[0]),
        )
    same(assess_many(STEPS, values, null=against), assess_many(STEPS, lazy, null=against))


def test_callbacks_are_asked_for_the_curves_of_all_whatever_the_blocks() -> None:
    values, rng = curves(40), np.random.default_rng(3)
    own = 0.05 * rng.normal(size=(40, 30, 60))
    asked = {"null": lambda piece: own[piece]}
    lazy = da.from_array(values, chunks=(17, -1))
    same(assess_many(STEPS, values, **asked), assess_many(STEPS, lazy, chunk=5, **asked))
    every = {"null": null(), "errors": lambda piece: np.full((piece.stop - piece.start, 30), 0.05)}
    same(assess_many(STEPS, values, **every), assess_many(STEPS, lazy, chunk=5, **every))


def test_an_array_that_is_made_lazily_never_is_in_memory_as_a_whole() -> None:
    """Forty blocks are made once each, by their own seeds, and released: only a few are alive at any time."""
    alive, most, made, lock = 0, 0, 0, threading.Lock()

    def count(change: int) -> None:
        nonlocal alive, most
        with lock:
            alive += change
            most = max(most, alive)

    def block(block_info: dict[int, dict[str, list[tuple[int, int]]]]) -> np.ndarray:
        nonlocal made
        made += 1
        (first, last), _ = block_info[None]["array-location"]
        array = curves(last - first, seed=first)
        count(1)
        weakref.finalize(array, count, -1)
        return array

    # No meta: dask would make a block to learn its type.
    lazy = da.map_blocks(block, chunks=((100,) * 40, (30,)), dtype=float, meta=np.empty((0, 0)))
    errors = da.sqrt(da.clip(lazy, 0.02, 0.98) / 120)  # from the same blocks, which are not made again
    with dask.config.set(scheduler="threads", num_workers=2):
        many = assess_many(STEPS, lazy, null=null(), errors=errors)
    assert made == 40
    assert most <= 6
    for first in (0, 1700, 3900):
        values = curves(100, seed=first)
        error = np.sqrt(np.clip(values, 0.02, 0.98) / 120)
        alone = assess_many(STEPS, values, null=null(), errors=error)
        piece = Many(**{field.name: getattr(many, field.name)[first : first + 100] for field in fields(Many)})
        same(alone, piece)


def test_mistakes_with_dask_arrays_are_named() -> None:
    lazy = da.from_array(curves(20), chunks=(5, -1))
    with pytest.raises(ValueError, match="call compute_chunk_sizes"):
        assess_many(STEPS, lazy[lazy[:, -1] > 0.2], null=null())
    with pytest.raises(ValueError, match="there are no curves"):
        assess_many(STEPS, lazy[:0], null=null())
