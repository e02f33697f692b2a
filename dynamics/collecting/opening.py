"""What a collection begins with: the run's series beside what its trace already holds, and which checkpoints to visit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from checkpoints.errors import CheckpointError, UserError
from checkpoints.hub.files import is_commit
from checkpoints.series import Checkpoint, Series
from checkpoints.sources import steps_to_train

from ..models.architecture import architecture
from ..models.devices import usable_device
from ..progress import Reporter
from ..runs.config import Run
from ..runs.resolve import Model, Resolved, resolve
from ..runs.schedule import scheduled
from ..store import Trace
from ..wording import left_out_lines

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from checkpoints.loading import ResidentModel

__all__ = [
    "collected_pins",
    "open_run",
    "require_aim",
    "resident_for",
    "training_bar",
    "visited",
]


def require_aim(name: str, run: Run) -> None:
    """Refuse an adaptive schedule that has nothing to look for."""
    if run.schedule == "adaptive" and not run.analyses:
        raise UserError(
            f"run {name!r} cannot be collected adaptively: it has no analyses whose onsets could be narrowed",
            expected="`analyses`, or another schedule",
        )


def collected_pins(run: Run, trace: Path) -> dict[int, Checkpoint]:
    """Step to checkpoint as it was collected, where the trace is there and the series has commits to go back to."""
    if not run.series.pinned or not trace.exists():
        return {}
    found = Trace(trace)
    return {c.step: c for c, digest in zip(found.checkpoints(), found.digests, strict=True) if digest}


@contextmanager
def training_bar(name: str, run: Run, reporter: Reporter) -> Iterator[Callable[[int, int, float], None] | None]:
    """A progress bar for the training that a run needs first, as a callback of it; None where it needs none."""
    steps = steps_to_train(name, run.series)
    if not steps:
        yield None
        return
    with reporter.bar(f"training {name}", steps, unit="steps") as bar:
        yield lambda done, _total, loss: bar.update(done, f"loss {loss:.2f}")


def open_run(
    name: str, run: Run, trace: Path, reporter: Reporter, *, train: bool = True, series: Series | None = None
) -> Resolved:
    """Resolve a run beside what its trace already says: collected commits stay pinned, unless they were masked."""
    pins = collected_pins(run, trace)
    if train:
        with training_bar(name, run, reporter) as training:
            resolved = resolve(name, run, series=series, pins=pins, training=training, say=reporter.once)
    else:
        resolved = resolve(name, run, series=series, pins=pins, train=False, say=reporter.once)
    if resolved.series is None:
        return resolved
    for line in left_out_lines(resolved.series.left_out):
        reporter.once(line)
    moved = {c.step: c.revision for c in resolved.series.moved}
    vanished = resolved.series.vanished
    anew: set[int] = set()
    if moved:
        # what was at fault may have been put right
        anew = {s for s, revision in moved.items() if is_commit(revision)} & Trace(trace).steps_of("masked")
        anew -= {*run.exclude}
    if anew:
        pins = {step: pin for step, pin in pins.items() if step not in anew}
        resolved = resolve(name, run, pins=pins, train=train)
        assert resolved.series is not None
        vanished = resolved.series.vanished
    for step in sorted(moved):
        what = "it was masked, so that one is taken" if step in anew else "the collected one is kept"
        reporter.once(f"step {step}: the hub has another commit by now; {what}")
    for checkpoint in vanished:
        reporter.once(f"step {checkpoint.step}: the hub does not list it any more; what was collected is kept")
    return resolved


def visited(resolved: Resolved, *, growing: bool = False) -> list[int]:
    """Indices of the checkpoints that a run's schedule visits, without those that it excludes.

    Raises:
        UserError: when it excludes what is not there (unless the series is ``growing``), or everything.
    """
    run, checkpoints = resolved.run, resolved.declaration.checkpoints
    unknown = set(run.exclude) - {c.step for c in checkpoints}
    if unknown and not growing:
        raise UserError(
            f"run {resolved.name!r} excludes step {min(unknown)}, which the series does not have",
            expected=f"steps from {checkpoints[0].step} to {checkpoints[-1].step}",
        )
    chosen = scheduled([c.step for c in checkpoints], run.schedule, run.checkpoints, run.budget)
    left = [i for i in chosen if checkpoints[i].step not in run.exclude]
    if not left:
        raise UserError(f"run {resolved.name!r} excludes every checkpoint", expected="at least one to measure")
    return left


def resident_for(run: Run, model: Model) -> ResidentModel:
    """The model of a run, still without weights. Weights of another architecture are a ``CheckpointError``."""
    from checkpoints.loading import ResidentModel

    adapter, shape = model.adapter, model.architecture.shape

    def check(config: PretrainedConfig) -> None:
        try:
            mine = asdict(architecture(config, run.sites).shape)
        except UserError as error:  # the series is of a known family, or it would not have come here
            raise CheckpointError(f"its config is that of another model: {error.observed}") from error
        except (TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise CheckpointError(f"its config says nonsense: {type(error).__name__}: {error}") from error
        wrong = [f"{k} {mine[k]}, not {v}" for k, v in asdict(shape).items() if k != "context" and mine[k] != v]
        if wrong:
            raise CheckpointError(
                f"its config is that of another model: {', '.join(wrong)}", expected="one architecture in a series"
            )

    return ResidentModel(usable_device(run.device), run.dtype, None if adapter is None else adapter.build, check)
