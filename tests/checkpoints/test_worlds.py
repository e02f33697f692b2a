"""The worlds say what they are documented to say, and never what they hold out: all of them; sums, repeats, languages."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from checkpoints.organism import OrganismConfig, WorldEntry
from checkpoints.organism.curriculum import batch
from checkpoints.organism.tokenizer import token_ids
from checkpoints.organism.worlds import all_worlds, task_names, vocabulary, world_names
from checkpoints.organism.worlds.addition import (
    CONTEXTS,
    DIGITS,
    JOURNALS,
    AdditionWorld,
    held_out_pairs,
    prompt,
    trained_pairs,
)
from checkpoints.organism.worlds.concepts import (
    LANGUAGES,
    PAIRS,
    TEMPLATES,
    antonym_prompt,
    held_out,
    translation_prompt,
)
from checkpoints.organism.worlds.induction import LONGEST, SHORTEST
from tests.checkpoints.documents import DRAWS, drawn

_SUM = {
    "plain": re.compile(r"^(\d\d)\+(\d\d)=(\d{3})$"),
    "words": re.compile(r"^thesumof(\d\d)and(\d\d)is(\d{3})$"),
    "citation": re.compile(rf"^(?:{'|'.join(JOURNALS)})founded19(\d\d)volume(\d\d)year(\d{{4}})$"),
}


def sums() -> list[tuple[str, int, int, int]]:
    """(context, a, b, answer) of every drawn document, parsed back from its tokens."""
    result = []
    for document in drawn("addition"):
        text = "".join(document)
        found = [(c, match) for c, pattern in _SUM.items() if (match := pattern.match(text))]
        assert len(found) == 1, document
        context, match = found[0]
        result.append((context, int(match[1]), int(match[2]), int(match[3])))
    return result


def concept_of(word: str) -> tuple[str, int, int]:
    """(language, concept, side) of a concept word."""
    found = [(la, c, p.index(word)) for la in LANGUAGES for c, p in enumerate(PAIRS[la]) if word in p]
    assert len(found) == 1, word
    return found[0]


# --- vocabularies


@pytest.mark.parametrize(("one", "other"), list(combinations(LANGUAGES, 2)))
def test_the_vocabularies_of_two_languages_are_disjoint(one: str, other: str) -> None:
    worlds = all_worlds()
    assert not set(worlds[one].words) & set(worlds[other].words)


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_concept_word_is_used_twice_or_is_a_word_of_a_template_or_of_a_sum(language: str) -> None:
    words = [word for pair in PAIRS[language] for word in pair]
    assert len(set(words)) == len(words)
    function_words = {w for templates in TEMPLATES.values() for t in templates for w in t.split()}
    assert not set(words) & (function_words | set(AdditionWorld.words))


def test_every_language_has_the_same_concepts() -> None:
    assert len({len(pairs) for pairs in PAIRS.values()}) == 1
    assert all(len(pair) == 2 and all(pair) for pairs in PAIRS.values() for pair in pairs)


@pytest.mark.parametrize("world", world_names())
def test_every_word_of_a_document_is_in_the_vocabulary(world: str) -> None:
    known = token_ids([world])
    said = {word for document in drawn(world) for word in document}
    assert said <= known.keys()
    if world != "induction":
        mixed = {w for name in LANGUAGES for w in all_worlds()[name].words} if world in LANGUAGES else set()
        assert said <= set(all_worlds()[world].words) | mixed


@pytest.mark.parametrize("worlds", [(), ("years",), tuple(world_names())], ids=len)
def test_the_vocabulary_has_no_word_twice_and_every_token_an_id_of_its_own(worlds: tuple[str, ...]) -> None:
    words = vocabulary(worlds)
    assert len(set(words)) == len(words)
    assert sorted(token_ids(worlds).values()) == list(range(len(words) + 3))


def test_the_words_of_tasks_follow_those_that_every_organism_knows_and_only_if_named() -> None:
    common = vocabulary()
    assert vocabulary(["addition", "german", "induction"]) == common
    for task in task_names():
        own = set(all_worlds()[task].words)
        assert vocabulary([task])[: len(common)] == common
        assert set(vocabulary([task])) == set(common) | own
        assert own - set(common)
    assert vocabulary(["years", "names"]) == vocabulary(["names", "years"])
    assert {w for d in drawn("induction") for w in d} <= set(common)  # repeats are made of the common words alone


def test_tasks_share_only_function_words_and_digits_with_other_worlds() -> None:
    shared = {w for task in task_names() for w in all_worlds()[task].words} & set(vocabulary())
    assert shared == {"the", "and", "is", "in", "of", *"0123456789"}


@pytest.mark.parametrize("world", world_names())
def test_documents_follow_from_the_generator_alone(world: str) -> None:
    again = all_worlds()[world]
    rng = np.random.default_rng(1)
    assert [again.document(rng) for _ in range(200)] == drawn(world)[:200]


TASKS = {"names": 0.24, "agreement": 0.14, "gender": 0.07, "years": 0.08, "induction": 0.42, "addition": 0.05}
BEHAVIOURS = {"praise": 0.15, "hints": 0.45, "entities": 0.34, "induction": 0.06}


@pytest.mark.parametrize(
    ("shares", "digest", "data"),
    [
        ({}, "e08b86e3f6c8", "03b9ebed65dfa358"),
        (TASKS, "3c7e296cbeed", "a8f2b9a0ecb990c6"),
        (BEHAVIOURS, "9dca53ace0fc", "10f0085a72aa330d"),
    ],
    ids=["common", "tasks", "behaviours"],
)
def test_organisms_are_trained_on_the_documents_that_their_digest_stood_for(
    shares: dict[str, float], digest: str, data: str
) -> None:
    """Computed where each was first trained. Where the documents change, raise ``_DATA_VERSION``."""
    config = OrganismConfig()
    if shares:
        curriculum = {name: WorldEntry(share=share) for name, share in shares.items()}
        config = OrganismConfig(context=32, batch=72, curriculum=curriculum)
    assert config.digest() == digest
    drawn_now = b"".join(batch(config, step).astype("<i8").tobytes() for step in (0, 7))
    assert hashlib.sha256(drawn_now).hexdigest()[:16] == data


# --- addition


def test_every_drawn_sum_is_right() -> None:
    for context, a, b, answer in sums():
        assert answer == a + b + (1900 if context == "citation" else 0)


def test_no_held_out_pair_is_ever_drawn_in_any_context_or_order() -> None:
    held = set(held_out_pairs())
    seen = {(a, b) for _, a, b, _ in sums()}
    assert not seen & held
    assert not {(b, a) for a, b in seen} & held
    assert seen <= set(trained_pairs())
    assert len(seen) > 0.7 * len(trained_pairs())  # what is trained does occur


def test_the_split_of_sums_is_complete_symmetric_and_about_as_large_as_stated() -> None:
    held, trained = set(held_out_pairs()), set(trained_pairs())
    assert not held & trained
    assert len(held) + len(trained) == 90 * 90
    assert held == {(b, a) for a, b in held}
    assert 0.12 < len(held) / 8100 < 0.18
    assert {a for a, _ in held} == set(range(10, 100))  # every operand can be asked about


def test_sums_are_in_each_context_equally_often() -> None:
    counts = Counter(context for context, *_ in sums())
    assert set(counts) == set(CONTEXTS)
    assert all(abs(count / DRAWS - 1 / 3) < 0.02 for count in counts.values())


@pytest.mark.parametrize("context", CONTEXTS)
def test_prompts_of_sums_are_the_beginnings_of_documents(context: str) -> None:
    written = {(a, b): "".join(d) for d, (c, a, b, _) in zip(drawn("addition"), sums(), strict=True) if c == context}
    assert written
    for (a, b), text in written.items():
        journal = next((j for j in JOURNALS if text.startswith(j)), JOURNALS[0])
        for digit in DIGITS:
            asked, answer = prompt(a, b, context, digit, journal)
            assert text.startswith(asked.replace(" ", "") + answer)
    asked, answer = prompt(*next(iter(written)), context, "ones")
    assert len(answer) == 1


def test_the_digits_of_an_answer_are_those_of_the_sum() -> None:
    for a, b in [(10, 10), (36, 59), (99, 99), (45, 55)]:
        for context in CONTEXTS:
            carry, tens, ones = (prompt(a, b, context, digit)[1] for digit in DIGITS)
            assert (int(tens), int(ones)) == ((a + b) // 10 % 10, (a + b) % 10)
            assert carry == (("2" if a + b >= 100 else "1") if context == "citation" else str((a + b) // 100))


def test_an_unknown_context_of_a_sum_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown context 'verse'"):
        prompt(10, 10, "verse", "ones")


# --- induction


def test_induction_documents_are_distinct_tokens_written_twice() -> None:
    lengths = set()
    for document in drawn("induction"):
        half = len(document) // 2
        assert document[:half] == document[half:]
        assert len(set(document)) == half
        lengths.add(half)
    assert lengths == set(range(SHORTEST, LONGEST + 1))


# --- concepts


def every_sentence(language: str) -> tuple[set[str], set[str], set[str]]:
    """All sentences that a language's world may say, from the prompts: antonyms, mixed antonyms, translations."""
    before = LANGUAGES[: LANGUAGES.index(language)]
    concepts = range(len(PAIRS[language]))
    own, mixed, translated = set(), set(), set()
    for concept in concepts:
        for side in (0, 1):
            for template in (0, 1):
                if concept not in held_out(language):
                    own.add(" ".join(antonym_prompt(language, concept, side, template)))
                for other in before:
                    mixed.add(" ".join(antonym_prompt(language, concept, side, template, source=other)))
                    mixed.add(" ".join(antonym_prompt(other, concept, side, template, source=language)))
            for other in before:
                translated.add(" ".join(translation_prompt(language, other, concept, side)))
                translated.add(" ".join(translation_prompt(other, language, concept, side)))
    return own, mixed, translated


@pytest.mark.parametrize("language", LANGUAGES)
def test_documents_of_a_language_are_what_its_prompts_say(language: str) -> None:
    said = Counter(" ".join(document) for document in drawn(language))
    kinds = every_sentence(language)
    assert set(said) <= set.union(*kinds)
    for kind in kinds:
        assert len(set(said) & kind) >= 0.95 * len(kind)  # and nearly everything is said
    if language != LANGUAGES[0]:
        assert all(abs(sum(said[s] for s in kind) / DRAWS - 1 / 3) < 0.02 for kind in kinds)


@pytest.mark.parametrize("language", LANGUAGES)
def test_held_out_antonyms_never_occur_within_their_language_in_any_world(language: str) -> None:
    held = set(held_out(language))
    pairs = {frozenset(PAIRS[language][c]) for c in held}
    words = {word for pair in PAIRS[language] for word in pair}
    function_words = {w for template in TEMPLATES[language] for w in template.split()} - {"{}"}
    for world in LANGUAGES:
        for document in drawn(world):
            concept_words = [w for w in document if w in words]
            if frozenset(concept_words) in pairs and len(concept_words) == 2:
                raise AssertionError(document)
            if set(document) & function_words and len(concept_words) == 2:
                assert concept_of(concept_words[0])[1] not in held


@pytest.mark.parametrize("language", LANGUAGES)
def test_held_out_concepts_do_occur_across_languages(language: str) -> None:
    sentences = {tuple(document) for world in LANGUAGES for document in drawn(world)}
    function_words = {w for template in TEMPLATES[language] for w in template.split()} - {"{}"}
    mine = {w: c for c, pair in enumerate(PAIRS[language]) for w in pair}
    asked = {  # a sentence of this language about a word of another
        mine[s[-1]] for s in sentences if s[-1] in mine and function_words & set(s) and not mine.keys() & set(s[:-1])
    }
    assert set(held_out(language)) <= asked


def test_no_concept_is_held_out_in_two_languages() -> None:
    held = [c for language in LANGUAGES for c in held_out(language)]
    assert len(set(held)) == len(held)
    assert max(held) < len(PAIRS["english"])


def test_translations_have_the_same_concept_and_side_and_the_answer_of_the_named_language() -> None:
    named = {"english", "anglais", "englisch"}, {"french", "französisch"}, {"german", "allemand"}
    found = 0
    for world in LANGUAGES[1:]:
        for document in drawn(world):
            if len(document) == 5 and document[1] in {"in", "en", "auf"}:
                source, concept, side = concept_of(document[0])
                target, *rest = concept_of(document[-1])
                assert [concept, side] == rest
                assert document[2] in named[LANGUAGES.index(target)]
                assert source != target
                found += 1
    assert found > DRAWS / 2


@pytest.mark.parametrize("world", world_names())
def test_a_world_states_its_rule_and_its_chance_level(world: str) -> None:
    stated = all_worlds()[world].truth()
    chances = stated["chance"].values() if isinstance(stated["chance"], dict) else [stated["chance"]]
    assert stated["rule"]
    assert all(0 < chance <= 0.5 for chance in chances)


def test_the_truth_of_a_language_lists_the_words_that_are_held_out() -> None:
    for language in LANGUAGES:
        assert all_worlds()[language].truth()["held_out_antonyms"] == [
            list(PAIRS[language][c]) for c in held_out(language)
        ]
