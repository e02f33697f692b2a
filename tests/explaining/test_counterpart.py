"""The twin that a prompt is compared with: of the same kind, from the run's probes or from words that the model holds for likely."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from checkpoints import UserError
from checkpoints.tokenizing import word_tokenizer
from dynamics.explaining.checkpoint import guess
from dynamics.explaining.counterpart import UNLIKE, find_twin
from dynamics.explaining.prompts import Question, ask
from dynamics.models.architecture import ModelShape
from dynamics.probes import Probe, TokenizedProbe, tokenize

COUNTRIES = {"France": "Paris", "Germany": "Berlin", "Spain": "Madrid"}
WORDS = ["The", "capital", "of", "is", *COUNTRIES, *COUNTRIES.values(), "Reflections", "a", "city", "and"]
WORDS += [f"w{i}" for i in range(40)]
ID = {word: i for i, word in enumerate(WORDS)}
TOKENIZER = word_tokenizer(WORDS)
SHAPE = ModelShape(1, 1, 16, 16, 16, len(WORDS), 16)
PROMPT = "The capital of France is"


class Known:
    """A model that knows capitals: what follows a text is written down here, and which words are alike, too.

    After ``Reflections`` it is surer of ``a`` than after any country of its capital.
    """

    def __init__(self, *, alike: bool = True) -> None:
        self.device = torch.device("cpu")
        self.model = None
        self.architecture = SimpleNamespace(shape=SHAPE, logits=lambda _model, ids, keep: self.table(ids)[:, keep])
        rows = torch.eye(len(WORDS))
        for kind in (COUNTRIES, COUNTRIES.values()) if alike else (COUNTRIES,):
            for word in kind:
                rows[ID[word], ID[next(iter(kind))]] += 1.0
        self.rows = rows

    def unembedding(self) -> torch.Tensor:
        return self.rows

    def logits(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        return self.table(ids)[torch.arange(len(ids)), positions]

    def table(self, ids: torch.Tensor) -> torch.Tensor:
        found = torch.zeros(*ids.shape, len(WORDS))
        for row, tokens in enumerate(ids.tolist()):
            for at, token in enumerate(tokens):
                found[row, at] = self.after([WORDS[t] for t in tokens[: at + 1]])
                found[row, at, token] -= 1
        return found

    def after(self, words: list[str]) -> torch.Tensor:
        values = torch.zeros(len(WORDS))
        if words[-1] == "of":
            for country in COUNTRIES:
                values[ID[country]] = 5.0
            values[ID["Reflections"]] = -20.0
        if words[-1] == "is":
            for country, city in COUNTRIES.items():
                values[ID[city]] = 8.0 if country in words else 3.0
            values[ID["a"]] = 30.0 if "Reflections" in words else 4.0
        return values


def asked(prompt: str = PROMPT, **given: Any) -> Question:
    return ask(TOKENIZER, SHAPE, prompt, **given)


def twin_of(
    model: Known, question: Question, foil: str | None = None, probes: tuple[TokenizedProbe, ...] = ()
) -> tuple[str, str, str, Question]:
    """Twin, answer and foil as text, and the question."""
    known = None if foil is None else ID[foil]
    found, answer, other = find_twin(model, TOKENIZER, question, None, known, probes)  # type: ignore[arg-type]
    return found.texts[0], WORDS[answer], WORDS[other], found


def test_the_twin_is_a_likely_word_and_its_answer_of_the_same_kind() -> None:
    twin, answer, foil, question = twin_of(Known(), asked())
    assert twin in {f"The capital of {country} is" for country in ("Germany", "Spain")}
    assert (answer, foil) == ("Paris", COUNTRIES[twin.split()[3]])
    assert question.how == "likely word" and "in the place of “France”" in question.note
    assert f"“Paris” becomes “{foil}”" in question.note and not question.note.endswith(UNLIKE)
    assert question.twins.shape == (1, 5) and TOKENIZER.decode(question.twins[0]) == twin


def test_an_answer_of_another_kind_is_said_to_be_one() -> None:
    model = Known(alike=False)
    model.rows[ID["Paris"]] = -model.rows.sum(0)  # nothing is like it
    model.rows[[ID[f"w{i}"] for i in range(40)]] = model.rows[ID["Paris"]] + 0.1
    *_, question = twin_of(model, asked())
    assert question.note.endswith(UNLIKE)


def test_a_given_foil_is_kept() -> None:
    assert twin_of(Known(), asked(), "Madrid")[:3] == ("The capital of Spain is", "Paris", "Madrid")


def test_a_prompt_of_the_runs_probes_keeps_its_twin_and_foil() -> None:
    probe = Probe("capitals", (PROMPT,), (" Paris",), (" Madrid",), ("The city of France is",))
    twin, answer, foil, question = twin_of(Known(), asked(), probes=(tokenize(probe, TOKENIZER),))
    assert (twin, answer, foil) == ("The city of France is", "Paris", "Madrid")
    assert question.how == "probe" and "“capitals”, which gives it this twin" in question.note


def test_a_prompt_that_is_like_those_of_a_probe_is_compared_with_one_of_them() -> None:
    texts = ("The capital of Spain is", "The city and a France and", "w1 w2 w3 w4 w5", "The capital of")
    twin, _, foil, question = twin_of(Known(), asked(), probes=(tokenize(Probe("mine", texts), TOKENIZER),))
    assert (twin, foil) == ("The capital of Spain is", "Madrid")
    assert question.how == "probe" and "of the run's probe “mine”" in question.note


def test_probes_of_another_kind_are_passed_over() -> None:
    probe = tokenize(Probe("mine", ("The capital of w1 is", "w1 w2 w3 w4 w5")), TOKENIZER)
    assert twin_of(Known(), asked(), probes=(probe,))[3].how == "likely word"


def test_long_prompts_are_changed_where_it_matters() -> None:
    prompt = " ".join(f"w{i}" for i in range(10)) + f" {PROMPT}"
    twin, answer, foil, _ = twin_of(Known(), ask(TOKENIZER, SHAPE, prompt))
    changed = [i for i, (a, b) in enumerate(zip(prompt.split(), twin.split(), strict=True)) if a != b]
    assert changed == [13] and answer == "Paris" and foil in COUNTRIES.values()


def test_the_foil_of_a_given_twin_is_its_first_choice() -> None:
    """And not the prompt's second, which is “a”."""
    question = asked(corrupted="The capital of Spain is")
    answer, foil = guess(Known(), question, None, None)  # type: ignore[arg-type]
    assert (WORDS[answer], WORDS[foil]) == ("Paris", "Madrid")
    against_random = guess(Known(), asked(random_tokens=True), None, None)  # type: ignore[arg-type]
    assert [WORDS[token] for token in against_random] == ["Paris", "a"]


def test_a_model_that_is_sure_of_nothing_finite_is_refused() -> None:
    model = Known()
    table = model.table
    model.table = lambda ids: table(ids) * torch.nan  # type: ignore[method-assign]
    with pytest.raises(UserError, match="not finite"):
        find_twin(model, TOKENIZER, asked(), None, None)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"of no prompt that was tried are the logits finite(.|\n)*--random-tokens"):
        find_twin(model, TOKENIZER, asked(), ID["Paris"], None)  # type: ignore[arg-type]
    question, _, foil = find_twin(model, TOKENIZER, asked(), ID["Paris"], ID["a"])  # type: ignore[arg-type]
    assert question.how == "random tokens" and foil == ID["a"] and np.array_equal(question.twins, asked().twins)


def test_a_prompt_without_words_has_no_twin() -> None:
    words = word_tokenizer([",", ";"])
    shape = ModelShape(1, 1, 2, 2, 2, 2, 16)
    model = SimpleNamespace(
        device=torch.device("cpu"),
        model=None,
        architecture=SimpleNamespace(shape=shape, logits=lambda _m, ids, keep: torch.zeros(len(ids), len(keep), 2)),
        unembedding=lambda: torch.eye(2),
        logits=lambda ids, _at: torch.zeros(len(ids), 2),
    )
    with pytest.raises(UserError, match=r"no word of the prompt can be exchanged(.|\n)*--corrupted"):
        find_twin(model, words, ask(words, shape, ", ;"), None, None)  # type: ignore[arg-type]
