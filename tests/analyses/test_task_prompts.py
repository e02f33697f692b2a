"""Prompts of the four tasks: for the organism they keep to what was held out, for English they fit a real tokenizer."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyses.agreement.prompts import agreement_probe, simple_probe
from analyses.gender.prompts import gender_probe
from analyses.greater_than.prompts import greater_than_probe
from analyses.ioi.prompts import ioi_probe
from checkpoints.errors import UserError
from checkpoints.organism import OrganismConfig, build_tokenizer, truth
from checkpoints.organism.tokenizer import token_ids
from checkpoints.organism.worlds import agreement, all_worlds, gender, names, task_names, years
from checkpoints.tokenizing import word_tokenizer
from dynamics.probes import Probe, TokenizedProbe, tokenize
from dynamics.probes.drawing import Prompt, draw_probe, fill
from dynamics.probes.words import FIRST_NAMES, one_token_words
from dynamics.runs.config import load_runs

Make = Callable[[Any, int, int], Probe]
PROBES: dict[str, Make] = {
    "ioi": ioi_probe,
    "greater_than": greater_than_probe,
    "agreement": agreement_probe,
    "agreement_simple": simple_probe,
    "gender": gender_probe,
}
WORLDS = {"ioi": "names", "greater_than": "years", "agreement": "agreement", "agreement_simple": "agreement", "gender": "gender"}  # fmt: skip
COUNT = {name: 72 if name == "agreement_simple" else 240 for name in PROBES}
"""Of the organism's simple sentences there are no more."""


@pytest.fixture(scope="module")
def organism() -> Any:
    return build_tokenizer(task_names())


@pytest.fixture(scope="module")
def pythia(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The real tokenizer of the Pythia models."""
    from transformers import PreTrainedTokenizerFast

    file = tmp_path_factory.mktemp("pythia") / "tokenizer.json"
    file.write_bytes(gzip.decompress((shared_data / "pythia_tokenizer.json.gz").read_bytes()))
    return PreTrainedTokenizerFast(tokenizer_file=str(file))


@pytest.fixture(scope="module")
def english() -> Any:
    """A byte-level tokenizer, as GPT-2's, trained on nothing but the words that prompts may need."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    core.decoder = decoders.ByteLevel()
    nouns = "key cabinet car book boy girl dog cat house tree table chair door window letter picture".split()  # noqa: SIM905
    words = [*FIRST_NAMES["female"], *FIRST_NAMES["male"], *nouns, *(f"{n}s" for n in nouns), *"she he is are was".split()]  # noqa: SIM905  # fmt: skip
    trainer = trainers.BpeTrainer(vocab_size=4000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    core.train_from_iterator([f"a {word} {word}" for word in words for _ in range(5)], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core)


def tokens_of(tokenizer: Any, name: str, *, count: int | None = None, seed: int = 0) -> TokenizedProbe:
    """A probe, checked as the program checks it: single answers, twins of equal length, places that exist."""
    return tokenize(PROBES[name](tokenizer, count or COUNT[name], seed), tokenizer)


def check(found: TokenizedProbe, name: str) -> None:
    """What holds for the probes of every task, whatever the tokenizer."""
    probe = found.probe
    assert probe.answer is not None and probe.foil is not None and probe.corrupted is not None
    assert probe.name == name and probe.description
    assert len(set(probe.text)) == len(probe)
    assert found.answer_ids is not None and found.foil_ids is not None and found.corrupted_ids is not None
    assert (found.answer_ids != found.foil_ids).all()
    for text, twin, row, other in zip(probe.text, probe.corrupted, found.ids, found.corrupted_ids, strict=True):
        assert text != twin
        differ = sum(row != other)
        assert 1 <= differ <= (3 if name == "ioi" else 1)
    for labels in probe.labels.values():
        assert len(set(map(type, labels))) == 1


@pytest.mark.parametrize("name", PROBES)
def test_the_organisms_prompts_are_distinct_and_fit_its_tokenizer(organism: Any, name: str) -> None:
    found = tokens_of(organism, name)
    check(found, name)
    assert len(found.ids) == COUNT[name]
    known = set(all_worlds()[WORLDS[name]].words) | {"<|endoftext|>"}
    assert {token for row in found.ids for token in organism.convert_ids_to_tokens(row)} <= known


@pytest.mark.parametrize("name", PROBES)
def test_english_prompts_are_distinct_and_fit_the_real_pythia_tokenizer(pythia: Any, name: str) -> None:
    found = tokens_of(pythia, name, count=400)
    check(found, name)
    assert len(found.ids) == 400


@pytest.mark.parametrize("name", [name for name in PROBES if name != "greater_than"])
def test_english_prompts_use_the_words_that_a_tokenizer_has(english: Any, name: str) -> None:
    found = tokens_of(english, name, count=100)
    check(found, name)
    verbs = set(found.probe.labels.get("verb", ("is",)))
    assert verbs == {"is"}  # "were", "has" and "have" are not single tokens there


@pytest.mark.parametrize("name", PROBES)
def test_prompts_follow_from_the_seed_alone(organism: Any, name: str) -> None:
    make = partial(PROBES[name], organism, 40)
    assert make(3) == make(3)
    assert make(3).text != make(4).text


@pytest.mark.parametrize(
    ("run", "shown"),
    [
        ("organism-tasks", {"names", "agreement", "gender", "years"}),
        ("organism-behaviours", {"praise", "hints", "entities"}),
    ],
)
def test_a_run_and_its_control_differ_only_in_what_they_are_shown(run: str, shown: set[str]) -> None:
    runs = load_runs(Path(__file__).parents[2] / "runs.yaml")
    tasks, control = (runs[name].series for name in (run, f"{run}-control"))
    assert isinstance(tasks, OrganismConfig) and isinstance(control, OrganismConfig)
    assert token_ids(tasks.curriculum) == token_ids(control.curriculum)
    known = set(task_names())
    assert known & set(truth(control)["absent"]) == shown == known & set(truth(tasks)["worlds"])
    assert not known & set(truth(control)["worlds"])
    assert tasks.model_copy(update={"curriculum": control.curriculum}) == control
    assert runs[run].analyses == runs[f"{run}-control"].analyses


def test_of_two_names_the_answer_is_the_one_that_comes_once(organism: Any, pythia: Any) -> None:
    for tokenizer, speaks in ((organism, True), (pythia, False)):
        found = tokens_of(tokenizer, "ioi")
        probe = found.probe
        assert probe.answer and probe.foil and probe.corrupted
        io, s1, s2 = (found.positions[place] for place in ("io", "s1", "s2"))
        for i, row in enumerate(found.ids):
            receiver, giver = probe.answer[i], probe.foil[i]
            assert probe.labels["answer_name"][i] == receiver.strip()
            assert list(row).count(row[s1[i]]) == 2 and list(row).count(row[io[i]]) == 1
            assert row[s1[i]] == row[s2[i]] and s1[i] != s2[i] > max(s1[i], io[i])
            assert tokenizer.decode([row[io[i]]]).strip() == receiver.strip()
            assert tokenizer.decode([row[s2[i]]]).strip() == giver.strip()
            assert (io[i] < s1[i]) == (probe.labels["order"][i] == "ABBA")
            assert found.corrupted_ids is not None
            twin = [found.corrupted_ids[i][where] for where in (io[i], s1[i], s2[i])]
            assert len({*twin, row[io[i]], row[s1[i]]}) == 5  # three others, all different
            if speaks:
                assert names.is_held_out(receiver.strip(), giver.strip())
        counts = Counter(zip(probe.labels["template"], probe.labels["order"], strict=True))
        assert max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.parametrize("name", ["agreement", "agreement_simple"])
def test_the_verb_agrees_with_the_subject_alone(organism: Any, pythia: Any, name: str) -> None:
    plural_verbs = {"are", "were", "seem", "have"}
    for tokenizer in (organism, pythia):
        found = tokens_of(tokenizer, name)
        probe = found.probe
        assert probe.answer and probe.foil and probe.corrupted and found.corrupted_ids is not None
        for i, row in enumerate(found.ids):
            plural = probe.labels["number"][i] == "plural"
            assert (probe.answer[i].strip() in plural_verbs) == plural
            assert (probe.foil[i].strip() in plural_verbs) != plural
            where = found.positions["subject"][i]
            twin = found.corrupted_ids[i]
            assert [j for j in range(len(row)) if row[j] != twin[j]] == [where]
            if name == "agreement":
                assert found.positions["attractor"][i] > where
        wanted = {"none"} if name == "agreement_simple" else {"same", "other"}
        counts = Counter(zip(probe.labels["number"], probe.labels["attractor"], strict=True))
        assert {attractor for _, attractor in counts} == wanted
        assert len(set(counts.values())) == 1


def test_the_label_of_an_attractor_is_its_number_against_the_subjects(organism: Any) -> None:
    probe = agreement_probe(organism, 240, 0)
    of = {word: (noun, number) for noun, pair in enumerate(agreement.NOUNS) for number, word in enumerate(pair)}
    for text, label, number in zip(probe.text, probe.labels["attractor"], probe.labels["number"], strict=True):
        (subject, mine), (other, near) = (of[word] for word in text.split() if word in of)
        assert (label == "same") == (mine == near)
        assert number == agreement.NUMBERS[mine]
        assert not agreement.seen_together(subject, other)
        assert not agreement.seen(subject, text.split()[0])


def test_pronouns_are_asked_of_names_in_templates_that_hold_them_out(organism: Any) -> None:
    probe = gender_probe(organism, 240, 0)
    assert probe.answer and probe.corrupted
    for i, text in enumerate(probe.text):
        name, twin = text.split()[0], probe.corrupted[i].split()[0]
        template, of = int(probe.labels["template"][i]), str(probe.labels["gender"][i])
        assert name in gender.NAMES[of] and twin not in gender.NAMES[of]
        assert probe.answer[i] == f" {gender.PRONOUNS[of]}"
        assert gender.is_held_out(name, template)
        assert text.split().count(name) == 1 and probe.corrupted[i].split().count(twin) == 1
    counts = Counter(zip(probe.labels["gender"], probe.labels["template"], strict=True))
    assert len(counts) == 8 and len(set(counts.values())) == 1


def test_english_pronouns_belong_to_the_names(pythia: Any) -> None:
    found = tokens_of(pythia, "gender", count=200)
    for i, row in enumerate(found.ids):
        name = pythia.decode([row[found.positions["name"][i]]]).strip()
        of = found.probe.labels["gender"][i]
        assert name in FIRST_NAMES[of] and (found.probe.answer or ())[i] == {"female": " she", "male": " he"}[of]


def test_the_organisms_answer_is_a_later_decade_and_the_foil_as_much_earlier(organism: Any) -> None:
    found = tokens_of(organism, "greater_than")
    probe = found.probe
    assert probe.answer and probe.foil and probe.corrupted
    twins = set()
    for i, text in enumerate(probe.text):
        century, start, decade = (int(probe.labels[k][i]) for k in ("century", "start", "decade"))
        assert f" {century}{start:02d} " in text and text.endswith(f" {century}") and decade == start // 10
        assert years.is_held_out(century, start)
        answer, foil = int(probe.answer[i]), int(probe.foil[i])
        assert answer - decade == decade - foil == probe.labels["distance"][i] > 0
        twin = next(
            d
            for d in range(10)
            if probe.corrupted[i] == text.replace(f"{century}{start:02d}", f"{century}{d}{start % 10}")
        )
        assert twin < foil
        twins.add(twin)
        assert organism.decode([found.ids[i][found.positions["year"][i]]]).strip() == str(decade)
    assert len(twins) >= 4


def test_english_years_are_split_into_century_and_year_with_the_answer_as_much_later_as_the_foil_is_earlier(
    pythia: Any,
) -> None:
    found = tokens_of(pythia, "greater_than", count=300)
    probe = found.probe
    assert probe.answer and probe.foil and found.corrupted_ids is not None
    probe_ids = found.corrupted_ids
    for i, row in enumerate(found.ids):
        start, distance = int(probe.labels["start"][i]), int(probe.labels["distance"][i])
        assert pythia.decode([row[found.positions["year"][i]]]) == f"{start:02d}"
        assert pythia.decode([row[-1]]) == f" {probe.labels['century'][i]}"
        assert (int(probe.answer[i]), int(probe.foil[i])) == (start + distance, start - distance)
        assert probe.labels["decade"][i] == start // 10
        twin = int(pythia.decode([probe_ids[i][found.positions["year"][i]]]))
        assert twin < start - distance
    assert len(set(probe.labels["decade"])) == 10 and len(set(probe.labels["century"])) >= 5


@pytest.mark.parametrize("name", PROBES)
def test_an_organism_that_does_not_know_the_words_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"does not know the words of world '{WORLDS[name]}'") as refused:
        PROBES[name](build_tokenizer(), 8, 0)
    assert f"add `{WORLDS[name]}` to the run's curriculum" in str(refused.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ioi", "0 of 124 first names are one token"),
        ("greater_than", "years are written neither"),
        ("agreement", "0 of 88 plural nouns are one token"),
        ("agreement_simple", "0 of 88 plural nouns are one token"),
        ("gender", "she and he are not one token each"),
    ],
)
def test_a_tokenizer_without_the_words_is_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        PROBES[name](word_tokenizer([*map(str, range(113)), "="]), 8, 0)
    assert refused.value.remedy


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("agreement", ["keys key cats cat dogs dog books book trees tree doors door boys boy cars car girls girl houses"],
         "9 of 10 nouns whose plural is one token"),
        ("agreement", ["keys key cats cat dogs dog books book trees tree doors door boys boy cars car girls girl houses house is was"],
         "no verb is one token in both numbers"),
        ("gender", ["she he Mary Anna"], "2 of 62 female first names"),
        ("greater_than", ["17", *map(str, range(1700, 1800))], "years are written neither"),
    ],
)  # fmt: skip
def test_a_tokenizer_with_too_few_of_the_words_is_refused(name: str, words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        PROBES[name](word_tokenizer([word for line in words for word in line.split()]), 8, 0)


def test_more_prompts_than_there_are_is_an_error_that_says_how_many_there_are(organism: Any) -> None:
    with pytest.raises(UserError, match="73 different prompts were asked for, and no more than 72 were found"):
        simple_probe(organism, 73, 0)


def test_words_that_are_one_token_are_kept_in_order() -> None:
    tokenizer = word_tokenizer(["b", "a", "c"])
    assert one_token_words(tokenizer, ["c", "d", "a"], least=2, what="letters") == ["c", "a"]
    with pytest.raises(UserError, match="2 of 3 letters are one token in this tokenizer") as refused:
        one_token_words(tokenizer, ["c", "d", "a"], least=3, what="letters")
    assert refused.value.expected == "at least 3"


def test_no_name_is_in_both_lists_or_twice() -> None:
    every = [name for group in FIRST_NAMES.values() for name in group]
    assert len(set(every)) == len(every)


@given(
    st.dictionaries(st.sampled_from("abc"), st.text("xyzé ", max_size=5), min_size=3, max_size=3),
    st.permutations(list("aabbc")),
)
def test_every_slot_is_found_where_it_was_filled_in(slots: dict[str, str], order: list[str]) -> None:
    text, spans = fill(", ".join(f"{{{slot}}}" for slot in order), slots)
    assert text == ", ".join(slots[slot] for slot in order)
    assert {slot: len(found) for slot, found in spans.items()} == Counter(order)
    for slot, found in spans.items():
        assert all(text[start:end] == slots[slot] for start, end in found)
    starts = sorted(start for found in spans.values() for start, _ in found)
    assert [s for slot in dict.fromkeys(order) for s in spans[slot]] != [] and len(starts) == len(order)


def test_a_text_that_was_drawn_before_is_drawn_again_for_the_same_place() -> None:
    texts = iter(["a", "a", "b", "b", "a", "c"])
    asked = []

    def draw(place: int) -> Prompt:
        asked.append(place)
        return Prompt(next(texts), "x", "y", "z", {"place": place}, {"first": (0, 1)})

    probe = draw_probe("p", draw, 3, "d")
    assert probe.text == ("a", "b", "c") and probe.labels["place"] == (0, 1, 2)
    assert asked == [0, 1, 1, 2, 2, 2]
    assert probe.positions == {"first": ((0, 1),) * 3} and probe.foil == ("y",) * 3


def test_a_probe_of_no_prompts_is_refused(organism: Any) -> None:
    with pytest.raises(UserError, match="has no prompts"):
        ioi_probe(organism, 0, 0)
