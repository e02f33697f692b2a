"""Modules of the user's own (analyses, adapters, tables of sites): found where they are installed, or beside the runs file."""

from __future__ import annotations

import sys
from importlib import import_module, invalidate_caches
from pathlib import Path
from types import ModuleType
from typing import Any

from checkpoints.errors import UserError

__all__ = ["import_beside", "import_named", "import_own"]

_OURS = ("analyses", "checkpoints", "dynamics")
_beside: list[str] = []
"""Folders of runs files, as they stand in ``sys.path`` after everything that is installed; the last one first."""


def import_beside(folder: Path) -> None:
    """From now on modules in this folder are found, too.

    Where the folder of another runs file had a module of the same name, that one is forgotten: each has its own.
    """
    entry = str(folder.resolve())
    if _beside[:1] == [entry] and entry in sys.path:
        return
    others = [other for other in _beside if other != entry]
    for name, module in list(sys.modules.items()):
        top, file = name.partition(".")[0], getattr(module, "__file__", None)
        there = (folder / f"{top}.py").exists() or (folder / top).is_dir()
        if file and there and top not in _OURS and any(Path(file).is_relative_to(other) for other in others):
            del sys.modules[name]
    _beside[:] = [entry, *others]
    sys.path[:] = [path for path in sys.path if path not in others and path != entry] + _beside
    invalidate_caches()


def import_own(dotted: str, what: str) -> ModuleType:
    """Import a module that a user named.

    Args:
        dotted: its name.
        what: what it is, for messages, e.g. ``"analysis 'mine'"``.

    Raises:
        ModuleNotFoundError: when there is none of this name.
        UserError: when it is there and cannot be imported, with the import's own message.
    """
    if not dotted:
        raise ModuleNotFoundError("no module is named", name="")
    try:
        return import_module(dotted)
    except Exception as error:  # anything may happen in a module that is not ours
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and (dotted == missing or dotted.startswith(f"{missing}.")):
            raise
        raise UserError(
            f"{what}: the module {dotted} is there and cannot be imported: {type(error).__name__}: {error}",
            remedy="mend the module, or install what it imports",
        ) from error


def import_named(dotted: str, key: str) -> Any:
    """What ``package.module:NAME`` means.

    Args:
        dotted: the name.
        key: the key of the runs file that has it, for messages.

    Raises:
        UserError: when it cannot be imported.
    """
    module, _, name = dotted.partition(":")
    try:
        return getattr(import_own(module, f"`{key}: {dotted}`"), name)
    except (ModuleNotFoundError, AttributeError, ValueError) as error:
        raise UserError(
            f"`{key}: {dotted}` cannot be imported: {error}",
            expected="module:NAME or package.module:NAME, of a module beside the runs file or an installed one",
        ) from error
