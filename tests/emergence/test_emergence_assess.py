"""The definition of emergence, on curves whose truth is planted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamics.emergence import Emergence, Interval, assess, unit_bootstrap
from tests.emergence.cases import STEPS, X, binomial_case, found, gaussian_case, quiet


@pytest.mark.parametrize("units", [60, 120, 300])
@pytest.mark.parametrize("entry", [1, 7, 11, 15, 18])
def test_a_planted_step_is_found_between_its_neighbours(units: int, entry: int) -> None:
    result = found(binomial_case(np.where(np.arange(19) >= entry, 0.7, 0.1), units))
    assert result.state == "emerged"
    assert result.onset == Interval(STEPS[entry - 1], STEPS[entry])
    assert result.midpoint_interval == result.onset
    assert result.onset.contains(result.midpoint)
    if entry == 18:  # a jump at the last checkpoint may go on after it
        assert result.completion == Interval(STEPS[18], None)
    else:  # nine tenths may be missed by chance at the first checkpoints of the plateau
        assert STEPS[entry] <= result.completion.by <= STEPS[min(entry + 4, 18)]
    assert result.confidence >= 0.95
    assert result.floor == pytest.approx(0.1, abs=0.08)
    assert result.plateau == pytest.approx(0.7, abs=0.15)


@pytest.mark.parametrize("case", ["binomial 60", "binomial 300", "gaussian"])
def test_the_midpoint_of_a_planted_sigmoid_is_found(case: str) -> None:
    centre, width = np.log10(700), 0.25
    rise = 1 / (1 + np.exp(-(X - centre) / width))
    errors, widths, unfinished = [], [], 0
    for seed in range(30):
        if case == "gaussian":
            result = found(gaussian_case(rise, 0.05, seed=seed))
        else:
            result = found(binomial_case(0.1 + 0.8 * rise, int(case.split()[1]), seed=seed))
        assert result.state == "emerged"
        assert result.onset.by <= result.midpoint_interval.by
        if result.completion.by is None:
            unfinished += 1
            continue
        assert result.midpoint_interval.by <= result.completion.by
        assert result.midpoint_interval.contains(result.midpoint)
        errors.append(np.log10(result.midpoint + 1) - centre)
        widths.append(result.width_decades)
    assert unfinished <= 1  # a last checkpoint that is high by chance
    assert abs(np.mean(errors)) < 0.05
    assert np.std(errors) < 0.15
    # Between 10% and 90% a logistic takes 2 ln 9 of its widths.
    assert np.median(widths) == pytest.approx(2 * np.log(9) * width, rel=0.3)


def test_the_bootstrap_range_holds_the_onset_and_the_truth_in_95_percent() -> None:
    held = 0
    for seed in range(60):
        case = binomial_case(np.where(np.arange(19) >= 11, 0.35, 0.1), 60, seed=seed)
        result = found(case)
        assert result.onset_range.covers(result.onset)
        held += result.onset_range.contains(1000)
    assert held >= 60 * 0.95 - 3 * np.sqrt(60 * 0.95 * 0.05)


def test_a_weak_rise_is_less_sure_than_a_strong_one() -> None:
    weak, strong = (found(binomial_case(np.where(STEPS >= 1000, rate, 0.1), 60)) for rate in (0.24, 0.8))
    assert weak.confidence < strong.confidence == 1.0


def test_the_range_is_wider_where_the_onset_is_less_sure() -> None:
    rise = 1 / (1 + np.exp(-(X - 3) / 0.3))
    noisy, clear = (found(binomial_case(0.1 + 0.5 * rise, units)) for units in (60, 3000))
    width = [result.onset_range.by - result.onset_range.after for result in (noisy, clear)]
    assert width[0] > width[1]


@pytest.mark.parametrize("checkpoints", [12, 40])
@pytest.mark.parametrize("rate", [0.1, 1 / 80, None], ids=["binomial 1/10", "binomial 1/80", "gaussian"])
def test_a_curve_that_follows_its_null_is_called_anything_else_in_at_most_5_percent(
    checkpoints: int, rate: float | None
) -> None:
    curves = 300
    rng = np.random.default_rng(checkpoints)
    wrong = 0
    for _ in range(curves):
        shape = (checkpoints, 201)
        sample = rng.normal(size=shape) if rate is None else rng.binomial(120, rate, size=shape) / 120
        result = assess(np.arange(checkpoints), sample[:, 0], null=sample[:, 1:], null_name="itself")
        wrong += result.state != "not emerged"
    assert wrong / curves <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / curves)


def test_checkpoints_that_were_not_measured_are_skipped() -> None:
    case = binomial_case(np.where(STEPS >= 1000, 0.7, 0.1), 120)
    missing = np.isin(STEPS, [2, 512, 4000])
    for name in case:
        case[name] = np.where(missing if case[name].ndim == 1 else missing[:, None], np.nan, case[name])
    result = found(case)
    assert result.onset == Interval(256, 1000)
    assert np.isnan(np.array(result.null_upper)).tolist() == missing.tolist()


def test_a_checkpoint_without_a_null_is_not_valid() -> None:
    case = binomial_case(np.where(STEPS >= 1000, 0.7, 0.1), 120)
    case["null"][STEPS == 1000] = np.nan
    assert found(case).onset == Interval(512, 2000)


def test_censoring_is_at_the_outermost_valid_checkpoints() -> None:
    high, low = binomial_case(np.full(19, 0.8), 120), binomial_case(np.full(19, 0.1), 120, seed=4)
    high["values"][:3] = np.nan
    low["values"][-2:] = np.nan
    assert found(high).onset == Interval(None, 4)
    assert found(low).onset == Interval(63000, None)


def test_draws_that_are_missing_where_the_curve_is_not_are_skipped() -> None:
    case = binomial_case(np.where(STEPS >= 1000, 0.7, 0.1), 120)
    case["draws"][STEPS == 4000, ::2] = np.nan
    case["draws"][:, 7] = np.nan
    result = found(case)
    assert result.onset_range == Interval(512, 1000)
    assert result.confidence == pytest.approx(199 / 200)


def test_a_model_of_nan_is_not_measurable() -> None:
    result = found(
        {"values": np.full(19, np.nan), "draws": np.full((19, 5), np.nan), "null": np.full((19, 99), np.nan)}
    )
    assert result.state == "not measurable"
    assert result.reason == "0 of 19 checkpoints have a finite value and null; at least 2 are needed"
    assert result.onset is result.peak is result.final is result.confidence is None
    assert np.isnan(result.null_upper).tolist() == [True] * 19


@pytest.mark.parametrize("checkpoints", [0, 1])
def test_one_checkpoint_or_none_is_not_measurable(checkpoints: int) -> None:
    result = quiet(np.ones(checkpoints))
    assert result.state == "not measurable"
    assert result.reason.startswith(f"{checkpoints} of {checkpoints} checkpoints")


def test_without_a_null_nothing_emerges() -> None:
    for null in (None, np.empty((2, 0))):
        result = assess([0, 1], [0.0, 1.0], null=null, null_name="none")
        assert (result.state, result.reason, result.final) == ("not measurable", "there is no null", 1.0)
    nothing = assess([0, 1], [np.nan, np.nan], null=None, null_name="none")
    assert (nothing.state, nothing.reason) == ("not measurable", "it has no value at any checkpoint")


def test_too_few_null_draws_are_no_null() -> None:
    result = assess([0, 1], [0.0, 1.0], null=np.zeros((2, 18)), null_name="few")
    assert result.reason == "the null has 18 draws; its bound needs at least 19"
    assert assess([0, 1], [0.0, 1.0], null=np.zeros((2, 19)), null_name="enough").state == "emerged"


def test_a_curve_and_a_null_that_are_one_constant_are_not_measurable() -> None:
    for constant in (0.0, 0.1):
        result = assess(range(5), np.full(5, constant), null=np.full((5, 200), constant), null_name="constant")
        assert result.state == "not measurable"
        assert result.reason == f"floor and ceiling coincide: the curve and its null are {constant:g} throughout"


def test_a_constant_curve_at_a_null_that_varies_has_not_emerged() -> None:
    assert quiet(np.zeros(8)).state == "not emerged"


def test_a_constant_curve_above_a_constant_null_is_present_from_the_start() -> None:
    assert assess(range(3), np.ones(3), null=np.zeros((3, 50)), null_name="0").state == "present from start"


def test_a_curve_that_equals_its_null_up_to_rounding_is_not_above_it() -> None:
    null = np.full((4, 200), 0.1 + 0.2)
    null[3] = 0.2
    assert assess(range(4), [0.3, 0.3, 0.3, 0.2], null=null, null_name="same").state == "not emerged"


@given(st.permutations(range(40)))
@settings(database=None, deadline=None, max_examples=15)
def test_the_order_of_units_does_not_matter(order: list[int]) -> None:
    rng = np.random.default_rng(5)
    correct = rng.random((19, 40)) < np.where(STEPS >= 1000, 0.5, 0.1)[:, None]
    null = rng.binomial(40, 0.1, size=(19, 200)) / 40
    prompts = np.arange(40)

    def result(order: Any) -> Emergence:
        draws = unit_bootstrap(correct[:, order], clusters=prompts[order])
        return assess(STEPS, correct[:, order].mean(axis=1), draws=draws, null=null, null_name="chance")

    assert result(order) == result(prompts)


@given(st.floats(1e-3, 1e3), st.integers(0, 30))
@settings(database=None, deadline=None, max_examples=30)
def test_a_positive_factor_changes_only_the_values(factor: float, seed: int) -> None:
    case = gaussian_case(np.where(STEPS >= 1000, 1.0, 0.0), 0.2, seed=seed)
    plain = found(case).to_json()
    scaled = found({name: factor * array for name, array in case.items()}).to_json()
    for name in ("floor", "plateau", "peak", "final", "fall", "null_upper"):
        one, other = (np.array(found.pop(name), dtype=float) for found in (scaled, plain))
        np.testing.assert_allclose(one, factor * other, rtol=1e-9, atol=1e-12)
    for name in ("midpoint", "width_decades"):
        one, other = scaled.pop(name), plain.pop(name)
        assert one is other is None or one == pytest.approx(other, rel=1e-6, abs=1e-9)
    assert scaled == plain


@given(st.integers(0, 1000))
@settings(database=None, deadline=None, max_examples=25)
def test_a_fall_is_a_rise_of_the_negated_curve(seed: int) -> None:
    case = gaussian_case(np.where(STEPS >= 1000, 1.0, 0.0), 0.25, seed=seed)
    up = found(case).to_json()
    down = found({name: -array for name, array in case.items()}, direction="down").to_json()
    for name in ("floor", "plateau", "peak", "final", "fall"):
        if up[name] is not None:
            assert down.pop(name) == -up.pop(name)
    assert down.pop("null_upper") == [-bound for bound in up.pop("null_upper")]
    assert (up.pop("direction"), down.pop("direction")) == ("up", "down")
    assert down == up


def test_a_loss_falls_from_its_floor_to_its_plateau() -> None:
    null = 12 + np.random.default_rng(0).normal(scale=0.1, size=(6, 100))
    result = assess(
        [0, 10, 100, 1000, 2000, 3000], [12, 12, 11.9, 4, 3.9, 4], null=null, null_name="step 0", direction="down"
    )
    assert (result.state, result.onset) == ("emerged", Interval(100, 1000))
    assert (result.floor, result.plateau, result.peak, result.final) == (12, 4, 3.9, 4)
    assert max(result.null_upper) < 12


def test_a_finding_survives_json() -> None:
    case = binomial_case(np.where(STEPS >= 1000, 0.7, 0.1), 120)
    case["values"][3] = np.nan
    result = found(case, tokens=STEPS * 2_097_152.0)
    assert Emergence.from_json(result.to_json()) == result
    assert result.onset_tokens == (512 * 2_097_152, 1000 * 2_097_152)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": [0, 2, 1]}, "steps go from 2 to 1; expected strictly increasing"),
        ({"steps": [0, 1, 1]}, "steps go from 1 to 1; expected strictly increasing"),
        ({"steps": [-1, 1, 2]}, "the first step is -1; expected 0 or more"),
        ({"steps": [0.0, 1.0, 2.0]}, "type float64; expected integers"),
        ({"values": [0.0, 1.0]}, r"values have shape \(2,\); expected \(3,\)"),
        ({"tokens": [0, 1]}, r"tokens have shape \(2,\); expected \(3,\)"),
        ({"null": np.zeros((2, 50))}, r"null has shape \(2, 50\); expected \(3, draw\)"),
        ({"null": np.zeros(3)}, r"null has shape \(3,\)"),
        ({"draws": np.zeros((3, 0))}, r"draws has shape \(3, 0\)"),
        ({"level": 95}, "level is 95; expected a number between 0 and 1"),
        ({"direction": "sideways"}, "direction is 'sideways'; expected 'up' or 'down'"),
    ],
)
def test_mistakes_are_named(change: dict[str, Any], message: str) -> None:
    arguments = {"steps": [0, 1, 2], "values": [0.0, 0.0, 1.0], "null": np.zeros((3, 50)), "null_name": "0"}
    with pytest.raises(ValueError, match=message):
        assess(**(arguments | change))
