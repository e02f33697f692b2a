"""Running analyses on a trace: from raw slabs to curves, findings and emergence, written beside the slabs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from threadpoolctl import threadpool_limits

from checkpoints.errors import UserError, nearest
from checkpoints.paths import StrPath, as_texts

from .analysis.base import Analysis
from .analysis.findings import Summary
from .progress import Reporter
from .runs.config import Run
from .runs.lookup import requested
from .runs.plan import find_analysis
from .store import FeatureTable, Trace, dictionaries_in, read_result, write_result, writer_lock
from .store.paths import open_run_trace
from .store.provenance import provenance

__all__ = ["Result", "analyse"]


@dataclass(frozen=True)
class Result:
    """One analysis and what it found."""

    module: Analysis
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
) -> list[Result]:
    """Run a run's analyses on its trace, without weights, and store what they find under ``results/``.

    Args:
        name: the run's name.
        analyses: which of the run's analyses; all of them if empty.
        runs: the runs file.
        traces: folder of traces.
        run: the run itself, instead of reading the runs file.
        fresh: analyse again even if the stored results were made from the same data by the same program.
        reporter: who tells the user.

    Raises:
        UserError: for an unknown analysis, or a trace that is missing or empty.
    """
    reporter = reporter or Reporter(quiet=True)
    analyses = as_texts(analyses, "analyses")
    name, run, traces = requested(name, run, runs=runs, traces=traces)
    entries = {entry.name: entry for entry in run.analyses}
    for wanted in analyses:
        if wanted not in entries:
            raise UserError(
                f"run {name!r} has no analysis {wanted!r}", remedy=nearest(wanted, entries) + ", or add it to the run"
            )
    modules = {n: find_analysis(n, entries[n].options) for n in (analyses or entries)}
    trace = open_run_trace(name, traces)
    planned = {entry["name"] for entry in trace.attributes["run_config"]["analyses"]}
    results = []
    for analysis, (module, options) in modules.items():
        if entries[analysis].optional and analysis not in planned:  # it did not fit the series
            continue
        inputs = _inputs(trace, analysis, module, options)
        stored = None if fresh else read_result(trace.path, analysis)
        if stored is not None and stored[1].get("inputs") == inputs:
            results.append(Result(module, Summary.from_json(stored[1]["summary"], stored[0])))
            continue
        reporter.say(f"analysing {analysis} ...")
        try:
            with threadpool_limits(1, user_api="blas"):  # many small matrices: threads only wait for one another
                summary = module.summarise(trace, options)
        except UserError as error:
            error.add_note(f"in analysis {analysis!r} of run {name!r}")
            raise
        with _unless_collecting(trace.path, reporter) as free:
            if free:
                write_result(trace.path, analysis, summary.data, {"inputs": inputs, "summary": summary.to_json()})
        results.append(Result(module, summary))
    return results


@contextmanager
def _unless_collecting(trace: Path, reporter: Reporter) -> Iterator[bool]:
    """Whether results can be stored: a trace that is being collected can be looked at, but not written."""
    with ExitStack() as stack:
        try:
            stack.enter_context(writer_lock(trace))
            free = True
        except UserError as error:
            reporter.say(f"results are not stored: {error.observed}")
            free = False
        yield free


def _inputs(trace: Trace, analysis: str, module: Any, options: BaseModel) -> dict[str, Any]:
    """What a result depends on: the data, the options and the program."""
    source = Path(module.__file__)
    files = sorted(source.parent.glob("*.py")) if source.name == "__init__.py" else [source]
    engine = Path(__file__).parent
    for package in ("numerics", "emergence", "circuits", "analysis"):
        files += sorted((engine / package).glob("*.py"))
    files += [engine / "store" / "reader.py", engine / "store" / "features.py"]
    weights = "".join(str(d) for d in trace.tree.to_dataset()["weights_digest"].values[trace.complete])
    code = hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:16]
    versions = provenance()["versions"]
    return {
        "fingerprint": trace.attributes.get("fingerprint"),
        "complete": [int(s) for s in trace.steps[trace.complete]],
        "options": json.loads(options.model_dump_json()),
        "code": code,
        "weights": hashlib.sha256(weights.encode()).hexdigest()[:16],
        "versions": {k: versions[k] for k in ("circuit-dynamics", "numpy", "scipy")},
        "dictionaries": {d: FeatureTable(trace, d).settings["key"] for d in dictionaries_in(trace)},
        "analysis": analysis,
    }
