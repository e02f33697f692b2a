"""Which checkpoints of a series to visit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from checkpoints.paths import as_number

__all__ = ["log_steps", "scheduled"]


COUNTS = {"log": 20, "adaptive": 8}
"""How many checkpoints a schedule visits at first unless the run says it. An adaptive one soon has more where they tell more, and
a coarse grid of 20 leaves a small budget little to look with (``benchmarks/adaptive.py --coarse 8 20``)."""


def scheduled(steps: Sequence[int], schedule: str, count: int | None = None, budget: int | None = None) -> list[int]:
    """Indices of the checkpoints to visit (with ``adaptive``: first), increasing.

    ``dense`` visits all; the others about ``count`` (:data:`COUNTS` if None), the ones nearest to even spacing in
    log10(step + 1), always with the first and the last; ``adaptive`` no more than its ``budget``.

    >>> scheduled([0, 1, 2, 4, 8, 16, 32, 64], "log", 4)
    [0, 3, 5, 7]
    >>> len(scheduled(range(10), "dense", 4))
    10
    """
    count = COUNTS.get(schedule, len(steps)) if count is None else count
    if schedule == "adaptive" and budget is not None:
        count = min(count, budget)
    if schedule == "dense" or count >= len(steps):
        return list(range(len(steps)))
    position = np.log10(np.asarray(steps, dtype=float) + 1)
    targets = np.linspace(position[0], position[-1], count)
    return sorted({int(np.abs(position - target).argmin()) for target in targets})


def log_steps(last: int, count: int = 20) -> list[int]:
    """About ``count`` steps from 0 to ``last``, evenly spaced in log10(step + 1).

    >>> log_steps(1000, 7)
    [0, 2, 9, 31, 99, 315, 1000]

    Raises:
        UserError: when one of them is no whole number, or below 0.
    """
    as_number(last, "last", least=0)
    as_number(count, "count", least=0)
    if last < 1 or count < 2:
        return [0, last][: max(1, min(count, last + 1))]
    return sorted({round(10**x - 1) for x in np.linspace(0, np.log10(last + 1), count)})
