"""The catalogue reads the names that publishers gave, refuses all others, and agrees with itself."""

from __future__ import annotations

import re
from datetime import date
from itertools import chain, pairwise

import pytest
import transformers
from pydantic import ValidationError

from checkpoints import UserError
from checkpoints.catalogue import Entry, Label, StepRange, catalogue, find_entry
from checkpoints.catalogue.families import Family

ENTRIES = catalogue()
B, T = 10**9, 10**12

# As publishers write them; at least one of each family.
NAMES: list[tuple[str, str, Label]] = [
    ("pythia-410m", "step0", Label(0, 0, "")),
    ("pythia-410m", "step512", Label(512, 1_073_741_824, "")),
    ("pythia-410m-deduped", "step143000", Label(143_000, 299_892_736_000, "")),
    ("pythia-1.4b-v0", "step1000", Label(1000, 2_097_152_000, "")),
    ("pythia-410m-seed3", "step143000", Label(143_000, 299_892_736_000, "")),
    ("pythia-160m-data-seed1", "step1000", Label(1000, 2_097_152_000, "")),
    ("olmo-1b", "step738020-tokens3095B", Label(738_020, 3095 * B, "")),
    ("olmo-7b-twin-2t", "step33600-tokens141B", Label(33_600, 141 * B, "")),
    ("olmo-2-1b", "stage1-step300-tokens1B", Label(300, B, "stage1")),
    ("olmo-2-1b-early", "stage1-step1000-tokens3B", Label(1000, 3 * B, "stage1")),
    ("olmo-2-7b", "stage1-step928646-tokens3896B", Label(928_646, 3896 * B, "stage1")),
    ("olmo-3-7b", "stage1-step1413814", Label(1_413_814, None, "stage1")),
    ("olmo-3-32b", "stage1-step590120", Label(590_120, None, "stage1")),
    ("olmoe-1b-7b", "step1200000-tokens5033B", Label(1_200_000, 5033 * B, "")),
    ("gpt2-small-alias", "checkpoint-400000", Label(400_000, 209_715_200_000, "")),
    ("gpt2-medium-arwen", "checkpoint-0", Label(0, 0, "")),
    ("amber", "ckpt_007", Label(7, None, "")),
    ("smollm2-135m", "step-1920000", Label(1_920_000, 2_013_265_920_000, "")),
    ("smollm3-3b", "stage2-step-3480000", Label(3_480_000, 8_210_350_080_000, "stage2")),
    ("bloom-560m", "global_step1000", Label(1000, None, "")),
    ("multiberts-seed2", "google/multiberts-seed_2-step_140k", Label(140_000, None, "")),
    ("tinyllama", "TinyLlama/TinyLlama-1.1B-step-50K-105b", Label(50_000, 105 * B, "")),
    ("tinyllama", "TinyLlama/TinyLlama-1.1B-intermediate-step-715k-1.5T", Label(715_000, 1500 * B, "")),
    ("tinyllama", "TinyLlama/TinyLlama-1.1B-intermediate-step-955k-token-2T", Label(955_000, 2 * T, "")),
    ("apertus-8b", "step1700000-tokens7232B", Label(1_700_000, 7232 * B, "")),
    ("apertus-8b", "step2627139-tokens15T", Label(2_627_139, 15 * T, "")),
]
EXAMPLE = {ENTRIES[entry].family: (entry, name) for entry, name, _ in NAMES}


# --- what names say


@pytest.mark.parametrize(("entry", "name", "label"), NAMES)
def test_published_names_are_read(entry: str, name: str, label: Label) -> None:
    assert find_entry(entry).parse(name) == label


def test_every_family_has_a_name_here() -> None:
    assert EXAMPLE.keys() == {e.family for e in ENTRIES.values()}


@pytest.mark.parametrize("family", EXAMPLE)
def test_what_is_not_a_name_of_the_series_says_nothing(family: str) -> None:
    entry, name = find_entry(EXAMPLE[family][0]), EXAMPLE[family][1]
    assert entry.parse(name) is not None
    digit = re.search(r"\d(?=\D*$)", name)
    assert digit
    foreign = ["main", "", "step", "refs/pr/1", "refs/convert/parquet", "0" * 40, "v1.0", "step1000-instruct"]
    paths = ["../../x", "step1/../../etc", "..", f"../{name}", f"{name}/../../etc", f"/{name}", f"{name}/", f"x/{name}"]
    near = [f"{name}\n", f" {name}", f"{name} ", name.replace(digit[0], "٣"), name.replace(digit[0], f"-{digit[0]}")]
    for wrong in [*foreign, *paths, *near, name.swapcase(), name * 2, f"{name}\x00"]:
        assert entry.parse(wrong) is None, wrong


def test_a_seed_does_not_read_the_repositories_of_another() -> None:
    assert find_entry("multiberts-seed1").parse("google/multiberts-seed_2-step_140k") is None


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ("olmo-2-1b", "stage2-ingredient3-step23852-tokens51B"),
        ("olmo-2-7b", "step150-tokens1B"),  # published without a stage, and not known to be of this run
        ("olmo-3-7b", "stage2-step47684"),
        ("olmo-3-7b", "stage3-step11921"),
        ("olmo-3-32b", "stage2-ingredient1-step7000"),
        ("smollm3-3b", "lc-32k-to-64k-step-20000"),
        ("apertus-8b", "longctx-step2000"),
    ],
)
def test_later_stages_that_count_steps_anew_are_left_out(entry: str, name: str) -> None:
    assert find_entry(entry).parse(name) is None


def test_a_stage_can_be_chosen() -> None:
    second = find_entry("olmo-2-1b").model_copy(update={"stage": "stage2-ingredient3"})
    label = Label(23_852, 51 * B, "stage2-ingredient3")
    assert second.parse("stage2-ingredient3-step23852-tokens51B") == label
    assert second.parse("stage2-ingredient1-step23852-tokens51B") is None
    assert find_entry("olmo-3-7b").model_copy(update={"stage": "stage2"}).parse("stage2-step47684-mix-a") is None


@pytest.mark.parametrize(("entry", "name", "label"), NAMES)
def test_tokens_in_a_name_agree_with_tokens_per_step(entry: str, name: str, label: Label) -> None:
    """An independent check of both; labels are rounded, to a billion or to two digits."""
    per_step = find_entry(entry).tokens_per_step
    if label.tokens is not None and per_step is not None:
        assert label.tokens == pytest.approx(label.step * per_step, rel=0.01, abs=B)


def test_units_that_nobody_knows_leave_tokens_unknown() -> None:
    entry = Entry(name="x", family="X", repo="a/b", revisions=r"s(?P<step>\d+)-(?P<tokens>[\d.]+)(?P<unit>[a-z])")
    assert entry.parse("s1-2.5m") == Label(1, 2_500_000, "")
    assert entry.parse("s1-2.5q") == Label(1, None, "")


# --- schedules


@pytest.mark.parametrize(
    ("entry", "number", "last"),
    [
        ("pythia-14m", 154, 143_000),
        ("pythia-12b-deduped", 154, 143_000),
        ("pythia-12b-v0", 143, 143_000),
        ("pythia-31m-seed9", 154, 143_000),
        ("pythia-160m-weight-seed3", 154, 143_000),
        ("gpt2-small-alias", 609, 400_000),
        ("gpt2-medium-eowyn", 609, 400_000),
        ("olmo-3-7b", 1415, 1_413_814),  # rows of the publisher's list
        ("smollm3-3b", 86 + 19 + 13, 4_720_000),  # of the three stages, as the card counts them
        ("apertus-8b", 44, 2_627_139),
    ],
)
def test_schedules_have_as_many_checkpoints_as_publishers_say(entry: str, number: int, last: int) -> None:
    steps = find_entry(entry).expected_steps
    assert (len(steps), steps[-1]) == (number, last)


def test_multiberts_are_28_per_seed_without_step_0_and_the_entry_says_so() -> None:
    entry = find_entry("multiberts-seed0")
    assert len([s for s in entry.expected_steps if s > 0]) == 28
    assert any("28" in doubt and "29" in doubt for doubt in entry.unsure)


@pytest.mark.parametrize(
    ("entry", "total"),
    [("smollm2-135m", 2 * T), ("smollm2-360m", 4 * T), ("smollm2-1.7b", 11 * T), ("smollm3-3b", 11.2 * T)],
)
def test_the_last_checkpoint_has_seen_about_the_tokens_of_the_paper(entry: str, total: float) -> None:
    found = find_entry(entry)
    assert found.tokens_per_step is not None
    assert found.expected_steps[-1] * found.tokens_per_step == pytest.approx(total, rel=0.03)


@pytest.mark.parametrize("entry", [e for e in ENTRIES.values() if e.repositories], ids=lambda e: e.name)
def test_repositories_are_those_of_the_expected_steps(entry: Entry) -> None:
    labels = [entry.parse(name) for name in entry.repositories]
    assert [label and label.step for label in labels] == list(entry.expected_steps)
    assert entry.repo in entry.repositories


def test_a_range_of_steps_ends_with_its_last() -> None:
    assert list(StepRange(first=1000, last=3000, by=1000).steps) == [1000, 2000, 3000]


# --- known faults


def test_of_pythia_2_8b_76_branches_are_main_ten_share_another_file_and_68_are_their_own() -> None:
    entry = find_entry("pythia-2.8b")
    main = [f for f in entry.known_faults if "main" in f.reason and f.mask]
    assert [len(f.all_steps) for f in main] == [76]
    other = frozenset(chain.from_iterable(f.all_steps for f in entry.known_faults)) - main[0].all_steps
    assert len(other) == 10
    assert sum(len(f.all_steps) for f in entry.known_faults) == 86  # nobody is in both
    unique = set(entry.expected_steps) - main[0].all_steps - other
    assert len(unique) == 68 and min(unique) == 66_000


def test_the_last_step_is_not_masked_for_what_other_steps_have_of_it() -> None:
    entry = find_entry("pythia-2.8b")
    masked = frozenset(chain.from_iterable(f.all_steps for f in entry.known_faults if f.mask))
    assert len(masked) == 85 and 143_000 not in masked


@pytest.mark.parametrize(
    ("entry", "masked"),
    [
        ("pythia-12b", {50_000, 58_000}),
        ("pythia-12b-deduped", set()),  # uploaded anew
        ("pythia-410m-seed2", {111_000}),
        ("pythia-410m-seed6", {88_000}),
        ("pythia-410m-seed9", {40_000}),
        ("pythia-160m-weight-seed1", {0}),
        ("pythia-160m-weight-seed2", {0}),
        ("olmo-2-7b", {101_000, 175_000, 300_000}),
        ("olmo-7b-0424", set()),  # uploaded anew
    ],
)
def test_faults_are_masked_unless_they_were_mended(entry: str, masked: set[int]) -> None:
    faults = find_entry(entry).known_faults
    assert faults
    assert set(chain.from_iterable(f.all_steps for f in faults if f.mask)) == masked


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=lambda e: e.name)
def test_remarks_on_steps_are_on_steps_of_the_series(entry: Entry) -> None:
    remarked = [*chain.from_iterable(f.all_steps for f in entry.known_faults)]
    remarked += chain.from_iterable(e.steps for e in entry.equal_by_design)
    if entry.expected:
        assert set(remarked) <= set(entry.expected_steps)
    for fault in entry.known_faults:
        assert fault.source.startswith("https://") and date(2021, 1, 1) < fault.dated <= date.today()
        assert re.fullmatch(entry.stage, fault.stage) if entry.stage else not fault.stage
        assert fault.reason[0].islower() and not fault.reason.endswith(".")  # it is set into a sentence


def test_steps_0_and_1_of_pythia_are_equal_by_design_but_not_where_step_0_is_of_another_run() -> None:
    assert find_entry("pythia-70m").equal_by_design[0].steps == (0, 1)
    assert find_entry("pythia-70m-seed4").equal_by_design[0].steps == (0, 1)
    assert not find_entry("pythia-160m-weight-seed1").equal_by_design
    assert not find_entry("pythia-70m-v0").equal_by_design


# --- entries


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=lambda e: e.name)
def test_every_entry_says_where_its_facts_are_from_and_how_sure_they_are(entry: Entry) -> None:
    assert entry.sources and entry.evidence != "unverified"
    assert entry.evidence == "primary" or entry.unsure
    assert "nothing was checked" in entry.trust
    assert entry.counts == "optimizer steps" or any("not optimizer steps" in note for note in entry.notes)
    assert entry.main != "no weights" or any("main holds no weights" in text for text in entry.notes + entry.unsure)
    assert not entry.gated or any("login" in note for note in entry.notes)


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=lambda e: e.name)
def test_names_can_be_typed_and_nothing_was_left_unfilled(entry: Entry) -> None:
    assert re.fullmatch(r"[a-z0-9.]+(-[a-z0-9.]+)*", entry.name)
    for repo in (entry.repo, *entry.repositories, *([entry.tokenizer] if entry.tokenizer else [])):
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", repo, re.ASCII)
    assert not re.search(r"\{[a-z]+\}", entry.model_dump_json())


@pytest.mark.parametrize("name", sorted({e.architecture for e in ENTRIES.values()}))
def test_transformers_has_every_architecture(name: str) -> None:
    assert hasattr(transformers, name)


def test_no_two_entries_are_one_series() -> None:
    assert len({e.repo for e in ENTRIES.values()}) == len(ENTRIES)


def test_entries_are_ordered_by_family_then_size() -> None:
    families = [e.family.lower() for e in ENTRIES.values()]
    assert families == sorted(families)
    deduped = [e.size for e in ENTRIES.values() if e.family == "Pythia" and e.name.endswith("-deduped")]
    assert deduped == ["70m", "160m", "410m", "1b", "1.4b", "2.8b", "6.9b", "12b"]
    assert [e.size for e in ENTRIES.values() if e.family == "BLOOM"] == ["560m", "1b1", "1b7", "7b1"]


def test_who_changes_the_catalogue_changes_a_copy() -> None:
    catalogue().clear()
    assert catalogue() == ENTRIES
    assert all(before is after for before, after in zip(ENTRIES.values(), catalogue().values(), strict=True))


def test_all_sizes_and_seeds_are_there() -> None:
    sizes = {family: [e for e in ENTRIES.values() if e.family == family] for family in EXAMPLE}
    assert len(sizes["Pythia"]) == 10 + 8 + 8 + 8
    assert len(sizes["PolyPythias"]) == 5 * 9 + 3 + 3
    assert len(sizes["CRFM GPT-2"]) == 10 and len(sizes["MultiBERTs"]) == 5


# --- asking for one


def test_names_are_found_however_they_are_capitalised() -> None:
    assert find_entry("SmolLM2-135M") is ENTRIES["smollm2-135m"]


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError) as caught:
        find_entry("pythia-410m-dedup")
    assert "no series 'pythia-410m-dedup'" in str(caught.value)
    assert caught.value.remedy == "did you mean 'pythia-410m-deduped'?"
    assert caught.value.__suppress_context__


# --- data files


STEP = {"name": "x", "size": "1b", "repo": "a/b", "revisions": r"step(?P<step>\d+)"}


def entries(*members: dict[str, object], **rest: object) -> tuple[Entry, ...]:
    return Family.model_validate({"family": "X", "members": members, **rest}).entries()


def test_remarks_add_up_and_everything_else_is_overridden() -> None:
    (entry,) = entries(
        {**STEP, "notes": ["member"], "main": "later"},
        defaults={"notes": ["default"], "main": "no weights", "expected": [1]},
        particulars={"x": {"notes": ["particular"], "expected": [2]}},
    )
    assert entry.notes == ("default", "member", "particular")
    assert (entry.main, entry.expected_steps) == ("later", (2,))


def test_a_member_stands_for_every_combination_and_patterns_keep_their_braces() -> None:
    found = entries(
        {
            "each": {"size": ["2B", "1B"], "seed": [1, 2]},
            "name": "x-{size}-{seed}",
            "size": "{size}",
            "repo": "o/X-{size}",
            "revisions": r"s{seed}-(?P<step>\d{2,3})",
            "repositories": "o/s{seed}-{step}",
            "step_unit": 10,
            "expected": [{"first": 100, "last": 200, "by": 100}],
        }
    )
    assert [e.name for e in found] == ["x-1b-1", "x-1b-2", "x-2b-1", "x-2b-2"]
    assert all(a.size <= b.size for a, b in pairwise(found))
    assert found[3].repo == "o/X-2B" and found[3].repositories == ("o/s2-10", "o/s2-20")
    assert found[3].parse("s2-12") == Label(120, None, "") and found[3].parse("s1-12") is None


@pytest.mark.parametrize(
    ("member", "rest", "message"),
    [
        ({**STEP, "tokens_per_stp": 1}, {}, "Extra inputs are not permitted"),
        ({**STEP, "revisions": "step(?P<stpe>.*)"}, {}, "no group named step"),
        ({**STEP, "revisions": "(?P<step>.)(?P<token>.)"}, {}, "groups that mean nothing here: token"),
        ({**STEP, "revisions": "step("}, {}, "not a regular expression"),
        ({**STEP, "size": "large"}, {}, "'large' is not a number of parameters"),
        (STEP, {"particulars": {"y": {"notes": ["of nobody"]}}}, "X remarks on y, which it does not have"),
        (STEP, {"defualts": {}}, "Extra inputs are not permitted"),
    ],
)
def test_a_malformed_file_is_refused(member: dict[str, object], rest: dict[str, object], message: str) -> None:
    with pytest.raises((ValidationError, ValueError), match=message):
        entries(member, **rest)
