"""Calibration on samples whose calibration is known."""

from __future__ import annotations

import numpy as np
import pytest

from dynamics.numerics.calibrated import bins_of, calibrated_null, calibration_draws, calibration_error, reliability


@pytest.mark.parametrize("equal_mass", [False, True])
def test_a_perfectly_calibrated_model_has_a_small_error_within_its_null(equal_mass: bool) -> None:
    rng = np.random.default_rng(0)
    confidence = rng.random(20_000)
    right = rng.random(20_000) < confidence
    error = calibration_error(confidence, right, equal_mass=equal_mass)
    assert error < 0.02
    null = calibrated_null(confidence, equal_mass=equal_mass, draws=200)
    assert null.min() < error < null.max()


@pytest.mark.parametrize("equal_mass", [False, True])
def test_constant_overconfidence_has_the_known_error(equal_mass: bool) -> None:
    """Always 0.9 sure, right in 60 of 100: the error is 0.3 in any bins, and far beyond what chance would give."""
    confidence, right = np.full(100, 0.9), np.arange(100) % 5 < 3
    assert calibration_error(confidence, right) == pytest.approx(0.3)
    if equal_mass:  # each tenth of these questions has six right ones of ten
        assert calibration_error(confidence, right, equal_mass=True) == pytest.approx(0.3)
    assert calibrated_null(confidence, equal_mass=equal_mass).max() < 0.2


def test_the_error_is_the_sum_of_the_bins_gaps() -> None:
    """Against the textbook formula, written out."""
    rng = np.random.default_rng(1)
    confidence, right = rng.random(300), rng.random(300) < 0.5
    for equal_mass in (False, True):
        curve = reliability(confidence, right, equal_mass=equal_mass)
        there = curve.count > 0
        expected = (curve.count * np.abs(curve.accuracy - curve.confidence))[there].sum() / 300
        assert calibration_error(confidence, right, equal_mass=equal_mass) == pytest.approx(expected)
    assert (reliability(confidence, right, equal_mass=True).count == 30).all()


def test_the_reliability_curve_is_the_share_right_in_each_bin() -> None:
    curve = reliability([0.05, 0.95, 0.95, 0.95, 0.95], [0, 1, 1, 1, 0])
    assert curve.count.tolist() == [1, *[0] * 8, 4]
    assert (curve.accuracy[0], curve.accuracy[9]) == (0.0, 0.75)
    assert np.isnan(curve.accuracy[1:9]).all() and np.isnan(curve.low[5])
    assert curve.low[9] == pytest.approx(0.3006, abs=1e-3) and curve.high[9] == pytest.approx(
        0.9544, abs=1e-3
    )  # Wilson


def test_the_interval_covers_the_error_that_many_questions_have() -> None:
    """Overconfident by 0.2 throughout: the 95% intervals of samples of 400 hold what 400 questions give on average."""
    rng = np.random.default_rng(2)
    errors, held = [], 0
    samples = []
    for _ in range(120):
        confidence = 0.3 + 0.6 * rng.random(400)
        right = rng.random(400) < confidence - 0.2
        errors.append(calibration_error(confidence, right))
        samples.append((confidence, right))
    truth = float(np.mean(errors))
    assert truth == pytest.approx(0.2, abs=0.02)
    for confidence, right in samples:
        low, high = np.quantile(calibration_draws(confidence, right, draws=300), [0.025, 0.975])
        held += low <= truth <= high
    assert held / 120 > 0.88


def test_questions_of_one_entity_are_resampled_together() -> None:
    """Each entity asked ten times and answered alike: ten times as many questions say no more."""
    rng = np.random.default_rng(3)
    right = rng.random(60) < 0.5
    confidence = np.full(60, 0.8)
    alone = calibration_draws(confidence, right, draws=2000).std()
    clustered = calibration_draws(
        np.repeat(confidence, 10), np.repeat(right, 10), clusters=np.repeat(np.arange(60), 10), draws=2000
    ).std()
    naive = calibration_draws(np.repeat(confidence, 10), np.repeat(right, 10), draws=2000).std()
    assert clustered == pytest.approx(alone, rel=0.1)
    assert naive < 0.5 * clustered


def test_missing_confidence_is_left_out_and_never_zero() -> None:
    assert calibration_error([0.9, np.nan, 0.9], [1, 0, 0]) == pytest.approx(0.4)
    assert np.isnan(calibration_error([np.nan, np.nan], [0, 1]))
    assert np.isnan(calibration_draws([np.nan, np.nan], [0, 1])).all()
    assert np.isnan(calibrated_null(np.full(3, np.nan))).all()
    assert np.isnan(reliability([np.nan], [1]).accuracy).all()


def test_what_is_no_probability_is_refused() -> None:
    with pytest.raises(ValueError, match="expected probabilities"):
        bins_of([0.5, 1.2])
    with pytest.raises(ValueError, match="expected 0 or 1"):
        calibration_error([0.5, 0.5], [0.5, 1])
