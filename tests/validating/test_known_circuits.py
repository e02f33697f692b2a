"""Circuits whose edges and step are known, in small: what `dynamics validate` holds in forty series."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dynamics.emergence import Interval
from dynamics.validating.checks import known_checks
from dynamics.validating.known import WORDS, CircuitKind, known, prompts
from dynamics.validating.known_series import KnownSeries, decades, known_series, meets
from dynamics.validating.page import write_validation
from dynamics.validating.validate import Validation

KINDS: tuple[CircuitKind, ...] = ("match and copy", "two steps")


@pytest.mark.parametrize("kind", KINDS)
def test_a_planted_circuit_does_its_task_and_without_it_nothing_does(kind: CircuitKind) -> None:
    model, probe = known(kind, 3), prompts(kind, 64, 0)
    assert probe.answer_ids is not None and probe.corrupted_ids is not None
    ids, twins = (torch.from_numpy(np.stack(of)) for of in (probe.ids, probe.corrupted_ids))

    def right(circuit: float, tokens: torch.Tensor) -> float:
        module = model.at(0.5, circuit=circuit, distractors=0.0)
        with torch.no_grad():
            said = module(tokens)[:, -1].argmax(-1).numpy()
        return float((said == probe.answer_ids).mean())

    assert right(1.0, ids) > 0.85
    assert right(1.0, twins) < 0.3 and right(0.0, ids) < 2.5 / WORDS
    assert model.edges.sum() == 3


@pytest.mark.slow
def test_a_circuit_that_fades_in_is_found_and_dated_and_none_is_called_without_one() -> None:
    series = known_series(2, seed=5)
    assert [(one.kind, one.planted is not None) for one in series] == [
        (k, there) for k in KINDS for there in (True, False)
    ]
    for one in series:
        if one.planted is None:
            assert not one.called
        else:
            assert min(one.auroc, one.f1) > 0.95 and one.found_f1 >= 0.8
            assert one.dated == (True, True) and 0 < max(one.widths) < 1.5


def test_what_known_circuits_must_reach_is_checked_and_printed() -> None:
    good = KnownSeries(
        "match and copy",
        100,
        1.0,
        1.0,
        1.0,
        ("emerged", "(79, 158]"),
        ("emerged", "(79, 158]"),
        (True, True),
        (0.3, 0.6),
    )
    none = KnownSeries("match and copy", None, np.nan, np.nan, np.nan, ("not emerged", "–"), ("not emerged", "–"), None)
    found = Validation((), (), (), known_checks((good, none)))
    assert found.sound and "| all | 100.0% ± 0.0% |" in write_validation(found)
    late = replace(good, dated=(True, False), auroc=0.9)
    false = replace(none, done=("transient", "–"))
    failed = Validation((), (), (), known_checks((late, false))).failed
    assert failed[:3] == (
        "all, AUROC: 90.0% reached",
        "all, used: onset: 0.0% reached",
        "all, none called: 0.0% reached",
    )
    printed = write_validation(found)
    assert "| all | 0.30 | 0.60 | 0.0% ± 0.0% | 0.0% ± 0.0% |" in printed


def test_a_circuit_that_is_said_to_have_been_there_is_called_and_one_that_cannot_be_measured_is_counted() -> None:
    none = KnownSeries("match and copy", None, np.nan, np.nan, np.nan, ("not emerged", "–"), ("not emerged", "–"), None)
    shares = lambda *series: {c.column: c.value for c in known_checks(series) if c.row == "all"}  # noqa: E731
    assert not none.called and shares(none)["none called"] == 1
    there = replace(none, used=("present from start", "–"))
    assert there.called and shares(none, there)["none called"] == 0.5
    unknown = replace(none, used=("not measurable", "–"))
    found = shares(none, unknown, unknown, there)
    assert found["used: not measurable, without"] == 0.5 and found["none called"] == 0.75
    assert "none called" not in shares(replace(unknown, done=("not measurable", "–"))), "nothing could be called"


def test_an_onset_that_is_open_at_an_end_dates_nothing() -> None:
    steps = np.array([0, 10, 100, 1000])
    for span in (Interval(None, None), Interval(None, 100), Interval(10, None), None):
        assert not meets(span, 50, 52) and np.isnan(decades(span, steps))
    assert meets(Interval(10, 100), 50, 52) and decades(Interval(10, 100), steps) == pytest.approx(1)
    assert meets(Interval(51, 100), 50, 52), "a checkpoint may lie in the fade"
    assert not meets(Interval(100, 1000), 50, 52) and not meets(Interval(0, 10), 50, 52)
    assert decades(Interval(0, 10), steps) == pytest.approx(np.log10(2))
