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
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from checkpoints.audit import SAMPLE, AuditFinding, Sketch, Vectors, audit_weights
from checkpoints.audit.vectors import blocks
from checkpoints.errors import FORBIDDEN
from checkpoints.paths import cache_folder
from checkpoints.series import Checkpoint, Series, WeightFile

from ..store import WEIGHTS, Trace
from ..store.weights import WeightSketches

__all__ = [
    "Kept",
    "Known",
    "SketchValues",
    "compare",
    "keep",
    "kept_file",
    "kept_sketches",
    "load_kept",
    "measured_sketches",
    "traced_sketches",
]


@dataclass(frozen=True, eq=False)
class Kept:
    """A sketch that is read where it lies whenever its values are asked for, as those of thousands of checkpoints are large.

    Attributes:
        place: what holds it.
        index: which row of that.
        norm: see :class:`Sketch`.
        nonfinite: see :class:`Sketch`.
    """

    place: Vectors
    index: int
    norm: float
    nonfinite: int

    @property
    def values(self) -> np.ndarray:
        """(sample,), all NaN where it cannot be read any more."""
        values: np.ndarray = self.place[np.array([self.index])][0]
        return values


class Known(NamedTuple):
    """What is known of one checkpoint's weights.

    Attributes:
        sketch: of the weights.
        digest: sha256 of the files they came from.
    """

    sketch: Sketch | Kept
    digest: str


class SketchValues:
    """(sketch, sample) values of many sketches; NaN for None. Read when they are asked for, by an array of indices."""

    def __init__(self, sketches: Sequence[Sketch | Kept | None]) -> None:
        self._sketches = sketches
        self._size = next((len(s.values) for s in sketches if s is not None), SAMPLE)

    def __len__(self) -> int:
        return len(self._sketches)

    def __getitem__(self, some: np.ndarray) -> np.ndarray:
        found = np.full((len(some), self._size), np.nan, dtype=np.float32)
        places: dict[int, tuple[Vectors, list[int], list[int]]] = {}
        for at, sketch in enumerate(self._sketches[n] for n in some):
            if isinstance(sketch, Kept):
                _, rows, indices = places.setdefault(id(sketch.place), (sketch.place, [], []))
                rows.append(at)
                indices.append(sketch.index)
            elif sketch is not None:
                found[at] = sketch.values
        for place, rows, indices in places.values():
            for part in blocks(len(rows)):  # or all of them would be in memory twice
                found[rows[part]] = place[np.array(indices[part])]
        return found


def compare(known: Mapping[int, Known], absent: Collection[int] = ()) -> list[AuditFinding]:
    """What the weights of some checkpoints say about their labels.

    Args:
        known: step to what is known of its weights.
        absent: other steps that are in the series, but whose weights could not be had or are not to be trusted: those
            before and after them are no neighbours.
    """
    if not known:
        return []
    steps = sorted({*known, *absent})
    sketches = [known[step].sketch if step in known else None for step in steps]
    nonfinite = [0 if sketch is None else sketch.nonfinite for sketch in sketches]
    return audit_weights(
        np.array(steps),
        SketchValues(sketches),
        np.array([np.nan if sketch is None else sketch.norm for sketch in sketches]),
        np.array(nonfinite),
        # weights that are all NaN are the same bytes at every step, which says nothing about labels
        [known[s].digest if s in known and not broken else "" for s, broken in zip(steps, nonfinite, strict=True)],
    )


def measured_sketches(steps: Iterable[int], digests: Iterable[str], measured: WeightSketches) -> dict[int, Known]:
    """Step to what a trace's arrays say, for the checkpoints that were measured.

    Args:
        steps: (checkpoint,).
        digests: (checkpoint,) empty where nothing was measured.
        measured: of that trace.
    """
    return {
        step: Known(Kept(measured, i, float(measured.norm[i]), int(measured.nonfinite[i])), digest)
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
    found = measured_sketches(trace.steps.tolist(), trace.digests, WeightSketches(path))
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
            norm, nonfinite, _ = float(stored["norm"]), int(stored["nonfinite"]), stored["values"]
            return Known(Kept(_SketchFile(file), 0, norm, nonfinite), str(stored["digest"]))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None


@dataclass(frozen=True)
class _SketchFile:
    """The sketch in a file, as the only row."""

    file: Path

    def __len__(self) -> int:
        return 1

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        try:
            with np.load(self.file) as stored:
                values: np.ndarray = stored["values"][None][rows]
                return values
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):  # deleted meanwhile
            return np.full((len(rows), SAMPLE), np.nan, dtype=np.float32)


def keep(file: Path | None, known: Known) -> None:
    """Keep a sketch where :func:`kept_file` said before the weights were read; nowhere in a cache that is read-only."""
    if file is None:
        return
    made = known.sketch
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(f".{os.getpid()}.partial.npz")
        np.savez(partial, values=made.values, norm=made.norm, nonfinite=made.nonfinite, digest=known.digest)
        os.replace(partial, file)
    except OSError as error:
        if error.errno not in FORBIDDEN:
            raise


def _folder() -> Path:
    return cache_folder() / "sketches"
