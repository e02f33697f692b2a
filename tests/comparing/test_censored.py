"""Regression of numbers of which only intervals are known: against least squares, scipy's own, and censoring that is certain."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from dynamics.numerics import censored
from dynamics.numerics.censored import Observed, fit_censored, profile, t_of
from dynamics.numerics.contrasts import estimable, estimate_contrast, precision, seeds_needed

CELLS = np.kron(np.eye(4), np.ones((3, 1)))
MAIN = np.array([-0.5, -0.5, 0.5, 0.5])


def exact(y: np.ndarray, width: float = 2e-3) -> Observed:
    """Numbers that are known to within ``width``."""
    return Observed((y - width / 2)[..., None], (y + width / 2)[..., None], np.ones((*y.shape, 1)))


def test_derivatives_are_those_of_the_likelihood() -> None:
    rng = np.random.default_rng(0)
    low = rng.normal(size=(3, 6, 2))
    high = low + rng.uniform(0.1, 2.0, size=low.shape)
    high[0, 2], low[1, 4] = np.inf, -np.inf
    observed = Observed(low, high, rng.dirichlet([1, 1], (3, 6)))
    design, theta = np.kron(np.eye(2), np.ones((3, 1))), rng.normal(0.0, 0.5, (3, 3))
    _, gradient, curvature = censored._derivatives(observed, design, theta)
    for j, step in enumerate(1e-5 * np.eye(3)):
        up, down = (censored._derivatives(observed, design, theta + s) for s in (step, -step))
        np.testing.assert_allclose((up[0] - down[0]) / 2e-5, gradient[:, j], atol=1e-7)
        np.testing.assert_allclose((up[1] - down[1]) / 2e-5, curvature[:, j], atol=1e-6)


def test_without_censoring_it_is_the_t_test() -> None:
    y = np.random.default_rng(1).normal(0.0, 0.3, (20, 12)) + 0.4 * (np.arange(12) >= 6)
    found = estimate_contrast(exact(y), CELLS, MAIN)
    beta = np.linalg.lstsq(CELLS, y.T, rcond=None)[0]
    spread = np.sqrt(((y.T - CELLS @ beta) ** 2).sum(0) / 8)
    half = stats.t.ppf(0.975, 8) * spread * np.sqrt(1 / 3)
    np.testing.assert_allclose(found.estimate, MAIN @ beta, atol=1e-4)
    np.testing.assert_allclose(found.low, MAIN @ beta - half, atol=0.01)
    np.testing.assert_allclose(found.high, MAIN @ beta + half, atol=0.01)
    np.testing.assert_allclose(
        found.p_value, 2 * stats.t.sf(np.abs(MAIN @ beta) / (spread * np.sqrt(1 / 3)), 8), rtol=0.01
    )
    assert found.freedom.tolist() == [8.0] * 20


def test_a_mean_under_censoring_is_that_of_scipy() -> None:
    """One problem, one mean: ``scipy.stats.norm.fit`` takes censored data, too."""
    y = np.random.default_rng(2).normal(3.0, 1.0, 40)
    low, high = np.floor(y), np.floor(y) + 1.0
    high[y > 4.0] = np.inf
    fit = fit_censored(Observed(low[None, :, None], high[None, :, None], np.ones((1, 40, 1))), np.ones((40, 1)))
    mean, spread = stats.norm.fit(stats.CensoredData.interval_censored(low, high))
    np.testing.assert_allclose([fit.coefficients[0, 0], fit.spread[0]], [mean, spread], rtol=1e-3)


def test_what_was_never_seen_bounds_an_effect_on_one_side() -> None:
    y = np.random.default_rng(3).normal(8.0, 0.2, (1, 12))
    observed = exact(y)
    observed.low[0, 6:], observed.high[0, 6:] = 10.5, np.inf
    found = estimate_contrast(observed, CELLS, MAIN)
    assert found.estimate[0] == np.inf and found.high[0] == np.inf
    assert 1.5 < found.low[0] < 2.6 and found.p_value[0] < 0.001 and found.freedom[0] == 4
    never = Observed(np.full((1, 12, 1), 10.5), np.full((1, 12, 1), np.inf), np.ones((1, 12, 1)))
    assert np.isnan(estimate_contrast(never, CELLS, MAIN).p_value[0])


def test_all_seeds_between_the_same_checkpoints_leave_the_whole_gap_open() -> None:
    """No spread was seen, and yet an effect is not known to better than the checkpoints allow."""
    low = np.array([[8.0] * 6 + [9.0] * 6])
    found = estimate_contrast(Observed(low[..., None], low[..., None] + 0.5, np.ones((1, 12, 1))), CELLS, MAIN)
    assert found.low[0] < 0.7 and found.high[0] > 1.3
    assert found.low[0] + 0.3 > 0.5 and found.p_value[0] < 0.001


@pytest.mark.parametrize(("spread", "shift"), [(0.3, 0.0), (0.3, 0.8)])
def test_intervals_of_three_seeds_hold_the_effect(spread: float, shift: float) -> None:
    rng = np.random.default_rng(4)
    grid = np.unique([-np.inf, *np.log2(np.round(np.geomspace(1, 1400, 39)) + 1), np.inf])
    y = rng.uniform(7.0, 9.0, (150, 1)) + shift * (np.arange(12) >= 6) + spread * rng.normal(size=(150, 12))
    after = np.searchsorted(grid, y) - 1
    found = estimate_contrast(
        Observed(grid[after][..., None], grid[after + 1][..., None], np.ones((150, 12, 1))), CELLS, MAIN
    )
    held = ((found.low <= shift) & (shift <= found.high)).mean()
    assert held > 0.95 - 2.6 * np.sqrt(0.95 * 0.05 / 150)
    if shift == 0:
        assert (found.p_value < 0.05).mean() < 0.05 + 2.6 * np.sqrt(0.95 * 0.05 / 150)
    else:
        assert (found.p_value < 0.05).mean() > 0.9


def test_a_contrast_that_the_runs_do_not_vary_is_not_estimable() -> None:
    together = np.array([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    assert not estimable(together, np.array([0.0, 1.0, 0.0])) and estimable(together, np.array([0.0, 1.0, 1.0]))
    assert not estimable(np.empty((0, 2)), np.array([1.0, 0.0]))


def test_seeds_needed_are_those_of_the_textbook() -> None:
    """Two groups, an effect of one standard deviation, 80%: 17 each (Cohen 1988, table 2.4.1)."""
    two, apart = np.eye(2), np.array([-1.0, 1.0])
    assert seeds_needed(1.0, 1.0, two, apart) == 17
    assert seeds_needed(1.0, 0.0, two, apart) == 2 and seeds_needed(0.01, 1.0, two, apart) is None


def test_a_missing_combination_costs_precision() -> None:
    """Three of four combinations, factors adding up: the effect is told from two of them alone, variance 1 + 1."""
    additive = np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    assert precision(additive, np.array([0.0, 1.0, 0.0])) == (pytest.approx(2.0), 3)
    assert precision(np.eye(4), np.array([0.5, 0.5, -0.5, -0.5])) == (pytest.approx(1.0), 4)


def test_a_ratio_beyond_all_numbers_is_no_overflow() -> None:
    assert np.isfinite(t_of(np.array(1e9), np.array(6.0), np.array(4.0)))
    assert profile(exact(np.zeros((1, 12))), CELLS, MAIN, np.array([[30.0]])).shape == (1, 1)
