"""A *probe*: a named, typed table of prompts, before it meets a tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from checkpoints.errors import UserError

from ..names import DIMENSIONS

__all__ = ["LAST", "Label", "Mark", "Probe"]

Label = str | int | float | bool
Mark = str | tuple[int, int]
"""A place in a prompt: a piece of its text that occurs once, or a half-open character span."""

LAST = "last"
"""The position that every probe has: a prompt's final token (the mask, for a model that fills in masks)."""


@dataclass(frozen=True)
class Probe:
    """Prompts and what is known about them; every sequence has one entry per prompt.

    Attributes:
        name: letters, digits and underscores; names the probe's group in the trace.
        text: the prompts.
        answer: the right continuation of each prompt: one token, written as it follows the text (``" Paris"``).
        foil: a wrong continuation to compare with.
        corrupted: a twin of each prompt with as many tokens, for causal work.
        labels: label name to values (language, concept, operands, context, ...).
        positions: position name to a mark per prompt; the position is the token that holds the mark's last character.
        description: what the probe is for, in a sentence; kept in the trace.

    Raises:
        UserError: for an empty probe, columns of unequal length, a bad name.
    """

    name: str
    text: tuple[str, ...]
    answer: tuple[str, ...] | None = None
    foil: tuple[str, ...] | None = None
    corrupted: tuple[str, ...] | None = None
    labels: Mapping[str, tuple[Label, ...]] = field(default_factory=dict)
    positions: Mapping[str, tuple[Mark, ...]] = field(default_factory=dict)
    description: str = ""

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise UserError(f"{self.name!r} cannot name a probe", expected="letters, digits and underscores")
        if not self.text:
            raise UserError(f"probe {self.name!r} has no prompts", expected="at least one prompt")
        columns: dict[str, tuple[object, ...] | None] = {
            "answer": self.answer,
            "foil": self.foil,
            "corrupted": self.corrupted,
            **self.labels,
            **self.positions,
        }
        for column, values in columns.items():
            if values is not None and len(values) != len(self.text):
                raise UserError(
                    f"probe {self.name!r}: {column!r} has {len(values)} entries for {len(self.text)} prompts",
                    expected="one entry per prompt",
                )
        unusable = [label for label in self.labels if not label.isidentifier()]
        if unusable:
            raise UserError(
                f"probe {self.name!r}: {unusable[0]!r} cannot name a label", expected="letters, digits and underscores"
            )
        reserved = (set(DIMENSIONS) | {"text", "answer", "answer_id", "foil", "step"}) & set(self.labels)
        if reserved:
            raise UserError(
                f"probe {self.name!r}: label {sorted(reserved)[0]!r} is a name that the trace uses itself",
                remedy="rename the label",
            )
        if LAST in self.positions:
            raise UserError(
                f"probe {self.name!r} defines the position 'last'", expected="'last' is always the final token"
            )

    def __len__(self) -> int:
        return len(self.text)
