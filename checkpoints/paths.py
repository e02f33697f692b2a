"""Paths, names and numbers as a caller gives them, and the one cache folder in which weights are kept."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import platformdirs

from .errors import UserError, short

__all__ = [
    "StrPath",
    "absolute",
    "as_flag",
    "as_mapping",
    "as_number",
    "as_numbers",
    "as_path",
    "as_text",
    "as_texts",
    "beside",
    "cache_folder",
    "replace_bytes",
    "replace_text",
    "require_path",
    "step_pattern",
]

StrPath = str | os.PathLike[str]
"""What every public function takes as a path."""


def cache_folder() -> Path:
    """``$DYNAMICS_CACHE`` if it is set, else the platform's user cache (``~/.cache/circuit-dynamics`` on Linux).

    Weights are kept there and never in a folder of the project.
    """
    named = os.environ.get("DYNAMICS_CACHE")
    return beside(Path(), named) if named else Path(platformdirs.user_cache_dir("circuit-dynamics"))


def require_path(path: Path) -> None:
    """Refuse what no file system takes as a path; whether anything is there does not matter.

    Raises:
        UserError: for a name that is too long or no text, a zero byte, links in a circle, the home folder of nobody.
    """
    try:
        str(path).encode()
        path.expanduser().stat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{short(str(path))!r} cannot be a path: {getattr(error, 'strerror', None) or error}",
            expected="the path of a file or folder",
            remedy="correct it; relative paths in a runs file are relative to that file",
        ) from error


def beside(base: Path, path: StrPath) -> Path:
    """A path as a file in folder ``base`` says it: relative to that folder, ``~`` is home.

    Raises:
        UserError: as :func:`require_path`.

    >>> beside(Path("a"), "b").as_posix()
    'a/b'
    """
    require_path(Path(path))
    whole = base / Path(path).expanduser()
    require_path(whole)
    return whole


def absolute(path: StrPath) -> Path:
    """A path with ``~`` and links resolved.

    Raises:
        UserError: as :func:`require_path`.
    """
    return beside(Path(), path).resolve()


def replace_text(file: Path, text: str) -> None:
    """Write a file in one move: whoever reads it, or writes it after a crash, finds the old text or the new one.

    Raises:
        OSError: when it cannot be written; the old text stays.
    """
    replace_bytes(file, text.encode())


def replace_bytes(file: Path, content: bytes) -> None:
    """:func:`replace_text` for any content."""
    partial = file.with_name(file.name + ".partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, file)
    except OSError:
        with suppress(OSError):  # nothing is left of what could not be put in its place
            partial.unlink()
        raise


def as_path(value: object, what: str) -> Path:
    """An argument that is a path, whatever it was written as.

    Args:
        value: the argument.
        what: its name, for the message.

    Raises:
        UserError: when it is no path, or :func:`require_path` refuses it.

    >>> as_path("traces", "traces").name
    'traces'
    """
    if isinstance(value, str | os.PathLike) and isinstance(path := os.fspath(value), str):
        require_path(Path(path))
        return Path(path)
    raise _wrong(value, what, "a path", "a str or a pathlib.Path")


def as_text(value: object, what: str) -> str:
    """An argument that is a name or another text; arguments as of :func:`as_path`.

    Raises:
        UserError: when it is something else.
    """
    if not isinstance(value, str):
        raise _wrong(value, what, "a text", "a str")
    try:
        value.encode()
    except UnicodeEncodeError as error:  # bytes of a command line that are no text, halves of surrogate pairs
        raise UserError(
            f"`{what}` is {value!r}, which holds half characters",
            expected="valid UTF-8",
            remedy=f"write `{what}` without them",
        ) from error
    return value


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


def as_flag(value: object, what: str) -> bool:
    """An argument that is true or false; arguments as of :func:`as_path`.

    Raises:
        UserError: when it is something else: a text such as "no" would count as true.
    """
    if isinstance(value, bool):
        return value
    raise _wrong(value, what, "True or False", "True or False")


def as_mapping(value: object, what: str) -> dict[str, Any]:
    """An argument that names things; arguments as of :func:`as_path`.

    Raises:
        UserError: when it is something else, or a name is no text.
    """
    if isinstance(value, Mapping):
        return {as_text(key, f"a key of {what}"): content for key, content in value.items()}
    raise _wrong(value, what, "a mapping from names", "a dict")


def as_number(
    value: object, what: str, *, least: float | None = None, most: float | None = None, whole: bool = True
) -> Any:
    """An argument that is a number; arguments as of :func:`as_path`.

    Args:
        least: the smallest that is meant.
        most: the largest.
        whole: whether it has to be an integer.

    Raises:
        UserError: when it is something else, beyond these, or NaN.

    >>> as_number(3, "curves", least=1)
    3
    """
    fits = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
    if fits and value == value and (least is None or value >= least) and (most is None or value <= most):  # type: ignore[operator]
        return value
    bounds = [f"at {which} {bound:g}" for which, bound in (("least", least), ("most", most)) if bound is not None]
    number = ", ".join(["a whole number" if whole else "a number", *bounds])
    raise _wrong(value, what, number, number)


def as_numbers(values: object, what: str) -> list[int]:
    """An argument that holds whole numbers of 0 or more, such as steps; arguments as of :func:`as_path`.

    Returns:
        Each once, in order.

    Raises:
        UserError: when it is something else, or holds none.

    >>> as_numbers({10, 0}, "steps")
    [0, 10]
    """
    if isinstance(values, Collection) and not isinstance(values, str | bytes) and values:
        return sorted({int(as_number(value, what, least=0)) for value in values})
    raise _wrong(values, what, "whole numbers of 0 or more, such as [0, 10, 100]", "a list of int")


def step_pattern(value: str, groups: Collection[str] = ("step",)) -> str:
    """A pattern that names of checkpoints match, for a validator of a setting.

    Args:
        value: the pattern.
        groups: what its groups may be called.

    Raises:
        ValueError: when it is none, has no group named step, or groups that mean nothing.
    """
    try:
        named = set(re.compile(value).groupindex)
    except re.error as error:
        raise ValueError(f"{value!r} is not a regular expression: {error}") from error
    if "step" not in named:
        raise ValueError(f"{value!r} has no group named step, as in step(?P<step>\\d+)")
    if foreign := named - {*groups}:
        raise ValueError(f"{value!r} has groups that mean nothing here: {', '.join(sorted(foreign))}")
    return value


def _wrong(value: object, what: str, expected: str, remedy: str) -> UserError:
    return UserError(
        f"`{what}` is {short(repr(value))}, of type {type(value).__name__}",
        expected=expected,
        remedy=f"give {remedy} as `{what}`",
    )
