"""Sketches of checkpoints' weights: those that a trace holds, and those that an audit kept of files it has read.

A sketch (:mod:`checkpoints.audit`) stands for the weights of one checkpoint. Of a checkpoint that was measured it is in
the trace. ``dynamics audit --weights`` reads the others too, masked or failed ones among them, and keeps their sketches
in the cache, so that collection can compare with them. They are found again by what they were made of: files of a hub by
their checksums, files on this disk by place, size and time of change, because hashing them would cost as much as reading
them. Files that have changed since have no sketch; nothing is said of them, and nothing wrong.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from checkpoints.audit import SAMPLE, AuditFinding, Sketch, audit_weights
from checkpoints.paths import cache_folder
from checkpoints.series import Checkpoint, Series, WeightFile

from ..store import WEIGHTS, Trace
from ..store.reader import weight_sketches

__all__ = [
    "Known",
    "compare",
    "keep",
    "kept_file",
    "kept_sketches",
    "load_kept",
    "measured_sketches",
    "traced_sketches",
]


class Known(NamedTuple):
    """What is known of one checkpoint's weights.

    Attributes:
        sketch: of the weights.
        digest: sha256 of the files they came from.
    """

    sketch: Sketch
    digest: str


def compare(known: Mapping[int, Known], absent: Collection[int] = ()) -> list[AuditFinding]:
    """What the weights of some checkpoints say about their labels.

    Args:
        known: step to what is known of its weights.
        absent: other steps that are in the series, but whose weights could not be had or are not to be trusted: those
            before and after them are no neighbours.
    """
    if not known:
        return []
    nothing = np.full_like(next(iter(known.values())).sketch.values, np.nan)
    filled = dict.fromkeys(absent, Known(Sketch(nothing, float("nan"), 0), "")) | dict(known)
    steps = sorted(filled)
    sketches = [filled[s].sketch for s in steps]
    return audit_weights(
        np.array(steps),
        [s.values for s in sketches],
        np.array([s.norm for s in sketches]),
        np.array([s.nonfinite for s in sketches]),
        # weights that are all NaN are the same bytes at every step, which says nothing about labels
        ["" if s.nonfinite else filled[step].digest for step, s in zip(steps, sketches, strict=True)],
    )


def measured_sketches(
    steps: Iterable[int], digests: Iterable[str], measured: Mapping[str, np.ndarray]
) -> dict[int, Known]:
    """Step to what a trace's arrays say, for the checkpoints that were measured.

    Args:
        steps: (checkpoint,).
        digests: (checkpoint,) empty where nothing was measured.
        measured: ``sketch`` (checkpoint, sample), ``norm`` and ``nonfinite`` (checkpoint,).
    """
    return {
        step: Known(
            Sketch(measured["sketch"][i], float(measured["norm"][i]), int(measured["nonfinite"][i])),
            digest,
        )
        for i, (step, digest) in enumerate(zip(steps, digests, strict=True))
        if digest
    }


def traced_sketches(path: Path, checkpoints: Iterable[Checkpoint]) -> dict[int, Known]:
    """Step to what a trace says of those checkpoints that it has measured at the same commit or place.

    Args:
        path: the trace; there need be none.
        checkpoints: of the series as it is now.
    """
    if not path.exists():
        return {}
    trace = Trace(path)
    if WEIGHTS not in trace.tree.children:
        return {}
    revisions = {c.step: c.revision for c in checkpoints}
    same = {c.step for c in trace.checkpoints() if revisions.get(c.step) == c.revision}
    found = measured_sketches(trace.steps.tolist(), trace.digests, weight_sketches(path))
    return {step: known for step, known in found.items() if step in same}


def kept_sketches(series: Series, listed: Mapping[Checkpoint, tuple[WeightFile, ...]]) -> dict[int, Known]:
    """Step to what an audit kept of the files that its checkpoint has now.

    Args:
        series: the series.
        listed: its weight files; checkpoints that could not be listed are left out.
    """
    if not _folder().is_dir():
        return {}
    found = {c.step: load_kept(kept_file(series, c, files)) for c, files in listed.items()}
    return {step: known for step, known in found.items() if known is not None}


def kept_file(series: Series, checkpoint: Checkpoint, files: tuple[WeightFile, ...]) -> Path | None:
    """Where the sketch of a checkpoint with these files is kept; None where nothing says what is in them."""
    state = series.state(checkpoint, files)
    if state is None:
        return None
    content = "\n".join([f"sketch of {SAMPLE} by parameters", *state])
    return _folder() / f"{hashlib.sha256(content.encode()).hexdigest()}.npz"


def load_kept(file: Path | None) -> Known | None:
    """What was kept; None where there is nothing that can be read."""
    if file is None or not file.is_file():
        return None
    try:
        with np.load(file) as stored:
            made = Sketch(stored["values"], float(stored["norm"]), int(stored["nonfinite"]))
            return Known(made, str(stored["digest"]))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def keep(file: Path | None, known: Known) -> None:
    """Keep a sketch where :func:`kept_file` said before the weights were read."""
    if file is None:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(f".{os.getpid()}.partial.npz")
    made = known.sketch
    np.savez(partial, values=made.values, norm=made.norm, nonfinite=made.nonfinite, digest=known.digest)
    os.replace(partial, file)


def _folder() -> Path:
    return cache_folder() / "sketches"
