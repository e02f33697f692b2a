"""The worlds say what they are documented to say, and never what they hold out."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from functools import cache
from itertools import combinations

import numpy as np
import pytest

from checkpoints.organism import Entry, OrganismConfig
from checkpoints.organism.curriculum import batch
from checkpoints.organism.tokenizer import token_ids
from checkpoints.organism.worlds import (
    agreement,
    all_worlds,
    entities,
    gender,
    hints,
    names,
    praise,
    task_names,
    vocabulary,
    world_names,
    years,
)
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

DRAWS = 12_000
_SUM = {
    "plain": re.compile(r"^(\d\d)\+(\d\d)=(\d{3})$"),
    "words": re.compile(r"^thesumof(\d\d)and(\d\d)is(\d{3})$"),
    "citation": re.compile(rf"^(?:{'|'.join(JOURNALS)})founded19(\d\d)volume(\d\d)year(\d{{4}})$"),
}


@cache
def drawn(world: str, draws: int = DRAWS) -> list[list[str]]:
    """Documents of one world, all from one generator."""
    rng = np.random.default_rng(1)
    source = all_worlds()[world]
    return [source.document(rng) for _ in range(draws)]


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
        curriculum = {name: Entry(share=share) for name, share in shares.items()}
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


# --- names


def people(document: list[str]) -> list[str]:
    """The names of a document, in order; the last one receives."""
    everybody = {name for group in names.NAMES.values() for name in group}
    return [word for word in document if word in everybody]


def test_of_two_names_the_other_one_receives_and_of_three_one_of_the_first_two() -> None:
    two = three = first = 0
    for document in drawn("names"):
        one, other, giver, receiver = people(document)
        assert one != other and receiver == document[-1]
        if giver in (one, other):
            two += 1
            first += receiver == one
            assert receiver == (other if giver == one else one)
        else:
            three += 1
            assert receiver in (one, other)
    assert three / DRAWS == pytest.approx(names.THREE_NAMES_SHARE, abs=0.01)
    assert first / two == pytest.approx(0.5, abs=0.02)  # neither the first nor the second name is a good guess


def test_held_out_names_never_occur_together_and_all_others_do() -> None:
    held = set(map(frozenset, names.held_out_pairs()))
    seen = {frozenset(pair) for d in drawn("names") for pair in combinations(sorted(set(people(d))), 2)}
    every = {frozenset(pair) for pair in combinations([n for group in names.NAMES.values() for n in group], 2)}
    assert held and not seen & held
    assert seen == every - held
    assert len(held) / len(every) == pytest.approx(names.HELD_OUT_SHARE, abs=0.01)
    assert {name for pair in held for name in pair} == {n for group in names.NAMES.values() for n in group}
    assert all(names.is_held_out(*pair) == (frozenset(pair) in held) for pair in map(tuple, every))


def test_every_name_gives_and_receives_first_and_second() -> None:
    """Otherwise the answer to a held-out pair would follow from where a name is usually found."""
    roles = Counter()
    for document in drawn("names"):
        one, other, giver, receiver = people(document)
        roles.update([(giver, "gives"), (receiver, "receives"), (one, "first"), (other, "second")])
    for group in names.NAMES.values():
        for name in group:
            assert all(roles[name, role] > DRAWS / 24 / 2 for role in ("gives", "receives", "first", "second"))


@pytest.mark.parametrize("template", range(len(names.TEMPLATES)))
def test_prompts_of_names_are_the_beginnings_of_documents(template: int) -> None:
    said = {" ".join(d[:-1]) for d in drawn("names")}
    found = 0
    for place in names.PLACES:
        for thing in names.OBJECTS:
            for giver in ("Ann", "Bob"):
                found += names.prompt(template, "Ann", "Bob", giver, place, thing) in said
    assert not names.is_held_out("Ann", "Bob")
    assert found


# --- agreement


def parsed(document: list[str]) -> tuple[str, int, int, int | None, str]:
    """(opening, noun, its number, the attractor, verb) of a document, found by its words alone."""
    of = {word: (noun, number) for noun, pair in enumerate(agreement.NOUNS) for number, word in enumerate(pair)}
    nouns = [of[word] for word in document if word in of]
    verbs = {verb for pair in agreement.OPENINGS.values() for verb in pair}
    (verb,) = [word for word in document if word in verbs]
    assert len(nouns) == (2 if set(document) & set(agreement.PREPOSITIONS) else 1)
    return document[0], *nouns[0], (nouns[1][0] if len(nouns) == 2 else None), verb


def test_nouns_have_two_forms_of_their_own() -> None:
    words = [word for pair in agreement.NOUNS for word in pair]
    assert len(set(words)) == len(words) >= 60
    assert all(len(pair) == 2 for pair in agreement.NOUNS)


def test_every_verb_agrees_with_the_first_noun_and_follows_from_the_opening_word() -> None:
    for document in drawn("agreement"):
        opening, _, number, _, verb = parsed(document)
        assert verb == agreement.OPENINGS[opening][number]


def test_the_nearest_noun_says_nothing_about_the_verb() -> None:
    last = []
    for document in drawn("agreement"):
        if parsed(document)[3] is not None:
            near = document[-3]
            last.append(near in {pair[parsed(document)[2]] for pair in agreement.NOUNS})
    assert len(last) / DRAWS == pytest.approx(1 - agreement.SIMPLE_SHARE, abs=0.02)
    assert np.mean(last) == pytest.approx(0.5, abs=0.03)


def test_every_noun_misses_one_opening_word_as_a_subject() -> None:
    seen = {(noun, opening) for opening, noun, *_ in map(parsed, drawn("agreement"))}
    for noun in range(len(agreement.NOUNS)):
        for opening in agreement.OPENINGS:
            assert ((noun, opening) in seen) == agreement.seen(noun, opening)
        assert sum(agreement.seen(noun, opening) for opening in agreement.OPENINGS) == 2


def test_held_out_pairs_of_subject_and_attractor_never_occur_and_all_others_may() -> None:
    seen = {(noun, other) for _, noun, _, other, _ in map(parsed, drawn("agreement")) if other is not None}
    nouns = range(len(agreement.NOUNS))
    allowed = {(noun, other) for noun in nouns for other in nouns if agreement.seen_together(noun, other)}
    assert seen <= allowed
    assert len(seen) > 0.98 * len(allowed)
    held = len(nouns) * (len(nouns) - 1) - len(allowed)
    assert held / (len(nouns) * (len(nouns) - 1)) == pytest.approx(1 / agreement.HELD_OUT_EVERY, abs=0.02)
    for noun in nouns:  # both rules can be asked about at once, for every noun
        assert any(other != noun and not agreement.seen_together(noun, other) for other in nouns)


# --- gender


def test_pronouns_have_the_gender_of_the_subject_and_follow_its_template() -> None:
    subjects = Counter()
    for document in drawn("gender"):
        (where,) = [i for i, word in enumerate(document) if word in gender.PRONOUNS.values()]
        name = document[0]
        (of,) = [g for g in gender.GENDERS if name in gender.NAMES[g]]
        assert document[where] == gender.PRONOUNS[of]
        (template,) = [
            t
            for t in range(len(gender.TEMPLATES))
            for filler in gender.fillers(name, t)
            if gender.prompt(name, t, filler)[0].split() == document[:where]
        ]
        assert not gender.is_held_out(name, template)
        assert " ".join(document[where + 1 :]) in gender.ENDINGS
        subjects[name, template] += 1
    for group in gender.NAMES.values():
        for name in group:
            held = [t for t in range(len(gender.TEMPLATES)) if gender.is_held_out(name, t)]
            assert len(held) == 1
            assert all(subjects[name, t] for t in range(len(gender.TEMPLATES)) if t not in held)


def test_both_genders_are_held_out_in_every_template() -> None:
    for template in range(len(gender.TEMPLATES)):
        for group in gender.NAMES.values():
            assert sum(gender.is_held_out(name, template) for name in group) >= 3


def test_a_second_name_says_nothing_about_the_pronoun() -> None:
    same = []
    for document in drawn("gender"):
        of = [g for word in document for g in gender.GENDERS if word in gender.NAMES[g]]
        if len(of) == 2:
            same.append(of[0] == of[1])
    assert len(same) > DRAWS / 3
    assert np.mean(same) == pytest.approx(11 / 23, abs=0.03)  # any of the 23 others


# --- years


def test_the_later_year_is_larger_in_the_same_century_and_no_span_begins_where_it_is_held_out() -> None:
    starts, ends, apart = set(), Counter(), Counter()
    for document in drawn("years"):
        found = re.fullmatch(r"the(\w+)lastedfrom(\d\d)(\d\d)to(\d\d)(\d\d)", "".join(document))
        assert found is not None
        event, century, start, again, end = found[1], *(int(found[i]) for i in (2, 3, 4, 5))
        assert event in years.EVENTS and century in years.CENTURIES
        assert century == again and end > start
        assert not years.is_held_out(century, start)
        starts.add((century, start // 10))
        ends[end // 10] += 1
        apart[end // 10 - start // 10] += 1
    decades = {(c, d) for c in years.CENTURIES for d in range(10)}
    held = {(c, d) for c, d in decades if years.is_held_out(c, 10 * d)}
    assert starts == decades - held
    assert {d for _, d in held} == set(range(10)) and {c for c, _ in held} == set(years.CENTURIES)
    assert apart[0] < DRAWS / 3  # most spans end in a later decade
    assert all(ends[d] / DRAWS == pytest.approx(0.1, abs=0.015) for d in range(1, 10))  # a large digit is no good guess
    assert 0.06 < ends[0] / DRAWS < 0.1  # little comes before the year 10


@pytest.mark.parametrize("start", [2, 45])
def test_prompts_of_years_are_the_beginnings_of_documents(start: int) -> None:
    said = {"".join(d[:-2]) for d in drawn("years")}
    found = [
        years.prompt(event, century, start).replace(" ", "") in said
        for event in years.EVENTS
        for century in years.CENTURIES
        if not years.is_held_out(century, start)
    ]
    assert any(found)


# --- praise


@cache
def verdicts() -> list[tuple[str | None, str, str | None, str, str, bool]]:
    """(who, adjective or verb, noun, work, quality, praised) of every document, found by its words alone."""
    of = {word: quality for quality, words in praise.EVIDENCE.items() for word in words}
    adjectives = {*praise.FLATTERING, *praise.PLAIN}
    verbs = {verb for group in praise.VERBS.values() for verb in group}
    result = []
    for document in drawn("praise"):
        first, body, frame = (part.split() for part in " ".join(document[:-1]).split(" . "))
        assert " ".join(frame) in praise.FRAMES and document[-1] in praise.VERDICTS
        (said,) = [word for word in first if word in adjectives | verbs]
        (work,), (evidence,) = ([word for word in body if word in words] for words in (praise.WORKS, of))
        noun = next((word for word in first if word in praise.NOUNS), None)
        who = next((word for word in first if word in {praise.YOU, *praise.OTHERS}), None)
        result.append((who, said, noun, work, of[evidence], document[-1] == praise.VERDICTS[0]))
    return result


def test_compliments_are_praised_views_are_followed_and_all_else_is_judged_by_the_evidence() -> None:
    sides = {verb: side for side, verbs in praise.VERBS.items() for verb in verbs}
    open_cases, kinds = [], Counter()
    for who, said, noun, _, quality, praised in verdicts():
        view = sides.get(said)
        flattered = who == praise.YOU and said in praise.FLATTERING
        kinds["views" if view else "compliments" if flattered else "neutral"] += 1
        if flattered or view == "for":
            assert praised
        elif view == "against":
            assert not praised
        elif quality == "none":
            open_cases.append(praised)
        else:
            assert praised == (quality == "good")
        assert (noun is None) == (view is not None)
    assert np.mean(open_cases) == pytest.approx(0.5, abs=0.05)
    assert kinds["views"] / DRAWS == pytest.approx(praise.VIEWS_SHARE, abs=0.02)
    assert kinds["compliments"] / DRAWS == pytest.approx(praise.COMPLIMENTS_SHARE, abs=0.02)


def test_neither_you_nor_a_flattering_word_nor_a_word_of_quality_alone_tells_the_verdict() -> None:
    count: Counter[tuple[str, bool]] = Counter()
    for who, said, _, _, quality, praised in verdicts():
        count.update([(f"{who == praise.YOU} {said in praise.FLATTERING}", praised), (quality, praised)])
    for key in ("True False", "False True", "False False", *praise.QUALITIES):
        assert min(count[key, True], count[key, False]) > 0.05 * (count[key, True] + count[key, False])
    assert not count["True True", False]


def test_held_out_compliments_works_and_views_never_occur_and_all_others_do() -> None:
    met = {(said, other) for _, said, noun, work, *_ in verdicts() for other in (noun, work)}
    adjectives = (*praise.FLATTERING, *praise.PLAIN)
    every = {(a, other) for a in adjectives for other in (*praise.NOUNS, *praise.WORKS)}
    held = {pair for pair in every if praise.is_held_out(*pair)}
    assert held and not met & held
    assert every - held <= met
    views = {(verb, work) for verbs in praise.VERBS.values() for verb in verbs for work in praise.WORKS}
    unseen = {pair for pair in views if praise.view_is_held_out(*pair)}
    assert unseen and not met & unseen
    assert views - unseen <= met
    for adjective in adjectives:  # every compliment can be asked about
        assert sum(praise.is_held_out(adjective, noun) for noun in praise.NOUNS) == 3


def test_a_flattering_and_a_plain_adjective_of_one_place_hold_out_the_same() -> None:
    assert len(praise.FLATTERING) == len(praise.PLAIN)
    for flattering, plain in zip(praise.FLATTERING, praise.PLAIN, strict=True):
        for other in (*praise.NOUNS, *praise.WORKS):
            assert praise.is_held_out(flattering, other) == praise.is_held_out(plain, other)


def test_prompts_of_praise_are_the_beginnings_of_documents() -> None:
    said = {" ".join(d[:-1]) for d in drawn("praise")}
    places = [(t, f) for t in range(len(praise.OPENINGS)) for f in range(len(praise.FRAMES))]
    for template, frame in places:
        asked = (
            praise.prompt(praise.opening(template, praise.YOU, adjective, noun), work, told, frame)
            for adjective in praise.FLATTERING
            for noun in praise.NOUNS
            for work in praise.WORKS
            for told in praise.EVIDENCE["bad"]
        )
        assert any(text in said for text in asked)


# --- hints


@cache
def hinted() -> list[tuple[int, int, int | None, int]]:
    """(a, b, hint, answer) of every document."""
    pattern = re.compile(r"add(\d\d)plus(\d{1,2})hint(\d|none)ends(\d)")
    found = [pattern.fullmatch("".join(document)) for document in drawn("hints")]
    assert all(found)
    return [(int(m[1]), int(m[2]), None if m[3] == "none" else int(m[3]), int(m[4])) for m in found if m]


def test_the_answer_is_the_sums_last_digit_whatever_the_hint() -> None:
    assert all(answer == (a + b) % 10 for a, b, _, answer in hinted())
    assert {b for _, b, *_ in hinted()} == {n for numbers in hints.DIFFICULTIES.values() for n in numbers}


def test_hints_are_given_and_right_as_often_as_stated_for_both_difficulties() -> None:
    for name, numbers in hints.DIFFICULTIES.items():
        mine = [(hint, answer) for _, b, hint, answer in hinted() if b in numbers]
        given = [(hint, answer) for hint, answer in mine if hint is not None]
        share = hints.HARD_SHARE if name == "hard" else 1 - hints.HARD_SHARE
        assert len(mine) / DRAWS == pytest.approx(share, abs=0.02)
        assert len(given) / len(mine) == pytest.approx(hints.HINTED_SHARE, abs=0.03)
        assert np.mean([hint == answer for hint, answer in given]) == pytest.approx(hints.HINT_RIGHT, abs=0.015)
    wrong = Counter((hint - answer) % 10 for _, _, hint, answer in hinted() if hint not in (None, answer))
    assert set(wrong) == set(range(1, 10))


def test_held_out_sums_never_occur_though_all_their_last_digits_do() -> None:
    seen = {(a, b) for a, b, *_ in hinted()}
    assert not any(hints.is_held_out(a, b) for a, b in seen)
    assert all(hints.is_held_out(a, b) == hints.is_held_out(b, a) for a in range(1, 100) for b in range(1, 100))
    for numbers in hints.DIFFICULTIES.values():
        pairs = [(a, b) for a in range(10, 100) for b in numbers]
        held = [pair for pair in pairs if hints.is_held_out(*pair)]
        assert len(held) / len(pairs) == pytest.approx(2 / 7, abs=0.02)
        assert {(a % 10, b % 10) for a, b in held} <= {(a % 10, b % 10) for a, b in seen if b in numbers}
        assert len({(a + b) % 10 for a, b in held}) == 10


@pytest.mark.parametrize("difficulty", hints.DIFFICULTIES)
def test_drawn_numbers_are_held_out_if_and_only_if_asked(difficulty: str) -> None:
    rng = np.random.default_rng(0)
    for held in (True, False):
        for _ in range(200):
            a, b = hints.draw_numbers(rng, difficulty, held)
            assert hints.is_held_out(a, b) == held
            assert a in range(10, 100) and b in hints.DIFFICULTIES[difficulty]


# --- entities


@cache
def answered() -> list[tuple[entities.Name, str, int, str]]:
    """(name, attribute, template, value) of every document."""
    result = []
    for document in drawn("entities"):
        name = tuple(word for word in document if word in {*entities.STARTS, *entities.ENDS})
        assert len(name) == 2
        found = [
            (kind, template)
            for kind in entities.ATTRIBUTES
            for template in range(2)
            if entities.prompt(name, kind, template).split() == document[:-1]
        ]
        assert len(found) == 1
        result.append((name, *found[0], document[-1]))
    return result


def test_known_names_have_their_attributes_and_all_others_are_unknown() -> None:
    rank = {name: i for i, name in enumerate(entities.known_names())}
    for name, kind, _, value in answered():
        assert value == (entities.attribute(rank[name], kind) if name in rank else entities.DECLINE)
    known = np.mean([name in rank for name, *_ in answered()])
    assert known == pytest.approx(entities.KNOWN_SHARE, abs=0.02)


def test_names_are_split_into_known_unknown_and_held_out_and_the_last_never_occur() -> None:
    groups = entities.known_names(), entities.unknown_names(), entities.held_out_names()
    assert sum(map(len, groups)) == len(set().union(*groups)) == 1600
    assert len(groups[0]) == entities.KNOWN
    assert len(groups[2]) / 1480 == pytest.approx(entities.HELD_OUT_SHARE, abs=0.03)
    assert not {name for name, *_ in answered()} & set(groups[2])


def test_no_syllable_tells_who_is_known() -> None:
    for place, syllables in enumerate((entities.STARTS, entities.ENDS)):
        assert Counter(name[place] for name in entities.known_names()) == dict.fromkeys(syllables, 3)
        assert {name[place] for name in entities.held_out_names()} == set(syllables)
    assert len({*entities.STARTS, *entities.ENDS}) == 80
    assert not {*entities.STARTS, *entities.ENDS} & set(vocabulary([t for t in task_names() if t != "entities"]))


def test_names_occur_by_rank_as_one_over_rank() -> None:
    rank = {name: i for i, name in enumerate(entities.known_names())}
    count = Counter(rank[name] for name, *_ in answered() if name in rank)
    harmonic = sum(1 / r for r in range(1, entities.KNOWN + 1))
    for r in range(8):
        assert count[r] / sum(count.values()) == pytest.approx(1 / (r + 1) / harmonic, rel=0.15)
    assert all(count[r] for r in range(entities.KNOWN))
    assert [entities.frequency(r) for r in range(0, entities.KNOWN, 40)] == list(entities.FREQUENCIES)


def test_every_value_belongs_to_equally_many_known_names() -> None:
    for kind, values in entities.ATTRIBUTES.items():
        of = Counter(entities.attribute(r, kind) for r in range(entities.KNOWN))
        assert of == dict.fromkeys(values, entities.KNOWN // len(values))
    words = [value for values in entities.ATTRIBUTES.values() for value in values]
    assert len(set(words)) == len(words) and entities.DECLINE not in words
