"""Is every checkpoint of a series what its label says? From the listing alone, and from the weights where they are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints.ahead import ReadAhead
from checkpoints.audit import AuditFinding, Sketch, audit_weights, neighbours, sketch
from checkpoints.errors import CheckpointError, UserError
from checkpoints.hub import HubSeries
from checkpoints.organism import OrganismConfig, is_trained
from checkpoints.paths import cache_folder
from checkpoints.series import Checkpoint, Series, WeightFile
from checkpoints.sources import open_series

from .config import LiveConfig, Run
from .lookup import find_run
from .preflight import list_weights, listing_findings
from .progress import Reporter
from .resolve import trace_path
from .store import WEIGHTS, Trace

__all__ = ["Audit", "audit"]


@dataclass(frozen=True)
class Audit:
    """What was found.

    Attributes:
        name: of the run or series.
        origin: where its weights come from.
        checkpoints: how many it has.
        findings: by step; those with ``mask`` are left out of collection.
        weights: how many checkpoints' weights were compared, besides the listing.
        table: column name to (compared checkpoint,) values: ``step``, ``norm``, ``nonfinite`` and the cosines of
            their weights with the ``previous``, the ``next`` and the ``first``. Empty when no weights were compared.
        unreadable: step to reason, where the weights could not be had.
    """

    name: str
    origin: str
    checkpoints: int
    findings: tuple[AuditFinding, ...]
    weights: int = 0
    table: Mapping[str, np.ndarray] = field(default_factory=dict)
    unreadable: Mapping[int, str] = field(default_factory=dict)


def audit(
    name: str,
    *,
    runs: Path | None = None,
    traces: Path = Path("traces"),
    run: Run | None = None,
    weights: bool = False,
    reporter: Reporter | None = None,
) -> Audit:
    """Compare what a series serves with what its labels say.

    The listing needs no weights: files that several steps share, steps without weights, steps that are missing. A
    trace knows its checkpoints' weights by a sketch, so that they are compared too once they have been collected.

    Args:
        name: a run, a published series, or a folder.
        runs: the runs file.
        traces: folder of traces.
        run: the run itself, instead of reading the runs file.
        weights: fetch and read every checkpoint that no trace knows, one after the other (two on disk at most).
        reporter: who tells the user.

    Raises:
        UserError: when there is no such series.
    """
    reporter = reporter or Reporter(quiet=True)
    if run is None:
        name, run = find_run(name, runs=runs, traces=traces)
    if isinstance(run.series, LiveConfig):
        raise UserError(f"run {name!r} was collected while it trained: there are no checkpoints to audit")
    if isinstance(run.series, OrganismConfig) and not is_trained(name, run.series):
        raise UserError(f"organism {name!r} is not trained yet", remedy=f"dynamics collect {name}")
    series = open_series(name, run.series)
    listed = _hashed(series, list_weights(series), reporter)
    findings = listing_findings(series, listed)
    known = _from_trace(trace_path(traces, name))
    unreadable: dict[int, str] = {}
    if weights:
        missing = [c for c in series.checkpoints if c.step not in known and listed.get(c)]
        unreadable = _read(series, missing, known, listed, reporter)
    steps = sorted(known)
    table: dict[str, np.ndarray] = {}
    if steps:
        values = np.stack([known[s][0].values for s in steps])
        norms = np.array([known[s][0].norm for s in steps])
        nonfinite = np.array([known[s][0].nonfinite for s in steps])
        at = np.array(steps)
        seen = {(f.step, f.kind) for f in findings}
        by_weights = audit_weights(at, values, norms, nonfinite, [known[s][1] for s in steps])
        findings = [*findings, *(f for f in by_weights if (f.step, f.kind) not in seen)]
        table = {"step": at, "norm": norms, "nonfinite": nonfinite, **neighbours(at, values)}
    findings = sorted(findings, key=lambda f: (f.step, f.kind))
    return Audit(name, series.origin, len(series.checkpoints), tuple(findings), len(steps), table, unreadable)


def _hashed(
    series: Series, listed: Mapping[Checkpoint, tuple[WeightFile, ...]], reporter: Reporter
) -> dict[Checkpoint, tuple[WeightFile, ...]]:
    """The listing with the sha256 of files that are on this disk; those of a hub are listed with theirs."""
    if isinstance(series, HubSeries):
        return dict(listed)
    result = {}
    with reporter.bar("hashing", len(listed), unit="checkpoints") as bar:
        for place, (checkpoint, files) in enumerate(listed.items()):
            folder = series.fetch(checkpoint)
            result[checkpoint] = tuple(replace(f, sha256=f.sha256 or _sha256(folder / f.name)) for f in files)
            bar.update(place + 1, f"step {checkpoint.step}")
    return result


def _sha256(file: Path) -> str | None:
    if not file.is_file():
        return None
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _from_trace(path: Path) -> dict[int, tuple[Sketch, str]]:
    """Step to (sketch, digest) of every checkpoint whose data a trace holds."""
    if not path.exists():
        return {}
    trace = Trace(path)
    if WEIGHTS not in trace.tree.children:
        return {}
    data: Any = trace.tree[WEIGHTS].to_dataset()
    return {
        int(step): (
            Sketch(data["sketch"][i].values, float(data["norm"][i]), int(data["nonfinite"][i])),
            digest,
        )
        for i, (step, digest) in enumerate(zip(trace.steps, trace.digests, strict=True))
        if digest
    }


def _read(
    series: Series,
    checkpoints: list[Checkpoint],
    known: dict[int, tuple[Sketch, str]],
    listed: Mapping[Checkpoint, tuple[WeightFile, ...]],
    reporter: Reporter,
) -> dict[int, str]:
    """Sketch every checkpoint into ``known``; what was sketched before is kept in the cache. Step to what failed."""
    failed: dict[int, str] = {}
    todo = []
    for checkpoint in checkpoints:
        kept = _kept(listed[checkpoint])
        if kept is not None and kept.is_file():
            with np.load(kept) as stored:
                known[checkpoint.step] = (
                    Sketch(stored["values"], float(stored["norm"]), int(stored["nonfinite"])),
                    str(stored["digest"]),
                )
        else:
            todo.append(checkpoint)
    if not todo:
        return failed

    def read(fetched: Path) -> tuple[Sketch, str]:
        prepared = series.read(fetched)
        return sketch(prepared.tensors), prepared.digest

    if isinstance(series, HubSeries):
        series.sweep([c.revision for c in todo[:2]])
    with (
        ReadAhead(series, todo, read) as ahead,
        reporter.bar(f"reading {series.name}", len(todo), unit="checkpoints") as bar,
    ):
        for place, checkpoint in enumerate(todo):
            try:
                made, digest = known[checkpoint.step] = ahead.take()
                kept = _kept(listed[checkpoint])
                if kept is not None:
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    np.savez(kept, values=made.values, norm=made.norm, nonfinite=made.nonfinite, digest=digest)
            except CheckpointError as error:
                failed[checkpoint.step] = error.observed
            ahead.let_go()
            bar.update(place + 1, f"step {checkpoint.step}")
    return failed


def _kept(files: tuple[WeightFile, ...]) -> Path | None:
    """Where the sketch of these files is kept; None where their content is not known."""
    if not files or any(f.sha256 is None for f in files):
        return None
    name = hashlib.sha256("\n".join(f"{f.name} {f.sha256}" for f in files).encode()).hexdigest()
    return cache_folder() / "sketches" / f"{name}.npz"
