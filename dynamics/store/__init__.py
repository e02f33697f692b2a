"""The trace: one Zarr v3 store per run (``docs/trace-format.md``). Importing this package imports no torch."""

from __future__ import annotations

from .declaration import FORMAT, FORMAT_VERSION, WEIGHTS, Group, TraceDeclaration
from .lock import writer_lock
from .reader import Trace, open_trace
from .results import read_result, write_result
from .writer import TraceWriter, remark

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "WEIGHTS",
    "Group",
    "Trace",
    "TraceDeclaration",
    "TraceWriter",
    "open_trace",
    "read_result",
    "remark",
    "write_result",
    "writer_lock",
]
