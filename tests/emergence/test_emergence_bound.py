"""The simultaneous bound: its error rate on curves that are known to be null."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import expon, norm

from dynamics.emergence import draws_needed, simultaneous_bound

Sampler = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]

NULLS: dict[str, Sampler] = {
    "gaussian": lambda rng, shape: rng.normal(size=shape),
    "skewed": lambda rng, shape: rng.lognormal(size=shape),
    "binomial(120, 1/10)": lambda rng, shape: rng.binomial(120, 0.1, size=shape) / 120,
    "binomial(120, 1/80)": lambda rng, shape: rng.binomial(120, 1 / 80, size=shape) / 120,
    "binomial(120, 1/1000)": lambda rng, shape: rng.binomial(120, 1 / 1000, size=shape) / 120,
    "uneven": lambda rng, shape: rng.normal(size=shape) * np.geomspace(0.01, 1, shape[-2])[:, None],
    "drifting together": lambda rng, shape: rng.normal(size=shape).cumsum(axis=-2),
}


@pytest.mark.parametrize("draws", [19, 40, 200])
@pytest.mark.parametrize("checkpoints", [2, 40])
@pytest.mark.parametrize("name", NULLS)
def test_a_null_curve_exceeds_its_bound_anywhere_in_at_most_5_percent(name: str, checkpoints: int, draws: int) -> None:
    curves = 500
    rng = np.random.default_rng(draws + checkpoints)
    sample = NULLS[name](rng, (curves, checkpoints, draws + 1))
    bound = simultaneous_bound(sample[..., :-1])
    crossed = (sample[..., -1] > bound.upper).any(axis=1).mean()
    assert crossed <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / curves)


def test_the_bound_of_gaussian_noise_is_that_of_the_maximum_of_as_many_normals() -> None:
    bound = simultaneous_bound(np.random.default_rng(0).normal(size=(40, 5000)))
    # P(max of 40 normals < z) = 0.95 at z = 3.02.
    assert bound.upper.mean() == pytest.approx(3.02, abs=0.1)


def test_curves_are_bounded_each_on_its_own() -> None:
    null = np.random.default_rng(0).normal(size=(3, 8, 50))
    together = simultaneous_bound(null)
    for one, upper in zip(null, together.upper, strict=True):
        np.testing.assert_allclose(simultaneous_bound(one).upper, upper)


def test_draws_that_never_vary_bound_at_their_value() -> None:
    np.testing.assert_allclose(simultaneous_bound(np.full((4, 200), 0.1)).upper, 0.1, rtol=1e-12)


def test_one_odd_draw_does_not_make_the_bound_infinite() -> None:
    null = np.zeros((5, 200))
    null[3, 17] = 0.01
    upper = simultaneous_bound(null).upper
    assert np.isfinite(upper).all()
    np.testing.assert_allclose(upper, 0, atol=0.001)
    assert np.isfinite(simultaneous_bound(null[:, :19]).upper).all()


def test_a_checkpoint_with_too_few_finite_draws_has_no_bound_and_spoils_no_other() -> None:
    null = np.random.default_rng(0).normal(size=(4, 50))
    without = simultaneous_bound(null[[0, 1, 3]])
    null[2, 18:] = np.nan
    bound = simultaneous_bound(null)
    assert np.isnan([bound.upper[2], bound.mean[2], bound.scale[2]]).all()
    np.testing.assert_allclose(bound.upper[[0, 1, 3]], without.upper)


def test_missing_draws_are_left_out() -> None:
    null = np.random.default_rng(0).normal(size=(4, 50))
    padded = np.concatenate([null, np.full((4, 7), np.nan), np.full((4, 1), np.inf)], axis=1)
    np.testing.assert_allclose(simultaneous_bound(padded).upper, simultaneous_bound(null).upper)


def test_a_level_needs_as_many_draws_as_make_its_quantile_one_of_them() -> None:
    assert [draws_needed(level) for level in (0.5, 0.9, 0.95, 0.99)] == [3, 9, 19, 99]
    for level in (0.0, 1.0, 95):
        with pytest.raises(ValueError, match="expected a number between 0 and 1"):
            draws_needed(level)


def test_a_null_without_a_draw_axis_is_refused() -> None:
    with pytest.raises(ValueError, match=r"null has shape \(3,\); expected \(checkpoint, null_draw\)"):
        simultaneous_bound([0.1, 0.2, 0.3])


def test_a_bound_from_few_checkpoints_does_not_depend_on_where_most_of_them_are() -> None:
    """Where a curve rises, a search visits many checkpoints; the noise there must not count for the whole series."""
    rng = np.random.default_rng(0)
    size = np.where(np.arange(154) < 120, 1.0, 6.0)
    null = size[:, None] * rng.normal(size=(154, 2000))
    every = simultaneous_bound(null).scale
    visited = np.concatenate([np.arange(0, 120, 12), np.arange(120, 154, 2)])
    seen = simultaneous_bound(null[visited], family=154, positions=visited).scale
    unaware = simultaneous_bound(null[visited], family=154).scale
    quiet = visited < 120
    np.testing.assert_allclose(seen[quiet], every[visited][quiet], rtol=0.1)
    assert (unaware[quiet] > 1.3 * every[visited][quiet]).all()


def test_the_bound_of_all_checkpoints_is_the_same_with_their_places() -> None:
    null = np.random.default_rng(1).normal(size=(20, 100))
    np.testing.assert_allclose(
        simultaneous_bound(null, family=20, positions=np.arange(20)).upper, simultaneous_bound(null).upper, rtol=1e-12
    )


def test_checkpoints_that_share_their_draws_with_visited_neighbours_do_not_raise_the_bound() -> None:
    """Nulls that a model which does not change gives again, and new ones while it learns, where a search looks most."""
    rng = np.random.default_rng(2)
    learning = np.arange(154)[:, None]
    null = np.where(learning < 70, rng.normal(size=2000), rng.normal(size=2000))
    null[70:90] = rng.normal(size=(20, 2000))
    z = simultaneous_bound(null).upper.mean()
    visited = np.concatenate([[0, 24, 48, 69], np.arange(70, 90), [90, 111, 132, 153]])
    seen = simultaneous_bound(null[visited], family=154, positions=visited).upper.mean()
    assert z == pytest.approx(2.85, abs=0.1)  # of 22 independent ones
    assert seen == pytest.approx(z, rel=0.03)
    # with the learning half seen, as much again is expected; with nothing in common, 77 unseen ones are new
    half = np.delete(visited, np.s_[4:24:2])
    assert simultaneous_bound(null[half], family=154, positions=half).upper.mean() == pytest.approx(z, rel=0.05)
    new = rng.normal(size=(154, 2000))
    spread = np.arange(0, 154, 2)
    wide = simultaneous_bound(new[spread], family=154, positions=spread).upper.mean()
    assert wide == pytest.approx(simultaneous_bound(new).upper.mean(), rel=0.03)


@pytest.mark.parametrize("kind", ["always new", "slowly", "slowly, with noise of its own", "never new"])
def test_a_curve_of_the_null_exceeds_the_bound_of_few_checkpoints_as_seldom_as_that_of_all(kind: str) -> None:
    memory = {"always new": 0.0, "never new": 1.0}.get(kind, 0.98)
    visited = np.union1d(np.arange(0, 154, 11), np.arange(58, 66))
    above = 0.0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        curves = rng.normal(size=(154, 400))
        for place in range(1, 154):
            curves[place] = memory * curves[place - 1] + np.sqrt(1 - memory**2) * curves[place]
        if "noise" in kind:
            curves = np.sqrt(0.5) * curves + np.sqrt(0.5) * rng.normal(size=curves.shape)
        curves = expon.isf(norm.sf(curves))  # skewed: a normal tail would be too low
        null, new = curves[:, :200], curves[:, 200:]
        bound = simultaneous_bound(null[visited], family=154, positions=visited)
        height = (bound.upper - bound.mean) / bound.scale
        above += (new > 1.0 + height.mean()).any(axis=0).mean() / 20
    assert 0.025 < above < 0.085


def test_one_wild_draw_does_not_hide_what_was_not_visited() -> None:
    rng = np.random.default_rng(4)
    null = rng.normal(size=(154, 200))
    visited = np.arange(0, 154, 6)
    tame = simultaneous_bound(null[visited], family=154, positions=visited)
    null[visited[3], 0] = 1000.0
    wild = simultaneous_bound(null[visited], family=154, positions=visited)
    others = np.arange(visited.size) != 3
    assert (wild.upper[others] >= 0.95 * tame.upper[others]).all()


def test_more_checkpoints_than_the_family_are_refused() -> None:
    with pytest.raises(ValueError, match="family is 2 with 3 checkpoints measured"):
        simultaneous_bound(np.zeros((3, 20)), family=2)


@pytest.mark.parametrize("places", [[0, 1], [0, 2, 1], [3, 3, 4], [-1, 2, 3], [0, 2, 9]])
def test_places_that_are_none_are_refused(places: list[int]) -> None:
    with pytest.raises(ValueError, match=r"expected \(3,\), increasing"):
        simultaneous_bound(np.zeros((3, 20)), family=9, positions=places)
