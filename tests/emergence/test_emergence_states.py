"""The states of emergence: emerged, transient, present from the start, not emerged; and when a rise is complete."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from dynamics.emergence import Interval, assess
from tests.emergence.cases import STEPS, binomial_case, found, quiet


def test_a_rise_that_is_lost_is_transient_with_both_events() -> None:
    result = found(binomial_case(np.where((STEPS >= 64) & (STEPS < 4000), 0.8, 0.1), 120))
    assert result.state == "transient"
    assert result.onset == Interval(32, 64)
    assert result.loss == Interval(2000, 4000)
    assert result.midpoint_interval == Interval(32, 64)
    assert result.plateau == result.peak >= 0.7
    assert result.final < 0.2
    assert result.confidence > 0.9


def test_above_from_the_first_checkpoint_on_is_left_censored() -> None:
    result = found(binomial_case(np.full(19, 0.8), 120))
    assert (result.state, result.onset, str(result.onset)) == ("present from start", Interval(None, 0), "≤ 0")
    assert result.midpoint is None
    assert result.midpoint_interval == Interval(None, 0)
    assert result.width_decades is None
    assert result.floor == pytest.approx(0.1, abs=0.02)


def test_never_above_is_right_censored() -> None:
    result = found(binomial_case(np.full(19, 0.1), 120, seed=4))
    assert (result.state, result.onset, str(result.onset)) == ("not emerged", Interval(143000, None), "> 143000")
    assert result.midpoint is result.completion is result.plateau is result.width_decades is None
    assert result.episodes == 0
    assert result.floor == pytest.approx(0.1, abs=0.03)


def test_a_curve_that_comes_back_emerged_when_it_returned() -> None:
    result = quiet([1, 1, 0, 0, 0, 1, 1, 1])
    assert (result.state, result.onset, result.episodes) == ("emerged", Interval(40, 50), 2)


def test_a_lone_dip_within_the_noise_changes_nothing() -> None:
    result = quiet([0, 0, 0.1, 0.1, 0.02, 0.1, 0.1])
    assert result.null_upper[4] > 0.02
    assert (result.state, result.onset, result.episodes) == ("emerged", Interval(10, 20), 1)


def test_a_lone_dip_beyond_the_noise_breaks_the_run() -> None:
    result = quiet([0, 0, 0.1, 0.1, 0.0, 0.1, 0.1])
    assert (result.state, result.onset, result.episodes) == ("emerged", Interval(40, 50), 2)


def test_the_bootstrap_says_what_is_beyond_the_noise() -> None:
    curve = np.array([0, 0, 0.1, 0.1, 0.01, 0.1, 0.1])
    spread = np.random.default_rng(0).normal(size=(7, 200))
    loud, still = quiet(curve, draws=curve[:, None] + 0.02 * spread), quiet(curve, draws=curve[:, None] + 1e-4 * spread)
    assert loud.onset == Interval(10, 20)
    assert still.onset == Interval(40, 50)


def test_two_dips_in_a_row_break_the_run_even_within_the_noise() -> None:
    result = quiet([0, 0, 0.1, 0.1, 0.02, 0.02, 0.1])
    assert result.onset == Interval(50, 60)


def test_a_fall_after_the_peak_that_stays_above_the_null_is_seen_in_peak_and_final() -> None:
    result = quiet([0, 0, 0, 0.4, 0.5, 0.4, 0.3])
    assert (result.state, result.peak, result.final) == ("emerged", 0.5, 0.3)
    assert result.fall == pytest.approx(0.2)


def test_a_curve_that_stands_still_while_its_null_falls_has_an_onset_and_no_midpoint() -> None:
    rng = np.random.default_rng(0)
    null = np.array([0.3, 0.3, 0.3, 0.1, 0.1, 0.1])[:, None] + rng.normal(scale=0.005, size=(6, 200))
    result = assess(range(6), np.full(6, 0.3), null=null, null_name="falling")
    assert (result.state, result.onset) == ("emerged", Interval(2, 3))
    assert result.midpoint is result.completion is None


def test_a_rise_still_under_way_at_the_end_is_not_called_complete() -> None:
    result = quiet([0, 0, 0.1, 0.2, 0.4, 0.8])
    assert result.completion == Interval(50, None)
    assert result.plateau == 0.8
    assert result.width_decades is None
    assert quiet([0, 0, 0.1, 0.2, 0.4, 0.8, 0.86]).completion == Interval(40, 50)  # less than a tenth of it is no rise


@pytest.mark.parametrize("scale", [20, 60, 150])
@pytest.mark.parametrize("before_the_end", [200, 500, 1200, 4000])
def test_no_rise_is_called_complete_while_it_goes_on_however_late_it_ends(before_the_end: int, scale: int) -> None:
    """A level taken over a last part that still holds the rise would be too low, and completion too early."""
    steps = np.arange(0, 20_001, 100)
    truth = 0.01 + 0.98 * expit((steps - steps[-1] + before_the_end) / scale)
    rng = np.random.default_rng(before_the_end + scale)
    curve = rng.binomial(4000, truth) / 4000
    null = rng.binomial(4000, 0.01, size=(steps.size, 200)) / 4000
    draws = rng.binomial(4000, curve[:, None], size=(steps.size, 100)) / 4000
    found = assess(steps, curve, draws=draws, null=null, null_name="chance", limits=(0, 1))
    if found.completion.by is None:
        assert truth[-1] - truth[-2] > 0.05
    else:
        assert 0.85 * truth[-1] < truth[steps == found.completion.by][0]
        assert found.plateau > 0.9 * truth[-1]


def test_completion_is_not_put_off_by_a_plateau_that_wavers() -> None:
    spread = 0.08 * np.random.default_rng(0).normal(size=(12, 200))
    curve = np.array([0, 0, 0, 1, 1, 0.85, 0.85, 1, 0.7, 1, 1, 0.85])
    assert quiet(curve, draws=curve[:, None] + spread).completion == Interval(20, 30)
    curve[5:7] = 0.6  # clearly below nine tenths, twice in a row
    assert quiet(curve, draws=curve[:, None] + spread).completion == Interval(60, 70)


def test_the_midpoint_is_interpolated_in_log_step_and_step_0_counts_as_1() -> None:
    null = np.random.default_rng(0).normal(scale=0.01, size=(3, 100))
    result = assess([0, 99, 999], [0.0, 1.0, 1.0], null=null, null_name="noise")
    assert result.midpoint == pytest.approx(10 - 1)  # half way between log10(1) and log10(100)
    assert result.width_decades == pytest.approx(0.8 * 2)
