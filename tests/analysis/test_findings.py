"""Findings: onsets by every definition, draws that are paired, continuous twins, and their JSON."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from dynamics.analysis.findings import Finding, Summary, best_layer, from_draws, from_units
from dynamics.emergence import Interval, unit_bootstrap
from dynamics.validating.synthetic import schedule

STEPS = schedule("log", 40, np.random.default_rng(0))
X = np.log10(STEPS + 1.0)
UNITS = 150


def answers(place: float, *, width: float = 0.15, seed: int = 0) -> np.ndarray:
    """(checkpoint, unit) right answers whose rate rises from 0.1 to 0.9 at 10^place."""
    rate = 0.1 + 0.8 / (1 + np.exp(-(X - place) / width))
    return (np.random.default_rng(seed).random((X.size, UNITS)) < rate[:, None]).astype(float)


def finding(key: str = "made.up", units: np.ndarray | None = None, **rest: Any) -> Finding:
    units = answers(2.5) if units is None else units
    null = np.random.default_rng(9).binomial(UNITS, 0.1, size=(X.size, 200)) / UNITS
    given = {"null": null, "null_name": "chance", "metric": "accuracy", "unit": "prompts", "tokens": None} | rest
    return from_units(key, key, units, steps=STEPS, **given)


def summary(*findings: Finding) -> Summary:
    return Summary("made", "Made", "When?", findings)


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
    twin = finding("made.twin")
    whole = summary(finding(twin="made.twin", reach=2.0), twin)
    text = json.dumps(whole.to_json(), allow_nan=False)
    again = Summary.from_json(json.loads(text), whole.data)
    for one, other in zip(whole.findings, again.findings, strict=True):
        assert one.onsets == other.onsets
        assert one.mirage == other.mirage
        assert (one.onset_by, one.sample, one.twin) == (other.onset_by, other.sample, other.twin)
        np.testing.assert_array_equal(one.onset_intervals(), other.onset_intervals())
    assert whole.findings[0].mirage is not None and whole.findings[0].mirage.verdict == "survives"
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


def test_findings_stored_before_there_were_definitions_are_read() -> None:
    data = finding().to_json()
    for name in ("onsets", "definitions_agree", "onset_by", "sample", "twin", "mirage"):
        del data[name]
    old = Finding.from_json(data)
    assert (old.onsets, old.onset_by, old.sample, old.mirage) == ((), (), "", None)
    assert old.to_json()["definitions_agree"] is None


def test_findings_with_the_same_labels_are_resampled_together_whatever_their_order() -> None:
    names = np.array([f"prompt {i}" for i in range(UNITS)])
    shuffled = np.random.default_rng(1).permutation(UNITS)
    units = answers(2.5)
    one = finding("made.one", units, clusters=names)
    other = finding("made.other", units[:, shuffled], clusters=names[shuffled])
    assert one.sample == other.sample != ""
    np.testing.assert_array_equal(one.onset_by, other.onset_by)
    np.testing.assert_allclose(one.low, other.low)
    assert finding("made.third", units[:, 1:], clusters=names[1:]).sample != one.sample
    assert finding("else.one", units, clusters=names).sample != one.sample  # another analysis asks something else
    assert finding("made.one", units).sample == ""
    layered = np.stack([units, units], axis=1)
    null = np.random.default_rng(9).binomial(UNITS, 0.1, size=(X.size, 2, 200)) / UNITS
    common: dict[str, Any] = {"steps": STEPS, "tokens": None, "null_name": "", "metric": "", "unit": ""}
    best = best_layer("made.best", "", layered, null, clusters=names, **common)
    assert best.sample == one.sample
    assert best.drawn is not None and one.drawn is not None
    np.testing.assert_array_equal(best.drawn, one.drawn[:, :200])  # its 200 draws are the first of the other's 400


def test_the_twin_decides_whether_sharpness_is_the_metrics() -> None:
    rng = np.random.default_rng(0)
    smooth = 1 / (1 + np.exp(-(X - 2.5) / 0.7))
    common: dict[str, Any] = {"steps": STEPS, "tokens": None, "null_name": "none", "metric": "", "unit": "units"}

    def curve(key: str, values: np.ndarray, twin: str = "") -> Finding:
        noise = 0.01 * rng.normal(size=(X.size, 201))
        null = 0.01 * rng.normal(size=(X.size, 200))
        draws = (values + noise[:, 0])[:, None] + noise[:, 1:]
        return from_draws(key, key, values=values + noise[:, 0], draws=draws, null=null, twin=twin, **common)

    made = summary(curve("made.exact", smooth**30, "made.smooth"), curve("made.smooth", smooth))
    assert made.findings[0].mirage is not None
    assert made.findings[0].mirage.verdict == "does not survive"
    assert made.findings[1].mirage is None
    assert all(f.drawn is None for f in made.findings)  # an analysis that is kept does not keep its draws
    with pytest.raises(ValueError, match=r"made.exact names the twin 'made.rough'; there are: made.exact"):
        summary(curve("made.exact", smooth**30, "made.rough"))


def test_without_draws_or_null_nothing_is_said_about_the_order_of_onsets() -> None:
    values = answers(2.5).mean(1)
    common: dict[str, Any] = {"steps": STEPS, "tokens": None, "null_name": "none", "metric": "", "unit": "units"}
    null = np.random.default_rng(9).binomial(UNITS, 0.1, size=(X.size, 200)) / UNITS
    assert from_draws("a.b", "", values=values, draws=None, null=null, **common).onset_by == ()
    draws = unit_bootstrap(answers(2.5))
    assert from_draws("a.b", "", values=values, draws=draws, null=None, **common).onset_by == ()
    assert from_draws("a.b", "", values=values, draws=draws[:, :19], null=null, **common).onset_by == ()
    assert len(from_draws("a.b", "", values=values, draws=draws, null=null, **common).onset_by) == 200


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
