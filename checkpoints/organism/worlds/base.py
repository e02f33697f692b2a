"""What a *world* is: a source of documents with one circuit in it, whose truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

__all__ = ["World", "pick"]

_T = TypeVar("_T")


def pick(rng: np.random.Generator, choices: Sequence[_T]) -> _T:
    """One of several, all equally likely."""
    return choices[int(rng.integers(len(choices)))]


class World(Protocol):
    """One source of training documents.

    A world states which words it needs, draws documents, and says what of it was held out, so that a probe on the
    held-out part measures a rule and not a memory.
    """

    @property
    def name(self) -> str:
        """The name under which a curriculum lists it."""

    @property
    def words(self) -> list[str]:
        """Every token that a document of this world may contain."""

    def document(self, rng: np.random.Generator) -> list[str]:
        """One document, as tokens, without the separator."""

    def truth(self) -> dict[str, Any]:
        """What is known about this world: the rule, what was held out, the chance level (JSON values)."""
