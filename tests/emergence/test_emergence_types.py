"""Intervals and findings: what they say, and that JSON keeps it."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dynamics.emergence import STATES, Emergence, Interval, tokens_of

STEPS = st.one_of(st.none(), st.integers(0, 10**6))
INTERVALS = st.builds(
    lambda a, b: Interval(*sorted((a, b))) if None not in (a, b) and a != b else Interval(a, None), STEPS, STEPS
)
NUMBERS = st.one_of(st.none(), st.floats(-1e6, 1e6))


def test_an_interval_is_open_on_the_left_and_closed_on_the_right() -> None:
    inside = [step for step in (511, 512, 513, 999, 1000, 1001) if Interval(512, 1000).contains(step)]
    assert inside == [513, 999, 1000]


def test_a_censored_interval_has_no_end_on_that_side() -> None:
    assert Interval(None, 0).contains(0)
    assert not Interval(None, 0).contains(1)
    assert Interval(143000, None).contains(10**9)
    assert not Interval(143000, None).contains(143000)


def test_an_interval_is_written_as_mathematicians_write_it() -> None:
    shown = [str(Interval(*ends)) for ends in ((512, 1000), (None, 0), (143000, None), (None, None))]
    assert shown == ["(512, 1000]", "≤ 0", "> 143000", "unknown"]


def test_an_interval_covers_what_lies_in_it() -> None:
    wide = Interval(256, 1000)
    assert Interval(None, None).covers(wide)
    inside = [Interval(512, 1000), wide]
    outside = [Interval(128, 512), Interval(512, None), Interval(None, 512)]
    assert [wide.covers(other) for other in inside + outside] == [True] * 2 + [False] * 3


@pytest.mark.parametrize("ends", [(1000, 512), (512, 512)])
def test_an_empty_interval_is_an_error(ends: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="expected after < by"):
        Interval(*ends)


@given(INTERVALS)
@settings(database=None, deadline=None)
def test_intervals_survive_json(interval: Interval) -> None:
    assert Interval.from_json(json.loads(json.dumps(interval.to_json()))) == interval


FINDINGS = st.builds(
    Emergence,
    state=st.sampled_from(STATES),
    null=st.text(),
    null_upper=st.lists(st.floats(allow_infinity=False)).map(tuple),
    direction=st.sampled_from(["up", "down"]),
    reason=st.text(),
    onset=st.one_of(st.none(), INTERVALS),
    onset_range=st.one_of(st.none(), INTERVALS),
    onset_tokens=st.one_of(st.none(), st.tuples(STEPS, STEPS)),
    midpoint=NUMBERS,
    midpoint_interval=st.one_of(st.none(), INTERVALS),
    completion=st.one_of(st.none(), INTERVALS),
    loss=st.one_of(st.none(), INTERVALS),
    width_decades=NUMBERS,
    confidence=NUMBERS,
    episodes=st.integers(0, 9),
    floor=NUMBERS,
    plateau=NUMBERS,
    peak=NUMBERS,
    final=NUMBERS,
)


@given(FINDINGS)
@settings(database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_findings_survive_strict_json(finding: Emergence) -> None:
    text = json.dumps(finding.to_json(), allow_nan=False)
    assert Emergence.from_json(json.loads(text)) == finding


def test_nan_becomes_null_in_json() -> None:
    finding = Emergence(state="not emerged", null="x", null_upper=(0.5, math.nan))
    assert finding.to_json()["null_upper"] == [0.5, None]


def test_a_finding_with_another_state_or_other_fields_is_refused() -> None:
    data = Emergence(state="not emerged", null="x", null_upper=()).to_json()
    with pytest.raises(ValueError, match="unknown state 'appeared'; expected one of: emerged"):
        Emergence.from_json(data | {"state": "appeared"})
    with pytest.raises(ValueError, match=r"missing or unknown: \['onst'\]"):
        Emergence.from_json(data | {"onst": None})


def test_tokens_are_read_off_the_checkpoints() -> None:
    steps, tokens = [0, 512, 1000, 2000], [0.0, 1e9, 2e9, math.nan]
    assert tokens_of(Interval(512, 1000), steps, tokens) == (10**9, 2 * 10**9)
    assert tokens_of(Interval(1000, 2000), steps, tokens) == (2 * 10**9, None)
    assert tokens_of(Interval(None, 0), steps, tokens) == (None, 0)
    assert tokens_of(None, steps, tokens) is None
    assert tokens_of(Interval(512, 1000), steps, None) is None


def test_tokens_of_a_step_that_is_no_checkpoint_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"step 700 of \(700, 1000\] is no checkpoint; expected one of: \[512, 1000\]"):
        tokens_of(Interval(700, 1000), [512, 1000], [1, 2])
