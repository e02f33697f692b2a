"""Going back to a run's weights after it was collected: to explain a prompt, or to learn a dictionary."""

from __future__ import annotations

from pathlib import Path

from checkpoints.errors import UserError
from checkpoints.series import Checkpoint, Series

from ..auditing.masking import known_before
from ..progress import Reporter
from ..runs.config import Run
from ..runs.resolve import Model, open_model
from ..runs.schedule import scheduled
from ..store import Trace
from ..store.paths import trace_path
from .opening import collected_pins, training_bar

__all__ = ["chosen_checkpoints", "open_weights"]


def open_weights(name: str, run: Run, trace: Path, reporter: Reporter) -> tuple[Series, Model]:
    """Series and model: the commits that the trace was collected from, an organism trained where it is not yet.

    Args:
        name: the run's name.
        run: the run.
        trace: where its trace is, or would be.
        reporter: progress and messages.

    Raises:
        UserError: when the series cannot be opened, or has no weights to go back to.
    """
    with training_bar(name, run, reporter) as training:
        return open_model(name, run, training=training, pins=collected_pins(run, trace))


def chosen_checkpoints(name: str, run: Run, series: Series, traces: Path, count: int | None) -> list[Checkpoint]:
    """The checkpoints that the trace holds, else those that the schedule visits.

    Args:
        name: the run's name.
        run: the run.
        series: its checkpoints.
        traces: folder of traces.
        count: at most so many of them, evenly on a log scale of steps; None for all.

    Raises:
        UserError: when there is none.
    """
    path = trace_path(traces, name)
    if path.exists():
        held = Trace(path).steps_of("complete")
        found = [c for c in series.checkpoints if c.step in held]
        if not found:
            raise UserError(
                f"the trace of run {name!r} has no complete checkpoint of its series",
                expected="at least one, or no trace at all",
                remedy=f"dynamics collect {name}",
            )
    else:
        schedule = "log" if run.schedule == "adaptive" else run.schedule
        visited = scheduled([c.step for c in series.checkpoints], schedule, run.checkpoints)
        masked = known_before(run, series).reasons
        found = [series.checkpoints[i] for i in visited if series.checkpoints[i].step not in masked]
        if not found:
            raise UserError(
                f"run {name!r} has no checkpoint to go back to: "
                + "; ".join(f"step {step}: {reason}" for step, reason in list(masked.items())[:3]),
                expected="at least one that is not masked",
                remedy="set `include_masked: true` in the run if they are right nevertheless",
            )
    if count is None:
        return found
    if count == 1:
        return found[-1:]
    return [found[i] for i in scheduled([c.step for c in found], "log", count)]
