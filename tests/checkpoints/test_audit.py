"""Checkpoints that are not what their label says are found, and honest series are left alone."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import date
from importlib import import_module
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpoints import audit
from checkpoints.audit import AuditFinding, Sketch, audit_listing, audit_weights, neighbours, sketch
from checkpoints.audit import order as order_module
from checkpoints.audit.findings import name_steps
from checkpoints.audit.order import angles
from checkpoints.audit.returns import SAME
from checkpoints.catalogue.entry import Entry, EqualByDesign, KnownFault, StepRange
from checkpoints.series import Checkpoint, WeightFile

Floats = npt.NDArray[np.float32]

sketch_module = import_module("checkpoints.audit.sketch")  # the package has a function of that name

PYTHIA = (0, *(2**k for k in range(10)), *range(1000, 144000, 1000))
STALE = (
    *(step for step in PYTHIA if step <= 53000),
    *(1000 * k for k in (55, 60, 65, 70, 80, 90, 100, 103, 110, 120, 130, 140)),
)
BLOB = tuple(1000 * k for k in (54, 56, 57, 58, 59, 61, 62, 63, 64, 143))
"""EleutherAI/pythia issue 205: of 154 steps of pythia-2.8b 76 serve main, ten another blob, and 68 their own."""


# --- listings


def one_file(digest: str | None, size: int = 100) -> tuple[WeightFile, ...]:
    return (WeightFile("model.safetensors", size, digest),)


def shards(*digests: str | None) -> tuple[WeightFile, ...]:
    return tuple(
        WeightFile(f"model-{n + 1:05}-of-{len(digests):05}.safetensors", 100, digest)
        for n, digest in enumerate(digests)
    )


def listing(
    held: dict[int, str | tuple[WeightFile, ...] | None],
    *,
    entry: Entry | None = None,
    main: str | tuple[WeightFile, ...] | None = None,
    stage: str = "",
) -> list[AuditFinding]:
    """Audit a series given as step -> digest of its only file, or step -> files."""
    checkpoints = [Checkpoint(step, f"sha{step}", stage=stage, label=f"step{step}") for step in sorted(held)]
    files = {}
    for checkpoint in checkpoints:
        value = held[checkpoint.step]
        files[checkpoint] = value if isinstance(value, tuple) else one_file(value)
    return audit_listing(checkpoints, files, entry=entry, main=one_file(main) if isinstance(main, str) else main)


def entry(**more: object) -> Entry:
    return Entry.model_validate({"name": "x", "family": "X", "repo": "a/b", "revisions": r"step(?P<step>\d+)"} | more)


def kinds(findings: Sequence[AuditFinding]) -> dict[int, str]:
    assert len({f.step for f in findings}) == len(findings), "one finding a step is enough here"
    return {f.step: f.kind for f in findings}


def masked(findings: Sequence[AuditFinding]) -> set[int]:
    return {f.step for f in findings if f.mask}


def test_the_situation_of_pythia_2_8b_is_found_without_knowing_of_it() -> None:
    assert (len(PYTHIA), len(STALE), len(BLOB)) == (154, 76, 10)
    held: dict[int, str | tuple[WeightFile, ...] | None] = {s: f"own{s}" for s in PYTHIA}
    held |= dict.fromkeys(STALE, "main") | dict.fromkeys(BLOB, "blob")
    found = listing(held, main="main")
    assert masked(found) == {*STALE, *BLOB} - {143000} and len(masked(found)) == 85
    assert {f.step for f in found} == {*STALE, *BLOB}  # nothing about the other 68
    assert {f.kind for f in found if f.mask} == {"stale"}
    said = {f.step: f.reason for f in found}
    assert said[0] == said[140000] == "serves the weights of main; the last step, 143000, does not"
    assert said[54000] == "serves the weights of the last step, 143000"
    (last,) = [f for f in found if not f.mask]
    assert (last.step, last.label, last.kind) == (143000, "step143000", "shared weights")
    assert last.reason.endswith("hold its weights, too, and main holds others")


def test_a_clean_series_has_nothing_but_the_equality_of_its_first_two_steps() -> None:
    held: dict[int, str | tuple[WeightFile, ...] | None] = {step: f"own{step}" for step in PYTHIA}
    assert listing(held, main="own143000") == []
    found = listing(held | {1: "own0"}, main="own143000")
    assert kinds(found) == {0: "equal by design", 1: "equal by design"} and not masked(found)
    assert "learning rate of zero" in found[0].reason


@given(st.sets(st.integers(0, 10**6), min_size=1, max_size=40), st.integers(1, 3), st.booleans())
def test_series_of_different_files_are_left_alone(steps: set[int], parts: int, with_main: bool) -> None:
    held = {step: shards(*(f"{step}/{part}" for part in range(parts))) for step in steps}
    assert listing(dict(held), main=held[max(steps)] if with_main else ()) == []


def test_files_without_a_digest_are_not_compared() -> None:
    assert listing({0: None, 1000: None, 2000: None}, main=one_file(None)) == []
    assert (
        listing({0: shards("a", None), 1000: shards("b", None), 2000: shards("c", None)}, main=shards("m", None)) == []
    )


@pytest.mark.parametrize(
    ("held", "main", "expected"),
    [
        ({0: "a", 1: "b", 9: "c"}, "c", {}),
        ({0: "a", 1: "c", 9: "c"}, "c", {1: "stale"}),
        ({0: "a", 1: "c", 9: "c"}, None, {1: "stale"}),
        ({0: "a", 5: "m", 9: "c"}, "m", {5: "stale"}),
        ({0: "m", 1: "m", 9: "c"}, "m", {0: "stale", 1: "stale"}),
        ({0: "c", 1: "c", 9: "c"}, None, {0: "stale", 1: "stale"}),
        ({0: "a", 5: "b", 6: "b", 9: "c"}, "c", {5: "shared weights", 6: "shared weights"}),
        ({0: "a", 5: "a", 9: "c"}, "c", {0: "shared weights", 5: "shared weights"}),
        ({1: "a", 2: "a", 9: "c"}, "c", {1: "shared weights", 2: "shared weights"}),  # the series begins with step 1
    ],
)
def test_who_is_at_fault(
    held: dict[int, str | tuple[WeightFile, ...] | None], main: str | None, expected: dict[int, str]
) -> None:
    found = listing(held, main=main)
    assert kinds(found) == expected
    assert all(f.mask for f in found)


def test_a_third_step_equal_to_the_first_two_is_the_one_at_fault() -> None:
    found = listing({0: "a", 1: "a", 1000: "b", 5000: "a", 9000: "z"}, main="z")
    assert kinds(found) == {0: "equal by design", 1: "equal by design", 5000: "shared weights"}
    assert masked(found) == {5000}
    assert found[-1].reason == "steps 0, 1 and 5000 hold the same weights, those of steps 0 and 1"


def test_what_the_entry_says_is_equal_on_purpose_is_explained_unless_main_has_it() -> None:
    known = entry(
        equal_by_design=(
            EqualByDesign(steps=(8, 9), reason="the last step was saved twice"),
            EqualByDesign(steps=(2, 3), reason="so"),
        )
    )
    found = listing({0: "a", 2: "b", 3: "b", 5: "b", 8: "z", 9: "z"}, main="z", entry=known)
    assert kinds(found) == dict.fromkeys((2, 3, 8, 9), "equal by design") | {5: "shared weights"}
    assert masked(found) == {5}
    assert masked(listing({0: "a", 2: "z", 3: "z", 8: "y", 9: "z"}, main="z", entry=known)) == {2, 3}


def test_the_last_step_is_stale_too_where_main_was_trained_further() -> None:
    found = listing({0: "a", 5: "b", 9: "m"}, main="m", entry=entry(main="later"))
    assert masked(found) == {9} and found[0].reason == "serves the weights of main, a model trained further"
    assert listing({0: "a", 5: "b", 9: "m"}, main="m", entry=entry(main="last step")) == []


def test_the_last_step_is_that_of_the_schedule_not_of_the_listing() -> None:
    known = entry(expected=(StepRange(first=0, last=9),))
    assert masked(listing({step: f"a{step}" for step in range(5)}, main="a4", entry=known)) == {4}


def test_one_shard_of_another_step_is_found() -> None:
    held: dict[int, str | tuple[WeightFile, ...] | None] = {
        s: shards(f"a{s}", f"b{s}", f"c{s}") for s in (0, 10, 20, 30)
    }
    final = shards("a30", "b30", "c30")
    found = listing(held | {10: shards("a30", "b10", "c10")}, main=final)
    assert [(f.step, f.kind, f.mask) for f in found] == [(10, "shared file", True)]
    assert found[0].reason == "model-00001-of-00003.safetensors is also in main"
    found = listing(held | {10: shards("a30", "b30", "c10")})
    assert found[0].reason.endswith("are also in the last step, 30")
    found = listing(held | {10: shards("a20", "b10", "c10")}, main=final)
    assert masked(found) == {10, 20} and "at most one label can be right" in found[0].reason


def test_a_file_that_never_changes_is_remarked_once() -> None:
    found = listing({step: shards("frozen", f"b{step}") for step in (0, 10, 20)}, main=shards("frozen", "b20"))
    assert [(f.step, f.kind, f.mask) for f in found] == [(0, "shared file", False)]
    found = listing(dict.fromkeys((0, 10, 20), "same"))
    assert masked(found) == {0, 10}  # all of the weights: that is another matter


def test_missing_weights_and_a_known_fault_that_was_mended() -> None:
    missing = KnownFault(steps=(10, 20), reason="has no weights", source="issue 202", dated=date(2026, 7, 17))
    found = listing({0: "a", 10: (), 20: "b", 30: "c"}, entry=entry(known_faults=(missing,)))
    assert [(f.step, f.kind, f.mask) for f in found] == [
        (10, "known fault", True),
        (10, "no weights", True),
        (20, "known fault", False),
    ]
    assert found[0].source == "issue 202, 2026-07-17" and "shows a fault too" in found[0].reason
    assert found[2].reason == "has no weights; the present listing has weights"


@pytest.mark.parametrize(
    ("files", "said"),
    [("c", "shows a fault too"), ("b", "does not show it"), (None, "has no digests that could show it")],
)
def test_a_known_fault_stays_masked_and_says_whether_the_listing_shows_it(files: str | None, said: str) -> None:
    faults = (
        KnownFault(steps=(StepRange(first=10, last=20, by=10),), stage="one", reason="is the final model", source="issue 1", dated=date(2026, 1, 2)),
        KnownFault(steps=(0,), reason="was slow", source="", dated=date(2026, 1, 2), mask=False),
    )  # fmt: skip
    found = listing({0: "a", 10: files, 30: "c"}, entry=entry(known_faults=faults), stage="one")
    known = {f.step: f for f in found if f.kind == "known fault"}
    assert known[10].mask and known[10].reason == f"is the final model; the present listing {said}"
    assert not known[0].mask and known[0].source == "2026-01-02"
    elsewhere = listing({0: "a", 10: files, 30: "z"}, entry=entry(known_faults=faults), stage="two")
    assert [f.step for f in elsewhere] == [0]


def test_an_odd_size_is_remarked_where_most_have_one_size() -> None:
    held: dict[int, str | tuple[WeightFile, ...] | None] = {s: one_file(f"a{s}", 2_000_000_000 + s) for s in range(5)}
    found = listing(held | {0: one_file("a", 4_000_000_000)})
    assert [(f.step, f.kind, f.mask) for f in found] == [(0, "odd size", False)]
    assert found[0].reason == "has 4 GB of weights where 4 of 5 checkpoints have 2 GB: another dtype, or not complete"
    assert listing({0: one_file("a", 1), 1: one_file("b", 2)}) == []


def test_the_published_schedule_is_compared_with_the_listing() -> None:
    known = entry(expected=(0, StepRange(first=10, last=100, by=10)))
    found = listing({s: f"a{s}" for s in (0, 5, 10, 50, 80, 90, 100)}, entry=known)
    assert [(f.step, f.label, f.kind, f.reason, f.mask) for f in found] == [
        (5, "step5", "unexpected step", "step 5 is listed, but not in the published schedule", False),
        (20, "", "missing step", "steps 20 to 40 are in the published schedule, but not listed", False),
        (60, "", "missing step", "steps 60 and 70 are in the published schedule, but not listed", False),
    ]


@given(st.lists(st.sampled_from("abcd"), min_size=2, max_size=12), st.randoms(use_true_random=False))
def test_the_order_in_which_files_are_listed_does_not_matter(digests: list[str], random: object) -> None:
    held: dict[int, str | tuple[WeightFile, ...] | None] = {
        step: shards(digest, digest + str(step % 2)) for step, digest in enumerate(digests)
    }
    turned: dict[int, str | tuple[WeightFile, ...] | None] = {
        step: files[::-1] for step, files in held.items() if isinstance(files, tuple)
    }
    assert listing(held, main=shards("a", "a1")) == listing(turned, main=shards("a1", "a"))


def test_an_empty_series_has_no_findings() -> None:
    assert audit_listing([], {}) == [] and audit_listing([Checkpoint(0, "a")], {}) == []


@given(st.sets(st.integers(0, 30), min_size=1), st.integers(1, 6))
def test_steps_are_named_so_that_their_number_is_right(steps: set[int], most: int) -> None:
    text = name_steps(steps, range(31), most=most)
    count = sum(int(b) - int(a) + 1 for a, b in re.findall(r"(\d+) to (\d+)", text))
    rest = re.sub(r"\d+ to \d+", "", text)
    count += sum(int(n) for n in re.findall(r"(\d+) more", rest)) + len(
        re.findall(r"\d+(?! more)\b", re.sub(r"\d+ more", "", rest))
    )
    assert count == len(steps)


# --- sketches


def some_weights(seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {
        "b.weight": torch.randn(300, 40),
        "a.weight": torch.randn(7),
        "c.bias": torch.randn(50, 2, 3),
        "attention.bias": torch.ones(8, 8, dtype=torch.bool),
    }


def test_a_sketch_takes_the_same_coordinates_whatever_the_order_the_dtype_and_the_values() -> None:
    tensors = some_weights()
    made = sketch(tensors, 500)
    assert made.values.shape == (500,) and made.values.dtype == np.float32
    turned = dict(reversed(tensors.items()))
    np.testing.assert_array_equal(sketch(turned, 500).values, made.values)
    halves = {name: t.to(torch.bfloat16) if t.is_floating_point() else t for name, t in tensors.items()}
    np.testing.assert_allclose(sketch(halves, 500).values, made.values, rtol=2**-8)
    places = {name: torch.arange(t.numel()).reshape(t.shape).double() for name, t in tensors.items()}
    others = {name: places[name] * 2 for name in places}
    np.testing.assert_array_equal(sketch(others, 500).values, 2 * sketch(places, 500).values)
    assert len(set(sketch({"b": places["b.weight"]}, 500).values.tolist())) == 500  # no coordinate twice


def test_a_sketch_gives_the_angles_between_the_weights_themselves() -> None:
    one = some_weights()
    other = {name: t + 0.3 * some_weights(1)[name] if t.is_floating_point() else t for name, t in one.items()}
    whole = [torch.cat([t.flatten() for t in w.values() if t.is_floating_point()]).numpy() for w in (one, other)]
    sampled = np.stack([sketch(w, 4000).values for w in (one, other)])
    assert angles(sampled)[0, 1] == pytest.approx(angles(np.stack(whole))[0, 1], rel=0.03)
    assert sketch(one).norm == pytest.approx(float(np.linalg.norm(whole[0])), rel=1e-6)


def test_buffers_and_integers_are_left_out_and_zeros_fill_up() -> None:
    tensors = {
        "w": torch.full((3,), 2.0),
        "n": torch.arange(5),
        "h.0.attn.bias": torch.ones(4),
        "my.buffer": torch.ones(2),
    }
    made = sketch(tensors, 8)
    assert sorted(made.values.tolist()) == [0, 0, 0, 1, 1, 2, 2, 2] and made.norm == pytest.approx(14**0.5)
    assert sorted(sketch(tensors, 8, ignore=re.compile("my")).values.tolist()) == [0, 1, 1, 1, 1, 2, 2, 2]
    assert sketch(tensors, 9, ignore=None).values.tolist().count(1) == 6
    assert (sketch({}, 3).values.tolist(), sketch({}, 3).norm, sketch({}, 3).nonfinite) == ([0, 0, 0], 0, 0)


def test_what_is_not_finite_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sketch_module, "_CHUNK", 64)
    broken = some_weights()
    broken["b.weight"][3, :5] = float("nan")
    broken["c.bias"][0, 0, 0] = float("-inf")
    made = sketch(broken, 100)
    assert made.nonfinite == 6 and np.isnan(made.norm)
    assert sketch(some_weights(), 100).nonfinite == 0
    for value, dtype in ((6e4, torch.float16), (1e30, torch.float32), (1e30, torch.float64)):
        large = sketch({"w": torch.full((100,), value, dtype=dtype)}, 10)
        assert large.norm == pytest.approx(10 * value, rel=1e-3) and large.nonfinite == 0


@given(st.lists(st.integers(0, 10**6), max_size=30), st.integers(1, 10**4))
def test_coordinates_are_shared_out_in_proportion(sizes: list[int], total: int) -> None:
    counts = sketch_module._shares(sizes, total)
    assert sum(counts) == min(total, sum(sizes))
    assert all(0 <= count <= size for count, size in zip(counts, sizes, strict=True))
    exact = [size * total / max(1, sum(sizes)) for size in sizes]
    assert sum(sizes) <= total or all(abs(c - e) < 1 for c, e in zip(counts, exact, strict=True))


@given(st.integers(1, 10**9), st.integers(0, 300))
def test_coordinates_are_distinct_and_inside(size: int, count: int) -> None:
    count = min(count, size)
    where = sketch_module._coordinates("w", (size,), count)
    assert len(set(where.tolist())) == count and all(0 <= w < size for w in where)


def test_a_sketch_needs_a_coordinate() -> None:
    with pytest.raises(ValueError, match="at least one coordinate, not 0"):
        sketch({}, 0)


# --- the path of the weights


def linear(u: float) -> float:
    return 1.0 - 0.9 * u


def cosine(u: float) -> float:
    return min(1.0, u / 0.01) * 0.5 * (1 + float(np.cos(np.pi * u)))


def restarts(u: float) -> float:
    return 0.5 * (1 + float(np.cos(np.pi * ((4 * u) % 1))))


def constant(u: float) -> float:
    return 1.0


LOG = (0, *sorted({round(float(s)) for s in np.geomspace(1, 1000, 40)}))
LINEAR = tuple(range(0, 1001, 25))
SCHEDULES = {"log": LOG, "linear": LINEAR, "pythia": PYTHIA}
KINDS = ("walk", "drift", "decay", "basin", "adam", "noise")


def train(
    steps: Sequence[int], rate: Callable[[float], float], kind: str, *, seed: int = 0, size: int = 4096
) -> Floats:
    """(checkpoint, weight): what training does to weights, in six ways; learning rate as a function of time in [0, 1].

    A random walk; drift with some noise; a walk with weight decay; descent in a quadratic bowl of very different
    curvatures with noise; signed, averaged gradients towards a target as Adam takes them; noise around one place.
    """
    rng = np.random.default_rng(seed)
    start = rng.normal(0, 0.02, size)
    way, curvature = rng.normal(0, 0.06, size), 10 * rng.lognormal(0, 2, size)
    goal, weights, average, result = start + 0.5 * way, start, np.zeros(size), [start]
    for a, b in pairwise(steps):
        parts = int(np.clip((b - a) / max(steps) * 1000, 1, 5))
        for part in range(parts):
            time = (b - a) / max(steps) / parts
            lr = rate((a + (b - a) * (part + 0.5) / parts) / max(steps))
            noise = rng.normal(0, 1, size)
            if kind == "walk":
                weights = weights + 0.06 * lr * np.sqrt(time) * noise
            elif kind == "drift":
                weights = weights + lr * time * way + 0.01 * lr * np.sqrt(time) * noise
            elif kind == "decay":
                weights = weights * (1 - 2 * lr * time) + 0.06 * lr * np.sqrt(time) * noise
            elif kind == "basin":
                pull = np.minimum(curvature * lr * time, 1)
                weights = weights - pull * (weights - goal) + 0.03 * lr * np.sqrt(time) * noise
            elif kind == "adam":
                average = 0.9 * average + 0.1 * np.sign(0.3 * np.tanh(100 * (goal - weights)) + noise)
                weights = weights * (1 - 0.1 * lr * time) + lr * time * average * np.sqrt(30) * 0.2
            else:
                weights = weights - min(200 * lr * time, 1) * (weights - goal) + 0.2 * lr * np.sqrt(time) * noise
        result.append(weights)
    return np.stack(result).astype(np.float32)


def rounded(weights: Floats, dtype: torch.dtype = torch.bfloat16) -> Floats:
    """The same weights as another dtype stores them."""
    return torch.from_numpy(weights).to(dtype).float().numpy()


def judged(steps: Sequence[int], weights: Floats, **more: object) -> list[AuditFinding]:
    given_: dict[str, object] = {
        "norms": np.linalg.norm(weights, axis=1),
        "nonfinite": [0] * len(steps),
        "digests": [""] * len(steps),
    }
    return audit_weights(steps, weights, **(given_ | more))  # type: ignore[arg-type]


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
    (found,) = judged(LINEAR, served, labels=[f"step{s}" for s in LINEAR])
    assert (found.step, found.label, found.kind) == (250, "step250", "off the path")
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


def test_a_long_series_is_looked_at_in_several_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_module, "PLACES", 60)
    weights, foreign = train(PYTHIA, linear, "walk"), train(PYTHIA, linear, "walk", seed=1)
    assert judged(PYTHIA, weights) == []
    weights[20:120:10] = rounded(weights[-1])
    weights[75] = foreign[75]
    assert masked(judged(PYTHIA, weights)) == {*PYTHIA[20:120:10], PYTHIA[75]}
    weights[-1] = foreign[-1]
    assert 143000 not in masked(judged(PYTHIA, weights))


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
    with pytest.raises(ValueError, match="3 steps, 2 sketches and 3 labels"):
        audit_weights([0, 1, 2], rows, [1, 1], [0, 0], ["", ""])
    with pytest.raises(ValueError, match="steps must increase"):
        neighbours([1, 1], rows)
    with pytest.raises(ValueError, match="one value for every step"):
        audit_weights([0, 1], rows, [1], [0, 0], ["", ""])


# --- the package


def test_the_audit_is_imported_without_torch() -> None:
    code = "import sys, checkpoints.audit; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_is_exported_exists() -> None:
    assert all(hasattr(audit, name) for name in audit.__all__)
    assert Sketch(np.zeros(1, dtype=np.float32), 0.0, 0).nonfinite == 0
