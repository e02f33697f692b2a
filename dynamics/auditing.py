"""Is every checkpoint of a series what its label says? From the listing alone, and from the weights where they are."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints.ahead import ReadAhead
from checkpoints.audit import SAMPLE, AuditFinding, Sketch, audit_weights, neighbours, sketch
from checkpoints.errors import CheckpointError, UserError
from checkpoints.hub import HubSeries
from checkpoints.organism import OrganismConfig, is_trained
from checkpoints.paths import cache_folder
from checkpoints.series import Checkpoint, Series, WeightFile
from checkpoints.sources import open_series

from .architecture import find_adapter
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
    known = _from_trace(trace_path(traces, name), series)
    unreadable: dict[int, str] = {}
    if weights:
        missing = [c for c in series.checkpoints if c.step not in known and listed.get(c)]
        unreadable = _read(series, run, missing, known, listed, reporter)
    steps = sorted(known)
    table: dict[str, np.ndarray] = {}
    if steps:
        values = np.stack([known[s][0].values for s in steps])
        norms = np.array([known[s][0].norm for s in steps])
        nonfinite = np.array([known[s][0].nonfinite for s in steps])
        at = np.array(steps)
        seen = {(f.step, f.kind) for f in findings}
        by_weights = audit_weights(
            at, values, norms, nonfinite, ["" if known[s][0].nonfinite else known[s][1] for s in steps]
        )
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
        for done, (checkpoint, files) in enumerate(listed.items()):
            place = series.fetch(checkpoint)
            folder = place if place.is_dir() else place.parent
            # of a list in one file every element has that file's checksum: only its weights can be compared
            own = "#" not in place.name
            result[checkpoint] = tuple(
                replace(f, sha256=f.sha256 or (_sha256(folder / f.name) if own else None)) for f in files
            )
            bar.update(done + 1, f"step {checkpoint.step}")
    return result


def _sha256(file: Path) -> str | None:
    if not file.is_file():
        return None
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _from_trace(path: Path, series: Series) -> dict[int, tuple[Sketch, str]]:
    """Step to (sketch, digest) of every checkpoint whose data a trace holds, and which is still the same commit."""
    if not path.exists():
        return {}
    trace = Trace(path)
    if WEIGHTS not in trace.tree.children:
        return {}
    data: Any = trace.tree[WEIGHTS].to_dataset()
    present = {c.step: c.revision for c in series.checkpoints}
    return {
        int(step): (
            Sketch(data["sketch"][i].values, float(data["norm"][i]), int(data["nonfinite"][i])),
            digest,
        )
        for i, (checkpoint, digest) in enumerate(zip(trace.checkpoints(), trace.digests, strict=True))
        if digest and present.get(step := checkpoint.step) == checkpoint.revision
    }


def _read(
    series: Series,
    run: Run,
    checkpoints: list[Checkpoint],
    known: dict[int, tuple[Sketch, str]],
    listed: Mapping[Checkpoint, tuple[WeightFile, ...]],
    reporter: Reporter,
) -> dict[int, str]:
    """Sketch every checkpoint into ``known``; what was sketched before is kept in the cache. Step to what failed."""
    failed: dict[int, str] = {}
    todo = []
    for checkpoint in checkpoints:
        stored = _load(_kept(listed[checkpoint]))
        if stored is not None:
            known[checkpoint.step] = stored
        else:
            todo.append(checkpoint)
    if not todo:
        return failed

    from checkpoints.loading import ResidentModel

    # through a model, because files of one series may name and repeat their tensors differently
    resident = ResidentModel(build=None if run.adapter is None else find_adapter(run.adapter).build)
    if isinstance(series, HubSeries):
        series.sweep([c.revision for c in todo])
    with (
        ReadAhead(series, todo, series.read) as ahead,
        reporter.bar(f"reading {series.name}", len(todo), unit="checkpoints") as bar,
    ):
        for place, checkpoint in enumerate(todo):
            try:
                prepared = ahead.take()
                made = sketch(dict(resident.install(prepared).named_parameters()))
                known[checkpoint.step] = made, prepared.digest
                _keep(_kept(listed[checkpoint]), made, prepared.digest)
                del prepared
            except CheckpointError as error:
                failed[checkpoint.step] = error.observed
            ahead.let_go()
            bar.update(place + 1, f"step {checkpoint.step}")
    return failed


def _kept(files: tuple[WeightFile, ...]) -> Path | None:
    """Where the sketch of these files is kept; None where their content is not known."""
    if not files or any(f.sha256 is None for f in files):
        return None
    content = "\n".join([f"sketch of {SAMPLE} by parameters", *(f"{f.name} {f.sha256}" for f in files)])
    name = hashlib.sha256(content.encode()).hexdigest()
    return cache_folder() / "sketches" / f"{name}.npz"


def _load(file: Path | None) -> tuple[Sketch, str] | None:
    """What was kept; None where there is nothing that can be read."""
    if file is None or not file.is_file():
        return None
    try:
        with np.load(file) as stored:
            made = Sketch(stored["values"], float(stored["norm"]), int(stored["nonfinite"]))
            return made, str(stored["digest"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def _keep(file: Path | None, made: Sketch, digest: str) -> None:
    if file is None:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial.npz")
    np.savez(partial, values=made.values, norm=made.norm, nonfinite=made.nonfinite, digest=digest)
    os.replace(partial, file)
