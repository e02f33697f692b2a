"""Prompts of faithfulness and hallucination: hints and names balanced, entity files read or refused."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from analyses.faithfulness.prompts import DIFFICULTIES, KINDS, hints_probe
from analyses.hallucination import texts as entity_texts
from analyses.hallucination.entity_file import entity_file_probe
from analyses.hallucination.prompts import ATTRIBUTES, DECLINE, FREQUENCIES
from checkpoints.errors import UserError
from checkpoints.organism import build_tokenizer
from checkpoints.organism.worlds import entities, hints
from dynamics.probes import tokenize
from tests.analyses.behaviour_prompts.reading import ORGANISM, balanced, by_item, found, rows, seeds

# --- hints


def test_every_sum_is_asked_without_a_hint_with_the_right_and_with_a_wrong_one(language: tuple[Any, bool]) -> None:
    tokens = found("hints", language)
    probe = tokens.probe
    assert balanced(probe, "hint", "difficulty", "held_out")
    assert balanced(probe, "sum", "hint", "difficulty")
    lengths = dict(zip(probe.text, tokens.lengths.tolist(), strict=True))
    pairs = []
    for item in by_item(probe):
        kinds = {row["hint"]: row for row in item}
        assert tuple(kinds) == KINDS
        assert len({(row["answer"], row["foil"], row["sum"], row["template"]) for row in item}) == 1
        wrong = int(kinds["wrong"]["foil"]) % 10
        right = int(kinds["right"]["answer"]) % 10
        assert [kinds[kind]["hinted"] for kind in KINDS] == [-1, right, wrong] and wrong != right == kinds["none"][
            "sum"
        ]
        assert kinds["wrong"]["twin"] == kinds["right"]["text"]
        assert kinds["right"]["twin"] == kinds["none"]["twin"] == kinds["wrong"]["text"]
        assert len({lengths[row["text"]] for row in item}) == 1
        pairs.append(frozenset(numbers(kinds["none"]["text"])))
    assert len(set(pairs)) == len(pairs)


def numbers(text: str) -> tuple[int, int]:
    """The two numbers of a sum without a hint."""
    words = text.replace("?", " ").replace(",", " ").split()
    one, other = (int(word) for word in words if word.isdigit())
    return one, other


def test_the_positions_of_a_sum_are_its_numbers_and_the_hint_and_nothing_else_differs(
    language: tuple[Any, bool],
) -> None:
    tokens = found("hints", language)
    tokenizer, organism = language
    of = {(row["item"], row["hint"]): i for i, row in enumerate(rows(tokens.probe))}
    for (item, kind), i in of.items():
        row, bare = tokens.ids[i], tokens.ids[of[item, "none"]]
        places = {name: int(tokens.positions[name][i]) for name in ("a", "b", "hint")}
        said = {name: tokenizer.decode([row[at]]).strip() for name, at in places.items()}
        one, other = numbers(tokens.probe.text[of[item, "none"]])
        assert (int(said["a"]), int(said["b"])) == ((one % 10, other % 10) if organism else (one, other))
        differ = [j for j in range(len(row)) if row[j] != bare[j]]
        assert differ == ([] if kind == "none" else [places["hint"]])
        if kind != "none":
            assert int(said["hint"]) % 10 == tokens.probe.labels["hinted"][i]
        assert (one + other) % 10 == tokens.probe.labels["sum"][i]
        assert (other > 9) == (tokens.probe.labels["difficulty"][i] == "hard")


@given(seed=seeds)
@settings(max_examples=10, deadline=None)
def test_the_organism_is_asked_about_sums_that_never_occur_in_training(seed: int) -> None:
    probe = hints_probe(ORGANISM, 120, seed)
    assert set(probe.labels["difficulty"]) == set(DIFFICULTIES)
    for row in rows(probe):
        if row["hint"] == "none":
            one, other = numbers(row["text"])
            assert hints.is_held_out(one, other) and other in hints.DIFFICULTIES[row["difficulty"]]


def test_every_wrong_digit_is_as_far_away_as_any_other(language: tuple[Any, bool]) -> None:
    probe = found("hints", language, count=540).probe
    away = Counter((row["hinted"] - row["sum"]) % 10 for row in rows(probe) if row["hint"] == "wrong")
    assert away == dict.fromkeys(range(1, 10), 20)


def digit_tokenizer() -> Any:
    """A tokenizer in which every character is a token, so that numbers are digits."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(sorted(alphabet))}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core)


def test_where_numbers_are_digits_the_last_one_is_asked_for_behind_the_tens(monkeypatch: pytest.MonkeyPatch) -> None:
    from analyses.faithfulness import prompts

    tokenizer = digit_tokenizer()
    with monkeypatch.context() as changed:
        changed.setattr(prompts, "_FILLERS", ("easy",))
        with pytest.raises(UserError, match="or their digits, are one token"):
            hints_probe(tokenizer, 60, 0)  # no filler is as long as a number there
    probe = tokenize(hints_probe(tokenizer, 60, 0), tokenizer).probe
    for row in rows(probe):
        if row["hint"] == "none":
            text, tens = row["text"][:-1], row["text"][-1]
            one, other = numbers(text)
            assert f"{one + other}" == tens + row["answer"]


# --- entities


def test_half_of_the_entities_are_known_and_the_three_frequencies_are_balanced(language: tuple[Any, bool]) -> None:
    probe = found("entities", language).probe
    assert balanced(probe, "known", "attribute", "held_out")
    known = [row for row in rows(probe) if row["known"]]
    assert Counter(row["frequency"] for row in known) == dict.fromkeys(FREQUENCIES, len(known) // 3)
    for row in rows(probe):
        values = {f" {value}" for value in ATTRIBUTES[row["attribute"]]}
        assert row["foil"] in values - {row["answer"]}
        assert row["answer"] in values if row["known"] else row["answer"] == f" {DECLINE}"
        assert (row["frequency"] == "none") == (not row["known"])
    assert f" {DECLINE}" not in {f" {v}" for values in ATTRIBUTES.values() for v in values}


def test_known_and_unknown_are_asked_in_the_same_ways(language: tuple[Any, bool]) -> None:
    counts = Counter((row["template"], row["known"]) for row in rows(found("entities", language).probe))
    assert all(counts[template, 1] == counts[template, 0] for template, _ in counts)


@pytest.mark.parametrize("count", [120, 240, 600])
def test_the_organism_is_asked_about_its_known_names_and_about_names_that_never_occur(count: int) -> None:
    tokens = found("entities", (ORGANISM, True), count=count)
    rank = {" ".join(name): i for i, name in enumerate(entities.known_names())}
    strangers = {" ".join(name) for name in entities.held_out_names()}
    assert tokens.probe.corrupted is not None
    for i, row in enumerate(rows(tokens.probe)):
        words = row["text"].split()
        (name,) = [" ".join(pair) for pair in pairwise(words) if pair[0] in entities.STARTS]
        at = int(tokens.positions["entity"][i])
        assert ORGANISM.decode([tokens.ids[i][at]]) == name.split()[1]
        assert (name in rank) == bool(row["known"]) == (name not in strangers)
        if row["known"]:
            assert row["answer"].strip() == entities.attribute(rank[name], row["attribute"])
            assert row["frequency"] == entities.frequency(rank[name]) and row["entity"] == rank[name]


def test_no_invented_name_is_a_real_one_of_the_lists_and_no_example_is_asked_about(pythia: Any) -> None:
    probe = found("entities", (pythia, False), count=336).probe
    real = {name.split(":")[0].strip() for text in entity_texts.CITIES.values() for name in text.split()}
    real |= {entry.split(":")[0].strip() for text in entity_texts.PEOPLE.values() for entry in text.split("/")}
    marks = probe.positions["entity"]
    asked = [(row, row["text"][mark[0] : mark[1]]) for row, mark in zip(rows(probe), marks, strict=True)]
    for row, name in asked:
        assert (name in real) == bool(row["known"])
        assert row["text"].count(name) == 1
    assert len({name for _, name in asked}) == len(asked)
    examples = {line.split(": ")[1] for pair in entity_texts.PREFACES.values() for t in pair for line in t.splitlines()}
    assert not {row["answer"].strip() for row, _ in asked if row["known"]} & examples
    assert not {name for _, name in asked} & examples


def test_examples_before_english_questions_decline_half_of_the_time() -> None:
    for kind, prefaces in entity_texts.PREFACES.items():
        for preface, question in zip(prefaces, entity_texts.QUESTIONS[kind], strict=True):
            last = question.split("\n")[-1]
            answers = [line.removeprefix(last).strip() for line in preface.splitlines() if line.startswith(last)]
            assert len(answers) == 4 and answers.count(DECLINE) == 2


# --- entity files

ENTITIES = [
    {"entity": "Lyon", "question": "In which country is Lyon?", "answer": "France", "known": True},
    {"entity": "Osaka", "question": "In which country is Osaka?", "answer": "Japan", "known": "yes"},
    {"entity": "Bremen", "question": "In which country is Bremen?", "answer": "Germany", "known": 1},
    {"entity": "Brevista", "question": "In which country is Brevista?", "answer": "", "known": False},
    {"entity": "Drolova", "question": "In which country is Drolova?", "answer": "", "known": "0"},
]


@pytest.mark.parametrize("ending", [".jsonl", ".csv"])
def test_an_entity_file_is_read_from_jsonl_and_csv_alike(pythia: Any, tmp_path: Path, ending: str) -> None:
    long = {
        "entity": "Bern",
        "question": "In which country is Bern?",
        "answer": "The Swiss Confederation",
        "known": True,
    }
    file = tmp_path / f"mine{ending}"
    if ending == ".csv":
        lines = [",".join(ENTITIES[0]), *(",".join(str(v) for v in row.values()) for row in [*ENTITIES, long])]
    else:
        lines = [json.dumps(row) for row in [*ENTITIES, long]]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    tokens = tokenize(entity_file_probe(pythia, file), pythia)
    probe = tokens.probe
    assert probe.answer == (" France", " Japan", " Germany", " unknown", " unknown")
    assert probe.labels["known"] == (1, 1, 1, 0, 0) and probe.labels["entity"] == (0, 1, 2, 3, 4)
    assert probe.labels["held_out"] == (0, 1, 0, 0, 1)
    assert all(row["foil"] in {" France", " Japan", " Germany"} - {row["answer"]} for row in rows(probe))
    assert probe.name == "entities" and "1 with answers of several tokens left out" in probe.description
    for i, row in enumerate(ENTITIES):
        mark = probe.positions["entity"][i]
        assert probe.text[i][mark[0] : mark[1]] == row["entity"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"known": "maybe"}, "record 1: 'known' is 'maybe'"),
        ({"known": None}, "record 1 has no 'known'"),
        ({"answer": ""}, "record 1: 'answer' is empty"),
        ({"question": "Where is it?"}, "does not hold the entity 'Lyon'"),
        ({"asnwer": "France"}, "unknown column 'asnwer'"),
    ],
)
def test_mistakes_in_an_entity_file_are_named_with_record_and_column(
    pythia: Any, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in [ENTITIES[0] | change, *ENTITIES[1:]]), encoding="utf-8")
    with pytest.raises(UserError, match=message):
        entity_file_probe(pythia, file)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("mine.txt", "x", "unknown ending"),
        ("mine.jsonl", "{", "line 1 is not JSON"),
        ("mine.jsonl", "[]", "line 1 holds a list"),
        ("mine.jsonl", json.dumps(ENTITIES[0]), "1 known and 0 unknown entities"),
        ("mine.csv", "entity,answer\nLyon,France", "names no column 'question'"),
        ("mine.csv", "", "names no column 'entity'"),
        ("mine.csv", "entity,question,answer,known\nKöln", "is not UTF-8: .* at byte 30"),
        ("none.jsonl", None, "cannot be read"),
    ],
)
def test_entity_files_that_are_none_are_refused(
    pythia: Any, tmp_path: Path, name: str, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=message):
        entity_file_probe(pythia, tmp_path / name)


def test_an_entity_file_needs_a_tokenizer_that_can_decline(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="with which a question is declined"):
        entity_file_probe(build_tokenizer(), tmp_path / "any.jsonl")
