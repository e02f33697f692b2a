"""The worlds that an organism can be trained on, one module each; :func:`all_worlds` is the list of them."""

from __future__ import annotations

from .addition import AdditionWorld
from .base import World
from .concepts import LANGUAGES, LanguageWorld
from .induction import InductionWorld

__all__ = ["World", "all_worlds", "vocabulary", "world_names"]


def _speaking_worlds() -> list[World]:
    """The worlds that bring words of their own."""
    return [AdditionWorld(), *(LanguageWorld(language) for language in LANGUAGES)]


def vocabulary() -> list[str]:
    """Every word of every world, in a fixed order, without special tokens.

    The vocabulary is the same for every organism, whichever worlds it is trained on, so that one probe fits all.
    """
    return list(dict.fromkeys(word for world in _speaking_worlds() for word in world.words))


def all_worlds() -> dict[str, World]:
    """Every world by name."""
    worlds = [*_speaking_worlds(), InductionWorld(vocabulary())]
    return {world.name: world for world in worlds}


def world_names() -> list[str]:
    """The names that a curriculum may use.

    >>> world_names()
    ['addition', 'english', 'french', 'german', 'induction']
    """
    return list(all_worlds())
