"""Numbers and steps in the words that every output uses."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["duration", "grouped", "steps_text"]


def duration(seconds: float) -> str:
    """Seconds, minutes or hours.

    >>> duration(12), duration(600), duration(9000)
    ('12 s', '10 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


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
    """(steps, reason) with the steps of one reason together.

    >>> grouped({1: "a", 2: "b", 3: "a"})
    [('2 steps 1, 3', 'a'), ('step 2', 'b')]
    """
    steps: dict[str, list[int]] = {}
    for step, reason in sorted(reasons.items()):
        steps.setdefault(reason, []).append(step)
    return [(steps_text(members), reason) for reason, members in steps.items()]
