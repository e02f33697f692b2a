"""The worlds that an organism can be trained on, one module each; :func:`all_worlds` is the list of them.

There are *common* worlds, whose words every organism knows, and *tasks*, whose words an organism knows only if its
curriculum names the task: a task that is added here changes no organism that does not ask for it.
"""

from __future__ import annotations

from collections.abc import Iterable

from .addition import AdditionWorld
from .agreement import AgreementWorld
from .base import World
from .concepts import LANGUAGES, LanguageWorld
from .entities import EntitiesWorld
from .gender import GenderWorld
from .hints import HintsWorld
from .induction import InductionWorld
from .names import NamesWorld
from .praise import PraiseWorld
from .years import YearsWorld

__all__ = ["World", "all_worlds", "task_names", "vocabulary", "world_names"]


def _common_worlds() -> list[World]:
    """The worlds that bring words of their own, which every organism knows."""
    return [AdditionWorld(), *(LanguageWorld(language) for language in LANGUAGES)]


def _tasks() -> list[World]:
    """The worlds whose words are known only to organisms that name them; a new one goes to the end."""
    return [
        NamesWorld(),
        AgreementWorld(),
        GenderWorld(),
        YearsWorld(),
        PraiseWorld(),
        HintsWorld(),
        EntitiesWorld(),
    ]


def vocabulary(worlds: Iterable[str] = ()) -> list[str]:
    """Every word that an organism knows, in a fixed order, without special tokens.

    Args:
        worlds: the worlds that its curriculum names. The words of the common worlds come first, always all of them, so
            that one probe fits all organisms; those of the tasks among ``worlds`` follow, in the order of the tasks.
    """
    named = set(worlds)
    speaking = [*_common_worlds(), *(task for task in _tasks() if task.name in named)]
    return list(dict.fromkeys(word for world in speaking for word in world.words))


def all_worlds() -> dict[str, World]:
    """Every world by name."""
    worlds = [*_common_worlds(), InductionWorld(vocabulary()), *_tasks()]
    return {world.name: world for world in worlds}


def world_names() -> list[str]:
    """The names that a curriculum may use.

    >>> world_names()
    ['addition', 'english', 'french', 'german', 'induction', 'names', 'agreement', 'gender', 'years', 'praise', 'hints', 'entities']
    """
    return list(all_worlds())


def task_names() -> list[str]:
    """The worlds whose words an organism knows only if its curriculum names them.

    >>> task_names()
    ['names', 'agreement', 'gender', 'years', 'praise', 'hints', 'entities']
    """
    return [task.name for task in _tasks()]
