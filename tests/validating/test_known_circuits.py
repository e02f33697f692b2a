"""Circuits whose edges and step are known, in small: what `dynamics validate` holds in forty series."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dynamics.validating.checks import known_checks
from dynamics.validating.known import WORDS, CircuitKind, known, prompts
from dynamics.validating.known_series import KnownSeries, known_series
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
            assert one.dated == (True, True)


def test_what_known_circuits_must_reach_is_checked_and_printed() -> None:
    good = KnownSeries(
        "match and copy", 100, 1.0, 1.0, 1.0, ("emerged", "(79, 158]"), ("emerged", "(79, 158]"), (True, True)
    )
    none = KnownSeries(
        "match and copy", None, np.nan, np.nan, np.nan, ("not emerged", "–"), ("not measurable", "–"), None
    )
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
