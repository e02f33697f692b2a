"""Prompts as a chat: a user's message, rendered by the tokenizer's chat template, and what the assistant has begun to answer.

A model that was trained to answer was trained on rendered text: a header before every message, an end after it, often a
system's text in front. Asked without these it is asked something else. Rendering is the template's own (``apply_chat_template``
of ``transformers``), and a rendered text is tokenized as it stands: what the template does not write is not added.

>>> import dataclasses
>>> from checkpoints.tokenizing import word_tokenizer
>>> words = word_tokenizer(["<user>", "<assistant>", "hello", "there"])
>>> words.chat_template = "{% for m in messages %}<{{ m.role }}> {{ m.content }} {% endfor %}{% if add_generation_prompt %}<assistant> {% endif %}"
>>> Chat(words).render("hello")
Rendered(text='<user> hello <assistant> ', message=(7, 12), begun=(25, 25))
>>> Chat(words).render("hello", "there").text
'<user> hello <assistant> there'
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from checkpoints.errors import UserError, first_line

from .types import Mark, Probe

__all__ = ["Chat", "Rendered", "as_turns"]

_PROBED = "Xq7"
"""A message by which it is found out what the template writes around any other."""

USERS = ("User", "Human", "A", "Student")
ASSISTANTS = ("Assistant", "AI", "B", "Teacher")
"""Who speaks in built-in conversations; a chat has headers instead."""


class Rendered(NamedTuple):
    """A rendered prompt.

    Attributes:
        text: all of it, as the model reads it.
        message: span of characters of the user's message in it.
        begun: the same of what the assistant has begun to say, behind its header; empty where that is nothing.
    """

    text: str
    message: tuple[int, int]
    begun: tuple[int, int]


@dataclass(frozen=True)
class Chat:
    """A tokenizer's chat template.

    Attributes:
        tokenizer: that has it.
        system: the system's text; None to leave it to the template, of which some put in a text of their own.

    Raises:
        UserError: when the tokenizer has no chat template, or one that cannot be used.
    """

    tokenizer: Any
    system: str | None = None

    def __post_init__(self) -> None:
        if not self.tokenizer.chat_template:
            raise UserError(
                "prompts are to be rendered by a chat template, and the tokenizer has none",
                expected="a tokenizer with a chat template (chat_template.jinja, or `chat_template` in tokenizer_config.json)",
                remedy="leave out `template: chat` for a base model, or name the chat model's tokenizer as `series.tokenizer`",
            )
        self.render(_PROBED)

    @property
    def source(self) -> str:
        """The template itself."""
        return str(self.tokenizer.get_chat_template())

    @property
    def digest(self) -> str:
        """Of the template and the system's text, as hexadecimal digits: by it two renderings are told apart."""
        return hashlib.sha256(repr((self.source, self.system)).encode()).hexdigest()[:16]

    def render(self, message: str, begun: str = "") -> Rendered:
        """A user's message with what stands before and after it, up to the assistant's answer.

        Args:
            message: what the user says.
            begun: how the assistant's answer begins, which is then to be continued.

        Raises:
            UserError: when the template fails on it, or changes the text.
        """
        before, after = self._around(begun)
        text = self._apply(message, begun)
        kept = message if text == before + message + after else message.strip()
        if text != before + kept + after:
            raise UserError(
                f"the chat template does not keep the message {message!r} as it is",
                expected="a template that writes messages unchanged, but for blanks at their ends",
                remedy="ask without `template: chat`, or shorten the message",
            )
        end = len(before) + len(kept)
        left = len(text) - len(begun) if begun else len(text)
        return Rendered(text, (len(before), end), (left, len(text)))

    def follows(self, answer: str, begun: str = "") -> str:
        """An answer as it follows the rendered text: behind a header that ends with a blank or a line it needs none itself.

        >>> from checkpoints.tokenizing import word_tokenizer
        >>> words = word_tokenizer(["yes"])
        >>> words.chat_template = "{% for m in messages %}[{{ m.role }}] {{ m.content }} {% endfor %}[assistant] "
        >>> Chat(words).follows(" yes"), Chat(words).follows(" yes", "I say")
        ('yes', ' yes')
        """
        return answer if begun or not self._apply(_PROBED, "")[-1:].isspace() else answer.lstrip(" ")

    def probe(self, probe: Probe) -> Probe:
        """A probe with all its texts and twins rendered, and positions and answers where they are then.

        Positions are looked for in the message and in what the assistant has begun to say, never in the template.

        Raises:
            UserError: as :meth:`render`, and for a position that is not in the prompt once.
        """
        begun = probe.begun or ("",) * len(probe)
        rendered = [self.render(text, start) for text, start in zip(probe.text, begun, strict=True)]
        twins = probe.corrupted
        if twins is not None:
            twins = tuple(self.render(text, start).text for text, start in zip(twins, begun, strict=True))

        def answers(column: tuple[str, ...] | None) -> tuple[str, ...] | None:
            return None if column is None else tuple(self.follows(a, b) for a, b in zip(column, begun, strict=True))

        positions = {
            name: tuple(_moved(probe, name, i, mark, rendered[i]) for i, mark in enumerate(marks))
            for name, marks in probe.positions.items()
        }
        return replace(
            probe,
            text=tuple(r.text for r in rendered),
            answer=answers(probe.answer),
            foil=answers(probe.foil),
            corrupted=twins,
            positions=positions,
            begun=None,
            template=self.digest,
        )

    def _around(self, begun: str) -> tuple[str, str]:
        """What the template writes before and after a message."""
        before, found, after = self._apply(_PROBED, begun).rpartition(_PROBED)
        if not found:
            raise UserError(
                "the chat template leaves out the user's message",
                expected="a template that writes it",
                remedy="ask without `template: chat`, or correct the template",
            )
        return before, after

    def _apply(self, message: str, begun: str) -> str:
        chat = [] if self.system is None else [{"role": "system", "content": self.system}]
        chat.append({"role": "user", "content": message})
        how = {"add_generation_prompt": True}
        if begun:
            chat.append({"role": "assistant", "content": begun})
            how = {"continue_final_message": True}
        try:
            text = str(self.tokenizer.apply_chat_template(chat, tokenize=False, **how))
        except Exception as error:  # a template is a program of others, and may raise what it likes
            raise UserError(
                f"the chat template fails: {first_line(error)}",
                expected="a template that renders a user's message"
                + ("" if self.system is None else " after a system's"),
                remedy="leave out the system's text if the template takes none, or ask without `template: chat`",
            ) from error
        if begun and not text.endswith(begun):
            raise UserError(
                f"the chat template does not keep {begun!r}, with which the answer begins",
                expected="a template that writes it unchanged, and a beginning without blanks at its ends",
                remedy="shorten the beginning, or leave it out",
            )
        return text


def _moved(probe: Probe, name: str, prompt: int, mark: Mark, rendered: Rendered) -> tuple[int, int]:
    """Where a mark of a prompt is after rendering; a span of characters counts in message and beginning, joined by nothing."""
    text, begun = probe.text[prompt], (probe.begun or ("",) * len(probe))[prompt]
    dropped = len(text) - len(text.lstrip()) if rendered.message[1] - rendered.message[0] < len(text) else 0
    if isinstance(mark, str):
        count = text.count(mark) + begun.count(mark) if mark else 0
        if count != 1:
            raise UserError(
                f"probe {probe.name!r}: prompt {prompt} ({text!r}): position {name!r}: {mark!r} occurs {count} times",
                expected="a piece of the prompt that occurs once",
                remedy="give a span of characters",
            )
        start = text.index(mark) if mark in text else len(text) + begun.index(mark)
        mark = (start, start + len(mark))
    start, end = mark
    if start >= len(text):
        shift = rendered.begun[0] - len(text)
        return start + shift, end + shift
    shift = rendered.message[0] - dropped
    return start + shift, min(end + shift, rendered.message[1])


def as_turns(probe: Probe) -> Probe:
    """A probe of written conversations (``User: ... Assistant: I think``) as a user's messages and how answers begin.

    The name of who speaks goes, as a chat has headers for it; a label that is no speaker's (``Answer:``), or the digits of a
    sum that are given, are what the answer begins with. Positions keep their place.

    >>> asked = Probe("p", ("User: Is it good?\\nAssistant: It is", "3 + 4?\\nAnswer:"), answer=(" so", " 7"))
    >>> turns = as_turns(asked)
    >>> turns.text, turns.begun
    (('Is it good?', '3 + 4?'), ('It is', 'Answer:'))
    """
    split = [_turns(text) for text in probe.text]
    twins = probe.corrupted
    if twins is not None:
        twins = tuple(text[s.start : s.end] for text in twins for s in [_turns(text)])
    positions = {
        name: tuple(_in_turns(probe.text[i], mark, split[i]) for i, mark in enumerate(marks))
        for name, marks in probe.positions.items()
    }
    return replace(
        probe,
        text=tuple(text[s.start : s.end] for text, s in zip(probe.text, split, strict=True)),
        begun=tuple(text[s.begun :] for text, s in zip(probe.text, split, strict=True)),
        corrupted=twins,
        positions=positions,
    )


class _Turns(NamedTuple):
    """Where the user's message starts and ends in a text, and where what the assistant has begun to say starts."""

    start: int
    end: int
    begun: int


_OPENING = re.compile(rf"(?:{'|'.join(USERS)}): ")
_LABEL = re.compile(r"\n+(?P<label>[A-Z][a-z]*(?: [a-z]+)?):(?: (?P<said>[^\n]*))?\Z", re.ASCII)
_SPEAKER = re.compile(rf"\n+(?:{'|'.join(ASSISTANTS)}):(?: |\Z)")

_GIVEN = re.compile(r" (?P<said>[0-9]+)\Z")
"""The first digits of a sum, which are given where numbers are split."""


def _turns(text: str) -> _Turns:
    opening = _OPENING.match(text)
    start = opening.end() if opening else 0
    last = text.rfind("\n")
    while last > 0 and text[last - 1] == "\n":
        last -= 1
    if last <= start:
        return _without_label(text, start)
    speaker = _SPEAKER.match(text, last)
    if speaker:
        return _Turns(start, last, speaker.end())
    label = _LABEL.match(text, last)
    return _Turns(start, last, label.start("label")) if label else _without_label(text, start)


def _without_label(text: str, start: int) -> _Turns:
    given = _GIVEN.search(text)
    return _Turns(start, given.start(), given.start("said")) if given else _Turns(start, len(text), len(text))


def _in_turns(text: str, mark: Mark, turns: _Turns) -> Mark:
    """A mark of the whole text, in message and beginning put together."""
    if isinstance(mark, str):
        return mark
    start, end = mark
    shift = turns.begun - (turns.end - turns.start) if start >= turns.begun else turns.start
    return start - shift, end - shift
