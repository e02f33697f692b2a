"""What benchmarks/healing.py, which holds a real model's trace against plain ``transformers``, may not let pass."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.healing import away, wrong

INF, NAN = float("inf"), float("nan")


def headline(state: str) -> Any:
    """What is asked of a finding."""
    return SimpleNamespace(key="ioi.done", emergence=SimpleNamespace(state=state))


def test_values_differ_by_a_share_of_the_plain_one() -> None:
    assert away(1.1, 1.0) == pytest.approx(0.1) and away(-2.0, -2.0) == 0
    assert not wrong([headline("emerged")], [0.0, 0.019], 0)
    assert wrong([], [0.0, 0.021], 0) == ["1 of 2 values differ by more than 2%, or are no numbers"]


@pytest.mark.parametrize(("traced", "alone"), [(NAN, 1.0), (1.0, NAN), (NAN, NAN), (INF, INF), (-INF, 1.0)])
def test_what_is_no_number_does_not_agree_with_anything(traced: float, alone: float) -> None:
    assert away(traced, alone) == INF
    assert wrong([], [0.0, away(traced, alone), 0.0], 0)
    assert wrong([], [NAN], 0)


def test_nothing_compared_and_something_found_at_random_weights_are_wrong() -> None:
    assert wrong([headline("emerged")], [], 0) == ["nothing was compared"]
    (line,) = wrong([headline("emerged"), headline("present from start")], [0.0], 0)
    assert line == "ioi.done is present from start, at random weights"
    assert not wrong([headline("present from start")], [0.0], 25), "these weights are not random"
