"""The verb that holds the tracer against planted truth, in small."""

from __future__ import annotations

from pathlib import Path

import pytest

import dynamics
from dynamics.validating import validate as validating
from dynamics.validating.checks import Check
from dynamics.validating.page import write_validation
from dynamics.validating.synthetic import suite
from dynamics.validating.validate import Planted, Validation, WorldOrder


@pytest.mark.slow
def test_planted_curves_are_found_and_flat_ones_are_not() -> None:
    scenarios = suite((40,), kinds=("sigmoid",))[:1] + suite((40,), kinds=("none",))[:1]
    found = dynamics.validate(curves=30, circuits=0, organisms=0, scenarios=scenarios, discovery=1000)
    excess = {row.scenario.kind: row for row in found.rows if row.definition == "excess over null"}
    assert excess["sigmoid"].found == 1.0
    assert excess["sigmoid"].covered >= 0.8
    assert excess["none"].found <= 0.2
    assert found.sound
    page = write_validation(found)
    assert "Every check below holds." in page
    assert "| sigmoid | 40 | log | binomial | excess over null | 100.0% |" in page
    assert {check.table for check in found.checks} == {"coverage", "kinds", "false", "discovery"}


@pytest.mark.slow
def test_organisms_are_trained_traced_and_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve steps teach nothing: what never entered is right, what entered is missed, and nothing is too early."""
    tiny = {"steps": 12, "checkpoints": 5, "layers": 1, "d_model": 32, "heads": 2, "batch": 8}
    monkeypatch.setattr(validating, "ORGANISM", tiny)
    found = dynamics.validate(circuits=0, organisms=2, scenarios=(), discovery=0, traces=tmp_path)
    assert {p.organism for p in found.planted} == {"validate-0-0", "validate-0-1"}
    never = [p for p in found.planted if p.entered is None]
    assert {p.world for p in never} >= {"addition"}
    assert all(p.verdict in ("right", "missed") for p in found.planted)
    assert all(p.verdict == "right" for p in never)
    assert found.order == ()
    assert "## Organisms" in write_validation(found)


@pytest.mark.parametrize(
    ("verdict", "order", "sound"),
    [("right", True, True), ("missed", True, True), ("too early", True, False), ("false", True, False), ("right", False, False)],
)  # fmt: skip
def test_it_is_sound_only_if_nothing_was_found_wrongly(verdict: str, order: bool, sound: bool) -> None:
    planted = Planted("o", "french", 0, "a.b", "emerged", "(1, 2]", 2, verdict)
    assert Validation((), (planted,), (WorldOrder("o", "french", "german", order),)).sound is sound


def test_a_check_that_fails_is_not_sound_and_reads_as_failed() -> None:
    bad = Check("coverage", "half rise", "12 checkpoints", 1000, 0.85, 0.007, "fails")
    found = Validation((), (), (), (bad,))
    assert not found.sound
    page = write_validation(found)
    assert "**1 of the checks below fail:**" in page
    assert "- half rise, 12 checkpoints: 85.0% covered" in page
    assert "85.0% ± 0.7% **fails**" in page
