"""Is every checkpoint of a series what its label says? From the listing alone, and from the weights where they are."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from checkpoints.ahead import ReadAhead
from checkpoints.audit import AuditFinding, neighbours, sketch
from checkpoints.errors import CheckpointError, UserError
from checkpoints.hub.cache import without_cache_path
from checkpoints.paths import StrPath, as_flag
from checkpoints.series import Checkpoint, Series, WeightFile
from checkpoints.sources import open_series, steps_to_train

from ..models.architecture import find_adapter
from ..progress import Reporter
from ..runs.config import Run
from ..runs.lookup import requested
from ..store.paths import trace_path
from .preflight import contradiction_findings, listing_findings
from .sketches import Known, SketchValues, compare, keep, kept_file, kept_sketches, load_kept, traced_sketches

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
        unreadable: step to reason, where the files could not be listed or the weights not be had.
        left_out: what lies beside the checkpoints and is not taken, name to reason.
    """

    name: str
    origin: str
    checkpoints: int
    findings: tuple[AuditFinding, ...]
    weights: int = 0
    table: Mapping[str, np.ndarray] = field(default_factory=dict)
    unreadable: Mapping[int, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)


def audit(
    name: str,
    *,
    runs: StrPath | None = None,
    traces: StrPath = "traces",
    run: Run | None = None,
    weights: bool = False,
    reporter: Reporter | None = None,
) -> Audit:
    """Compare what a series serves with what its labels say.

    The listing needs no weights: files that several steps share, steps without weights, steps that are missing. A
    trace knows its checkpoints' weights by a sketch, and so does the cache what an earlier audit has read: those are
    compared too.

    Args:
        name: a run, a published series, or a folder.
        runs: the runs file.
        traces: folder of traces.
        run: the run itself, instead of reading the runs file.
        weights: fetch and read every other checkpoint too, one after the other (two on disk at most).
        reporter: progress and messages.

    Raises:
        UserError: when there is no such series.
    """
    reporter = reporter or Reporter(quiet=True)
    weights = as_flag(weights, "weights")
    name, run, traces = requested(name, run, runs=runs, traces=traces)
    if not run.series.stored:
        raise UserError(
            f"run {name!r} was collected while it trained: there are no checkpoints to audit",
            expected="a series of stored checkpoints",
            remedy="where they were saved too, collect their folder as a run of its own",
        )
    if steps_to_train(name, run.series):
        raise UserError(
            f"organism {name!r} is not trained yet",
            remedy=f"dynamics collect {name}",
            expected="checkpoints in the cache",
        )
    series = open_series(name, run.series)
    listed = _hashed(series, series.all_files(), reporter)
    findings = listing_findings(series, listed) + contradiction_findings(series)
    files = {c.step: held for c, held in listed.items()}
    traced = traced_sketches(trace_path(traces, name), series.checkpoints)
    known = kept_sketches(series, listed)
    known |= {step: one for step, one in traced.items() if _still(one.digest, files.get(step, ()))}
    unreadable = {c.step: error.observed for c, error in series.unlisted.items()}
    if weights:
        missing = [c for c in series.checkpoints if c.step not in known and listed.get(c)]
        unreadable |= _read(series, run, missing, known, listed, reporter)
    steps = sorted(known)
    table: dict[str, np.ndarray] = {}
    if steps:
        sketches = [known[s].sketch for s in steps]
        absent = {f.step for f in findings if f.mask and f.label} | {*unreadable}
        seen = {(f.step, f.kind) for f in findings}
        findings = [*findings, *(f for f in compare(known, absent) if (f.step, f.kind) not in seen)]
        table = {
            "step": np.array(steps),
            "norm": np.array([s.norm for s in sketches]),
            "nonfinite": np.array([s.nonfinite for s in sketches]),
            **neighbours(steps, SketchValues(sketches)),
        }
    findings = sorted(findings, key=lambda f: (f.step, f.kind))
    return Audit(
        name, series.origin, len(series.checkpoints), tuple(findings), len(steps), table, unreadable, series.left_out
    )


def _hashed(
    series: Series, listed: Mapping[Checkpoint, tuple[WeightFile, ...]], reporter: Reporter
) -> dict[Checkpoint, tuple[WeightFile, ...]]:
    """The listing with the sha256 of files that are on this disk; those of a hub are listed with theirs."""
    if not series.local:
        return dict(listed)
    result = {}
    with reporter.bar("hashing", len(listed), unit="checkpoints") as bar:
        for done, (checkpoint, files) in enumerate(listed.items()):
            path = series.fetch(checkpoint)
            folder = path if path.is_dir() else path.parent
            # of a list in one file every element has that file's checksum: only its weights can be compared
            own = "#" not in path.name
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


def _still(digest: str, files: tuple[WeightFile, ...]) -> bool:
    """Whether a checkpoint still has the files that were collected, as far as their checksums are known."""
    found = [f.sha256 for f in files]
    if not found or None in found:
        return True
    together = hashlib.sha256("\n".join(map(str, found)).encode()).hexdigest()
    return digest == (found[0] if len(found) == 1 else together)


def _read(
    series: Series,
    run: Run,
    checkpoints: list[Checkpoint],
    known: dict[int, Known],
    listed: Mapping[Checkpoint, tuple[WeightFile, ...]],
    reporter: Reporter,
) -> dict[int, str]:
    """Sketch checkpoints into ``known``, and keep the sketches in the cache. Step to what failed."""
    failed: dict[int, str] = {}
    todo = {checkpoint: kept_file(series, checkpoint, listed[checkpoint]) for checkpoint in checkpoints}
    if not todo:
        return failed

    from checkpoints.loading import ResidentModel

    # through a model, because files of one series may name and repeat their tensors differently
    resident = ResidentModel(build=None if run.adapter is None else find_adapter(run.adapter).build)
    series.sweep([c.revision for c in todo])
    with (
        ReadAhead(series, list(todo), series.read) as ahead,
        reporter.bar(f"reading {series.name}", len(todo), unit="checkpoints") as bar,
    ):
        for count, (checkpoint, file) in enumerate(todo.items(), 1):
            try:
                prepared = ahead.take()
                made = sketch(dict(resident.install(prepared).named_parameters()))
                read = Known(made, prepared.digest)
                keep(file, read)
                known[checkpoint.step] = load_kept(file) or read
                del prepared
            except CheckpointError as error:
                failed[checkpoint.step] = without_cache_path(error.observed)
            ahead.release()
            bar.update(count, f"step {checkpoint.step}")
    return failed
