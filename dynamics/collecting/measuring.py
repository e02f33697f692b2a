"""One checkpoint, in memory, through every probe and into the trace."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from checkpoints.errors import StoppedError

from ..runs.resolve import Resolved
from ..store import WEIGHTS, TraceWriter

__all__ = ["measure_all", "write_checkpoint"]


def measure_all(resolved: Resolved, model: Any) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """(probe, its variables), one probe at a time.

    Raises:
        StoppedError: when memory is short.
    """
    import torch

    from ..measurements.forward import measure

    for plan, probe in resolved.probes:
        try:
            values = measure(
                model,
                probe,
                plan.measurements,
                architecture=resolved.model.architecture,
                batch_tokens=resolved.run.batch_tokens,
            )
        except torch.OutOfMemoryError as error:
            raise StoppedError(
                f"out of memory on probe {plan.probe.name!r}: {str(error).splitlines()[0]}",
                remedy="lower `batch_tokens` in the runs file, then run the same command again",
            ) from error
        yield plan.probe.name, values


def write_checkpoint(
    resolved: Resolved,
    writer: TraceWriter,
    model: Any,
    index: int,
    *,
    digest: str,
    stored_dtype: str,
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
        about = {
            "sketch": found.values,
            "norm": np.float32(found.norm),
            "nonfinite": np.int32(min(found.nonfinite, np.iinfo(np.int32).max)),
        }
        writer.write(index, WEIGHTS, {name: np.asarray(value) for name, value in about.items()})
        for group, values in measure_all(resolved, model):
            broken, large = writer.write(index, group, values)
            nonfinite, overflowed = nonfinite + broken, overflowed + large
    except BaseException:  # Ctrl-C or a full disk
        writer.clear(index)
        raise
    writer.commit(index, digest=digest, stored_dtype=stored_dtype, nonfinite=nonfinite, overflowed=overflowed)
    return nonfinite
