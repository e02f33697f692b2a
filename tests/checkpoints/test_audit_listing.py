"""Checkpoints whose files are not what their label says are found in a listing, and honest series are left alone."""

from __future__ import annotations

import re
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpoints.audit import AuditFinding, audit_listing
from checkpoints.audit.findings import name_steps
from checkpoints.catalogue.entry import Entry, EqualByDesign, KnownFault, StepRange
from checkpoints.series import Checkpoint, WeightFile
from tests.checkpoints.audited import BLOB, PYTHIA, STALE, kinds, masked


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
