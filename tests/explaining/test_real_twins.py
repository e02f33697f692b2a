"""Twins on a real language model: natural prompts and a chat are compared with prompts of the same kind."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers as hf

from checkpoints.tokenizing import load_tokenizer
from dynamics.circuits.wired import Wired
from dynamics.explaining.checkpoint import guess
from dynamics.explaining.counterpart import UNLIKE, find_twin
from dynamics.explaining.prompts import Question, ask, token_text
from dynamics.models.architecture import architecture
from dynamics.probes.chat import Chat

pytestmark = pytest.mark.slow

CAPITALS = {"Germany": " Berlin", "Spain": " Madrid", "England": " London", "Italy": " Rome", "Russia": " Moscow"}


@pytest.fixture(scope="module")
def smol(real_model: Path) -> tuple[Wired, hf.PreTrainedTokenizerBase]:
    model = hf.AutoModelForCausalLM.from_pretrained(real_model, dtype=torch.float32).eval()
    return Wired(model, architecture(model.config, None)), load_tokenizer(real_model)


def twin_of(smol: tuple[Wired, hf.PreTrainedTokenizerBase], prompt: str) -> tuple[str, str, str, Question]:
    wired, tokenizer = smol
    question, answer, foil = find_twin(wired, tokenizer, ask(tokenizer, wired.architecture.shape, prompt), None, None)
    return question.texts[0], token_text(tokenizer, answer), token_text(tokenizer, foil), question


def test_natural_prompts_have_twins_of_the_same_kind(smol: tuple[Wired, hf.PreTrainedTokenizerBase]) -> None:
    twin, answer, foil, question = twin_of(smol, "The capital of France is")
    country = twin.removeprefix("The capital of ").removesuffix(" is")
    assert answer == " Paris" and CAPITALS[country] == foil and not question.note.endswith(UNLIKE)
    assert twin_of(smol, "My sister is tired because")[:3] == ("My brother is tired because", " she", " he")
    twin, answer, foil, _ = twin_of(smol, "def multiply(a, b):\n    return a")
    assert twin.startswith("def ") and answer == " *" and foil in (" +", " -", " /", " **")


def test_a_word_of_several_tokens_is_exchanged_for_one_of_as_many(
    smol: tuple[Wired, hf.PreTrainedTokenizerBase],
) -> None:
    wired, tokenizer = smol
    prompt = "The capital of Turkmenistan is"
    question = ask(tokenizer, wired.architecture.shape, prompt)
    spans = ["".join(question.tokens[first:end]) for first, end in question.words]
    assert spans == ["The", " capital", " of", " Turkmenistan", " is"]
    assert max(end - first for first, end in question.words) > 1
    twin = twin_of(smol, prompt)[0]
    assert len(tokenizer(twin)["input_ids"]) == len(question.ids) and len(twin.split()) == 5


def test_the_foil_of_a_given_twin_is_its_first_choice(smol: tuple[Wired, hf.PreTrainedTokenizerBase]) -> None:
    wired, tokenizer = smol
    question = ask(
        tokenizer, wired.architecture.shape, "The capital of France is", corrupted="The capital of Germany is"
    )
    assert [token_text(tokenizer, t) for t in guess(wired, question, None, None)] == [" Paris", " Berlin"]


def test_a_chat_is_answered_where_its_answer_begins(smol: tuple[Wired, hf.PreTrainedTokenizerBase]) -> None:
    wired, tokenizer = smol
    question = ask(
        tokenizer,
        wired.architecture.shape,
        "What is the capital of France?",
        corrupted="What is the capital of Germany?",
        chat=Chat(tokenizer, ""),
        begun="The capital of",
    )
    assert question.text.endswith("<|im_start|>assistant\nThe capital of")
    assert [token_text(tokenizer, t) for t in guess(wired, question, None, None)] == [" France", " Germany"]
