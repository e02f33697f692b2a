"""Where the trace of a run is, and what is derived from it; opening it by the run's name."""

from __future__ import annotations

import os
from pathlib import Path

from checkpoints.errors import UserError
from checkpoints.objects import Bucket, is_url, url_of

from .mirror import located, place_of
from .places import require_place
from .reader import Trace

__all__ = ["beside_traces", "open_run_trace", "trace_names", "trace_path"]


def trace_path(traces: Path, name: str) -> Path:
    """Where a run's trace is; of one in an object store its mirror (:func:`dynamics.store.mirror.located`).

    Raises:
        UserError: when there is a link to nothing.
    """
    path = located(traces / f"{name}.zarr")
    require_place(path)
    return path


def trace_names(traces: Path) -> list[str]:
    """The names of the runs whose traces are in a folder, or below a URL, in order; none where there is no such folder."""
    names = Bucket(url_of(traces)).folders() if is_url(traces) else [path.name for path in traces.glob("*.zarr")]
    return sorted(name.removesuffix(".zarr") for name in names if name.endswith(".zarr"))


def beside_traces(traces: Path, name: str) -> Path:
    """Where derived output called ``name`` is written unless a folder is named: next to the folder of traces.

    >>> [str(beside_traces(Path(traces), "reports")) for traces in ("traces", "x/traces", "..", "s3://b/traces")]
    ['reports', 'x/reports', '../../reports', 'reports']
    """
    if is_url(traces):  # pages are for people: they stay here
        return Path(name)
    return Path(os.path.normpath(traces / os.pardir / name))  # not .parent: that of `..` is `.`


def open_run_trace(name: str, traces: Path) -> Trace:
    """The trace of a run.

    Raises:
        UserError: when it has not been collected, or no checkpoint is complete.
    """
    path = trace_path(traces, name)
    if not path.exists():
        raise UserError(
            f"run {name!r} has no trace in {url_of(traces) if is_url(traces) else traces}",
            expected=f"{path.name} there",
            remedy=f"dynamics collect {name}, or name the folder of traces with --traces",
        )
    trace = Trace(path)
    if not trace.complete.any():
        raise UserError(
            f"no checkpoint of {place_of(path)} is complete",
            expected="at least one",
            remedy=f"dynamics collect {name} (it says what fails)",
        )
    return trace
