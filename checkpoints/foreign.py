"""What somebody else wrote: text, JSON and YAML files of which nothing is known.

Parsers of damaged or hostile files raise whatever comes of them (a date that is none, a number of 5,000 digits, brackets
without end). Here that is one ``ValueError`` that says it in a line, beside the ``OSError`` of a file that cannot be had.

>>> parse_json('{"a": [1')
Traceback (most recent call last):
...
ValueError: it is not JSON: Expecting ',' delimiter at character 9
"""

from __future__ import annotations

import errno
import json
import math
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from .errors import first_line

__all__ = ["json_lines", "parse_json", "parse_yaml", "read_json", "read_text", "require_plain", "truth_for_number"]

_DEEPEST, _MOST = 64, 1_000_000
"""Of what a person writes into a settings file: levels, and values in all. Aliases of YAML can multiply to any number."""


def read_text(file: Path) -> str:
    """A text file in UTF-8, without the mark that editors on Windows begin one with.

    Raises:
        OSError: when it cannot be read, or is a device or a pipe, which may have no end.
        ValueError: when it is not UTF-8, or its path is none.
    """
    kind = file.stat().st_mode
    if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
        raise OSError(errno.EINVAL, "it is a device or a pipe, not a file", str(file))
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8: {error.reason} at byte {error.start}") from error


def parse_json(text: str | bytes) -> Any:
    """The value of a text in JSON.

    Raises:
        ValueError: when it is none.
    """
    with _one_error("JSON"):
        return json.loads(text)


def read_json(file: Path, kind: type = object) -> Any:
    """The value that a JSON file holds.

    Args:
        file: the file.
        kind: what it has to be, ``dict`` for instance.

    Raises:
        OSError, ValueError: as :func:`read_text`, and when it is no JSON or of another kind.
    """
    value = parse_json(read_text(file))
    if not isinstance(value, kind):
        raise ValueError(f"it holds a {type(value).__name__}, not a {kind.__name__}")
    return value


def json_lines(text: str) -> tuple[list[tuple[int, Any]], list[str]]:
    r"""(line, value) of a text with a JSON value a line, and what is wrong with lines that hold none; empty ones are left out.

    >>> json_lines('1\n\n[\n')
    ([(1, 1)], ['line 3 is not JSON: Expecting value at character 2'])
    """
    rows, problems = [], []
    for number, line in enumerate(text.split("\n"), 1):  # a text may hold what else counts as the end of a line
        if line.strip():
            try:
                rows.append((number, parse_json(line)))
            except ValueError as error:
                problems.append(f"line {number} {str(error).removeprefix('it ')}")
    return rows, problems


_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class _Loader(yaml.SafeLoader):
    """YAML in which a key that occurs twice is an error (of two runs of one name, one would silently not exist), so are steps
    such as 0100 (to base 8: 64) and 1:30 (to base 60: 90), and a value that cannot be made says where it stands."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key is not a word", problem_mark=key.start_mark)
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} occurs twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        number = node.tag in _NUMBERS and isinstance(node, yaml.ScalarNode)
        if number and (":" in node.value or re.match(r"[-+]?0[0-9_]", node.value)):
            problem = f"{node.value} is no plain number: YAML would read it to another base than 10"
            raise yaml.MarkedYAMLError(problem=f"{problem}; quote it if it is a text", problem_mark=node.start_mark)
        try:
            return super().construct_object(node, deep)
        except (yaml.YAMLError, RecursionError):
            raise
        except Exception as error:  # whatever int(), datetime() and others say of a value
            raise yaml.MarkedYAMLError(problem=first_line(error), problem_mark=node.start_mark) from error


def parse_yaml(text: str) -> Any:
    """The value of a text in YAML.

    Raises:
        ValueError: when it is none, or a key occurs twice.
    """
    with _one_error("YAML"):
        return yaml.load(text, _Loader)


def truth_for_number(given: Any, read: Any) -> str | None:
    """The key of the first true or false that was read as a number, as Python does; None where there is none.

    >>> truth_for_number({"series": {"steps": [0, True]}}, {"series": {"steps": (0, 1)}})
    'series.steps.1'
    """
    if isinstance(given, bool):
        return None if isinstance(read, bool) or not isinstance(read, int | float) else ""
    pairs: list[tuple[Any, Any, Any]] = []
    if isinstance(given, dict) and isinstance(read, dict):
        pairs = [(key, value, read[key]) for key, value in given.items() if key in read]
    elif isinstance(given, list | tuple) and isinstance(read, list | tuple):
        pairs = [(index, *pair) for index, pair in enumerate(zip(given, read, strict=False))]
    for key, value, below in pairs:
        if (found := truth_for_number(value, below)) is not None:
            return f"{key}.{found}".rstrip(".")
    return None


def require_plain(value: Any) -> None:
    """Refuse what no setting can mean: numbers beyond 64 bits or without end, text that cannot be written, other types than
    those of JSON (and dates), and nesting without end.

    Raises:
        ValueError: with the key.

    >>> require_plain({"run": {"steps": [10**30]}})
    Traceback (most recent call last):
    ...
    ValueError: run.steps.0 is a number beyond 64 bits
    """
    todo: list[tuple[tuple[Any, ...], Any]] = [((), value)]
    count = 0
    while todo:
        at, item = todo.pop()
        count += 1
        wrong = _not_plain(item)
        if len(at) > _DEEPEST or count > _MOST:
            wrong = f"lies below {_DEEPEST} others" if len(at) > _DEEPEST else f"is beyond the first {_MOST:,} values"
        if wrong:
            key = ".".join(map(str, at[:8])).encode("utf-8", "backslashreplace").decode()
            raise ValueError(f"{key or 'it'} {wrong}")
        if isinstance(item, dict):
            todo += [((*at, "a key of it"), key) for key in item]
            todo += [((*at, key), below) for key, below in item.items()]
        elif isinstance(item, list | tuple):
            todo += [((*at, index), below) for index, below in enumerate(item)]


def _not_plain(value: Any) -> str:
    """What is wrong with one value, but for those below it; nothing if it is plain."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return "holds half of a surrogate pair, which is no text"
        return "holds a zero byte" if "\0" in value else ""
    if isinstance(value, int):
        return "" if -(2**63) <= value < 2**63 else "is a number beyond 64 bits"
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"is {value}, which is no number"
    known = isinstance(value, dict | list | tuple | date) or value is None
    return "" if known else f"is a {type(value).__name__}"


@contextmanager
def _one_error(language: str) -> Iterator[None]:
    try:
        yield
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error.msg} at character {error.pos + 1}") from error
    except yaml.YAMLError as error:
        raise ValueError(f"it is not YAML: {error}") from error
    except Exception as error:  # parsers were written for what people write
        raise ValueError(f"it is not {language}: {first_line(error)}") from error
