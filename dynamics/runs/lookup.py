"""What a name on the command line means: a run of the runs file, a published series, a folder, or a trace."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from checkpoints.catalogue import catalogue
from checkpoints.errors import UserError, nearest
from checkpoints.hub import HubConfig
from checkpoints.local import FolderConfig
from checkpoints.paths import StrPath, absolute, as_path, as_text, as_texts, require_path

from ..store import trace_attributes
from ..store.paths import trace_path
from .config import DEFAULT_RUNS_FILE, AnalysisEntry, Run, load_cells, load_run, run_names
from .plan import built_in

__all__ = ["find_cells", "find_run", "requested", "trace_name"]


def find_cells(name: str, *, runs: StrPath | None = None) -> list[str]:
    """The names of the runs that a name stands for: the cells of a sweep; itself for any other.

    Raises:
        UserError: when the runs file, or the run of this name in it, is wrong.
    """
    name, file = as_text(name, "name"), None if runs is None else as_path(runs, "runs")
    if "@" in name or name not in _declared(file):
        return [name]
    return list(load_cells(name, file))


def find_run(
    name: str, *, runs: StrPath | None = None, traces: StrPath = "traces", analyses: Sequence[str] = ()
) -> tuple[str, Run]:
    """A run, and what its trace is called.

    In this order: a run of the runs file; a path (with a ``/``) of a series on disk; a published series of the
    catalogue; a run whose trace is there, as the trace recorded it. Series that no runs file mentions are collected
    for every built-in analysis that fits them.

    Args:
        name: the name or path.
        runs: the runs file.
        traces: folder of traces.
        analyses: for series that no runs file mentions: these analyses instead of all that fit.

    Raises:
        UserError: when the name means nothing, or the runs file is wrong.
    """
    name, traces, analyses = as_text(name, "name"), as_path(traces, "traces"), as_texts(analyses, "analyses")
    require_path(Path(name))
    runs = None if runs is None else as_path(runs, "runs")
    declared = _declared(runs)
    if name in declared:
        found = load_run(name, runs)
        if found.sweep:
            raise UserError(
                f"run {name!r} is a sweep",
                expected=f"one of its cells, such as {next(iter(load_cells(name, runs)))}",
                remedy=f"dynamics.find_cells({name!r}) lists them; collect, status, report and compare take the sweep itself",
            )
        return name, found
    entries = tuple(AnalysisEntry(name=a) for a in analyses) or tuple(
        AnalysisEntry(name=a, optional=True) for a in built_in()
    )
    if _is_path(name):
        path = absolute(name)
        if not path.exists():
            raise UserError(
                f"there is nothing at {name}",
                expected="a folder of checkpoints, or the name of a run",
                remedy="correct the path; it is relative to where the command runs",
            )
        return trace_name(name), Run(series=FolderConfig(path=path), analyses=entries)
    if name in catalogue():
        return name, Run(series=HubConfig(name=name), analyses=entries)
    if trace_path(traces, name).exists():
        return name, _recorded(trace_path(traces, name))
    if runs is None and not DEFAULT_RUNS_FILE.exists():
        raise UserError(
            f"the runs file {DEFAULT_RUNS_FILE} cannot be read: there is none here, and {name!r} is no published series",
            expected="a run of a runs file, a name that `dynamics series` lists, or the path of a folder",
            remedy=f"did you mean ./{name}?"
            if Path(name).is_dir()
            else "run the command where runs.yaml is, or name the file with --runs",
        )
    remedy = f"did you mean ./{name}?" if Path(name).is_dir() else nearest(name, [*declared, *catalogue()])
    raise UserError(
        f"there is no run {name!r} in {runs or DEFAULT_RUNS_FILE}, and no published series of that name",
        expected=f"one of {', '.join(declared)}; a name that `dynamics series` lists; or the path of a folder",
        remedy=remedy if remedy.startswith("did you mean") else "correct the name, or declare the run in that file",
    )


def requested(
    name: str,
    run: Run | None,
    *,
    runs: StrPath | None = None,
    traces: StrPath = "traces",
    analyses: Sequence[str] = (),
) -> tuple[str, Run, Path]:
    """What a verb is to work on, its arguments checked: the name, the run, and the folder of traces.

    Args:
        run: the run itself; None for the one that the name stands for (other arguments as of :func:`find_run`).

    Raises:
        UserError: as :func:`find_run`.
    """
    if run is None:
        name, run = find_run(name, runs=runs, traces=traces, analyses=analyses)
    if not isinstance(run, Run):
        raise UserError(
            f"`run` is {run!r}, of type {type(run).__name__}",
            expected="a Run",
            remedy="change one: name, run = dynamics.find_run(name); run.model_copy(update={'device': 'cpu'})",
        )
    if runs is not None:
        as_path(runs, "runs")
    as_texts(analyses, "analyses")
    return as_text(name, "name"), run, as_path(traces, "traces")


def trace_name(name: str) -> str:
    """What the trace of a name on the command line is called: the name, or the last part of a path."""
    if not _is_path(name):
        return name
    path = absolute(name)
    return path.stem if path.is_file() else path.name


def _is_path(name: str) -> bool:
    return os.sep in name or name.startswith(("~", "."))


def _declared(runs: Path | None) -> list[str]:
    """Names in the runs file; none where there is no file and none was asked for."""
    if runs is None and not DEFAULT_RUNS_FILE.exists():
        return []
    return run_names(runs)


def _recorded(path: Path) -> Run:
    recorded: Any = trace_attributes(path).get("run_config")
    try:
        run = Run.model_validate(recorded)
        foreign = [n for n in (run.adapter, run.sites, *(e.name for e in run.analyses)) if n and "." in n]
        if foreign:  # a trace may come from any source, and must not choose what is imported
            raise UserError(
                f"{path} was collected with code from outside this project ({foreign[0]}), which a trace alone does not start",
                remedy="declare the run in a runs file",
                expected="a runs file that names that code",
            )
        return run
    except ValidationError as error:
        raise UserError(
            f"{path} was collected by a run that this program cannot read: {error.errors()[0]['msg']}",
            remedy="declare the run in a runs file",
            expected="a run as this version declares it",
        ) from error
