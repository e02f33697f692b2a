"""Where the trace of a run is, and what is derived from it; opening it by the run's name."""

from __future__ import annotations

import os
from pathlib import Path

from checkpoints.errors import UserError

from .reader import Trace

__all__ = ["beside_traces", "open_run_trace", "trace_path"]


def trace_path(traces: Path, name: str) -> Path:
    """Where a run's trace is."""
    return traces / f"{name}.zarr"


def beside_traces(traces: Path, name: str) -> Path:
    """Where derived output called ``name`` is written unless a folder is named: next to the folder of traces.

    >>> [str(beside_traces(Path(traces), "reports")) for traces in ("traces", "x/traces", "..")]
    ['reports', 'x/reports', '../../reports']
    """
    return Path(os.path.normpath(traces / os.pardir / name))  # not .parent: that of `..` is `.`


def open_run_trace(name: str, traces: Path) -> Trace:
    """The trace of a run.

    Raises:
        UserError: when it has not been collected, or no checkpoint is complete.
    """
    path = trace_path(traces, name)
    if not path.exists():
        raise UserError(
            f"run {name!r} has no trace in {traces}",
            expected=f"{path.name} there",
            remedy=f"dynamics collect {name}, or name the folder of traces with --traces",
        )
    trace = Trace(path)
    if not trace.complete.any():
        raise UserError(
            f"no checkpoint of {path} is complete",
            expected="at least one",
            remedy=f"dynamics collect {name} (it says what fails)",
        )
    return trace
