"""Errors that a user can act on: what was observed, what was expected, and what to do about it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches

__all__ = [
    "FORBIDDEN",
    "CheckpointError",
    "StoppedError",
    "UnknownNameError",
    "UserError",
    "first_line",
    "nearest",
    "short",
    "shown",
    "stopped_by_disk",
    "together",
    "unwritable",
]


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
"""What the system says where nothing can be written any more, whatever folder is named."""

FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)
"""What the system says where one may not write."""

_MANY = 30
"""A list of more names than this is no help."""


class UserError(Exception):
    """A request that cannot be carried out as made.

    The command line prints it as one message and exits with :attr:`exit_code`; it never shows a traceback.
    Context (run, step, probe) is added on the way up with :meth:`add_note`.

    >>> print(UserError("there is no run 'organsim'", expected="one of: organism", remedy="dynamics collect organism"))
    there is no run 'organsim'
      expected: one of: organism
      remedy:   dynamics collect organism
    """

    exit_code = 2
    """2: the request was wrong. Subclasses for work that began and had to stop say 1."""

    def __init__(self, observed: str, *, expected: str, remedy: str) -> None:
        super().__init__(observed, expected, remedy)
        self.observed = observed
        self.expected = expected
        self.remedy = remedy

    def __str__(self) -> str:
        notes = [f"  {note}" for note in getattr(self, "__notes__", ())]
        return "\n".join([self.observed, f"  expected: {self.expected}", f"  remedy:   {self.remedy}", *notes])


def together(errors: Sequence[UserError]) -> UserError:
    """Several errors as one, so that all can be mended at once; a single one as it is."""
    if len(errors) == 1:
        return errors[0]
    found = UserError(
        f"{len(errors)} things are wrong: {errors[0].observed}", expected=errors[0].expected, remedy=errors[0].remedy
    )
    for note in getattr(errors[0], "__notes__", ()):
        found.add_note(note)
    for error in errors[1:]:
        for line in str(error).splitlines():
            found.add_note(line)
    return found


class CheckpointError(UserError):
    """One checkpoint that cannot be used (weights missing, mismatched or unreadable); the others may be fine."""


class UnknownNameError(UserError, KeyError):
    """A name that is not among those of a mapping; a KeyError too, as mappings raise."""


class StoppedError(UserError):
    """Work that began had to stop in the middle (disk full, out of memory); what is complete stays."""

    exit_code = 1


def unwritable(what: str, error: OSError, *, option: str = "") -> UserError:
    """What to raise where something cannot be written: a full disk stops the work, anything else is a wrong request.

    Args:
        what: what cannot be written, or no further.
        error: why.
        option: what names another folder, such as ``--traces``.

    >>> unwritable("the trace t.zarr", OSError(errno.ENOSPC, "No space left on device"))
    StoppedError('the trace t.zarr cannot be written: No space left on device', 'room on the disk', 'make room, then run the same command again; what is complete stays')
    """
    observed = f"{what} cannot be written: {_why(error)}"
    if error.errno in _FULL:
        return StoppedError(
            observed,
            remedy="make room, then run the same command again; what is complete stays",
            expected="room on the disk",
        )
    remedy = f"name another one with {option}" if option else "allow it, or move it to where you may write"
    return UserError(observed, expected="a folder that you may write to", remedy=remedy)


def _why(error: OSError) -> str:
    """What the system says; of a link to nothing, where it says no more than that there is a file."""
    if error.filename is not None and os.path.islink(error.filename) and not os.path.exists(error.filename):
        return f"{os.fsdecode(error.filename)} is a link to nothing"
    return error.strerror or str(error)


@contextmanager
def stopped_by_disk(what: str) -> Iterator[None]:
    """Within this, a full disk is a :class:`StoppedError`, and so is one that cannot be written any more.

    Args:
        what: what is written.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (*_FULL, *FORBIDDEN):
            raise
        why = _why(error) if error.filename is None else f"{_why(error)}: {error.filename}"
        stopped = unwritable(what, OSError(errno.EIO, why))
        if error.errno in FORBIDDEN:
            stopped.expected = "files and folders that you may write to"
            stopped.remedy = "allow it, then run the same command again; what is complete stays"
        raise stopped from error


def first_line(error: BaseException) -> str:
    """The first line of another library's exception; its type too where that is a word or nothing.

    >>> first_line(KeyError("steps")), first_line(ValueError("month must be in 1..12"))
    ("KeyError 'steps'", 'month must be in 1..12')
    """
    lines = str(error).strip().splitlines()
    return lines[0] if lines and " " in lines[0] else f"{type(error).__name__} {lines[0] if lines else ''}".rstrip()


def nearest(word: str, known: Iterable[str]) -> str:
    """The remedy text for a mistyped ``word``: the nearest known ones, else all of them.

    >>> nearest("adition", ["addition", "induction"])
    "did you mean 'addition'?"
    >>> nearest("xyz", ["b", "a"])
    'known: a, b'
    """
    known = sorted(known)
    close = get_close_matches(word, known, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    if len(known) > _MANY:
        return f"see how it is spelled: {len(known)} are known, {', '.join(known[:3])} among them"
    return f"known: {', '.join(known)}" if known else "none is declared"


def short(text: str, most: int = 300) -> str:
    """A text for a message, the middle of a long one left out.

    >>> short("a" * 9, 6)
    'aaa ... aaa'
    """
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-(most // 2) :]}"


def shown(value: object) -> str:
    """A value for a message, long ones cut, with its type.

    >>> shown(None)
    'None (NoneType)'
    """
    text = " ".join(repr(value).split())
    return f"{text if len(text) < 40 else text[:36] + ' ...'} ({type(value).__name__})"
