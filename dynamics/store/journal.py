"""The journal beside a trace: when which process collected what, and how long it took (``NAME.journal.jsonl``).

It is kept out of the store, so that two traces of the same weights are the same bytes. Of processes that write one trace together
each has its own (:attr:`dynamics.store.claims.Claims.journal`), which whoever writes the trace alone next adds to the trace's.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from checkpoints.foreign import json_lines

from .claims import shards_folder
from .places import beside

__all__ = ["add_journals", "journal_file", "merged", "read_journal", "write_journal"]


def journal_file(trace: Path) -> Path:
    """The journal of a trace."""
    zarr = beside(trace, "")
    return zarr.with_name(zarr.name.removesuffix(".zarr") + ".journal.jsonl")


def write_journal(trace: Path, event: str, *, into: Path | None = None, **content: Any) -> None:
    """Append one event to the journal of a trace, or ``into`` that of a process which writes it with others."""
    line = {"time": round(time.time(), 3), "pid": os.getpid(), "event": event, **content}
    _append(journal_file(trace) if into is None else into, json.dumps(line).encode() + b"\n")


def _append(file: Path, lines: bytes) -> None:
    if file.exists() and not file.is_file():
        raise OSError(errno.EINVAL, "it is a folder, a pipe or a device, not a journal", str(file))
    with file.open("a+b") as stream:
        if stream.tell():  # at its end
            stream.seek(-1, os.SEEK_END)
            if stream.read() != b"\n":  # a killed process cut its line off
                stream.write(b"\n")
        stream.write(lines)


def add_journals(trace: Path) -> None:
    """Add the journals of processes that wrote a trace together to that of the trace; the caller holds its lock."""
    timed = [row for file in _parts(trace) for row in _in_order(_events(file))]
    if timed:
        events = [event for _, event in sorted(timed, key=lambda row: row[0])]
        _append(journal_file(trace), b"".join(json.dumps(event).encode() + b"\n" for event in events))


def merged(stored: bytes, here: bytes) -> bytes:
    """The journal in an object store, then the lines of this machine's that it has not: those of a killed process.

    >>> merged(b"a\\nb\\n", b"a\\nc\\ncut o")
    b'a\\nb\\nc\\n'
    """
    lines, whole = stored.splitlines(), here[: here.rfind(b"\n") + 1]
    known = {*lines}
    return b"".join(line + b"\n" for line in [*lines, *(line for line in whole.splitlines() if line not in known)])


def _in_order(events: list[dict[str, Any]]) -> Iterator[tuple[float, dict[str, Any]]]:
    """Each event of one process with a time that is not before the last one's, though its clock was set back."""
    latest = 0.0
    for event in events:
        said = event.get("time")
        latest = max(latest, float(said)) if isinstance(said, int | float) else latest
        yield latest, event


def read_journal(trace: Path) -> list[dict[str, Any]]:
    """Every event; what is none (a line that a killed process cut off, another's writing) is skipped.

    Of a ``complete`` checkpoint ``seconds`` is a number; of a ``round`` ``purposes`` is a mapping from steps to texts.
    """
    return [event for file in (journal_file(trace), *_parts(trace)) for event in _events(file)]


def _parts(trace: Path) -> list[Path]:
    return sorted(shards_folder(trace).glob("*.journal.jsonl"))


def _events(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():  # a pipe would be waited for
        return []
    try:
        rows, _ = json_lines(file.read_bytes().decode("utf-8", "replace"))
    except OSError:
        return []
    return [row for _, row in rows if isinstance(row, dict) and _whole(row)]


def _whole(event: dict[str, Any]) -> bool:
    if event.get("event") == "complete":
        seconds = event.get("seconds")
        return isinstance(seconds, int | float) and 0 <= seconds < 1e9
    if event.get("event") == "round":
        purposes = event.get("purposes")
        return isinstance(purposes, dict) and all(
            step.isdecimal() and isinstance(keys, list) and all(isinstance(key, str) for key in keys)
            for step, keys in purposes.items()
        )
    return True
