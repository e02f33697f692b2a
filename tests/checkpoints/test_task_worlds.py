"""The worlds of tasks say what they are documented to say, and never what they hold out."""

from __future__ import annotations

import re
from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from checkpoints.organism.worlds import agreement, gender, names, years
from tests.checkpoints.documents import DRAWS, drawn

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
