"""Probes drawn prompt by prompt: each with an answer, a foil, a corrupted twin, labels and marked positions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from string import Formatter

from checkpoints.errors import UserError

from .types import Label, Mark, Probe

__all__ = ["Prompt", "Span", "draw_probe", "fill", "to_probe"]

Span = tuple[int, int]
"""Half-open range of characters."""

_TRIES = 2000


@dataclass(frozen=True)
class Prompt:
    """One prompt of a probe; the fields are those of :class:`dynamics.probes.Probe`."""

    text: str
    answer: str | None = None
    foil: str | None = None
    corrupted: str | None = None
    labels: Mapping[str, Label] = field(default_factory=dict)
    positions: Mapping[str, Mark] = field(default_factory=dict)


def fill(template: str, slots: Mapping[str, str]) -> tuple[str, dict[str, list[Span]]]:
    """Fill the slots of a template and return the span of each one.

    Args:
        template: text with named slots, of which each may occur several times.
        slots: slot name to its text; slots that the template lacks are ignored.

    Returns:
        The text, and for every slot of the template its character spans in the order of the text.

    >>> fill("{a} and {b} met, {b} spoke", {"a": "Ann", "b": "Bob"})
    ('Ann and Bob met, Bob spoke', {'a': [(0, 3)], 'b': [(8, 11), (17, 20)]})
    """
    text = ""
    spans: dict[str, list[Span]] = {}
    for literal, slot, _, _ in Formatter().parse(template):
        text += literal
        if slot is not None:
            spans.setdefault(slot, []).append((len(text), len(text) + len(slots[slot])))
            text += slots[slot]
    return text, spans


def draw_probe(name: str, draw: Callable[[int], Prompt], count: int, description: str) -> Probe:
    """A probe of ``count`` prompts with different texts.

    Args:
        name: of the probe.
        draw: gives a prompt by its index in the probe (0 to ``count - 1``), from which it may decide what has to be
            balanced; called again for the same index when its text was drawn before.
        count: number of prompts.
        description: of the probe.

    Raises:
        UserError: when no new prompt is drawn for an index.
    """
    prompts: dict[str, Prompt] = {}
    for index in range(count):
        for _ in range(_TRIES):
            prompt = draw(index)
            if prompt.text not in prompts:
                break
        else:
            raise UserError(
                f"probe {name!r}: {count} different prompts were asked for, and no more than {index} were found",
                remedy="ask for fewer prompts",
                expected="as many as there are",
            )
        prompts[prompt.text] = prompt
    return to_probe(name, list(prompts.values()), description)


def to_probe(name: str, rows: Sequence[Prompt], description: str) -> Probe:
    """The probe of these prompts, in their order; it has answers, foils and corrupted twins if every prompt has one."""

    def column(values: Sequence[str | None]) -> tuple[str, ...] | None:
        known = tuple(value for value in values if value is not None)
        return known if len(known) == len(rows) else None

    return Probe(
        name=name,
        text=tuple(row.text for row in rows),
        answer=column([row.answer for row in rows]),
        foil=column([row.foil for row in rows]),
        corrupted=column([row.corrupted for row in rows]),
        labels={key: tuple(row.labels[key] for row in rows) for key in rows[0].labels} if rows else {},
        positions={key: tuple(row.positions[key] for row in rows) for key in rows[0].positions} if rows else {},
        description=description,
    )
