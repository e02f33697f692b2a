"""What collecting a run would cost: checkpoints, bytes to download, bytes of trace, time. Nothing is downloaded."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from checkpoints.audit import sketch
from checkpoints.errors import CheckpointError, UserError
from checkpoints.paths import StrPath
from checkpoints.series import Checkpoint, Series
from checkpoints.sources import steps_to_train

from ..auditing.masking import Before, expected_masks, known_before
from ..models.devices import usable_device
from ..progress import Reporter
from ..runs.config import Run
from ..runs.lookup import requested
from ..runs.resolve import Resolved
from ..store import Trace
from ..store.journal import read_journal
from ..store.paths import trace_path
from ..store.writer import require_declared
from .measuring import measure_all
from .opening import (
    open_run,
    require_aim,
    require_same_weights,
    require_some,
    require_space,
    resident_for,
    unusable,
    visited,
)

__all__ = ["ASSUMED_BANDWIDTH", "Estimate", "estimate"]

ASSUMED_BANDWIDTH = 50e6
"""Bytes per second at which a download is guessed."""

_LARGEST = 2e9
"""Parameters of the largest model that is timed with random weights; beyond it, memory is the first question."""


@dataclass(frozen=True)
class Estimate:
    """What a collection would do; nothing is written or trained.

    Attributes:
        checkpoints: checkpoints that the run visits; with ``schedule: adaptive`` at most, as all that follows.
        of: checkpoints that the series has.
        todo: those that are not complete yet.
        first: how many an adaptive schedule visits before it looks; None for the others.
        masked: step to reason.
        prompts: prompts per checkpoint, all probes together.
        download_bytes: weights to download, without what is already here.
        trace_bytes: uncompressed size of the finished trace.
        seconds: expected compute for ``todo``, or None where it cannot be known.
        basis: how ``seconds`` was found.
        download_seconds: at :data:`ASSUMED_BANDWIDTH`; it runs while the model computes.
        to_train: optimizer steps of training needed first (organisms only).
    """

    checkpoints: int
    of: int
    todo: int
    prompts: int
    trace_bytes: int
    download_bytes: int = 0
    seconds: float | None = None
    basis: str = ""
    to_train: int = 0
    masked: dict[int, str] = field(default_factory=dict)
    first: int | None = None

    @property
    def download_seconds(self) -> float:
        """See the class."""
        return self.download_bytes / ASSUMED_BANDWIDTH


def estimate(
    name: str,
    *,
    runs: StrPath | None = None,
    traces: StrPath = "traces",
    run: Run | None = None,
    analyses: Sequence[str] = (),
    keep_going: bool = False,
    reporter: Reporter | None = None,
) -> Estimate:
    """How many checkpoints, bytes and seconds; times the probes on the spot (arguments as of :func:`dynamics.collect`).

    Raises:
        UserError: for anything that ``collect`` would refuse before it computes.
    """
    reporter = reporter or Reporter(quiet=True)
    name, run, traces = requested(name, run, runs=runs, traces=traces, analyses=analyses)
    usable_device(run.device)
    require_aim(name, run)
    trace = trace_path(traces, name)
    resolved = open_run(name, run, trace, reporter, train=False)
    checkpoints = resolved.declaration.checkpoints
    before = Before() if resolved.series is None else known_before(resolved.run, resolved.series)
    masked = expected_masks(trace, resolved, before)
    chosen = visited(resolved)
    known = [i for i in chosen if checkpoints[i].step not in before.reasons]
    require_some(name, run, known, before.reasons)
    bad = unusable(resolved, known, keep_going=keep_going)
    require_space(trace, resolved, len(known))
    indices = [i for i in chosen if checkpoints[i].step not in masked]
    complete: set[int] = set()
    failed: set[int] = set()
    if trace.exists():
        done = Trace(trace)
        _require_going_on(resolved, done, known)
        complete = done.steps_of("complete") - masked.keys() - {*run.exclude}
        failed = done.steps_of("failed")
    todo = [checkpoints[i] for i in indices if checkpoints[i].step not in complete and checkpoints[i] not in bad]
    left = len(todo)
    if run.schedule == "adaptive":  # which ones the rounds will visit is not known, but how many at most
        failed -= {c.step for c in todo}  # the first ones are tried again, later ones are not
        todo = [c for c in checkpoints if c.step not in {*masked, *run.exclude, *complete, *failed}]
        room = len(todo) if run.budget is None else max(0, run.budget - len(complete | failed))
        left = max(left, min(len(todo), room))
    seconds, basis = _seconds(resolved, trace)
    download = 0
    if resolved.series is not None:
        download = sum(sorted((_download_bytes(resolved.series, c) for c in todo), reverse=True)[:left])
    count = len(complete) + left if run.schedule == "adaptive" else len(indices)
    return Estimate(
        checkpoints=count,
        of=len(checkpoints),
        todo=left,
        prompts=sum(len(probe.ids) for _, probe in resolved.probes),
        trace_bytes=resolved.declaration.bytes_per_checkpoint() * count,
        download_bytes=download,
        seconds=None if seconds is None else seconds * left,
        basis=basis,
        to_train=steps_to_train(name, run.series),
        masked=masked,
        first=len(indices) if run.schedule == "adaptive" else None,
    )


def _require_going_on(resolved: Resolved, done: Trace, indices: Sequence[int]) -> None:
    """Refuse what cannot go on with the trace that is there."""
    series, checkpoints = resolved.series, resolved.declaration.checkpoints
    if series is None:  # of an organism that is not trained here; its trace came from elsewhere
        return
    if not any(done.digests):  # nothing was measured: it is declared anew
        return
    require_declared(done.path, done.attributes, resolved.declaration)
    states = [done.status[i] if i < len(done.status) else "pending" for i in indices]
    complete = [i for i, state in zip(indices, states, strict=True) if state == "complete"]
    if len(complete) < len(indices):
        for i in {*complete[:1], *complete[-1:]}:
            require_same_weights(done.path, done.digests[i], series, checkpoints[i], {})


def _download_bytes(series: Series, checkpoint: Checkpoint) -> int:
    try:
        return series.download_bytes(checkpoint)
    except CheckpointError:  # it cannot be listed, and will be recorded as failed
        return 0


def _seconds(resolved: Resolved, trace: Path) -> tuple[float | None, str]:
    """Seconds per checkpoint and how they were found: from the journal, from weights that are here, or random ones."""
    times = [e["seconds"] for e in read_journal(trace) if e.get("event") == "complete"][-50:]
    if times:
        return float(np.median(times)), "median of those that were collected"
    resident = resident_for(resolved.run, resolved.model)
    if resolved.series is not None and resolved.series.local:
        last = resolved.series.checkpoints[-1]
        began = time.perf_counter()
        try:
            model = resident.install(resolved.series.read(resolved.series.fetch(last)))
        except UserError as error:
            return None, f"step {last.step} cannot be loaded: {error.observed}"
        for _ in measure_all(resolved, model):
            pass
        sketch(dict(model.named_parameters()))
        return time.perf_counter() - began, f"step {last.step} timed here"
    return _random_seconds(resolved)


def _random_seconds(resolved: Resolved) -> tuple[float | None, str]:
    """Seconds for a model of this architecture with random weights: where there are none yet."""
    import torch
    import transformers

    if resolved.model.adapter is not None:
        return None, "a module of one's own is not timed without its weights"
    kind = str(resolved.model.config["model_type"])
    config = transformers.AutoConfig.for_model(
        kind, **{k: v for k, v in resolved.model.config.items() if k != "model_type"}
    )
    auto = transformers.AutoModelForCausalLM
    if not resolved.model.architecture.shape.causal:
        auto = transformers.AutoModelForMaskedLM
    with torch.device("meta"):
        size = sum(p.numel() for p in auto.from_config(config).parameters())
    if size > _LARGEST:
        return None, f"a model of {size / 1e9:.1f} billion parameters is not tried without need"
    device = usable_device(resolved.run.device)
    dtype = getattr(torch, resolved.run.dtype)
    model = auto.from_config(config, dtype=dtype, attn_implementation="eager").to(device).eval()
    began = time.perf_counter()
    for _ in measure_all(resolved, model):
        pass
    return time.perf_counter() - began, "a model of this size with random weights, timed here"
