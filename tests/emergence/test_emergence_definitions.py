"""Definitions side by side on planted curves, and their agreement."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dynamics.emergence import Interval, Onset, agreement_of, definitions
from dynamics.emergence.alternatives import compare_shapes
from dynamics.emergence.crossing import summit
from dynamics.emergence.definitions import NAMES
from dynamics.emergence.noise import Noise, noise_of
from dynamics.emergence.rises import half_rise
from dynamics.emergence.shapes import fit_shape
from dynamics.validating.synthetic import Case, Scenario, make


def planted(kind: str, seed: int = 0, **more: object) -> Case:
    return make(Scenario(kind, **more), np.random.default_rng(seed))  # type: ignore[arg-type]


def found(case: Case, **more: object) -> dict:
    return definitions(case.steps, case.values, draws=case.draws, null=case.null, null_name="chance", **more)


def test_a_planted_step_is_one_moment_by_every_definition() -> None:
    case = planted("step")
    onsets = found(case, reach=0.5)
    assert list(onsets) == list(NAMES)
    entry = int(np.flatnonzero(case.expected > 0.3)[0])
    between = Interval(int(case.steps[entry - 1]), int(case.steps[entry]))
    for name in ("excess over null", "change point", "half rise", "sigmoid"):
        assert onsets[name].state == "emerged", name
        where = case.truth.get(name, case.steps[entry])
        assert onsets[name].range.after <= where <= onsets[name].range.by, name
    assert onsets["excess over null"].between == onsets["half rise"].between == between
    said = agreement_of(onsets)
    assert not said.disagreeing
    assert said.sentence.startswith("all 5 definitions agree")


def test_the_sharpness_of_a_sigmoid_is_its_width_in_decades() -> None:
    onset = found(planted("sigmoid", units=2000))["sigmoid"]
    low, high = onset.width_range
    assert low < 2 * np.log(9) * 0.25 < high
    assert low < onset.width_decades < high
    assert onset.weights["sigmoid"] > 0.5


def test_a_rise_that_is_lost_has_both_events_by_every_definition() -> None:
    for seed in range(3):
        case = planted("transient", seed, checkpoints=60, units=300)
        onsets = found(case)
        peak = case.steps[case.expected.argmax()]
        for name, onset in onsets.items():
            assert onset.state == "transient", name
            assert onset.between.by <= peak <= onset.loss.by, name
            assert onset.loss.after > onset.between.by, name


@pytest.mark.parametrize("seed", range(3))
def test_what_is_there_from_the_start_is_left_censored_and_what_never_comes_right_censored(seed: int) -> None:
    for onset in found(planted("early", seed)).values():
        assert (onset.state, onset.between) == ("present from start", Interval(None, 0)), onset.definition
    case = planted("late", seed)
    for onset in found(case).values():
        assert (onset.state, onset.between) == ("not emerged", Interval(int(case.steps[-1]), None)), onset.definition


def test_a_straight_line_in_log_step_has_no_kink() -> None:
    case = planted("linear", units=2000)
    onset = found(case)["change point"]
    assert onset.state == "not emerged"
    assert onset.reason == "no kink: the curve is linear in log step"
    assert onset.weights["linear"] > 0.5


def test_a_power_law_is_told_from_a_sigmoid() -> None:
    case = planted("power", units=5000)
    weights = compare_shapes(np.log10(case.steps + 1.0), case.values, noise_of(case.values, case.draws)).weights
    assert max(weights, key=lambda name: weights[name]) == "power"
    assert sum(weights.values()) == pytest.approx(1)


def test_a_fall_is_a_rise_of_the_negated_curve() -> None:
    case = planted("sigmoid")
    up = found(case)
    down = definitions(
        case.steps, -case.values, draws=-case.draws, null=-case.null, null_name="chance", direction="down"
    )
    assert {name: (o.between, o.range) for name, o in up.items()} == {n: (o.between, o.range) for n, o in down.items()}


def test_tokens_are_those_of_the_neighbouring_checkpoints() -> None:
    case = planted("step")
    tokens = case.steps * 2048.0
    onset = found(case, tokens=tokens)["sigmoid"]
    assert onset.tokens == (onset.between.after * 2048, onset.between.by * 2048)


def test_without_a_null_nothing_is_measurable_and_without_draws_there_is_no_interval() -> None:
    case = planted("step")
    nothing = definitions(case.steps, case.values, null=None, null_name="none")
    assert {o.state for o in nothing.values()} == {"not measurable"}
    assert agreement_of(nothing).sentence == "no definition finds an onset"
    bare = definitions(case.steps, case.values, null=case.null, null_name="chance")
    assert {o.state for o in bare.values()} == {"emerged"}
    assert all(o.range is None for o in bare.values())


def test_the_first_passage_is_the_first_checkpoint_at_the_level() -> None:
    steps, values = range(0, 60, 10), [0, 0.2, 0.99, 0.5, 1.0, 1.0]
    null = np.zeros((6, 30))
    onsets = definitions(steps, values, null=null, null_name="0", reach=0.99)
    assert onsets["first passage"].between == Interval(10, 20)
    never = definitions(steps, values, null=null, null_name="0", reach=2.0)["first passage"]
    assert (never.state, never.between) == ("not emerged", Interval(50, None))


def test_the_grid_finds_the_least_squares_of_an_optimiser() -> None:
    from scipy.optimize import curve_fit
    from scipy.special import expit

    case = planted("sigmoid", noise="gaussian", units=400)
    x = np.log10(case.steps + 1.0)
    fit = fit_shape("logistic", x, case.values, noise_of(case.values, case.draws))
    best, _ = curve_fit(lambda x, f, r, m, w: f + r * expit((x - m) / w), x, case.values, p0=(0.1, 0.5, 2.8, 0.3))
    assert fit.location == pytest.approx(best[2], abs=0.01)
    assert fit.scale == pytest.approx(best[3], rel=0.05)


def test_a_step_is_found_where_the_library_ruptures_finds_it() -> None:
    ruptures = pytest.importorskip("ruptures", reason="compared only where the library is installed")
    for seed in range(5):
        case = planted("step", seed, units=400)
        onset = found(case)["change point"]
        index = ruptures.Dynp(model="l2", min_size=1, jump=1).fit(case.values).predict(n_bkps=1)[0]
        assert onset.range.after < case.steps[index] and onset.range.by > case.steps[index - 1]


def test_the_sentence_says_who_is_first_and_who_finds_nothing() -> None:
    def at(name: str, after: int, by: int) -> Onset:
        return Onset(name, "emerged", between=Interval(after, by), range=Interval(after, by))

    never = Onset("sigmoid", "not emerged", between=Interval(1000, None))
    said = agreement_of({"a": at("a", 10, 20), "b": at("b", 90, 99), "c": at("c", 15, 30), "sigmoid": never})
    assert (said.agreeing, said.disagreeing) == ((("a", "c"),), (("a", "b"), ("b", "c")))
    assert (said.earliest, said.latest) == ("a", "b")
    assert said.spread_decades == pytest.approx(np.log10(100 / 21))
    assert said.sentence == (
        "3 of 4 definitions find an onset; not found by sigmoid; 1 of 3 pairs agree; estimates within 0.68 decades "
        "(a first, b last)"
    )
    assert not said.unanimous
    assert agreement_of({"a": at("a", 10, 20), "c": at("c", 15, 30)}).unanimous
    assert not agreement_of({"a": at("a", 10, 20), "c": never}).unanimous
    assert not agreement_of({"c": never}).unanimous


def test_onsets_survive_json() -> None:
    onsets = found(planted("sigmoid"), reach=0.3) | {"open": Onset("open", "emerged", width_range=(0.5, np.inf))}
    for onset in onsets.values():
        assert Onset.from_json(json.loads(json.dumps(onset.to_json(), allow_nan=False))) == onset


def test_half_of_a_rise_in_two_jumps_is_in_the_gap_of_a_jump_not_between() -> None:
    """A slope would have half of the rise where it crosses the middle; a jump may be anywhere in its gap."""
    rng = np.random.default_rng(0)
    x = np.linspace(0.0, 5.0, 21)  # gaps of a quarter of a decade
    noise = Noise(rng.normal(size=(21, 200)), np.full(21, 1e-4), np.full(21, 1e-4), (1e-4, 0.0, 0.0))
    values = 0.6 * (x > 2.1) + 0.4 * (x > 3.6) + 0.01 * rng.normal(size=21)
    place, low, high = half_rise(x, values, noise)
    assert low <= 2.0 < place < 2.25 <= high
    assert high < 3.5


def test_half_of_two_equal_jumps_may_be_in_either() -> None:
    rng = np.random.default_rng(1)
    x = np.linspace(0.0, 5.0, 21)
    noise = Noise(rng.normal(size=(21, 200)), np.full(21, 0.05**2), np.full(21, 0.05**2), (0.05**2, 0.0, 0.0))
    values = 0.5 * (x > 2.1) + 0.5 * (x > 3.1) + 0.05 * rng.normal(size=21)
    _, low, high = half_rise(x, values, noise)
    assert low <= 2.1
    assert high >= 3.1


def test_the_summit_of_a_run_that_lies_below_what_came_before_it_is_in_the_run() -> None:
    """A curve that falls may still come to be above a null that falls faster."""
    values = np.array([0.9, 0.9, 0.9, 0.3, 0.2, 0.3, 0.1])
    assert 3 <= summit(values, 3, 5) <= 5
    assert summit(np.array([0.0, 0.0, 1.0, 1.0, 1.0, 0.0]), 2, 4) == 3
