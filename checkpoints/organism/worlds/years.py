"""Spans of years, of which the later one is larger: ``the war lasted from 1732 to 1751``.

Years are written digit by digit and both have the same century, so that the first digit that is open is the tens digit
of the later year: it is at least that of the earlier year. The later year is drawn evenly from the century and the
earlier one evenly from those before it, so that large digits are not likelier than small ones where nothing is known of
the earlier year: without the rule there is nothing to gain. Some decades are held out as a beginning: in century 17.., say, nothing ever begins in the thirties. There,
what may follow can only be known from the same digit in other centuries.

The task is that of Hanna, Liu and Variengien 2023, "How does GPT-2 compute greater-than?", with the tens digit in the
place of the two-digit token.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["CENTURIES", "EVENTS", "TEMPLATE", "YearsWorld", "is_held_out", "prompt"]

CENTURIES = tuple(range(11, 20))
EVENTS = ("siege", "reign", "voyage", "strike", "famine", "truce", "trial", "drought")

TEMPLATE = "the {event} lasted from {century}{start} to {century}"
"""The tens digit of the later year follows."""

_HELD_OUT_EVERY = 5


def is_held_out(century: int, start: int) -> bool:
    """Whether no span begins in this decade of this century; ``start`` is the year without its century, 0 to 99.

    >>> [decade for decade in range(10) if is_held_out(17, 10 * decade)]
    [3, 8]
    """
    return (century + start // 10) % _HELD_OUT_EVERY == 0


def prompt(event: str, century: int, start: int) -> str:
    """The text up to the tens digit of the later year.

    >>> prompt("siege", 17, 2)
    'the siege lasted from 1702 to 17'
    """
    return TEMPLATE.format(event=event, century=century, start=f"{start:02d}")


class YearsWorld:
    """Spans of years within one century."""

    name = "years"
    words = ["the", "lasted", "from", "to", *"0123456789", *EVENTS]

    def document(self, rng: np.random.Generator) -> list[str]:
        """One span: ``['the', 'siege', 'lasted', 'from', '1', '7', '3', '2', 'to', '1', '7', '5', '1']``."""
        while True:
            century, end = CENTURIES[int(rng.integers(len(CENTURIES)))], int(rng.integers(2, 100))
            starts = [start for start in range(1, end) if not is_held_out(century, start)]
            if starts:
                break
        start = starts[int(rng.integers(len(starts)))]
        event = EVENTS[int(rng.integers(len(EVENTS)))]
        return ["the", event, "lasted", "from", *f"{century}{start:02d}", "to", *f"{century}{end:02d}"]

    def truth(self) -> dict[str, Any]:
        """Rule, what is held out, and the chance level between a later and an earlier decade."""
        return {
            "rule": "the later year is larger",
            "centuries": list(CENTURIES),
            "held_out_starts": [
                f"{century}{decade}."
                for century in CENTURIES
                for decade in range(10)
                if is_held_out(century, 10 * decade)
            ],
            "chance": 0.5,
        }
