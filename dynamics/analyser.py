"""Running analyses on a trace: from raw slabs to curves, findings and emergence, written beside the slabs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from checkpoints.errors import FORBIDDEN, StoppedError, UserError, nearest, stopped_by_disk
from checkpoints.paths import StrPath, as_flag, as_texts

from .analysis import own_probes
from .analysis.base import Analysis, AnalysisOptions
from .analysis.results import Results
from .analysis.section import Summary
from .analysis.sources import code_digest
from .analysis.tables import findings_dataset
from .progress import Reporter
from .runs.config import AnalysisEntry, Run
from .runs.lookup import requested
from .runs.plan import find_analysis
from .store import FeatureTable, Trace, dictionaries_in, read_result, write_result, writer_lock
from .store.paths import open_run_trace
from .store.provenance import provenance

__all__ = ["OWN_PROBES", "Result", "analyse", "analysed"]

OWN_PROBES = "own_probes"
"""The analysis that every run with probes of its own has, although nobody lists it."""


@dataclass(frozen=True)
class Result:
    """One analysis and what it found."""

    analysis: Analysis
    summary: Summary


def analyse(
    name: str,
    analyses: Sequence[str] = (),
    *,
    runs: StrPath | None = None,
    traces: StrPath = "traces",
    run: Run | None = None,
    fresh: bool = True,
    reporter: Reporter | None = None,
) -> Results:
    """Run a run's analyses on its trace, without weights, and store what they find under ``results/``.

    Args:
        name: the run's name.
        analyses: which of the run's analyses; all of them if empty. ``own_probes`` is that of the run's own probes.
        runs: the runs file.
        traces: folder of traces.
        run: the run itself, instead of reading the runs file.
        fresh: analyse again even if the stored results were made from the same data by the same program.
        reporter: who tells the user.

    Returns:
        A mapping from an analysis's name to its summary; :func:`dynamics.open_results` reads them again.

    Raises:
        UserError: for an unknown analysis, or a trace that is missing or empty.
        StoppedError: when the disk is full.
    """
    trace, results = analysed(name, analyses, runs=runs, traces=traces, run=run, fresh=fresh, reporter=reporter)
    return Results([result.summary for result in results], path=trace.path)


def analysed(
    name: str,
    analyses: Sequence[str] = (),
    *,
    runs: StrPath | None = None,
    traces: StrPath = "traces",
    run: Run | None = None,
    fresh: bool = True,
    reporter: Reporter | None = None,
) -> tuple[Trace, list[Result]]:
    """The trace, and every analysis beside its summary: :func:`analyse` for those who need more of either."""
    reporter = reporter or Reporter(quiet=True)
    analyses, fresh = as_texts(analyses, "analyses"), as_flag(fresh, "fresh")
    name, run, traces = requested(name, run, runs=runs, traces=traces)
    entries = {entry.name: entry for entry in run.analyses}
    declared = OWN_PROBES in entries
    if run.probes and not declared:
        entries[OWN_PROBES] = AnalysisEntry(name=OWN_PROBES)
    for unknown in [asked for asked in analyses if asked not in entries]:
        raise UserError(
            f"run {name!r} has no analysis {unknown!r}",
            remedy=nearest(unknown, entries) + ", or add it to the run",
            expected="an analysis of the run",
        )
    wanted = {n: _found(entries[n], declared) for n in (analyses or entries)}
    trace = open_run_trace(name, traces)
    planned = {entry["name"] for entry in trace.attributes["run_config"]["analyses"]}
    results = []
    for entry, (analysis, options) in wanted.items():
        if entries[entry].optional and entry not in planned:  # it did not fit the series
            continue
        inputs = _inputs(trace, analysis, options)
        if not fresh and (stored := _stored(trace.path, entry, inputs)) is not None:
            results.append(Result(analysis, stored))
            continue
        reporter.say(f"analysing {entry} ...")
        try:
            with threadpool_limits(1, user_api="blas"):  # many small matrices: threads only wait for one another
                summary = analysis.summary(trace, options)
        except UserError as error:
            error.add_note(f"in analysis {entry!r} of run {name!r}")
            raise
        with stopped_by_disk(f"results of {trace.path}"), _unless_collecting(trace.path, reporter) as free:
            if free and trace.changed:
                reporter.say(f"results are not stored: {trace.path} changed while it was analysed; analyse it again")
            elif free:
                try:
                    said = {"inputs": inputs, "summary": summary.to_json()}
                    arrays = findings_dataset(summary.findings, trace.steps) if summary.findings else None
                    write_result(trace.path, entry, summary.data, said, arrays)
                except OSError as error:
                    if error.errno not in FORBIDDEN:
                        raise
                    reporter.say(f"results are not stored: {trace.path} may not be written")
        results.append(Result(analysis, summary))
    return trace, results


def _found(entry: AnalysisEntry, declared: bool) -> tuple[Analysis, AnalysisOptions]:
    """An analysis and its options; a module called ``own_probes`` that the run declares is the user's."""
    if entry.name == OWN_PROBES and not declared:
        return Analysis(OWN_PROBES, own_probes), AnalysisOptions()
    return find_analysis(entry.name, entry.options)


def _stored(trace: Path, entry: str, inputs: dict[str, Any]) -> Summary | None:
    """What an analysis found before from the same inputs; None where that is not there, or cannot be read."""
    stored = read_result(trace, entry)
    if stored is None or stored[1].get("inputs") != inputs:
        return None
    with suppress(Exception):  # whatever is wrong with it: it can be derived again
        return Summary.from_json(stored[1]["summary"], stored[0])
    return None


@contextmanager
def _unless_collecting(trace: Path, reporter: Reporter) -> Iterator[bool]:
    """Whether results can be stored: a trace that is being collected can be looked at, but not written."""
    with ExitStack() as stack:
        try:
            stack.enter_context(writer_lock(trace))
            free = True
        except StoppedError:  # the disk is full
            raise
        except UserError as error:
            reporter.say(f"results are not stored: {error.observed}")
            free = False
        yield free


def _inputs(trace: Trace, analysis: Analysis, options: AnalysisOptions) -> dict[str, Any]:
    """What a result depends on: the data, the options and the program."""
    weights = "".join(str(d) for d in trace.tree.to_dataset()["weights_digest"].values[trace.complete])
    versions = provenance()["versions"]
    return {
        "fingerprint": trace.attributes.get("fingerprint"),
        "complete": [int(s) for s in trace.steps[trace.complete]],
        "options": json.loads(options.model_dump_json()),
        "code": code_digest([analysis.module.__name__, __name__]),
        "weights": hashlib.sha256(weights.encode()).hexdigest()[:16],
        "versions": {k: versions[k] for k in ("circuit-dynamics", "numpy", "scipy")},
        "dictionaries": {d: FeatureTable(trace, d).settings["key"] for d in dictionaries_in(trace)},
    }
