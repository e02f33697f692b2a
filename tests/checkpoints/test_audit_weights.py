"""Checkpoints whose weights lie off the path of the others are found, and honest training is left alone."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpoints.audit import audit_weights, neighbours
from checkpoints.audit.returns import SAME
from checkpoints.audit.vectors import angles
from tests.checkpoints.audited import BLOB, PYTHIA, STALE, kinds, masked
from tests.checkpoints.trajectories import LINEAR, LOG, constant, cosine, judged, linear, restarts, rounded, train

SCHEDULES = {"log": LOG, "linear": LINEAR, "pythia": PYTHIA}


KINDS = ("walk", "drift", "decay", "basin", "adam", "noise")


HONEST = [(rate, kind) for rate in (constant, linear, cosine, restarts) for kind in KINDS]
HONEST.remove((restarts, "noise"))  # this training does return to where it was


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("rate", "kind"), HONEST)
def test_honest_training_is_left_alone(schedule: str, rate: Callable[[float], float], kind: str) -> None:
    steps = SCHEDULES[schedule]
    weights = train(steps, rate, kind)
    for part in (slice(None), slice(None, None, 2), slice(1, None, 4), slice(len(steps) // 2, None)):
        assert judged(steps[part], weights[part]) == []
    assert judged(steps, rounded(weights, torch.float16)) == []
    mixed = weights.copy()
    mixed[::3] = rounded(weights[::3])
    assert judged(steps, mixed) == []


@given(st.integers(0, 2**32), st.lists(st.floats(1e-4, 1), min_size=2, max_size=25), st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_independent_steps_of_any_length_are_in_order(seed: int, lengths: list[float], drift: float) -> None:
    rng = np.random.default_rng(seed)
    way = rng.normal(size=4096)
    moves = np.array(lengths)[:, None] * (rng.normal(size=(len(lengths), 4096)) + drift * way)
    weights = (rng.normal(size=4096) + np.cumsum(moves, axis=0)).astype(np.float32)
    assert not masked(judged(range(len(lengths)), weights))


def test_training_that_returns_again_and_again_is_not_called_wrong_step_by_step() -> None:
    weights = train(PYTHIA, restarts, "noise")
    (found,) = judged(PYTHIA, weights)
    assert not found.mask and "the training returned to where it was" in found.reason
    shuffled = train(LINEAR, linear, "walk")[np.random.default_rng(0).permutation(len(LINEAR))]
    (found,) = [f for f in judged(LINEAR, shuffled) if f.kind != "odd norm"]
    assert not found.mask and "the labels are in no order" in found.reason


def far_enough(angle: npt.NDArray[np.float64], at: int, other: int) -> bool:
    """Whether weights of another step can be told at all from those that belong there."""
    return abs(at - other) >= 3 and angle[at, other] > 3 * SAME


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["log", "linear"])
def test_one_wrong_checkpoint_is_found_in_at_least_95_of_100_places(schedule: str) -> None:
    """The final weights, those of a random other step, or those of another seed, stored in another dtype."""
    steps = SCHEDULES[schedule]
    rng = np.random.default_rng(0)
    hits: dict[str, list[bool]] = {"final": [], "other": [], "foreign": []}
    innocent: list[bool] = []
    for rate, kind in ((linear, "drift"), (linear, "adam"), (cosine, "walk"), (cosine, "basin")):
        weights, foreign = train(steps, rate, kind), train(steps, rate, kind, seed=1)
        angle = angles(weights)
        for at in range(1, len(steps) - 1, 2):
            last, other = len(steps) - 1, int(rng.integers(len(steps)))
            for name, source, origin in (("final", last, weights), ("other", other, weights), ("foreign", at, foreign)):
                if name == "foreign" or far_enough(angle, at, source):
                    changed = weights.copy()
                    changed[at] = rounded(origin[source])
                    found = masked(judged(steps, changed))
                    hits[name].append(steps[at] in found)
                    innocent.append(bool(found - {steps[at], steps[source]}))
    for name, told in hits.items():
        assert len(told) > 40 and np.mean(told) >= 0.95, (name, np.mean(told), len(told))
    assert np.mean(innocent) <= 0.02


@pytest.mark.parametrize("kind", ["walk", "drift", "basin", "adam", "noise"])
def test_the_situation_of_pythia_2_8b_is_found_from_the_weights_alone(kind: str) -> None:
    """Stored in other dtypes, so that no digest tells; main a little further than the last step, as it was published."""
    weights = train(PYTHIA, linear, kind)
    stale = np.isin(PYTHIA, STALE)
    served = weights.copy()
    served[stale] = rounded(weights[-1])
    served[stale & (np.arange(len(PYTHIA)) % 3 == 0)] = rounded(weights[-1], torch.float16)
    same = {step for step, angle in zip(PYTHIA, angles(weights)[-1], strict=True) if angle < 3 * SAME}  # hardly differ
    assert {*STALE} - same <= masked(judged(PYTHIA, served)) <= {*STALE}
    served[stale] = rounded(weights[-1] + 0.5 * (weights[-1] - weights[-2]))
    served[np.isin(PYTHIA, BLOB)] = weights[-1]
    found = judged(PYTHIA, served)
    assert {*STALE, *BLOB} - same <= masked(found) <= {*STALE, *BLOB} - {143000}
    assert {f.kind for f in found if f.mask} == {"nearer to another step"}


@pytest.mark.parametrize("kind", ["walk", "adam"])
def test_runs_of_wrong_checkpoints_are_found(kind: str) -> None:
    weights, foreign = train(PYTHIA, linear, kind), train(PYTHIA, linear, kind, seed=1)
    for wrong in (slice(0, 64), slice(60, 80), slice(20, 140, 2)):
        served = weights.copy()
        served[wrong] = rounded(weights[-1])
        assert masked(judged(PYTHIA, served)) == {*PYTHIA[wrong]}
        assert "holds the weights of step 143000 up to rounding" in {f.reason for f in judged(PYTHIA, served)}
    for wrong in (slice(30, 34), slice(60, 70), slice(100, 120)):
        served = weights.copy()
        served[wrong] = foreign[wrong]
        assert masked(judged(PYTHIA, served)) == {*PYTHIA[wrong]}
    for at in (0, -1):
        served = weights.copy()
        served[at] = weights[50]
        assert masked(judged(PYTHIA, served)) == {PYTHIA[at]}


def test_a_jump_to_another_run_is_remarked_at_an_end_and_in_the_middle() -> None:
    weights, foreign = train(LOG, linear, "walk"), train(LOG, linear, "walk", seed=1)
    served = weights.copy()
    served[0] = foreign[0]
    (found,) = [f for f in judged(LOG, served) if f.kind == "off the path"]
    assert (found.step, found.mask) == (0, False) and "from step 0 to step 1, " in found.reason
    weights, foreign = train(PYTHIA, linear, "drift"), train(PYTHIA, linear, "drift", seed=1)
    (found,) = judged(PYTHIA, np.concatenate([weights[:80], foreign[80:]]))
    assert (found.step, found.mask) == (PYTHIA[80], False) and "one side may be another run's" in found.reason


def test_reasons_name_the_steps_concerned() -> None:
    weights, foreign = train(LINEAR, linear, "walk"), train(LINEAR, linear, "walk", seed=1)
    served = weights.copy()
    served[10] = foreign[10]
    (found,) = judged(LINEAR, served)
    assert (found.step, found.kind) == (250, "off the path")
    assert re.fullmatch(
        r"is an angle of [\d.]+ from step 225 and [\d.]+ from step 275, which are [\d.]+ apart", found.reason
    )
    served[10] = 0.9 * weights[30] + 0.1 * weights[31]
    (found,) = judged(LINEAR, served)
    assert found.kind == "nearer to another step"
    assert re.fullmatch(
        r"is an angle of [\d.]+ from step 750, but [\d.]+ from step 225 and [\d.]+ from step 275", found.reason
    )


def test_digests_are_judged_by_the_path_where_it_tells_and_else_as_in_a_listing() -> None:
    weights = train(LINEAR, linear, "walk")
    digests = [f"d{s}" for s in LINEAR]
    served, said = weights.copy(), digests.copy()
    served[10], said[10] = weights[30], digests[30]
    found = judged(LINEAR, served, digests=said)
    assert [(f.step, f.kind, f.mask) for f in found] == [(250, "shared weights", True), (750, "shared weights", False)]
    assert found[0].reason == "steps 250 and 750 hold the same weights, those of step 750"
    served[10], said[10] = weights[-1], digests[-1]
    (found_,) = judged(LINEAR, served, digests=said)
    assert (found_.step, found_.mask) == (250, True)
    unknown = np.full_like(weights, np.nan)
    assert [(f.step, f.kind) for f in judged(LINEAR, unknown, digests=said)] == [(250, "stale")]
    said[10] = digests[30]
    assert masked(judged(LINEAR, unknown, digests=said)) == {250, 750}


def test_neighbours_with_the_same_digest_are_remarked_and_the_first_two_steps_explained() -> None:
    weights = train(PYTHIA, linear, "walk")
    digests = [f"d{s}" for s in PYTHIA]
    weights[1], digests[1] = weights[0], digests[0]
    weights[81], digests[81] = weights[80], digests[80]
    found = judged(PYTHIA, weights, digests=digests)
    assert kinds(found) == dict.fromkeys((0, 1), "equal by design") | dict.fromkeys(PYTHIA[80:82], "shared weights")
    assert not masked(found) and "training stood still" in found[-1].reason


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_just_before_that_was_stored_anew_is_remarked_in_any_place(kind: str, dtype: torch.dtype) -> None:
    """What the angles cannot tell from a small step: all single weights are the other's, rounded."""
    weights = train(LINEAR, linear, kind)
    table = angles(weights)
    for at in (1, 2, 9, 20, len(LINEAR) - 2):
        if min(table[at - 1, at + 1], table[at - 1, max(at - 2, 0)] or 1.0) <= 3 * SAME:
            continue  # training hardly moved there
        for source in (rounded(weights[at - 1], dtype), rounded(weights[at - 1], torch.float32)):
            served = weights.copy()
            served[at] = source
            for stored in (served, rounded(served, torch.float16)):
                found = [f for f in judged(LINEAR, stored) if f.kind == "shared weights"]
                assert [(f.step, f.mask) for f in found] == [(LINEAR[at - 1], False), (LINEAR[at], False)]
                assert "up to rounding: training stood still, or a label is wrong" in found[0].reason


def test_a_step_that_hardly_moved_is_not_taken_for_one_stored_anew() -> None:
    """Much less than rounding turns the weights by, and less than it changes most of them by."""
    weights = train(LINEAR, linear, "walk")
    rng = np.random.default_rng(0)
    for change in (1e-4, 1e-5, 1e-6):
        served = weights.copy()
        served[10] = weights[9] + change * rng.choice([-1, 1], weights.shape[1])
        assert angles(served)[9, 10] < 2 * SAME
        assert judged(LINEAR, served) == []
        assert judged(LINEAR, rounded(served)) == []


def test_the_first_two_steps_may_be_the_same_in_two_dtypes() -> None:
    weights = train(PYTHIA, constant, "drift")
    weights[1] = rounded(weights[0])
    weights[2:] += 0.05 * np.random.default_rng(0).normal(size=weights.shape[1]).astype(np.float32)
    assert not [f for f in judged(PYTHIA, weights) if f.kind == "shared weights"]


def test_a_model_that_is_not_finite_is_kept_and_does_not_hide_the_others() -> None:
    weights = train(LINEAR, linear, "walk")
    weights[10] = weights[30]
    weights[11, 5] = np.nan
    found = judged(
        LINEAR,
        weights,
        nonfinite=[7 if n in (11, 20) else 0 for n in range(len(LINEAR))],
        norms=np.full(len(LINEAR), np.nan),
    )
    assert kinds(found) == {250: "nearer to another step", 275: "not finite", 500: "not finite"}
    assert masked(found) == {250} and found[1].reason.startswith("7 of its weights are NaN or infinite")
    assert judged([0, 1, 2], np.full((3, 5), np.nan, dtype=np.float32), norms=[np.nan] * 3) == []


def test_a_norm_that_jumps_is_remarked_and_growth_is_not() -> None:
    weights = train(LINEAR, linear, "walk")
    grown = np.linalg.norm(weights, axis=1) * np.geomspace(1, 1e3, len(LINEAR)) ** 2
    assert judged(LINEAR, weights, norms=grown) == []
    for rows in ([10], [10, 11]):
        norms = np.linalg.norm(weights, axis=1)
        norms[rows] *= 1.5
        found = judged(LINEAR, weights, norms=norms)
        assert kinds(found) == {LINEAR[row]: "odd norm" for row in rows} and not masked(found)


def test_nothing_can_be_said_of_fewer_than_three_checkpoints() -> None:
    weights = train(LINEAR, linear, "walk")
    for count in range(3):
        assert judged(LINEAR[:count], weights[:count]) == []


@given(st.integers(0, 2**32))
@settings(max_examples=20, deadline=None)
def test_the_scale_of_weights_and_a_change_of_sign_do_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = np.cumsum(rng.normal(size=(12, 500)), axis=0).astype(np.float32)
    weights[rng.integers(12)] = weights[rng.integers(12)]
    expected = masked(judged(range(12), weights))
    assert (
        masked(judged(range(12), weights * np.float32(2.0**-20) * rng.choice([-1, 1], size=500).astype(np.float32)))
        == expected
    )


def test_neighbours_gives_cosines_for_tables() -> None:
    rows = np.array([[np.nan, 1], [1, 0], [1, 1], [0, 0], [0, 2]], dtype=np.float32)
    table = neighbours([0, 1, 2, 5, 9], rows)
    half = 0.5**0.5
    np.testing.assert_allclose(table["previous"], [np.nan, np.nan, half, np.nan, np.nan], atol=1e-7)
    np.testing.assert_allclose(table["next"], [np.nan, half, np.nan, np.nan, np.nan], atol=1e-7)
    np.testing.assert_allclose(table["first"], [np.nan, 1, half, np.nan, 0], atol=1e-7)
    assert all(np.isnan(values).all() for values in neighbours([0, 1], rows[[0, 3]]).values())


def test_arguments_that_do_not_belong_together_are_refused() -> None:
    rows = np.ones((2, 3), dtype=np.float32)
    with pytest.raises(ValueError, match="3 steps and 2 sketches"):
        audit_weights([0, 1, 2], rows, [1, 1], [0, 0], ["", ""])
    with pytest.raises(ValueError, match="steps must increase"):
        neighbours([1, 1], rows)
    with pytest.raises(ValueError, match="one value for every step"):
        audit_weights([0, 1], rows, [1], [0, 0], ["", ""])
