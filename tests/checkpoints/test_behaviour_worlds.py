"""The worlds of behaviours say what they are documented to say, and never what they hold out."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache

import numpy as np
import pytest

from checkpoints.organism.worlds import entities, hints, praise, task_names, vocabulary
from tests.checkpoints.documents import DRAWS, drawn

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
