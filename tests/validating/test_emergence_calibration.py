"""The calibration of every definition, small; benchmarks/emergence_calibration.py is the large one."""

from __future__ import annotations

import numpy as np
import pytest

from dynamics.validating.calibration import coverage, table
from dynamics.validating.synthetic import LAST, Scenario, make, schedule, suite

CURVES = 40


@pytest.mark.slow
@pytest.mark.parametrize(
    "scenario",
    [
        Scenario("sigmoid", 12),
        Scenario("ramp", 24, "uneven", "gaussian"),
        Scenario("sigmoid", 40, "uneven"),
        Scenario("jump", 40, "steps", units=400),
    ],
    ids=lambda scenario: f"{scenario.kind}-{scenario.checkpoints}-{scenario.noise}",
)
def test_intervals_cover_the_planted_onset(scenario: Scenario) -> None:
    for row in coverage(scenario, curves=CURVES):
        assert row.found > 0.9
        if row.judged:
            assert row.covered >= 0.93 - 3 * np.sqrt(0.95 * 0.05 / row.judged), row
            assert abs(row.bias) < 0.1, row


@pytest.mark.slow
@pytest.mark.parametrize("persistence", [0.0, 0.8])
def test_nothing_is_found_where_nothing_is_planted(persistence: float) -> None:
    scenario = Scenario("none", 20, noise="gaussian", persistence=persistence)
    for row in coverage(scenario, curves=CURVES):
        assert row.found <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / CURVES), row
        assert row.judged == 0


def test_the_same_seed_gives_the_same_row() -> None:
    scenario = Scenario("step", 12)
    assert table(coverage(scenario, curves=3)) == table(coverage(scenario, curves=3))


def test_schedules_start_at_0_and_end_at_the_last_step() -> None:
    for kind in ("log", "uneven"):
        steps = schedule(kind, 154, np.random.default_rng(0))  # type: ignore[arg-type]
        assert (steps[0], steps[-1]) == (0, LAST)
        assert (np.diff(steps) > 0).all()
    late = schedule("steps", 20, np.random.default_rng(0))
    assert (late[0], late[-1]) == (round(LAST / 20), LAST)


@pytest.mark.parametrize("kind", ["jump", "overshoot"])
@pytest.mark.parametrize("spacing", ["log", "steps"])
def test_what_follows_a_jump_leaves_its_truth_where_the_curve_leaves_its_floor(kind: str, spacing: str) -> None:
    for seed in range(5):
        case = make(Scenario(kind, 30, spacing, varied=True), np.random.default_rng(seed))  # type: ignore[arg-type]
        above = case.steps[case.expected > case.expected[0]]
        assert case.steps[case.steps < above[0]][-1] <= case.truth["change point"] <= above[0]
        assert case.truth["change point"] == case.truth["sigmoid"]
        assert case.expected.max() <= 1


def test_the_suite_has_every_kind_and_autocorrelated_nulls() -> None:
    scenarios = suite((12,))
    assert len({scenario.kind for scenario in scenarios}) == 12
    assert {scenario.kind for scenario in scenarios if scenario.schedule == "steps"} == {"step", "jump", "overshoot"}
    assert any(scenario.persistence for scenario in scenarios)
    assert len(set(scenarios)) == len(scenarios)


def test_autocorrelated_noise_is_autocorrelated() -> None:
    case = make(Scenario("none", 60, noise="gaussian", persistence=0.8), np.random.default_rng(0), draws=2000)
    away = case.null - case.null.mean(axis=1, keepdims=True)
    assert np.mean(away[1:] * away[:-1]) / np.mean(away**2) == pytest.approx(0.8, abs=0.05)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="kind is 'leap'; expected one of: step"):
        Scenario("leap")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="use Gaussian noise"):
        Scenario("none", persistence=0.5)
    with pytest.raises(ValueError, match="expected at least 5"):
        Scenario("none", 4)
