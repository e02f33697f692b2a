"""The journal beside a trace: when which process collected what, and how long it took (``NAME.journal.jsonl``).

It is kept out of the store, so that two traces of the same weights are the same bytes.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

__all__ = ["journal_file", "read_journal", "write_journal"]


def journal_file(trace: Path) -> Path:
    """The journal of a trace."""
    return trace.with_name(trace.name.removesuffix(".zarr") + ".journal.jsonl")


def write_journal(trace: Path, event: str, **content: Any) -> None:
    """Append one event."""
    line = {"time": round(time.time(), 3), "pid": os.getpid(), "event": event, **content}
    with journal_file(trace).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")


def read_journal(trace: Path) -> list[dict[str, Any]]:
    """Every event; a line cut off by a killed process is skipped."""
    events = []
    try:
        lines = journal_file(trace).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    for line in lines:
        try:
            events.append(json.loads(line))
        except ValueError:
            continue
    return events
