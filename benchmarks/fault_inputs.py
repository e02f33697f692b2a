"""Inputs that are hostile: files of every kind that is read, each changed in 500 ways, must be read or be refused clearly.

Clearly refused is an error with what was observed, what is expected and what to do. A traceback, or more than ten seconds,
is a failure.
"""

from __future__ import annotations

import random
import shutil
import signal
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.fault_boundaries import BOUNDARIES, Boundary
from benchmarks.fault_figures import Figures
from checkpoints.errors import UserError

__all__ = ["outcomes", "run"]

SECONDS = 10
"""Longer than this is no answer."""

VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 5, 300_000, 2**31, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e308),
    *(
        "",
        " ",
        "x",
        "nan",
        "~no-such-user/x",
        "./" + "a" * 5000,
        "a\0b",
        "\ud800",
        "../../etc",
        "/dev/zero",
        "日本",
        "1e999",
    ),
    *([], {}, [1, "a"], {"a": 1}, [[]], {"": None}, [None], "-", "meta", "2024-13-45"),
)
"""What a value may be replaced by."""

PIECES = (
    *(
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\x00",
        b"\xd8\x00",
        b"\\ud800",
        b"\r",
        b"\x85",
        b"9" * 5000,
        b"1e999",
        b"NaN",
        b"Infinity",
    ),
    *(b"[" * 5000, b"{" * 400, b'{"a":' * 3000, b"]", b"}", b'"', b"'", b",", b":", b": ", b"\n", b"\t", b"- ", b"#"),
    *(
        b"!!python/object/apply:os.system [id]",
        b"!!int abc",
        b"!!binary x",
        b"2024-13-45",
        b"&a [*a, *a]",
        b"<<: 5",
        b"!!set {a}",
    ),
    *(b"null", b"true", b"-1", b"0x", b"~", b"*", b"&", b"%", b"@", b"\x1b[31m", b"5\n"),
)
"""What bytes may be put in or in the place of others."""


def _replaced(rng: random.Random, value: Any) -> Any:
    """The same values but for one, somewhere."""
    if rng.random() < (0.1 if isinstance(value, dict | list) and value else 1):
        return rng.choice(VALUES)
    if isinstance(value, dict):
        key = rng.choice(list(value))
        rest = {k: v for k, v in value.items() if k != key}
        kind = rng.random()
        if kind < 0.1:
            return rest
        if kind < 0.2:
            return {**rest, str(rng.choice(VALUES)): value[key]}
        return {**value, key: _replaced(rng, value[key])}
    index = rng.randrange(len(value))
    return [*value[:index], _replaced(rng, value[index]), *value[index + 1 :]]


def changed(rng: random.Random, content: bytes, boundary: Boundary) -> bytes:
    """A good file's content, changed in one to three ways."""
    if boundary.parse is not None and rng.random() < 0.6:
        value = boundary.parse(content)
        for _ in range(rng.randint(1, 2)):
            value = _replaced(rng, value)
        return boundary.dump(value, content)
    for _ in range(rng.randint(1, 3)):
        start, end = sorted(rng.randrange(len(content) + 1) for _ in range(2))
        end = min(end, start + rng.choice((0, 1, 8, len(content))))
        piece = rng.choice((rng.choice(PIECES), rng.choice(PIECES), b"", content[start:end] * 2, rng.randbytes(4)))
        content = content[:start] + piece + content[end:]
    return content


class Hung(BaseException):
    """An input that takes too long."""


@contextmanager
def _limited() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Hung

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def outcomes(boundary: Boundary, count: int, at: Path, seed: int = 0) -> tuple[Counter[str], list[str]]:
    """How many changed files were ``read``, ``refused`` clearly, or failed, and a line for each failure."""
    found: Counter[str] = Counter()
    failures = []
    good = at / "good"
    file = boundary.made(good).relative_to(good)
    content = (good / file).read_bytes()
    shutil.copytree(good, at / "tried")
    boundary.read(at / "tried")
    for number in range(count):
        rng = random.Random(f"{boundary.what} {seed} {number}")
        folder = at / "changed"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(good, folder)
        (folder / file).write_bytes(changed(rng, content, boundary))
        try:
            with _limited():
                boundary.read(folder)
            outcome = "read"
        except UserError as error:
            outcome = "refused" if error.observed and error.expected and error.remedy else "half said"
            if outcome != "refused":
                failures.append(f"input {number}: {' '.join(str(error).split())[:300]}")
        except Hung:
            outcome = "hung"
            failures.append(f"input {number}: no answer within {SECONDS} s")
        except Exception as error:
            outcome = "traceback"
            where = traceback.extract_tb(error.__traceback__)[-1]
            failures.append(
                f"input {number}: {type(error).__name__}: {str(error)[:200]} ({where.filename}:{where.lineno})"
            )
        found[outcome] += 1
    return found, failures


def run(count: int = 500) -> list[Figures]:
    """Change files of every kind, and read them."""
    rows = []
    for boundary in BOUNDARIES:
        with tempfile.TemporaryDirectory() as folder:
            found, failures = outcomes(boundary, count, Path(folder))
        tried, well = found.total(), found["read"] + found["refused"]
        said = ", ".join(f"{found[name]} {name}" for name in ("refused", "read", "half said", "traceback", "hung"))
        print(f"{boundary.what}: {tried} tried: {said}", flush=True)
        rows.append(
            Figures(f"input: {boundary.what}", tried, tried - found["hung"], well + found["hung"], tuple(failures))
        )
    return rows
