"""Numbers and steps in the words that every output uses."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

__all__ = ["duration", "grouped", "left_out_lines", "listed", "plural", "steps_text"]


def duration(seconds: float) -> str:
    """Seconds, minutes or hours.

    >>> duration(12), duration(600), duration(9000)
    ('12 s', '10 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def listed(items: Sequence[str]) -> str:
    """Items as they are listed in a sentence.

    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return " and ".join([", ".join(items[:-1]), items[-1]]) if len(items) > 1 else "".join(items)


def plural(word: str) -> str:
    """Several of what a word names.

    >>> plural("item"), plural("entity")
    ('items', 'entities')
    """
    return f"{word[:-1]}ies" if word.endswith("y") else f"{word}s"


def steps_text(steps: list[int]) -> str:
    """Steps as text, the first few and the last.

    >>> steps_text([5]), steps_text(list(range(0, 100, 10)))
    ('step 5', '10 steps 0, 10, 20, 30, 40, 50, ... 90')
    """
    if len(steps) == 1:
        return f"step {steps[0]}"
    shown = ", ".join(map(str, steps[:6])) + (f", ... {steps[-1]}" if len(steps) > 6 else "")
    return f"{len(steps)} steps {shown}"


def grouped(reasons: Mapping[int, str]) -> list[tuple[str, str]]:
    """(steps, reason) with the steps of one reason together, also where it names each of them by its label.

    >>> grouped({1: "a", 2: "b", 3: "a"})
    [('2 steps 1, 3', 'a'), ('step 2', 'b')]
    >>> grouped({1: "step1 of x holds 1 file", 2: "step2 of x holds 1 file", 8: "cannot read x/checkpoint-8"})
    [('2 steps 1, 2', 'stepN of x holds 1 file'), ('step 8', 'cannot read x/checkpoint-8')]
    """
    steps: dict[str, list[int]] = {}
    for step, reason in sorted(reasons.items()):
        steps.setdefault(re.sub(rf"(?<=[a-z])([-_]?){step}(?!\d)", r"\1N", reason), []).append(step)
    return [
        (steps_text(members), reasons[members[0]] if len({reasons[s] for s in members}) == 1 else reason)
        for reason, members in steps.items()
    ]


def left_out_lines(reasons: Mapping[str, str]) -> list[str]:
    """One line for each reason why something that looks like a checkpoint is none.

    >>> left_out_lines({"step9": "it is an empty folder", "a": "it says no step", "b": "it says no step"})
    ['step9 is left out: it is an empty folder', 'a and b are left out: it says no step']
    """
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    return [f"{_some(members)} left out: {reason}" for reason, members in names.items()]


def _some(names: list[str]) -> str:
    if len(names) == 1:
        return f"{names[0]} is"
    shown = names if len(names) < 6 else [*names[:4], f"{len(names) - 4} more"]
    return f"{listed(shown)} are"
