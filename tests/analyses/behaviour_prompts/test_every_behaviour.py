"""Prompts of every behaviour: distinct, readable by their tokenizer, from the seed alone, in halves that share nothing."""

from __future__ import annotations

from typing import Any

import pytest

from analyses.sycophancy.prompts import views_probe
from checkpoints.errors import UserError
from checkpoints.organism import build_tokenizer
from checkpoints.organism.worlds import all_worlds
from checkpoints.tokenizing import word_tokenizer
from tests.analyses.behaviour_prompts.reading import COUNT, ORGANISM, PROBES, WORLDS, balanced, found, rows


@pytest.mark.parametrize("name", PROBES)
def test_prompts_are_distinct_and_fit_the_tokenizer(language: tuple[Any, bool], name: str) -> None:
    tokens = found(name, language)
    probe = tokens.probe
    assert probe.name == name and probe.description
    assert len(probe) == len(set(probe.text)) == COUNT[name]
    assert tokens.answer_ids is not None and tokens.foil_ids is not None
    assert (tokens.answer_ids != tokens.foil_ids).all()
    for labels in probe.labels.values():
        assert len(set(map(type, labels))) == 1
    if language[1]:
        known = {*all_worlds()[WORLDS[name]].words, "<|endoftext|>"}
        assert {token for row in tokens.ids for token in ORGANISM.convert_ids_to_tokens(row)} <= known


@pytest.mark.parametrize("name", PROBES)
def test_prompts_follow_from_the_seed_alone(language: tuple[Any, bool], name: str) -> None:
    assert found(name, language, count=48, seed=3).probe == found(name, language, count=48, seed=3).probe
    assert found(name, language, count=48, seed=3).probe.text != found(name, language, count=48, seed=4).probe.text


@pytest.mark.parametrize("name", PROBES)
def test_halves_are_equally_large_and_share_no_item_and_no_template(language: tuple[Any, bool], name: str) -> None:
    probe = found(name, language).probe
    assert balanced(probe, "held_out")
    halves = [[row for row in rows(probe) if row["held_out"] == half] for half in (0, 1)]
    unit = "entity" if name == "entities" else "item"
    for label in (unit, "template"):
        one, other = ({row[label] for row in half} for half in halves)
        if not (name == "hints" and language[1] and label == "template"):  # sums are asked in one way only
            assert not one & other


@pytest.mark.parametrize("name", PROBES)
def test_an_organism_without_the_world_is_refused_by_name(name: str) -> None:
    with pytest.raises(UserError, match=f"does not know the words of world '{WORLDS[name]}'"):
        PROBES[name](build_tokenizer(), 24, 0)


@pytest.mark.parametrize("name", PROBES)
def test_more_prompts_than_there_are_are_refused_for_the_organism(name: str) -> None:
    with pytest.raises(UserError, match=r"prompts"):
        PROBES[name](ORGANISM, 30_000, 0)


@pytest.mark.parametrize("name", PROBES)
def test_a_tokenizer_of_other_words_is_refused_or_has_no_views(name: str) -> None:
    foreign = word_tokenizer(["eins", "zwei", "drei"])
    if name == "views":
        assert views_probe(foreign, 24, 0) is None
    else:
        with pytest.raises(UserError, match=r"(one token|good/bad)"):
            PROBES[name](foreign, 24, 0)
