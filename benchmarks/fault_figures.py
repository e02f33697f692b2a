"""Figures of the fault benchmark, and processes that are forked to meet a fault."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Ended", "Figures", "forked", "table"]


@dataclass(frozen=True)
class Figures:
    """One kind of fault.

    Attributes:
        what: the fault, in words.
        tried: how many were tried.
        survived: after how many everything that was there can be read, and the same command goes through.
        noticed: how many were said without a traceback; None where there is nothing to notice.
        failures: one line for each that was not survived or not noticed.
    """

    what: str
    tried: int
    survived: int
    noticed: int | None = None
    failures: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        """Whether all of them were survived and noticed."""
        return self.tried == self.survived and self.noticed in (None, self.tried)


def table(rows: Sequence[Figures]) -> str:
    """Rows of figures as text."""
    width = max((len(row.what) for row in rows), default=0)
    lines = [f"{'':<{width}}  {'tried':>6} {'survived':>9} {'noticed':>8}"]
    for row in rows:
        noticed = "-" if row.noticed is None else str(row.noticed)
        lines.append(f"{row.what:<{width}}  {row.tried:>6} {row.survived:>9} {noticed:>8}")
    return "\n".join(lines)


class Ended(NamedTuple):
    """How a forked process ended: its exit code (negative for a signal) and all that it printed."""

    code: int
    said: str

    @property
    def broke(self) -> bool:
        """Whether it ended as no program should: by a traceback or a signal."""
        return self.code < 0 or "Traceback (most recent call last)" in self.said


def forked(work: Callable[[], object]) -> Ended:
    """Do something in a process of its own that has everything imported; an exit code is taken from ``SystemExit``.

    This process must not have computed anything with zarr or torch, whose threads a fork does not have.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with tempfile.TemporaryFile() as said:
        child = os.fork()
        if not child:
            for number in (1, 2):
                os.dup2(said.fileno(), number)
            code = 0
            try:
                work()
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
            except BaseException:
                traceback.print_exc()
                code = 1
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        said.seek(0)
        return Ended(os.waitstatus_to_exitcode(status), said.read().decode("utf-8", "replace"))
