"""Definitions by shape on curves that no shape was drawn for: growth beside a rise, other shapes, and no rise at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from dynamics.emergence import Interval, Onset, agreement_of, definitions, shuffled_match_null, unit_bootstrap
from dynamics.emergence.definitions import NAMES

SHAPED = NAMES[1:4]

SPACINGS = {
    "in log step": np.unique(np.round(10 ** np.linspace(0, 5.15, 40)).astype(int) - 1),
    "in steps": np.arange(0, 400_001, 10_000),
    "first late": np.unique(np.round(10 ** np.linspace(3, 5.5, 20)).astype(int)),
}

BESIDE = {
    "growth after": lambda away: 0.15 * np.maximum(away, 0),
    "growth before": lambda away: 0.05 * np.minimum(away, 0),
    "decline after": lambda away: -0.05 * np.maximum(away, 0),
    "overshoot": lambda away: 0.1 * np.exp(-np.maximum(away, 0) / 0.3) * (away >= 0),
}
"""What a curve does beside its jump, by the decades from it."""


def judged(rng: Any, steps: Any, truth: Any, chance: float, count: int) -> dict[str, Onset]:
    """The definitions of an accuracy over ``count`` questions."""
    curve = rng.binomial(count, truth) / count
    draws = rng.binomial(count, curve[:, None], size=(len(steps), 100)) / count
    null = rng.binomial(count, chance, size=(len(steps), 200)) / count
    return definitions(steps, curve, draws=draws, null=null, null_name="chance", limits=(0, 1))


@pytest.mark.parametrize("beside", BESIDE)
def test_intervals_reach_the_jump_whatever_the_curve_does_beside_it(beside: str) -> None:
    reached, said = dict.fromkeys(("change point", "sigmoid"), 0), 0
    for spacing, steps in SPACINGS.items():
        for seed in range(2):
            rng = np.random.default_rng([seed, *map(ord, beside + spacing)])
            entry = int(rng.integers(len(steps) // 5, len(steps) // 2))
            x = np.log10(steps + 1.0)
            truth = 0.25 + 0.2 * (np.arange(len(steps)) >= entry) + BESIDE[beside](x - x[entry])
            onsets = judged(rng, steps, truth.clip(0.01, 0.95), 0.25, int(rng.integers(300, 3000)))
            said += 1
            for name in reached:
                # An interval that is not given claims nothing.
                span = onsets[name].range
                gap = Interval(int(steps[entry - 1]), int(steps[entry]))
                reached[name] += span is None or (
                    (span.after is None or span.after < gap.by) and (span.by is None or span.by >= gap.after)
                )
                assert onsets[name].state != "not emerged", (name, spacing)
    assert min(reached.values()) >= said - 1, reached


def test_more_training_and_no_first_checkpoint_leave_a_jump_where_it_is() -> None:
    steps = np.arange(0, 600_001, 10_000)
    x = np.log10(steps + 1.0)
    truth = np.where(steps >= 60_000, 0.4 + 0.15 * (x - np.log10(60_001)), 0.25)
    for part in (slice(None), slice(1, None), slice(None, 30), slice(None, 15)):
        onsets = judged(np.random.default_rng(5), steps[part], truth[part], 0.25, 1500)
        for name in ("change point", "sigmoid"):
            assert onsets[name].range.after <= 60_000 <= onsets[name].range.by + 10_000, (name, part)
            assert onsets[name].width_decades < 0.3
        assert not agreement_of({name: onsets[name] for name in ("excess over null", *SHAPED)}).disagreeing


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("chance", [1 / 71, 0.25])
def test_a_rise_below_its_null_is_no_rise_by_any_definition(chance: float, seed: int) -> None:
    steps = np.arange(0, 8000, 200)
    onsets = judged(np.random.default_rng(seed), steps, np.linspace(0.3, 0.6, len(steps)) * chance, chance, 3000)
    assert {onset.state for onset in onsets.values()} == {"not emerged"}
    assert {onsets[name].reason for name in SHAPED} == {"never above its null"}


@pytest.mark.parametrize("lost", [[0, 1, 0, 2, 2, 1, 0, 0, 0, 0], [3, 2, 1, 0, 0, 0, 1, 0, 0, 0], [0] * 10])
def test_a_curve_that_is_there_but_for_a_few_questions_is_present_from_the_start(lost: list[int]) -> None:
    count, rng = 2000, np.random.default_rng(0)
    right = np.ones((10, count))
    for checkpoint, few in enumerate(lost):
        right[checkpoint, :few] = 0
    answers = rng.integers(50, size=count)
    null = shuffled_match_null(np.where(right == 1, answers, answers + 1), answers)
    given: dict[str, Any] = {
        "draws": unit_bootstrap(right),
        "null": null,
        "null_name": "other answers",
        "limits": (0, 1),
    }
    onsets = definitions(np.arange(1, 11) * 100, right.mean(axis=1), **given)
    assert {onset.state for onset in onsets.values()} == {"present from start"}


def test_a_little_at_the_start_does_not_hide_the_rise_that_comes() -> None:
    steps = SPACINGS["in log step"]
    truth = np.where(steps >= 1000, 0.8, 0.2)
    onsets = judged(np.random.default_rng(0), steps, truth, 0.05, 500)
    assert onsets["excess over null"].state == "present from start"
    for name in SHAPED:
        assert onsets[name].state == "emerged"
        assert onsets[name].range.by >= steps[steps < 1000][-1]


def test_a_shape_that_does_not_fit_says_so_instead_of_an_interval() -> None:
    steps = SPACINGS["in steps"]
    wave = 0.5 + 0.2 * np.sin(steps / 40_000)
    onsets = judged(np.random.default_rng(0), steps, np.where(steps >= 100_000, wave, 0.1), 0.1, 3000)
    for name in ("change point", "sigmoid"):
        assert (onsets[name].state, onsets[name].range, onsets[name].step) == ("not measurable", None, None)
        assert onsets[name].reason.startswith("does not fit: the curve strays from it with a pattern, ")
        assert onsets[name].overdispersion > 5
    said = agreement_of(onsets)
    assert said.sentence.startswith("2 of 4 definitions find an onset; change point, sigmoid do not fit")


def test_noise_of_training_widens_an_interval_and_is_no_other_shape() -> None:
    steps = SPACINGS["in log step"]
    rise = 0.1 + 0.6 * expit((np.log10(steps + 1.0) - 3) / 0.2)
    held, rng = 0, np.random.default_rng(3)
    calm = judged(rng, steps, rise, 0.1, 3000)["sigmoid"]
    for _ in range(4):
        shaken = (rise + 0.03 * rng.normal(size=steps.size)).clip(0, 1)
        onset = judged(rng, steps, shaken, 0.1, 3000)["sigmoid"]
        assert onset.state == "emerged"
        assert onset.overdispersion > 3 > calm.overdispersion
        assert np.log10(onset.range.by / onset.range.after) > np.log10(calm.range.by / calm.range.after)
        held += onset.range.contains(1000)
    assert held >= 3


def test_a_rise_that_began_before_the_first_checkpoint_is_not_dated_at_it() -> None:
    steps = np.unique(np.round(10 ** np.linspace(3, 5, 20)).astype(int))
    x = np.log10(steps + 1.0)
    truth = 0.25 + 0.5 * np.clip((x - 2.5) / 1.5, 0, 1)
    onset = judged(np.random.default_rng(0), steps, truth, 0.05, 2000)["change point"]
    assert (onset.state, onset.between, onset.step) == ("present from start", Interval(None, int(steps[0])), None)
