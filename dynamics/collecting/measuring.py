"""One checkpoint, in memory, through every probe and into the trace."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from checkpoints.errors import StoppedError, UserError, first_line

from ..probes import TokenizedProbe
from ..runs.plan import ProbePlan
from ..runs.resolve import Resolved
from ..store import WEIGHTS, TraceWriter
from .taking import Taken, Takeover

__all__ = ["measure_all", "require_wired", "shortest", "take_checkpoint", "try_out", "write_checkpoint"]


def shortest(resolved: Resolved) -> Any:
    """(token,) the shortest prompt of a run, as a tensor."""
    import torch

    return torch.from_numpy(min((ids for _, probe in resolved.probes for ids in probe.ids), key=len))


def try_out(resolved: Resolved, model: Any) -> None:
    """Ask a model for what will be measured, on one prompt of each probe.

    Raises:
        UserError: when a site is missing, or the logits are of another shape.
    """
    import torch

    from ..circuits.wired import Wired
    from ..measurements import Intervention
    from ..models.sites import observe

    architecture = resolved.model.architecture
    shape, device = architecture.shape, next(model.parameters()).device
    for plan, probe in resolved.probes:
        wired = any(isinstance(m, Intervention) for m in plan.measurements)
        sites = frozenset().union(*(m.sites() for m in plan.measurements if not isinstance(m, Intervention)))
        ids = torch.from_numpy(min(probe.ids, key=len)).to(device)
        try:
            if wired and architecture.table.wiring is not None:
                Wired(model, architecture)
                require_wired(resolved, model)
            with torch.no_grad(), observe(model, architecture.table, sites, shape.layers, lambda *_: None):
                logits = architecture.logits(model, ids[None], torch.tensor([len(ids) - 1], device=device))
        except UserError as error:
            error.add_note(f"on probe {plan.probe.name!r}, which {' and '.join(plan.asked)} asked for")
            raise
        except Exception as error:  # code of the user's, which may raise anything
            raise UserError(
                f"a {type(model).__name__} cannot be measured on probe {plan.probe.name!r}: {first_line(error)}",
                expected="a model that takes token ids and gives logits",
                remedy="give an adapter that calls it (`series.adapter`)",
            ) from error
        if logits.shape != (1, 1, shape.vocab):
            raise UserError(
                f"the model gave logits of shape {tuple(logits.shape)} for one token of one prompt",
                expected=f"(row, token, vocab), here {(1, 1, shape.vocab)}",
                remedy="correct the adapter, or the sizes in the config",
            )


def require_wired(resolved: Resolved, model: Any) -> None:
    """Refuse a wiring of the user's own that is not the model's, where something is measured by it.

    Raises:
        UserError: as :func:`dynamics.circuits.checking.check_wiring`.
    """
    from ..circuits.checking import check_wiring
    from ..measurements import Intervention

    architecture, own = (
        resolved.model.architecture,
        resolved.run.sites or resolved.run.adapter or resolved.model.adapter,
    )
    needed = any(isinstance(m, Intervention) for plan, _ in resolved.probes for m in plan.measurements)
    if own and needed and architecture.table.wiring is not None:
        check_wiring(model, architecture)


def measure_all(
    resolved: Resolved,
    model: Any,
    said: Callable[[str], None] | None = None,
    probes: Collection[str] | None = None,
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """(probe, its variables), one probe at a time.

    Prompts that several of them have go through the model once, so ask for all that is wanted in one call.

    Args:
        said: called about once a second with what is being measured.
        probes: names of those that are wanted; None for all. What they get is the same, whichever they are.

    Raises:
        StoppedError: when memory is short.
    """
    from ..measurements.forward import Together

    wanted = [n for n, (plan, _) in enumerate(resolved.probes) if probes is None or plan.probe.name in probes]
    together = Together(
        model,
        [(probe, plan.measurements) for plan, probe in resolved.probes],
        architecture=resolved.model.architecture,
        batch_tokens=resolved.run.batch_tokens,
        wanted=wanted,
    )
    for number in wanted:
        plan, _ = resolved.probes[number]
        where = f"{plan.probe.name} (probe {number + 1} of {len(resolved.probes)})"

        def say(what: str, where: str = where) -> None:
            if said is not None:
                said(f"{where}: {what}")

        with _named(plan):
            values = together.of(number, say if said is not None else None)
        yield plan.probe.name, values


@contextmanager
def _named(plan: ProbePlan) -> Iterator[None]:
    """What goes wrong with a probe says which it is, and who asked for it."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise StoppedError(
            f"out of memory on probe {plan.probe.name!r}: {first_line(error)}",
            remedy="lower `batch_tokens` in the runs file, then run the same command again",
            expected="memory for one batch of prompts beside the model",
        ) from error
    except UserError as error:
        error.add_note(f"on probe {plan.probe.name!r}, which {' and '.join(plan.asked)} asked for")
        raise


def write_checkpoint(
    resolved: Resolved,
    writer: TraceWriter,
    model: Any,
    index: int,
    *,
    digest: str,
    stored_dtype: str,
    said: Callable[[str], None] | None = None,
    takeovers: Mapping[str, Takeover] | None = None,
    used: dict[str, list[int]] | None = None,
) -> int:
    """Measure a model and write what a checkpoint lacks, group by group; the status is set last, and no group is half-written.

    Returns how many values were not finite because the model said so.
    """
    step = resolved.declaration.checkpoints[index].step
    if writer.digest(index) not in ("", digest):  # a training that was resumed
        writer.clear(index)
    for group, values, taken in _measured(
        resolved, model, writer.lacking(index, digest), said, digest, takeovers or {}
    ):
        _used(used, taken, step)
        _write(writer, index, group, values, digest=digest, stored_dtype=stored_dtype)
    return writer.commit(index, digest=digest, stored_dtype=stored_dtype)


def take_checkpoint(
    resolved: Resolved,
    writer: TraceWriter,
    index: int,
    takeovers: Mapping[str, Takeover],
    *,
    digest: str,
    stored_dtype: str,
    used: dict[str, list[int]],
) -> bool:
    """Fill what a checkpoint lacks with what was measured elsewhere, without its weights; whether it lacks nothing more."""
    for group in writer.lacking(index, digest):
        taken = takeovers[group].at(digest) if group in takeovers else None
        if taken is not None and not taken.left:
            _used(used, taken, resolved.declaration.checkpoints[index].step)
            _write(writer, index, group, taken.values, digest=digest, stored_dtype=stored_dtype)
    if writer.lacking(index, digest):
        return False
    writer.commit(index, digest=digest, stored_dtype=stored_dtype)
    return True


def _used(used: dict[str, list[int]] | None, taken: Taken | None, step: int) -> None:
    if used is not None and taken is not None:
        for trace in taken.traces:
            if step not in used.setdefault(trace, []):
                used[trace].append(step)


def _write(
    writer: TraceWriter, index: int, group: str, values: Mapping[str, np.ndarray], *, digest: str, stored_dtype: str
) -> None:
    writer.clear_group(index, group)
    try:
        writer.write(index, group, values)
        writer.note(index, group, digest=digest, stored_dtype=stored_dtype)
    except BaseException:  # Ctrl-C or a full disk
        writer.clear_group(index, group)
        raise


def _measured(
    resolved: Resolved,
    model: Any,
    groups: Collection[str],
    said: Callable[[str], None] | None,
    digest: str,
    takeovers: Mapping[str, Takeover],
) -> Iterator[tuple[str, dict[str, np.ndarray], Taken | None]]:
    """(group, its variables, what of them was not measured), one group at a time."""
    from checkpoints.audit import sketch

    if WEIGHTS in groups:
        # the model's own names, each tied weight once: files of one series may name and repeat them differently
        found = sketch(dict(model.named_parameters()))
        with np.errstate(over="ignore"):
            norm = np.float32(found.norm)  # of huge weights: inf
        nonfinite = np.int32(min(found.nonfinite, np.iinfo(np.int32).max))
        about = {"sketch": found.values, "norm": norm, "nonfinite": nonfinite}
        yield WEIGHTS, {name: np.asarray(value) for name, value in about.items()}, None
    known = {name for name in groups if name in takeovers and takeovers[name].some(digest)}
    for name, values in measure_all(resolved, model, said, [name for name in groups if name not in known]):
        yield name, values, None
    for plan, probe in resolved.probes:
        if plan.probe.name not in known:
            continue
        taken = takeovers[plan.probe.name].at(digest)
        if taken is None:  # what is there is damaged
            yield *next(measure_all(resolved, model, said, [plan.probe.name])), None
        else:
            _measure_rest(resolved, model, plan, probe, taken, said)
            yield plan.probe.name, taken.values, taken


def _measure_rest(
    resolved: Resolved,
    model: Any,
    plan: ProbePlan,
    probe: TokenizedProbe,
    taken: Taken,
    said: Callable[[str], None] | None,
) -> None:
    """Add what of a probe was not taken."""
    from ..measurements.forward import measure

    def say(what: str) -> None:
        if said is not None:
            said(f"{plan.probe.name}: {what}")

    with _named(plan):
        for measurements, rows in taken.left:
            found = measure(
                model,
                probe if len(rows) == len(probe.ids) else probe.take(rows),
                measurements,
                architecture=resolved.model.architecture,
                batch_tokens=resolved.run.batch_tokens,
                said=say if said is not None else None,
            )
            taken.put(rows, found)
