"""Modules of the user's own (analyses, adapters, tables of sites): found where they are installed, or beside the runs file."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module, invalidate_caches
from pathlib import Path
from types import ModuleType
from typing import Any

from checkpoints.errors import UserError

__all__ = ["import_beside", "import_named", "import_own", "own_code"]

_OURS = ("analyses", "checkpoints", "dynamics")
_ROOT = Path(__file__).parents[2]
_LINES = 12
"""Frames of a user's code that are shown."""

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


@contextmanager
def own_code(what: str, module: str | None) -> Iterator[None]:
    """Around a call of code that a user wrote: what it raises is a mistake in that code, and is said with its lines.

    The lines are always shown, because they are what its author needs, and the work before them may have taken hours; those
    of this program above them are left out. An exception in code of this project stays as it is: that is our bug.

    Args:
        what: the call, for the message, e.g. ``"summarise of analysis 'mine'"``.
        module: the module that the code is in, where it is known.

    Raises:
        UserError: for whatever the code raised, but for errors that already say what is wrong.
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        if (module or "").partition(".")[0] in _OURS or type(error).__name__ == "OutOfMemoryError":  # torch's
            raise
        frames = traceback.extract_tb(error.__traceback__)[1:]
        fault = UserError(
            f"{what} raised {type(error).__name__}: {error}",
            expected="code that runs through: it is not this program's",
            remedy="mend it at the last of these lines that is yours",
        )
        inside = [frame for frame in frames if not Path(frame.filename).is_relative_to(_ROOT / "dynamics")]
        own = frames[frames.index(inside[0]) :] if inside else frames
        for line in "".join(traceback.format_list(own[-_LINES:])).rstrip().splitlines():
            fault.add_note(line)
        raise fault from error


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
            expected="a module that python imports",
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
            remedy=f"correct `{key}` of the run",
        ) from error
