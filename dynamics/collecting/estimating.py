"""What collecting a run would cost: checkpoints, bytes to download, bytes of trace, time. Nothing is downloaded."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from checkpoints.audit import sketch
from checkpoints.configs import auto_class
from checkpoints.errors import CheckpointError, UserError
from checkpoints.paths import StrPath, as_flag
from checkpoints.series import Checkpoint, Series
from checkpoints.sources import steps_to_train

from ..auditing.masking import Before, expected_masks, known_before
from ..measurements.base import Intervention, Priced
from ..measurements.forward import measure
from ..models.devices import usable_device
from ..progress import Reporter
from ..runs.config import Run
from ..runs.lookup import requested
from ..runs.resolve import Resolved
from ..store import Trace
from ..store.declaration import require_declared
from ..store.groups import shelf
from ..store.journal import read_journal
from ..store.paths import trace_path
from ..wording import left_out_lines
from .gains import Gain, gains_of, owed_by, takeovers_of
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

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from ..measurements import Measurement
    from ..probes import TokenizedProbe

__all__ = ["ASSUMED_BANDWIDTH", "Estimate", "estimate"]

ASSUMED_BANDWIDTH = 50e6
"""Bytes per second at which a download is guessed."""

AT_ONCE = 10.0
"""Seconds within which a whole checkpoint is measured on the spot."""

FEW = 8
"""Prompts that are timed of each probe otherwise."""

MOMENT = 0.2
"""Seconds that the timed pass takes, if there are prompts for it."""

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
        gains: what the trace is to gain or lose, where the run has changed, a line on each probe.
        revisited: complete checkpoints whose weights are read again for that.
        prompts: prompts per checkpoint, all probes together.
        download_bytes: weights to download, without what is already here.
        trace_bytes: uncompressed size of the finished trace.
        objects: files (or objects in a store) of the finished trace, for its checkpoints.
        memory_bytes: weights in memory at a time: the model's, and those of two checkpoints as they are stored.
        seconds: expected compute for ``todo`` and ``revisited``, or None where it cannot be known.
        basis: how ``seconds`` was found.
        download_seconds: at :data:`ASSUMED_BANDWIDTH`; it runs while the model computes.
        to_train: optimizer steps of training needed first (organisms only).
    """

    checkpoints: int
    of: int
    todo: int
    prompts: int
    trace_bytes: int
    objects: int = 0
    memory_bytes: int = 0
    download_bytes: int = 0
    seconds: float | None = None
    basis: str = ""
    to_train: int = 0
    masked: dict[int, str] = field(default_factory=dict)
    gains: tuple[str, ...] = ()
    revisited: int = 0
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
    reporter, keep_going = reporter or Reporter(quiet=True), as_flag(keep_going, "keep_going")
    name, run, traces = requested(name, run, runs=runs, traces=traces, analyses=analyses)
    usable_device(run.device)
    require_aim(name, run)
    trace = trace_path(traces, name)
    resolved = open_run(name, run, trace, reporter, train=False)
    checkpoints = resolved.declaration.checkpoints
    before = Before() if resolved.series is None else known_before(resolved.run, resolved.series)
    for line in left_out_lines({} if resolved.series is None else resolved.series.left_out):
        reporter.once(line)
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
    gains, owed, again = _gains(resolved, trace, before)
    seconds, basis = _seconds(resolved, trace) if left or not owed else (0.0, "of what is new, at complete checkpoints")
    download = 0
    if resolved.series is not None:
        download = sum(sorted((_download_bytes(resolved.series, c) for c in todo), reverse=True)[:left])
        download += sum(_download_bytes(resolved.series, c) for c in owed)
        download += sum(resolved.series.shared_bytes().values()) if left or owed else 0
    count = len(complete) + left if run.schedule == "adaptive" else len(indices)
    return Estimate(
        checkpoints=count,
        of=len(checkpoints),
        todo=left,
        gains=tuple(map(str, gains)),
        revisited=len(owed),
        prompts=sum(len(probe.ids) for _, probe in resolved.probes),
        trace_bytes=resolved.declaration.bytes_per_checkpoint() * count,
        objects=resolved.declaration.objects_per_checkpoint() * count,
        memory_bytes=_memory(resolved),
        download_bytes=download,
        seconds=None if seconds is None or again is None else seconds * left + again * len(owed),
        basis=basis,
        to_train=steps_to_train(name, run.series),
        masked=masked,
        first=len(indices) if run.schedule == "adaptive" else None,
    )


def _memory(resolved: Resolved) -> int:
    """Bytes of weights that one process holds at a time; of those that nobody has yet, by the config."""
    parameters, series = _parameters(resolved), resolved.series
    stored = 4 * parameters
    if series is not None:
        with suppress(CheckpointError):
            files = series.weight_files(series.checkpoints[-1])
            stored = sum(file.size or 0 for file in files) or stored
    return parameters * {"float32": 4}.get(resolved.run.dtype, 2) + 2 * stored


def _parameters(resolved: Resolved) -> int:
    """Of the model, built without memory; 0 for a module of one's own."""
    import torch

    if resolved.model.adapter is not None:
        return 0
    config = _config(resolved)
    with torch.device("meta"):
        return sum(p.numel() for p in auto_class(config).from_config(config).parameters())


def _config(resolved: Resolved) -> PretrainedConfig:
    import transformers

    about = {key: value for key, value in resolved.model.config.items() if key != "model_type"}
    return transformers.AutoConfig.for_model(str(resolved.model.config["model_type"]), **about)


def _gains(resolved: Resolved, trace: Path, before: Before) -> tuple[list[Gain], list[Checkpoint], float | None]:
    """What a trace is to gain, the checkpoints whose weights are read again for it, and seconds for each of those."""
    declaration = resolved.declaration
    gains = gains_of(trace, declaration) if trace.exists() else []
    if not any(gain.asked for gain in gains):
        return gains, [], 0.0
    places = {group.name: shelf(group.name, declaration.asked(group)) for group in declaration.groups}
    takeovers = takeovers_of(resolved, trace, places)
    done, lacking = Trace(trace), owed_by(trace, declaration)
    left = {
        digest: [name for name in names if name not in takeovers or not takeovers[name].whole(digest)]
        for digest, names in lacking.items()
    }
    steps = {int(s) for s, digest in zip(done.steps, done.digests, strict=True) if left.get(digest)}
    owed = [c for c in declaration.checkpoints if c.step in steps and c.step not in before.reasons]
    needed = {name for names in left.values() for name in names}
    part = replace(resolved, probes=tuple(entry for entry in resolved.probes if entry[0].probe.name in needed))
    return gains, owed, _timed(part)[0] if owed else 0.0


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
    return _timed(resolved)


def _timed(resolved: Resolved) -> tuple[float | None, str]:
    """Seconds per checkpoint, measured here."""
    resident = resident_for(resolved.run, resolved.model)
    if resolved.series is not None and resolved.series.local:
        last = resolved.series.checkpoints[-1]
        try:
            for _ in range(2):  # the first time the model is built, which no later checkpoint waits for
                began = time.perf_counter()
                model = resident.install(resolved.series.read(resolved.series.fetch(last)))
        except UserError as error:
            return None, f"step {last.step} cannot be loaded: {error.observed}"
        sketch(dict(model.named_parameters()))
        loading = time.perf_counter() - began
        measuring, how = _measuring(resolved, model)
        return loading + measuring, f"step {last.step} {how}"
    return _random_seconds(resolved)


def _measuring(resolved: Resolved, model: Any) -> tuple[float, str]:
    """Seconds of all measurements, and how they were found.

    Where all of them take long by the pass, a few prompts are timed and multiplied, and measurements that know how many
    passes they take are not run.
    """
    shape = resolved.model.architecture.shape
    plans = [
        (probe, plan.measurements, sum(m.cost(probe, shape) for m in plan.measurements if isinstance(m, Priced)))
        for plan, probe in resolved.probes
    ]
    if not plans:
        return 0.0, "without a probe"
    whole = sum(float(probe.lengths.sum()) * (1 + cost) for probe, _, cost in plans)
    each = _seconds_per_token(resolved, model, max(plans, key=lambda plan: plan[2])[0])
    if whole * each <= AT_ONCE:
        began = time.perf_counter()
        for _ in measure_all(resolved, model):
            pass
        return time.perf_counter() - began, "timed here"
    total = 0.0
    for probe, measurements, cost in plans:
        tokens = float(probe.lengths.sum())
        total += tokens * cost * each
        watching = [m for m in measurements if not isinstance(m, Intervention)]
        if watching:
            few = _few(probe)
            total += _run(resolved, model, few, watching) * tokens / float(few.lengths.sum())
        others = [m for m in measurements if isinstance(m, Intervention) and not isinstance(m, Priced)]
        total += _run(resolved, model, probe, others)
    return total, "timed here on a few prompts"


def _seconds_per_token(resolved: Resolved, model: Any, probe: TokenizedProbe) -> float:
    """Of a bare pass; of as many prompts as take a moment, for few of them weigh a small model's overhead too much."""
    import torch

    architecture, device = resolved.model.architecture, next(model.parameters()).device
    rows = max(probe.batches(resolved.run.batch_tokens), key=len)
    size = min(FEW, len(rows))
    while True:
        ids = torch.from_numpy(np.stack([probe.ids[row] for row in rows[:size]])).to(device)
        last = torch.tensor([ids.shape[1] - 1], device=device)
        times = []
        for _ in range(2):  # the first takes what later ones find ready
            began = time.perf_counter()
            with torch.no_grad():
                float(architecture.logits(model, ids, last)[0, 0, 0])  # a device is waited for
            times.append(time.perf_counter() - began)
        if times[-1] >= MOMENT or size == len(rows):
            return times[-1] / ids.numel()
        size = min(2 * size, len(rows))


def _few(probe: TokenizedProbe) -> TokenizedProbe:
    """Some prompts of the probe, evenly from all of them."""
    return probe.take(np.unique(np.linspace(0, len(probe.ids) - 1, FEW).round().astype(int)))


def _run(resolved: Resolved, model: Any, probe: TokenizedProbe, measurements: Sequence[Measurement]) -> float:
    """Seconds."""
    began = time.perf_counter()
    if measurements:
        run = resolved.run
        measure(model, probe, measurements, architecture=resolved.model.architecture, batch_tokens=run.batch_tokens)
    return time.perf_counter() - began


def _random_seconds(resolved: Resolved) -> tuple[float | None, str]:
    """Seconds for a model of this architecture with random weights: where there are none yet."""
    import torch

    if resolved.model.adapter is not None:
        return None, "a module of one's own is not timed without its weights"
    size = _parameters(resolved)
    config = _config(resolved)
    if size > _LARGEST:
        return None, f"a model of {size / 1e9:.1f} billion parameters is not tried without need"
    device = usable_device(resolved.run.device)
    dtype = getattr(torch, resolved.run.dtype)
    model = auto_class(config).from_config(config, dtype=dtype, attn_implementation="eager").to(device).eval()
    seconds, how = _measuring(resolved, model)
    return seconds, f"a model of this size with random weights, {how}"
