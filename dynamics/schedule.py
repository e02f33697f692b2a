"""Which checkpoints of a series to visit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["scheduled"]


def scheduled(steps: Sequence[int], schedule: str, count: int) -> list[int]:
    """Indices of the checkpoints to visit, increasing.

    ``dense`` visits all; ``log`` visits about ``count``, the ones nearest to even spacing in log10(step + 1), always
    with the first and the last.

    >>> scheduled([0, 1, 2, 4, 8, 16, 32, 64], "log", 4)
    [0, 3, 5, 7]
    >>> len(scheduled(range(10), "dense", 4))
    10
    """
    if schedule == "dense" or count >= len(steps):
        return list(range(len(steps)))
    position = np.log10(np.asarray(steps, dtype=float) + 1)
    targets = np.linspace(position[0], position[-1], count)
    return sorted({int(np.abs(position - target).argmin()) for target in targets})
