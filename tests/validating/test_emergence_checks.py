"""What counts as holding: pooled shares, up to the error of the simulation."""

from __future__ import annotations

import pytest

from dynamics.validating.calibration import Calibration
from dynamics.validating.checks import checks, discovery_checks
from dynamics.validating.synthetic import Scenario


def row(scenario: Scenario, *, covered: float = 0.95, judged: int = 1000, found: float = 1.0) -> Calibration:
    return Calibration(scenario, "half rise", 1000, found, found, judged, covered, 0.0, 1 - covered, 0.0, 0.1)


@pytest.mark.parametrize(("covered", "verdict"), [(0.95, "holds"), (0.92, "holds"), (0.91, "fails"), (0.99, "wide")])
def test_coverage_is_judged_up_to_two_standard_errors(covered: float, verdict: str) -> None:
    found = checks([row(Scenario("sigmoid", 12), covered=covered)])
    assert {c.verdict for c in found if c.table in ("coverage", "kinds")} == {verdict}


def test_shares_are_pooled_by_the_number_of_curves_behind_them() -> None:
    rows = [row(Scenario("sigmoid", 12), covered=0.9, judged=100), row(Scenario("ramp", 40), covered=1.0, judged=300)]
    values = {c.column: c.value for c in checks(rows)}
    assert values["all"] == pytest.approx(0.975)
    assert values["12 checkpoints"] == pytest.approx(0.9)
    assert values["ramp"] == 1.0


@pytest.mark.parametrize(("found", "verdict"), [(0.05, "holds"), (0.07, "holds"), (0.075, "fails")])
def test_false_emergence_above_its_rate_fails(found: float, verdict: str) -> None:
    flat = checks([row(Scenario("none", 12), judged=0, found=found)])
    assert {c.table for c in flat} == {"false"}
    assert {c.verdict for c in flat} == {verdict}


@pytest.mark.slow
def test_of_many_curves_few_are_found_falsely_and_most_of_the_rising_ones() -> None:
    false, power = discovery_checks(curves=500, repetitions=3, checkpoints=12)
    assert false.verdict == "holds"
    assert false.value <= 0.05
    assert power.value > 0.5
