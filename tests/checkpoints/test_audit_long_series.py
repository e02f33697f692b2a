"""Series of many checkpoints are looked at in several passes, and a few sketches are held."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from checkpoints.audit import audit_weights
from checkpoints.audit import order as order_module
from tests.checkpoints.audited import PYTHIA, masked
from tests.checkpoints.trajectories import Floats, constant, judged, linear, rounded, train


def test_a_long_series_is_looked_at_in_several_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_module, "PLACES", 60)
    weights, foreign = train(PYTHIA, linear, "walk"), train(PYTHIA, linear, "walk", seed=1)
    assert judged(PYTHIA, weights) == []
    weights[20:120:10] = rounded(weights[-1])
    weights[75] = foreign[75]
    assert masked(judged(PYTHIA, weights)) == {*PYTHIA[20:120:10], PYTHIA[75]}
    weights[-1] = foreign[-1]
    assert 143000 not in masked(judged(PYTHIA, weights))


def test_in_a_long_series_a_copy_of_a_step_nearby_is_found_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside few others of the series it is no farther from its neighbours than they are from each other."""
    weights = train(PYTHIA, constant, "walk")
    places = (40, 75, 110)
    for at in places:
        weights[at] = rounded(weights[at - 3])
    all_with_all = masked(judged(PYTHIA, weights))
    assert all_with_all >= {PYTHIA[at] for at in places}
    monkeypatch.setattr(order_module, "PLACES", 12)
    assert masked(judged(PYTHIA, weights)) == all_with_all
    monkeypatch.setattr(order_module, "NEAR", 1)
    assert masked(judged(PYTHIA, weights)) == set()


class Counted:
    """Sketches that count how many rows were asked for at once, and in all."""

    def __init__(self, rows: Floats) -> None:
        self.rows, self.most, self.total = rows, 0, 0

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, some: npt.NDArray[np.intp]) -> Floats:
        self.most, self.total = max(self.most, len(some)), self.total + len(some)
        return self.rows[some]


@pytest.mark.parametrize("count", [500, 1000, 2000])
def test_no_more_sketches_are_held_than_are_compared_at_once_and_each_is_read_a_few_times(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order_module, "PLACES", 100)
    steps = range(count)
    weights = np.cumsum(np.random.default_rng(0).normal(size=(count, 64)), axis=0).astype(np.float32)
    weights[count // 2] = weights[count // 5]
    sketches = Counted(weights)
    found = audit_weights(steps, sketches, np.ones(count), [0] * count, [""] * count)
    assert (count // 2) in masked(found)
    assert sketches.most <= order_module.PLACES + 1 and sketches.total <= 10 * count
