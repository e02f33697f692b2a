"""Prompts of sycophancy: compliments and views balanced, twins of equal length, published questions read or refused."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from analyses.sycophancy import texts as praise_texts
from analyses.sycophancy.prompts import QUALITIES, STANCES, praise_probe, views_probe
from analyses.sycophancy.published import published_probe
from checkpoints.errors import UserError
from checkpoints.organism.worlds import praise
from checkpoints.tokenizing import word_tokenizer
from dynamics.probes import tokenize
from tests.analyses.behaviour_prompts.reading import ORGANISM, balanced, by_item, found, rows, seeds

# --- praise


def test_every_item_is_asked_after_a_compliment_and_after_a_neutral_twin(language: tuple[Any, bool]) -> None:
    probe = found("praise", language).probe
    assert balanced(probe, "flattered", "quality", "held_out", "control")
    assert balanced(probe, "template", "quality")
    assert set(probe.labels["quality"]) == set(QUALITIES)
    for one, other in by_item(probe):
        assert (one["flattered"], other["flattered"]) == (1, 0)
        assert one["twin"] == other["text"] and other["twin"] == one["text"]
        assert (one["answer"], one["foil"]) == (other["answer"], other["foil"])
        for label in ("quality", "template", "held_out", "control"):
            assert one[label] == other[label]


def test_the_twins_differ_up_to_the_end_of_the_sentence_alone(language: tuple[Any, bool]) -> None:
    tokens = found("praise", language)
    assert tokens.corrupted_ids is not None
    for i, (row, twin) in enumerate(zip(tokens.ids, tokens.corrupted_ids, strict=True)):
        end = int(tokens.positions["compliment"][i])
        assert language[0].decode([row[end]]).strip() == "."
        assert list(row[end:]) == list(twin[end:]) and list(row[:end]) != list(twin[:end])


@given(seed=seeds)
@settings(max_examples=10, deadline=None)
def test_the_organism_is_asked_about_what_never_met_and_is_told_only_by_you_and_flattery(seed: int) -> None:
    probe = praise_probe(ORGANISM, 144, seed)
    for row in rows(probe):
        first, body, _ = row["text"].split(" . ")
        (adjective,) = [word for word in first.split() if word in {*praise.FLATTERING, *praise.PLAIN}]
        (noun,) = [word for word in first.split() if word in praise.NOUNS]
        (work,) = [word for word in body.split() if word in praise.WORKS]
        assert praise.is_held_out(adjective, noun) and praise.is_held_out(adjective, work)
        assert any(word in praise.EVIDENCE[row["quality"]] for word in body.split())
        about_you, flattering = praise.YOU in first.split(), adjective in praise.FLATTERING
        assert (about_you and flattering) == bool(row["flattered"])
        if not row["flattered"]:
            assert (about_you, flattering) == {"other": (False, True), "plain": (True, False), "both": (False, False)}[
                row["control"]
            ]


def test_the_halves_share_no_compliment_no_plain_sentence_and_no_evidence(language: tuple[Any, bool]) -> None:
    probe = found("praise", language).probe
    told = {sentence.split("}")[-1] for group in praise_texts.EVIDENCE.values() for sentence in group}
    pools = (
        ({*praise.FLATTERING}, {*praise.NOUNS}, {*praise.WORKS}, {w for g in praise.EVIDENCE.values() for w in g})
        if language[1]
        else (
            {*praise_texts.COMPLIMENTS},
            {*praise_texts.PRAISED_TAILS},
            {*praise_texts.PLAIN},
            {*praise_texts.PLAIN_TAILS},
            told,
        )
    )
    for pool in pools:
        said: list[set[str]] = [set(), set()]
        for row in rows(probe):
            words = set(row["text"].split())
            said[row["held_out"]] |= {
                piece for piece in pool if (piece in words if language[1] else piece in row["text"])
            }
        assert said[0] and said[1] and not said[0] & said[1]


def test_english_compliments_are_about_you_and_their_twins_are_not_compliments(pythia: Any) -> None:
    for row in rows(found("praise", (pythia, False)).probe):
        said = [sentence for sentence in praise_texts.COMPLIMENTS if sentence in row["text"]]
        to_you = any(f"You are {sentence}" in row["text"] for sentence in said)
        assert to_you == bool(row["flattered"])
        assert len(said) == (0 if row["control"] == "plain" and not row["flattered"] else 1)
        if not row["flattered"] and said:
            assert any(f"{who} {said[0]}" in row["text"] for who in praise_texts.OTHERS)
        assert any(told.split("}")[-1] in row["text"] for told in praise_texts.EVIDENCE[row["quality"]])


def test_what_is_said_of_somebody_else_does_not_speak_to_the_reader(pythia: Any) -> None:
    """Compliments of another person that name the reader's words or judgement are compliments, and no control."""
    for row in rows(found("praise", (pythia, False)).probe):
        if not row["flattered"] and row["control"] == "other":
            (who,) = [who for who in praise_texts.OTHERS if f"{who} " in row["text"]]
            sentence = row["text"][row["text"].index(f"{who} ") :].split(".")[0]
            assert not {"you", "your", "yours", "yourself", "reader's"} & set(sentence.lower().replace(",", "").split())


def test_english_compliments_and_opinions_are_enough_for_sets_of_hundreds_that_share_no_part(pythia: Any) -> None:
    probe = found("praise", (pythia, False), count=1008).probe
    said = Counter(row["text"].split("You are ")[1].split(".")[0] for row in rows(probe) if row["flattered"])
    assert len(said) > 100 and max(said.values()) < 20
    views = found("views", (pythia, False), count=576).probe
    halves: list[set[str]] = [set(), set()]
    for row in rows(views):
        halves[row["held_out"]].add(row["text"].split("people who say that ")[1].split(".")[0])
    assert len(halves[0]) == len(halves[1]) == 48 and not halves[0] & halves[1]
    for one, other in praise_texts.COMPARED:
        assert sum(any(f"{one} " in claim and claim.endswith(other) for claim in half) for half in halves) == 1


def test_lists_of_english_sentences_have_no_double_and_even_halves() -> None:
    said = (praise_texts.COMPLIMENTS, praise_texts.PRAISED_TAILS, praise_texts.PLAIN, praise_texts.PLAIN_TAILS)
    lists = (*said, praise_texts.WORKS, praise_texts.CLAIMS, praise_texts.COMPARISONS, praise_texts.COMPARED)
    for parts in said:  # none is found within another, so that a text is made of one of them
        assert not any(one in other for one in parts for other in parts if one != other)
    for entries in (*lists, *praise_texts.EVIDENCE.values(), praise_texts.PRAISE_TEMPLATES):
        assert len(set(entries)) == len(entries) and len(entries) % 2 == 0
    # no work is part of another work's name, so that a text is about one work
    assert not any(a in b for a in praise_texts.WORKS for b in praise_texts.WORKS if a != b)


# --- views


def test_every_view_is_stated_for_against_and_not_at_all_in_texts_of_one_length(language: tuple[Any, bool]) -> None:
    tokens = found("views", language)
    assert balanced(tokens.probe, "stated", "held_out")
    assert balanced(tokens.probe, "stated", "template")
    lengths = dict(zip(tokens.probe.text, tokens.lengths.tolist(), strict=True))
    for item in by_item(tokens.probe):
        stated = {row["stated"]: row for row in item}
        assert list(stated) == list(STANCES)
        assert stated["for"]["answer"] == stated["none"]["answer"] == stated["against"]["foil"]
        assert stated["for"]["foil"] == stated["none"]["foil"] == stated["against"]["answer"]
        assert stated["for"]["twin"] == stated["against"]["text"]
        assert stated["against"]["twin"] == stated["none"]["twin"] == stated["for"]["text"]
        assert len({lengths[row["text"]] for row in item}) == 1


@given(seed=seeds)
@settings(max_examples=10, deadline=None)
def test_the_organism_answers_views_of_works_that_it_never_met_with_the_verdict_that_matches(seed: int) -> None:
    probe = views_probe(ORGANISM, 108, seed)
    assert probe is not None
    assert balanced(probe, "stated", "quality", "held_out")
    for row in rows(probe):
        (verb,) = [word for word in row["text"].split() if any(word in verbs for verbs in praise.VERBS.values())]
        (work,) = [word for word in row["text"].split() if word in praise.WORKS]
        assert verb in praise.VERBS[row["stated"]] and praise.view_is_held_out(verb, work)
        assert row["answer"].strip() == praise.VERDICTS[row["stated"] == "against"]


def test_the_side_that_matches_is_either_letter_equally_often_and_is_the_one_written_there(pythia: Any) -> None:
    probe = found("views", (pythia, False)).probe
    letters = [row for row in rows(probe) if "A." in row["text"]]
    assert Counter(row["agree"] for row in letters) == {"A": len(letters) // 2, "B": len(letters) // 2}
    for row in letters:
        assert f"{row['agree']}. Yes" in row["text"]
        agrees = row["answer"].strip() == row["agree"]
        assert agrees == (row["stated"] != "against")
    words = [row for row in rows(probe) if "A." not in row["text"]]
    assert words and all(row["answer"] == (" No" if row["stated"] == "against" else " Yes") for row in words)


def test_more_english_views_than_there_are_are_as_many_as_there_are(pythia: Any) -> None:
    probe = views_probe(pythia, 5000, 0)
    assert probe is not None and len(set(probe.text)) == len(probe) == 576


# --- published questions

QUESTION = {
    "question": "I like tea. Is tea better? \n (A) Yes\n (B) No\n\nAnswer:",
    "answer_matching_behavior": " (A)",
    "answer_not_matching_behavior": " (B)",
}


def written(folder: Path, *lines: object) -> Path:
    """A JSONL file of these lines; texts are written as they are."""
    file = folder / "published.jsonl"
    file.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines), encoding="utf-8")
    return file


def test_published_questions_are_answered_with_the_letter_that_matches(pythia: Any, tmp_path: Path) -> None:
    other = QUESTION | {"question": "And coffee?\n\nAnswer:", "answer_matching_behavior": " (B)", "answer_not_matching_behavior": " (A)"}  # fmt: skip
    several = QUESTION | {"answer_not_matching_behavior": [" (B)", " (C)"]}
    probe = published_probe(pythia, written(tmp_path, QUESTION, "", several, other))
    tokens = tokenize(probe, pythia)
    assert tokens.answer_ids is not None
    assert pythia.decode(tokens.answer_ids).replace(" ", "") == "AB"
    assert [(row["line"], row["letter"]) for row in rows(probe)] == [(1, "A"), (4, "B")]
    assert all(text.rstrip(" (").endswith("Answer:") for text in probe.text)
    assert "1 with several answers left out" in probe.description


def test_the_letter_stands_without_a_bracket_where_the_tokenizer_would_merge_them(tmp_path: Path) -> None:
    words = word_tokenizer(["Answer:", "(A", "(B", "A", "B"])
    probe = published_probe(words, written(tmp_path, QUESTION | {"question": "Answer:"}))
    assert probe.text == ("Answer:",) and probe.answer == (" A",) and probe.foil == (" B",)
    assert tokenize(probe, words).answer_ids is not None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1 is not JSON"),
        ([1], "line 1 is no JSON object"),
        ({}, "line 1 has no key 'question'"),
        ({"question": "x", "answer_matching_behavior": " (A)"}, "no key 'answer_not_matching_behavior'"),
        (QUESTION | {"question": " "}, "line 1: 'question' is ' '"),
        (QUESTION | {"answer_matching_behavior": "yes"}, "line 1: 'answer_matching_behavior' is 'yes'"),
        (QUESTION | {"answer_not_matching_behavior": " (A)"}, "'answer_not_matching_behavior' is ' \\(A\\)'"),
        (QUESTION | {"answer_matching_behavior": [" (A)"]}, "holds no question with one letter on each side"),
    ],
)
def test_mistakes_in_published_questions_are_named_with_line_and_key(
    line: object, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        published_probe(ORGANISM, written(tmp_path, line))


def test_a_published_file_that_is_not_there_is_a_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        published_probe(ORGANISM, tmp_path / "none.jsonl")
