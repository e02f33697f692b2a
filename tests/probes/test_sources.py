"""Prompts come from the organism's worlds for a model that speaks its language, and else from natural language."""

from __future__ import annotations

import re

import pytest

from checkpoints.errors import UserError
from checkpoints.organism import build_tokenizer
from checkpoints.tokenizing import word_tokenizer
from dynamics.probes.sources import PlainWords, choose_source, plain_words


def test_the_source_follows_from_the_tokenizer() -> None:
    assert choose_source(build_tokenizer(["years"]), "years", "worlds", "English") == "worlds"
    assert choose_source(word_tokenizer(["1", "2"]), "years", "worlds", "English") == "English"


def test_an_organism_that_does_not_know_a_world_is_refused() -> None:
    with pytest.raises(UserError, match="does not know the words of world 'years'"):
        choose_source(build_tokenizer(), "years", "worlds", "English")


def test_plain_words_are_written_with_what_stands_between_them() -> None:
    organism, natural = plain_words(build_tokenizer()), plain_words(word_tokenizer(["one", "two"]))
    assert organism.joined(organism.words[:2]) == " ".join(organism.words[:2])
    assert natural == PlainWords([" one", " two"]) and natural.joined(natural.words) == " one two"
    assert organism.period < natural.period


def test_too_few_plain_words_are_an_error_that_says_how_many_there_are() -> None:
    words = PlainWords([" one", " two"])
    assert words.require(2, "ask for less") == [" one", " two"]
    with pytest.raises(UserError) as found:
        words.require(3, "ask for less")
    text = re.sub(r"\s+", " ", str(found.value))
    assert text == "the tokenizer has 2 plain words of one token expected: at least 3 remedy: ask for less"
