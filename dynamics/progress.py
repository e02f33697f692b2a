"""Telling the user what is being done: bars on a terminal, plain lines elsewhere; and output that any stream can take."""

from __future__ import annotations

import codecs
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

__all__ = ["EVERY", "Reporter", "give_up_output", "make_writable"]

EVERY = 10.0
"""Seconds after which a line says what is being done, where there is no bar."""

_SPELLED = {
    "–": "-",
    "−": "-",
    "·": "-",
    "≤": "<=",
    "≥": ">=",
    "±": "+/-",
    "×": "x",
    "→": "->",
    "…": "...",
    "“": '"',
    "”": '"',
    "’": "'",
    "␣": "_",
    "∅": "''",
}
"""Signs of this program's own in ASCII; any other is written as its number."""


def _spell_out(error: UnicodeError) -> tuple[str, int]:
    """
    >>> "1–2 ≤ 日".encode("ascii", "dynamics-spelled")
    b'1-2 <= \\\\u65e5'
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    piece = error.object[error.start : error.end]
    plain = (_SPELLED.get(sign) or sign.encode("ascii", "backslashreplace").decode() for sign in piece)
    return "".join(plain), error.end


codecs.register_error("dynamics-spelled", _spell_out)


def make_writable() -> None:
    """Let standard output and error take any text, whatever their encoding: ASCII, Latin-1, a log of a batch job.

    Lines of tables are rich's affair, which draws them in ASCII where the encoding is no UTF.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="dynamics-spelled")


def give_up_output() -> None:
    """Nothing more can be written to standard output (its disk is full): what is left of it goes nowhere."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Reporter:
    """Says what is going on, on standard error, so that standard output stays for results.

    Args:
        quiet: say nothing at all (for use as a library).
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False)
        self._said: set[str] = set()

    def say(self, text: str) -> None:
        """One line."""
        self.console.print(text, markup=False, soft_wrap=True)

    def once(self, text: str) -> None:
        """One line, unless this reporter has said it before: every round of a collection would say it again."""
        if text not in self._said:
            self._said.add(text)
            self.say(text)

    @contextmanager
    def bar(self, title: str, total: int, *, unit: str) -> Iterator[Bar]:
        """A progress bar over ``total`` units; off a terminal, a line about every fifteen seconds."""
        if self.console.is_terminal and not self.console.quiet:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn(unit),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
            )
            with Progress(*columns, console=self.console) as progress:
                yield Bar(self, title, total, unit, progress)
        else:
            yield Bar(self, title, total, unit, None)


class Bar:
    """One bar; call :meth:`update` with how much is done."""

    def __init__(self, reporter: Reporter, title: str, total: int, unit: str, progress: Progress | None) -> None:
        self._reporter, self._title, self._total, self._unit, self._progress = reporter, title, total, unit, progress
        self._started = self._said = time.monotonic()
        self._first: int | None = None
        self._done = 0
        self._task = progress.add_task(title, total=total, note="") if progress is not None else None

    def update(self, done: int, note: str = "") -> None:
        """``done`` of the total are done."""
        self._done = done
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, note=note)
            return
        now = time.monotonic()
        if self._first is None:
            self._first = done - 1
        if now - self._said >= 15 or done == self._total:
            self._said = now
            elapsed = now - self._started
            left = elapsed / max(1, done - self._first) * (self._total - done)
            ahead = f", about {left:.0f} s left" if done < self._total else ""
            self._reporter.say(
                f"{self._title}: {done}/{self._total} {self._unit} in {elapsed:.0f} s{ahead}  {note}".rstrip()
            )

    def note(self, text: str) -> None:
        """What is being done towards the next unit; off a terminal, a line when nothing was said for ten seconds."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, note=text)
        elif time.monotonic() - self._said >= EVERY:
            self._said = time.monotonic()
            self._reporter.say(f"{self._title}: {self._done}/{self._total} {self._unit}, {text}")
