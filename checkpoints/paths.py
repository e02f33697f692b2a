"""Paths, names and numbers as a caller gives them, and the one cache folder in which weights are kept."""

from __future__ import annotations

import os
from collections.abc import Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import platformdirs

from .errors import UserError

__all__ = ["StrPath", "as_number", "as_path", "as_text", "as_texts", "cache_folder"]

StrPath = str | os.PathLike[str]
"""What every public function takes as a path."""


def cache_folder() -> Path:
    """``$DYNAMICS_CACHE`` if it is set, else the platform's user cache (``~/.cache/circuit-dynamics`` on Linux).

    Weights are kept there and never in a folder of the project.
    """
    named = os.environ.get("DYNAMICS_CACHE")
    return Path(named).expanduser() if named else Path(platformdirs.user_cache_dir("circuit-dynamics"))


def as_path(value: object, what: str) -> Path:
    """An argument that is a path, whatever it was written as.

    Args:
        value: the argument.
        what: its name, for the message.

    Raises:
        UserError: when it is no path.

    >>> as_path("traces", "traces").name
    'traces'
    """
    if isinstance(value, str | os.PathLike) and isinstance(path := os.fspath(value), str):
        return Path(path)
    raise _wrong(value, what, "a path", "a str or a pathlib.Path")


def as_text(value: object, what: str) -> str:
    """An argument that is a name or another text; arguments as of :func:`as_path`.

    Raises:
        UserError: when it is something else.
    """
    if isinstance(value, str):
        return value
    raise _wrong(value, what, "a text", "a str")


def as_texts(values: object, what: str) -> tuple[str, ...]:
    """An argument that is a list of names; arguments as of :func:`as_path`.

    Raises:
        UserError: when it is something else, a single name for instance.

    >>> as_texts(["a", "b"], "names")
    ('a', 'b')
    """
    if isinstance(values, Sequence) and not isinstance(values, str | bytes):
        return tuple(as_text(value, what) for value in values)
    raise _wrong(values, what, "a list of names", f"[{values!r}]" if isinstance(values, str) else "a list of str")


def as_number(value: object, what: str, *, least: float | None = None, whole: bool = True) -> Any:
    """An argument that is a number; arguments as of :func:`as_path`.

    Args:
        least: the smallest that is meant.
        whole: whether it has to be an integer.

    Raises:
        UserError: when it is something else, or smaller.

    >>> as_number(3, "curves", least=1)
    3
    """
    if isinstance(value, Integral if whole else Real) and (least is None or float(value) >= least):
        return value
    number = f"{'a whole number' if whole else 'a number'}{'' if least is None else f', at least {least:g}'}"
    raise _wrong(value, what, number, number)


def _wrong(value: object, what: str, expected: str, remedy: str) -> UserError:
    return UserError(
        f"`{what}` is {value!r}, of type {type(value).__name__}", expected=expected, remedy=f"give {remedy} as `{what}`"
    )
