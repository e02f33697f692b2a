"""Findings: onsets by every definition, draws that are paired, continuous twins, and their JSON."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from checkpoints.errors import UserError
from dynamics.analysis import (
    Curve,
    CurveSpec,
    Definition,
    Finding,
    Null,
    Section,
    Summary,
    best_layer,
    from_units,
)
from dynamics.emergence import Interval, unit_bootstrap
from dynamics.validating.synthetic import schedule

STEPS = schedule("log", 40, np.random.default_rng(0))
X = np.log10(STEPS + 1.0)
UNITS = 150
TRACE: Any = SimpleNamespace(steps=STEPS, tokens=None)
PLAIN = CurveSpec("", "units")


def answers(place: float, *, width: float = 0.15, seed: int = 0) -> np.ndarray:
    """(checkpoint, unit) right answers whose rate rises from 0.1 to 0.9 at 10^place."""
    rate = 0.1 + 0.8 / (1 + np.exp(-(X - place) / width))
    return (np.random.default_rng(seed).random((X.size, UNITS)) < rate[:, None]).astype(float)


def curve(key: str = "up", units: np.ndarray | None = None, **rest: Any) -> Curve:
    units = answers(2.5) if units is None else units
    null = np.random.default_rng(9).binomial(UNITS, 0.1, size=(X.size, 200)) / UNITS
    return from_units(key, key, units, Null(null, "chance"), CurveSpec("accuracy", "prompts", **rest))


def finding(key: str = "up", units: np.ndarray | None = None, **rest: Any) -> Finding:
    return curve(key, units, **rest).assessed(TRACE)


def summary(*findings: Curve | Finding, analysis: str = "made") -> Summary:
    return Section(list(findings)).summary(TRACE, analysis=analysis, title="Made", question="When?")


def test_a_finding_carries_every_definition_and_how_far_they_agree() -> None:
    found = finding(reach=0.5)
    assert [o.definition for o in found.onsets] == [
        "excess over null",
        "change point",
        "half rise",
        "sigmoid",
        "first passage",
    ]
    assert found.onsets[0].between == found.emergence.onset
    assert found.onsets[0].range == found.emergence.onset_range
    assert found.onsets[3].range is not None and found.onsets[3].range.contains(10**2.5)
    assert found.onsets[4].reach == 0.5
    assert found.agreement.states["sigmoid"] == "emerged"
    assert "change point" in {found.agreement.earliest} | {"excess over null"}
    assert len(finding().onsets) == 4


def test_json_keeps_it_all() -> None:
    whole = summary(curve(twin="twin", reach=2.0), curve("twin"))
    text = json.dumps(whole.to_json(), allow_nan=False)
    again = Summary.from_json(json.loads(text), whole.data)
    for one, other in zip(whole.findings, again.findings, strict=True):
        assert one.onsets == other.onsets
        assert one.mirage == other.mirage
        assert (one.onset_by, one.sample, one.twin) == (other.onset_by, other.sample, other.twin)
        np.testing.assert_array_equal(one.onset_intervals(), other.onset_intervals())
    assert whole.findings[0].mirage is not None and whole.findings[0].mirage.verdict == "undecided"
    said = json.loads(text)["findings"][0]["definitions_agree"]
    assert said["sentence"] == whole.findings[0].agreement.sentence
    assert said["unanimous"] is False  # nothing reaches 2


def test_draws_that_never_were_above_and_draws_that_cannot_be_used_survive_json() -> None:
    found = finding(units=answers(2.5, seed=3))
    changed = Finding(**{**vars(found), "onset_by": (math.inf, math.nan, 100.0), "drawn": None})
    stored = changed.to_json()["onset_by"]
    assert stored == [None, "unusable", 100]
    again = Finding.from_json(json.loads(json.dumps(changed.to_json(), allow_nan=False)))
    np.testing.assert_array_equal(again.onset_by, changed.onset_by)
    after = [float(STEPS[-1]), math.nan, float(STEPS[STEPS < 100][-1])]
    np.testing.assert_array_equal(again.onset_intervals(), np.stack([after, changed.onset_by], axis=1))


def test_findings_with_the_same_labels_are_resampled_together_whatever_their_order() -> None:
    names = np.array([f"prompt {i}" for i in range(UNITS)])
    shuffled = np.random.default_rng(1).permutation(UNITS)
    units = answers(2.5)
    one = finding("one", units, clusters=names)
    other = finding("other", units[:, shuffled], clusters=names[shuffled])
    assert one.sample == other.sample != ""
    np.testing.assert_array_equal(one.onset_by, other.onset_by)
    np.testing.assert_allclose(one.low, other.low)
    assert finding("third", units[:, 1:], clusters=names[1:]).sample != one.sample
    here, elsewhere = (summary(curve("one", units, clusters=names), analysis=of) for of in ("made", "else"))
    assert here.findings[0].sample != elsewhere.findings[0].sample  # another analysis asks something else
    assert finding("one", units).sample == ""
    layered = np.stack([units, units], axis=1)
    null = np.random.default_rng(9).binomial(UNITS, 0.1, size=(X.size, 2, 200)) / UNITS
    best = best_layer("best", "", layered, Null(null, ""), PLAIN.but(clusters=names)).assessed(TRACE)
    assert best.sample == one.sample
    assert best.drawn is not None and one.drawn is not None
    np.testing.assert_array_equal(best.drawn, one.drawn[:, :200])  # its 200 draws are the first of the other's 400


def test_the_twin_decides_whether_sharpness_is_the_metrics() -> None:
    rng = np.random.default_rng(0)
    smooth = 1 / (1 + np.exp(-(X - 2.5) / 0.7))

    def noisy(key: str, values: np.ndarray, twin: str = "") -> Curve:
        noise = 0.01 * rng.normal(size=(X.size, 201))
        null = 0.01 * rng.normal(size=(X.size, 200))
        draws = (values + noise[:, 0])[:, None] + noise[:, 1:]
        return Curve(key, key, values + noise[:, 0], draws, Null(null, "none"), PLAIN.but(twin=twin))

    made = summary(noisy("exact", smooth**30, "smooth"), noisy("smooth", smooth))
    assert made.findings[0].mirage is not None
    assert made.findings[0].mirage.verdict == "does not survive"
    assert made.findings[1].mirage is None
    assert all(f.drawn is None for f in made.findings)  # an analysis that is kept does not keep its draws
    with pytest.raises(UserError, match=r"'exact' of analysis 'made' names the twin 'rough'[\s\S]*there are: exact"):
        summary(noisy("exact", smooth**30, "rough"))


def test_without_draws_or_null_nothing_is_said_about_the_order_of_onsets() -> None:
    values = answers(2.5).mean(1)
    null = np.random.default_rng(9).binomial(UNITS, 0.1, size=(X.size, 200)) / UNITS
    draws = unit_bootstrap(answers(2.5))

    def said(drawn: np.ndarray | None, against: np.ndarray | None) -> tuple[float, ...]:
        return Curve("b", "", values, drawn, Null(against, "none"), PLAIN).assessed(TRACE).onset_by

    assert said(None, null) == ()
    assert said(draws, None) == ()
    assert said(draws[:, :19], null) == ()
    assert len(said(draws, null)) == 200


def test_what_comes_after_a_loss_does_not_move_the_draws_of_a_transient_onset() -> None:
    rate = 0.1 + 0.8 * ((X > 2) & (X < 3))
    units = (np.random.default_rng(0).random((X.size, UNITS)) < rate[:, None]).astype(float)
    found = finding(units=units)
    assert found.emergence.state == "transient"
    onset = found.emergence.onset
    assert isinstance(onset, Interval)
    assert np.mean(np.array(found.onset_by) == onset.by) > 0.8
    assert np.isfinite(found.onset_by).all()
    # The same rise without the loss: the draws see nothing of what comes later.
    kept = finding(units=np.where((X >= 3)[:, None], units[(X > 2) & (X < 3)][-1], units))
    assert kept.emergence.state == "emerged"
    np.testing.assert_allclose(np.mean(found.onset_by), np.mean(kept.onset_by), rtol=0.1)


def test_the_runner_supplies_what_every_finding_repeats() -> None:
    made = summary(curve("plain"), curve("head", headline=True, twin="plain", sample="prompts"))
    assert [f.key for f in made.findings] == ["made.head", "made.plain"]  # headlines first
    assert (made.findings[0].twin, made.findings[0].sample) == ("made.plain", "made.prompts")
    assert made.findings[0].steps == tuple(STEPS.tolist())
    assert made.finding("head") is made.findings[0] and list(made.by_key) == ["head", "plain"]
    assert made.data["step"].dims == ("checkpoint",)
    with pytest.raises(UserError, match="'made' has two findings with the key 'plain'"):
        summary(curve("plain"), finding("plain"))


def test_sections_add_up_and_say_a_definition_once() -> None:
    metric, other = Definition("a", "one"), Definition("b", "two")
    one = Section([curve("x")], ["first"], (metric,), {"x": ("checkpoint", STEPS)}, {"layer": [0, 1]})
    both = one + Section([curve("y")], ["second"], (other, metric), {"y": ("layer", [1, 2])})
    assert [f.key for f in both.findings] == ["x", "y"]
    assert (both.notes, both.definitions) == (["first", "second"], (metric, other))
    assert (list(both.arrays), list(both.coords)) == (["x", "y"], ["layer"])
    assert (len(one.findings), one.notes) == (1, ["first"])  # adding changes neither
