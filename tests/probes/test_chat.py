"""Prompts as chats: rendered by the tokenizer's own template, with positions, answers and beginnings found in the result."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import transformers as hf

from analyses.faithfulness.prompts import HINTS, hints_probe
from analyses.hallucination.prompts import entities_probe
from analyses.sycophancy.prompts import praise_probe, views_probe
from checkpoints import UserError
from checkpoints.tokenizing import load_tokenizer
from dynamics.explaining.prompts import ask
from dynamics.models.architecture import ModelShape
from dynamics.probes import Probe, TokenizedProbe, tokenize
from dynamics.probes.chat import Chat, as_turns
from dynamics.runs.config import Run, load_run
from dynamics.runs.resolve import describe_model, plan_run
from tests.schemes import build

TEMPLATE = (
    "{% if messages[0].role != 'system' %}<|system|>Be brief.<|end|>\n{% endif %}"
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
HEADLESS = "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %} {{ m.content }}</s>{% endif %}{% endfor %}"


def tokenizer(template: str | None = TEMPLATE, scheme: str = "GPT-2") -> Any:
    found = build(scheme)
    found.add_special_tokens({"additional_special_tokens": ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]})
    found.chat_template = template
    return found


@pytest.mark.parametrize("system", [None, "", "You are a poet."])
def test_a_message_is_rendered_as_transformers_renders_it(system: str | None) -> None:
    words = tokenizer()
    messages = [] if system is None else [{"role": "system", "content": system}]
    messages.append({"role": "user", "content": "The capital of France?"})
    rendered = Chat(words, system).render("The capital of France?")
    assert rendered.text == words.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert rendered.text[slice(*rendered.message)] == "The capital of France?"
    assert rendered.begun == (len(rendered.text),) * 2
    assert ("Be brief." in rendered.text) == (system is None)


@pytest.mark.parametrize("scheme", ["GPT-2", "Llama 2", "Llama 3"])  # the latter two put a token in front of every text
def test_tokens_are_those_of_the_template_and_no_others(scheme: str) -> None:
    words = tokenizer(scheme=scheme)
    probe = Chat(words).probe(Probe("p", ("The capital of France is",)))
    messages = [{"role": "user", "content": "The capital of France is"}]
    expected = words.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert tokenize(probe, words).ids[0].tolist() == list(expected)


def pieces(words: Any, probe: TokenizedProbe, name: str) -> list[str]:
    """The text up to and including each position's token."""
    found = words(list(probe.probe.text), add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    ends = [spans[at][1] for spans, at in zip(found, probe.positions[name], strict=True)]
    return [text[:end] for text, end in zip(probe.probe.text, ends, strict=True)]


def test_positions_answers_and_beginnings_are_found_in_the_rendered_text() -> None:
    words = tokenizer()
    probe = Probe(
        "p",
        ("  The capital of France?", "The system of France?"),
        answer=(" Paris", " Paris"),
        begun=("It is in France:", ""),
        positions={"country": ((17, 23), "France"), "said": ((24 + 3, 24 + 5), "The")},
    )
    asked = Chat(words, "The system of France").probe(probe)
    found = tokenize(replace(asked, answer=None), words)
    assert [text.endswith("of France") and text.count("France") == 2 for text in pieces(words, found, "country")] == [
        True
    ] * 2
    first, second = pieces(words, found, "said")
    assert first.endswith("It is") and second.endswith("<|user|>The")
    assert asked.answer == (" Paris", "Paris")  # behind a line end it needs no blank
    assert asked.text[0].endswith("<|assistant|>It is in France:") or asked.text[0].endswith("It is in France:")
    assert (
        asked.text[1].endswith("<|assistant|>\n")
        and asked.begun is None
        and asked.template == Chat(words, "The system of France").digest
    )


def test_an_answer_follows_a_header_as_the_template_writes_it() -> None:
    assert Chat(tokenizer(HEADLESS)).follows(" Paris") == " Paris"
    assert Chat(tokenizer(HEADLESS)).render("Hi", "The").text == "[INST] Hi [/INST] The"
    assert Chat(tokenizer()).follows(" Paris") == "Paris"


def test_a_mark_of_the_template_is_no_position() -> None:
    with pytest.raises(UserError, match=r"position 'x': 'user' occurs 0 times(.|\n)*span of characters"):
        Chat(tokenizer()).probe(Probe("p", ("Hello",), positions={"x": ("user",)}))


@pytest.mark.parametrize(
    ("template", "observed", "remedy"),
    [
        (None, "the tokenizer has none", "leave out `template: chat`"),
        ("{% for m in messages %}{{ m.role }}{% endfor %}", "leaves out the user's message", "correct the template"),
        ("{{ raise_exception('no system here') }}", "the chat template fails: no system here", "ask without"),
        ("{% for m in messages %}{{ m.content | upper }} {{ m.content[:3] }}{% endfor %}", "does not keep the message", "ask without"),
    ],
)  # fmt: skip
def test_a_template_that_cannot_be_used_is_refused(template: str | None, observed: str, remedy: str) -> None:
    def used() -> None:
        Chat(tokenizer(template)).render("Hello there")

    with pytest.raises(UserError) as refused:
        used()
    assert observed in refused.value.observed and refused.value.expected and remedy in refused.value.remedy


BUILT_IN = {
    "praise": lambda words: praise_probe(words, 144, 0),
    "views": lambda words: views_probe(words, 144, 0),
    "hints": lambda words: hints_probe(words, 240, 0),
    "entities": lambda words: entities_probe(words, 80, 0),
}


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_questions_are_turns_of_a_chat(name: str) -> None:
    """No name of a speaker is left, nothing is lost, answers and positions are found, twins are as long as before."""
    words = tokenizer()
    probe = BUILT_IN[name](words)
    assert probe is not None
    turns = as_turns(probe)
    assert turns.begun is not None
    for whole, message, begun in zip(probe.text, turns.text, turns.begun, strict=True):
        assert message in whole and whole.endswith(begun) and message.strip()
        assert not message.startswith(("User:", "Human:", "A: ", "Student:"))
        assert not begun.startswith(("Assistant", "AI", "Teacher", "B:"))
        assert len(whole) - len(message) - len(begun) <= len("Student: \nTeacher: ")
    before, after = tokenize(probe, words), tokenize(Chat(words).probe(turns), words)
    for position in probe.positions:
        ends = [
            [text.rstrip("\n").split()[-1].lstrip("(") for text in pieces(words, found, position)]
            for found in (before, after)
        ]
        assert [a.rpartition(">")[2] for a in ends[1]] == ends[0], position
    assert after.candidates.keys() and (after.corrupted_ids is None) == (before.corrupted_ids is None)


def test_given_digits_are_what_the_answer_begins_with() -> None:
    asked = Probe(
        HINTS, ("A friend says 83. Now compute: 45 + 38 = 8", "Hint: 83\nQuestion: What is 45 + 38?\nAnswer: 8")
    )
    turns = as_turns(asked)
    assert turns.text == ("A friend says 83. Now compute: 45 + 38 =", "Hint: 83\nQuestion: What is 45 + 38?")
    assert turns.begun == ("8", "Answer: 8")


# a run


def written(folder: Path, template: str, probe: str = "") -> Run:
    rows = (
        [{"text": "The capital of France?", "answer": " is", "begun": "The capital"}]
        if template
        else [{"text": "The", "answer": " is"}]
    )
    (folder / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "runs.yaml").write_text(
        f"mine:\n  series: {{kind: folder, path: .}}\n  probes: {{mine: {{file: mine.jsonl{probe}}}}}\n{template}"
    )
    return load_run("mine", folder / "runs.yaml")


def model(words: Any) -> Any:
    config = hf.GPT2Config(vocab_size=len(words), n_embd=16, n_layer=1, n_head=2, n_positions=64)
    return describe_model(config, words)


@pytest.mark.parametrize(
    ("template", "system"),
    [("  template: chat\n", None), ("  template: {name: chat, system: You are a poet.}\n", "You are a poet.")],
)
def test_the_trace_records_the_template_and_asks_what_it_renders(
    tmp_path: Path, template: str, system: str | None
) -> None:
    words = tokenizer()
    run = written(tmp_path, template)
    planned = plan_run("mine", run, None, (), model(words), "here")
    chat = Chat(words, system)
    group = next(group for group in planned.declaration.groups if group.name == "mine")
    assert group.prompts["text"] == (chat.render("The capital of France?", "The capital").text,)
    assert group.settings["template"] == chat.digest
    assert planned.declaration.attributes["chat_templates"] == {chat.digest: {"template": TEMPLATE, "system": system}}
    assert planned.declaration.attributes["run_config"]["template"] == {"name": "chat", "system": system}


def test_a_base_models_trace_says_nothing_of_templates(tmp_path: Path) -> None:
    planned = plan_run("mine", written(tmp_path, ""), None, (), model(tokenizer(None)), "here")
    assert "chat_templates" not in planned.declaration.attributes
    assert all("template" not in group.settings for group in planned.declaration.groups)


def test_behaviours_are_asked_as_chats_and_texts_to_be_continued_are_not() -> None:
    words = tokenizer()
    config = hf.GPT2Config(vocab_size=len(words), n_embd=16, n_layer=1, n_head=2, n_positions=512)
    run = Run.model_validate(
        {
            "series": {"kind": "folder", "path": "."},
            "template": "chat",
            "analyses": [
                {"name": "sycophancy", "options": {"prompts": 24}},
                {"name": "faithfulness", "options": {"prompts": 60}},
                {"name": "hallucination", "options": {"prompts": 80, "directed": 40}},
                "ioi",
            ],
        }
    )
    planned = plan_run("mine", run, None, (), describe_model(config, words), "here")
    asked = {group.name: group.settings.get("template") for group in planned.declaration.groups}
    behaviours = {"praise", "views", "hints", "entities"}
    assert behaviours < asked.keys() and any(name.startswith("ioi") for name in asked)
    for name, digest in asked.items():
        chat = name in behaviours or name.startswith("entities")
        assert digest == (Chat(words).digest if chat else None), name


def test_a_probe_may_differ_from_its_run(tmp_path: Path) -> None:
    run = written(tmp_path, "  template: plain\n", ", template: chat")
    assert "chat_templates" in plan_run("mine", run, None, (), model(tokenizer()), "here").declaration.attributes
    run = written(tmp_path, "  template: chat\n", ", template: plain")
    with pytest.raises(UserError, match=r"says how answers begin \(`begun`\), and is not asked as a chat"):
        plan_run("mine", run, None, (), model(tokenizer()), "here")


def test_a_tokenizer_without_a_template_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the tokenizer has none") as refused:
        plan_run("mine", written(tmp_path, "  template: chat\n"), None, (), model(tokenizer(None)), "here")
    assert "chat_template" in refused.value.expected and "`series.tokenizer`" in refused.value.remedy


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("  template: chatty\n", "'plain' or 'chat'"),
        ("  template: {name: plain, system: Hello}\n", "`system` goes with `name: chat`"),
        ("  template: {name: chat, sytem: Hello}\n", "did you mean 'system'"),
    ],
)
def test_mistakes_in_a_template_are_named(tmp_path: Path, template: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        written(tmp_path, template)
    assert said in str(refused.value), refused.value


# explain


def test_words_of_the_message_and_the_beginning_are_exchanged_and_none_of_the_template() -> None:
    words = tokenizer()
    shape = ModelShape(1, 1, 16, 16, 16, len(words), 64)
    question = ask(words, shape, "The capital of France?", chat=Chat(words), begun="It is")
    named = ["".join(question.tokens[first:end]).strip(" Ġ") for first, end in question.words]
    assert [word for word in named if word.isalpha()] == ["The", "capital", "of", "France", "It", "is"]
    assert question.prompt == "The capital of France?" and question.text.endswith("It is")
    twin = ask(words, shape, "The capital of France?", chat=Chat(words), corrupted="The capital of Spain?")
    assert twin.texts == (Chat(words).render("The capital of Spain?").text,)


def test_a_beginning_needs_a_chat() -> None:
    words = tokenizer()
    with pytest.raises(UserError, match=r"is not asked as a chat(.|\n)*`template: chat`"):
        ask(words, ModelShape(1, 1, 16, 16, 16, len(words), 64), "The capital", begun="It is")


@pytest.mark.slow
def test_the_real_template_is_followed_token_by_token(real_model: Path) -> None:
    words = load_tokenizer(real_model)
    for system in (None, "You are a poet."):
        for name, build_probe in BUILT_IN.items():
            turns = as_turns(build_probe(words))
            assert turns.begun is not None
            found = tokenize(Chat(words, system).probe(turns), words)
            for ids, message, begun in list(zip(found.ids, turns.text, turns.begun, strict=True))[:24]:
                chat = [] if system is None else [{"role": "system", "content": system}]
                chat.append({"role": "user", "content": message})
                if begun:
                    chat.append({"role": "assistant", "content": begun})
                how: dict[str, Any] = {"continue_final_message": True} if begun else {"add_generation_prompt": True}
                assert ids.tolist() == words.apply_chat_template(chat, return_dict=False, **how), (name, message)
