"""Repeated random sequences: the second half can only be predicted by looking back (induction).

A document is a random sequence of distinct tokens, written twice: ``c a d b c a d b``. The first copy is
unpredictable by construction; in the second copy, whatever followed the previous occurrence of the current token
follows again.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["LONGEST", "SHORTEST", "InductionWorld"]

SHORTEST, LONGEST = 5, 11


class InductionWorld:
    """Random sequences of ``SHORTEST`` to ``LONGEST`` distinct tokens of the whole vocabulary, each written twice."""

    name = "induction"
    words: list[str] = []

    def __init__(self, pool: list[str]) -> None:
        self._pool = pool

    def document(self, rng: np.random.Generator) -> list[str]:
        """One sequence of distinct tokens, twice."""
        length = int(rng.integers(SHORTEST, LONGEST + 1))
        chosen: dict[str, None] = {}
        while len(chosen) < length:
            chosen[self._pool[int(rng.integers(len(self._pool)))]] = None
        return [*chosen, *chosen]

    def truth(self) -> dict[str, Any]:
        """Rule and chance level."""
        return {
            "rule": "the second copy repeats the first",
            "lengths": [SHORTEST, LONGEST],
            "chance": 1 / len(self._pool),
        }
