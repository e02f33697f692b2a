"""One checkpoint, in memory, through every probe and into the trace."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np

from checkpoints.errors import StoppedError, UserError, first_line

from ..runs.resolve import Resolved
from ..store import WEIGHTS, TraceWriter

__all__ = ["measure_all", "shortest", "try_out", "write_checkpoint"]


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
    import torch

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

        try:
            values = together.of(number, say if said is not None else None)
        except torch.OutOfMemoryError as error:
            raise StoppedError(
                f"out of memory on probe {plan.probe.name!r}: {first_line(error)}",
                remedy="lower `batch_tokens` in the runs file, then run the same command again",
                expected="memory for one batch of prompts beside the model",
            ) from error
        except UserError as error:
            error.add_note(f"on probe {plan.probe.name!r}, which {' and '.join(plan.asked)} asked for")
            raise
        yield plan.probe.name, values


def write_checkpoint(
    resolved: Resolved,
    writer: TraceWriter,
    model: Any,
    index: int,
    *,
    digest: str,
    stored_dtype: str,
    said: Callable[[str], None] | None = None,
) -> int:
    """Measure a model and write it as one checkpoint; the status is set last, and nothing half-written is left.

    Returns how many values were not finite because the model said so.
    """
    from checkpoints.audit import sketch

    writer.clear(index)
    nonfinite = overflowed = 0
    try:
        # the model's own names, each tied weight once: files of one series may name and repeat them differently
        found = sketch(dict(model.named_parameters()))
        with np.errstate(over="ignore"):
            norm = np.float32(found.norm)  # of huge weights: inf
        about = {
            "sketch": found.values,
            "norm": norm,
            "nonfinite": np.int32(min(found.nonfinite, np.iinfo(np.int32).max)),
        }
        writer.write(index, WEIGHTS, {name: np.asarray(value) for name, value in about.items()})
        for group, values in measure_all(resolved, model, said):
            broken, large = writer.write(index, group, values)
            nonfinite, overflowed = nonfinite + broken, overflowed + large
    except BaseException:  # Ctrl-C or a full disk
        writer.clear(index)
        raise
    writer.commit(index, digest=digest, stored_dtype=stored_dtype, nonfinite=nonfinite, overflowed=overflowed)
    return nonfinite
