"""The verb ``verify``: is a trace what was written, and can what is not be measured, derived or written again?"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from checkpoints.errors import CheckpointError
from checkpoints.local import FolderConfig, FolderSeries
from checkpoints.objects import Bucket, is_url, url_of
from checkpoints.paths import StrPath, as_flag, as_path, as_text, replace_bytes
from checkpoints.series import Checkpoint, Series

from ..analyser import OWN_PROBES, analyse
from ..progress import Reporter
from ..runs.config import Run
from ..runs.lookup import requested, trace_name
from ..runs.resolve import Resolved
from ..store import Trace, TraceDeclaration, TraceWriter, writer_lock
from ..store.copies import copied
from ..store.create import create_trace, grow_trace
from ..store.damage import Damage, has_manifest, root_problem, trace_damage
from ..store.declaration import require_declared
from ..store.derived import DERIVED, RESULTS
from ..store.format import open_group
from ..store.groups import SHELF, drop_shelved, prune_shelf
from ..store.manifest import ROOT_COPY, consolidated, metadata_of, rewrite, sealed_files, unlike
from ..store.mirror import fetch_whole
from ..store.paths import open_run_trace, trace_path
from ..store.remote import lease_of, require_unwritten
from .collector import collect_once
from .opening import open_run
from .watching import WatchedSeries

__all__ = ["Damage", "verify"]


def verify(
    name: str,
    *,
    runs: StrPath | None = None,
    traces: StrPath = "traces",
    run: Run | None = None,
    repair: bool = False,
    prune: bool = False,
    reporter: Reporter | None = None,
) -> list[Damage]:
    """Hold every file of a trace against what was noted when it was written.

    Args:
        name: the run's name.
        runs: the runs file.
        traces: folder of traces.
        run: the run itself, instead of reading the runs file; of use with ``repair`` only.
        repair: put back metadata and coordinates, measure damaged checkpoints again, and derive damaged results again.
            A checkpoint whose weights are others by now stays as it is, and so do features (``dynamics learn --fresh``).
        prune: delete the groups that the trace does not list and is not about to gain: what was measured for a run that asks
            for something else by now.
        reporter: progress and messages.

    Returns:
        What is damaged, at most one entry per checkpoint and variable. Nothing else is looked at where the metadata of
        the root are; a repair goes on to the rest.

    Raises:
        UserError: when there is no trace, or it is not whole while another process writes it, or a repair is asked for and
            the run cannot be collected.
        StoppedError: when a repair has to stop in the middle; the next collection goes on with it.
    """
    reporter, repair, prune = reporter or Reporter(quiet=True), as_flag(repair, "repair"), as_flag(prune, "prune")
    if runs is not None or run is not None:
        requested(name, run, runs=runs, traces=traces)  # a runs file that is not there is refused
    traces, trace = as_path(traces, "traces"), trace_name(as_text(name, "name"))
    if (repair or prune) and is_url(traces) and Bucket(f"{url_of(traces)}/{trace}.zarr").listing():
        with copied(traces / f"{trace}.zarr") as copy:
            return verify(name, runs=runs, traces=copy.parent, run=run, repair=repair, prune=prune, reporter=reporter)
    path = trace_path(traces, trace)
    lease = lease_of(path)
    fetch_whole(path)
    if prune and path.exists():
        with writer_lock(path):
            for folder, size in prune_shelf(path):
                reporter.say(f"deleted {folder}: {size / 1e6:,.1f} MB")
    found = trace_damage(path) if path.exists() else []
    if found and not (repair or is_url(traces)) and path.with_name(f"{path.name}.owner").exists():
        with writer_lock(path):  # another process that writes it is refused here: it is between two files, not damaged
            found = trace_damage(path)
    if found:
        require_unwritten(path, lease)
    else:
        open_run_trace(trace, traces)
        if not has_manifest(path):
            reporter.say(
                f"{path} was collected by an earlier version, which noted no digests: checksums were compared alone"
            )
    if not repair or not found:
        return found
    rest = found
    for mend in (_mend_root, _mend_nodes):
        with writer_lock(path):
            changed = mend(path)
        if changed:
            rest = trace_damage(path)
            found += [damage for damage in rest if damage not in found]
    with writer_lock(path):  # what is on the shelf is measured again when it is asked for
        for damage in [d for d in rest if d.variable.startswith(SHELF)]:
            drop_shelved(path, damage.variable, damage.step, Trace(path).steps.tolist())
    rest = [d for d in rest if not d.variable.startswith(SHELF)]
    failed: set[int] = set()
    if any(damage.variable != "zarr.json" and not _is_features(damage) for damage in rest):
        name, run, traces = requested(name, run, runs=runs, traces=traces)
        failed = _measure(name, run, traces, path, rest, reporter)
        results = {d.variable.split("/")[1] for d in rest if d.variable.startswith(f"{RESULTS}/")}
        known = {entry.name for entry in run.analyses} | ({OWN_PROBES} if run.probes else set())
        if again := sorted(results & known):
            analyse(name, again, traces=traces, run=run, reporter=reporter)
    left = {(damage.step, damage.variable) for damage in trace_damage(path)}
    if foreign := sorted(name for _, name in left if name.split("/")[0] == RESULTS):
        reporter.say(
            f"{', '.join(foreign)} in {path}: no analysis of the run writes this; delete it if nobody needs it"
        )
    return [replace(d, repaired=(d.step, d.variable) not in left and d.step not in failed) for d in found]


def _is_features(damage: Damage) -> bool:
    return damage.variable.split("/")[0] in DERIVED and not damage.variable.startswith(f"{RESULTS}/")


def _mend_root(path: Path) -> bool:
    """Write the root's metadata again, which lie in two places, where one of them is whole."""
    if not has_manifest(path):
        return False
    root, copy = path / "zarr.json", path / ROOT_COPY
    whole = [file for file in (root, copy) if not root_problem(file)]
    for file in (root, copy):
        if whole and (not file.is_file() or file.read_bytes() != whole[0].read_bytes()):
            file.parent.mkdir(exist_ok=True)
            replace_bytes(file, whole[0].read_bytes())
            return True
    return False


def _mend_nodes(path: Path) -> bool:
    """Write the metadata of groups and arrays again, which the root's repeat."""
    if has_manifest(path) and root_problem(path / "zarr.json"):
        return False
    noted, changed = sealed_files(path), False
    for name, node in consolidated(path).items():
        file, known = path / name / "zarr.json", noted.get(f"{name}/zarr.json")
        if name.split("/")[0] in DERIVED and not (path / "/".join(name.split("/")[:2])).is_dir():
            continue
        try:
            same = metadata_of(path / name) == node and not (known and unlike(file, known))
        except (ValueError, LookupError, TypeError, OSError):
            same = False
        if not same:
            own = {key: value for key, value in node.items() if key != "consolidated_metadata"}
            file.parent.mkdir(parents=True, exist_ok=True)
            compact = name.split("/")[0] in DERIVED and name.count("/") < 2  # others are as zarr writes them
            replace_bytes(file, json.dumps(own, indent=None if compact else 2).encode())
            changed = True
    return changed


def _measure(name: str, run: Run, traces: Path, path: Path, damage: Iterable[Damage], reporter: Reporter) -> set[int]:
    """Write coordinates again and measure checkpoints again; returns the steps that were not."""
    steps = {d.step for d in damage if d.step is not None}
    coordinates = {d.variable for d in damage if d.step is None and d.variable.split("/")[0] not in DERIVED}
    if not steps and not coordinates:
        return set()
    with writer_lock(path):
        series = _with_deleted(name, run, path)
        resolved = open_run(name, run, path, reporter, series=series)
        require_declared(path, dict(open_group(path, mode="r").attrs), resolved.declaration, groups=True)
        if coordinates:  # first: a writer refuses to change one that is damaged
            _mend_coordinates(path, resolved.declaration, coordinates)
        writer = TraceWriter(path, resolved.declaration, durable=run.durable, gains=False)
        again, kept = _forget(resolved, writer, steps, reporter)
    if not again:
        return kept
    settings: dict[str, Any] = {"series": series, "keep_going": True, "gains": False, "reporter": reporter}
    done = collect_once(name, run, traces=traces, only=again, **settings)
    return kept | done.failed.keys()


def _with_deleted(name: str, run: Run, path: Path) -> Series | None:
    """A folder's series with those checkpoints that the job has deleted, as the trace knows them; None if there are none."""
    if not isinstance(run.series, FolderConfig):
        return None
    folder, root = FolderSeries(run.series, name=name), open_group(path, mode="r")
    there = {c.step: c for c in folder.checkpoints}
    declared: Any = root.attrs["declared"]  # the coordinates may be what is damaged
    said = {int(step.split()[1]): str(about) for step, about in declared["checkpoints"].items()}
    if said.keys() <= there.keys():
        return None
    like = folder.checkpoints[-1]  # a wrong guess is not written: it is held against what was noted
    revisions = [like.revision.replace(str(like.step), str(step)) for step in said]
    with suppress(Exception):  # whatever reading a damaged chunk raises
        read: Any = root["revision"]
        revisions = [str(r) or guess for r, guess in zip(read[:], revisions, strict=True)]
    known = []
    for (step, about), revision in zip(said.items(), revisions, strict=True):
        tokens, _, stage = about.removeprefix("tokens ").partition(", stage ")
        gone = Checkpoint(step, revision, None if tokens == "None" else int(tokens), stage)
        known.append(there.get(step, gone))
    return WatchedSeries(folder, known)


def _mend_coordinates(path: Path, declaration: TraceDeclaration, arrays: set[str]) -> None:
    """Write coordinates again as the run declares them, where that is what was written."""
    noted = sealed_files(path)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        made = Path(folder) / path.name
        first = declaration.checkpoints[: consolidated(path)["step"]["chunk_grid"]["configuration"]["chunk_shape"][0]]
        create_trace(made, replace(declaration, checkpoints=first))
        if len(first) < len(declaration.checkpoints):  # as it grew beyond its first chunk
            grow_trace(made, declaration)
        for file in [f for array in arrays for f in sorted((made / array / "c").glob("*")) if f.is_file()]:
            name = file.relative_to(made).as_posix()
            if name not in noted or not unlike(file, noted[name]):
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                replace_bytes(path / name, file.read_bytes())
            elif (path / name).is_file() and (path / name).read_bytes() == file.read_bytes():
                rewrite(path, written=[name])  # it is right: a writer was killed before it had noted that


def _forget(resolved: Resolved, writer: TraceWriter, steps: set[int], reporter: Reporter) -> tuple[set[int], set[int]]:
    """Delete damaged checkpoints that can be measured again, and return their steps; those that are kept, too."""
    again, kept = set(), set()
    assert resolved.series is not None
    for index, checkpoint in enumerate(resolved.declaration.checkpoints):
        if (step := checkpoint.step) not in steps:
            continue
        status, reason, digest = writer.recorded(index)
        try:
            found = resolved.series.read(resolved.series.fetch(checkpoint)).digest if digest else ""
        except CheckpointError as error:
            reporter.say(f"step {step} cannot be measured again, and stays as it is: {error.observed}")
            kept.add(step)
            continue
        if found != digest:
            reporter.say(
                f"step {step} stays as it is: the weights at {checkpoint.revision} are not those that it was measured "
                f"with (sha256 {digest[:12]}..., now {found[:12]}...). Give them back, and repair again"
            )
            kept.add(step)
            continue
        writer.forget(index)
        if status == "masked":
            writer.mark(index, status, reason)
        elif status != "pending":
            again.add(step)
    return again, kept
