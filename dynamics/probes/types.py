"""A *probe*: a named, typed table of prompts, before it meets a tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from checkpoints.errors import UserError, shown

from ..names import DIMENSIONS

__all__ = ["LAST", "Label", "Mark", "Probe"]

Label = str | int | float | bool
Mark = str | tuple[int, int]
"""A position in a prompt: a piece of its text that occurs once, or a half-open character span."""

LAST = "last"
"""The position that every probe has: a prompt's final token (the mask, for a model that fills in masks)."""


@dataclass(frozen=True)
class Probe:
    """Prompts and what is known about them; every sequence has one entry per prompt, in the order of the prompts.

    >>> capitals = Probe(
    ...     "capitals",
    ...     text=("The capital of France is", "The capital of Italy is"),
    ...     answer=(" Paris", " Rome"),
    ...     foil=(" Rome", " Paris"),
    ...     labels={"language": ("english", "english")},
    ...     positions={"country": ("France", "Italy")},
    ... )
    >>> len(capitals)
    2

    A tokenizer is met later (:func:`dynamics.probes.tokenize`): whether answers are one token, twins are as long as their
    prompts and pieces of text occur in them is checked there.

    Attributes:
        name: letters, digits and underscores; names the probe's group in the trace.
        text: the prompts.
        answer: the right continuation of each prompt: one token, written as it follows the text (``" Paris"``).
        foil: a wrong continuation to compare with.
        corrupted: a twin of each prompt with as many tokens, for causal work.
        labels: label name to values (language, concept, operands, context, ...).
        positions: position name to a mark per prompt; the position is the token that holds the mark's last character.
        description: what the probe is for, in a sentence; kept in the trace.
        begun: how the answer of each prompt begins where it is asked as a chat (:class:`dynamics.probes.chat.Chat`).
        template: digest of the chat template by which its texts are rendered; empty where they are as they were written.

    Raises:
        UserError: for an empty probe, columns of unequal length or of wrong types, a bad name.
    """

    name: str
    text: tuple[str, ...]
    answer: tuple[str, ...] | None = None
    foil: tuple[str, ...] | None = None
    corrupted: tuple[str, ...] | None = None
    labels: Mapping[str, tuple[Label, ...]] = field(default_factory=dict)
    positions: Mapping[str, tuple[Mark, ...]] = field(default_factory=dict)
    description: str = ""
    begun: tuple[str, ...] | None = None
    template: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.isidentifier():
            raise UserError(
                f"{self.name!r} cannot name a probe",
                expected="letters, digits and underscores, no digit first",
                remedy="rename it: it names a group of the trace",
            )
        if not _is_text(self.description):
            raise UserError(
                f"`description` of probe {self.name!r} is a {type(self.description).__name__}",
                expected="a sentence in words that can be written (no halves of surrogate pairs)",
                remedy="say what the prompts are for, or leave it out",
            )
        object.__setattr__(self, "text", self._column("'text'", self.text, _is_text, "text"))
        if not self.text:
            raise UserError(
                f"probe {self.name!r} has no prompts",
                expected="at least one prompt",
                remedy="add one, or leave the probe out",
            )
        for name in ("answer", "foil", "corrupted", "begun"):
            if (values := getattr(self, name)) is not None:
                object.__setattr__(self, name, self._column(repr(name), values, _is_text, "text"))
        for name, is_value, words in (
            ("labels", _is_label, "text, a number, True or False"),
            ("positions", _is_mark, "a piece of the prompt, or a pair of characters (start, end)"),
        ):
            given = getattr(self, name)
            if not isinstance(given, Mapping):
                raise UserError(
                    f"probe {self.name!r}: {name!r} is {shown(given)}",
                    expected=f"a mapping: the {name[:-1]}'s name to one entry per prompt",
                    remedy=f'{name}={{"name": ({"..., " * min(3, len(self.text))})}}',
                )
            for key in given:  # a label is a coordinate in the trace, a position one value of a coordinate
                if not _is_text(key) or (name == "labels" and not key.isidentifier()):
                    raise UserError(
                        f"probe {self.name!r}: {key!r} cannot name a {name[:-1]}",
                        expected="letters, digits and underscores, no digit first",
                        remedy="rename it: it names a coordinate of the trace",
                    )
            columns = {k: self._column(f"{name[:-1]} {k!r}", v, is_value, words) for k, v in given.items()}
            object.__setattr__(self, name, columns)
        reserved = (set(DIMENSIONS) | {"text", "answer", "answer_id", "foil", "step"}) & set(self.labels)
        if reserved:
            raise UserError(
                f"probe {self.name!r}: label {sorted(reserved)[0]!r} is a name that the trace uses itself",
                expected="a name of your own",
                remedy="rename the label",
            )
        if LAST in self.positions:
            raise UserError(
                f"probe {self.name!r} defines the position 'last'",
                expected="positions of your own: 'last' is always the final token",
                remedy="rename it, or leave it out",
            )

    def __len__(self) -> int:
        return len(self.text)

    def _column(self, column: str, values: Any, is_value: Callable[[object], bool], words: str) -> tuple[Any, ...]:
        """The values as a tuple of plain Python values, if they are a list of the right ones, as long as the prompts."""
        if not isinstance(values, tuple | list | np.ndarray):
            raise UserError(
                f"probe {self.name!r}: {column} is {shown(values)}",
                expected="a tuple with one entry per prompt",
                remedy=f"for one prompt: ({values!r},)"
                if is_value(values)
                else "write the values in brackets, by commas",
            )
        plain = tuple(values.tolist() if isinstance(values, np.ndarray) else values)
        plain = tuple(tuple(v) if isinstance(v, list) else v.item() if isinstance(v, np.generic) else v for v in plain)
        wrong = [i for i, value in enumerate(plain) if not is_value(value)]
        if wrong:
            raise UserError(
                f"probe {self.name!r}: {column} of prompt {wrong[0]} is {shown(plain[wrong[0]])}",
                expected=f"{words}{', no half of a surrogate pair' if isinstance(plain[wrong[0]], str) else ''}",
                remedy="correct it, or leave this prompt out",
            )
        if column != "'text'" and len(plain) != len(self.text):
            raise UserError(
                f"probe {self.name!r}: {column} has {len(plain)} entries for {len(self.text)} prompts",
                expected="one entry per prompt",
                remedy="add those that are missing, or take out those too many",
            )
        return plain


def _is_text(value: object) -> bool:
    """Whether a value is text that can be written, in a trace or anywhere."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_label(value: object) -> bool:
    return _is_text(value) or isinstance(value, int | float)


def _is_mark(value: object) -> bool:
    pair = isinstance(value, tuple) and len(value) == 2 and all(isinstance(v, int) for v in value)
    return pair or _is_text(value)
