"""Sweeps: one run of the runs file that stands for many, which differ in the keys that it sweeps over.

``sweep: {series.seed: [0, 1], series.curriculum.addition.share: [0.17, 0.34]}`` makes four runs, its *cells*. Each has a name of
its own, such as ``mine@seed=0,addition.share=0.17``, by which its trace and its report are called.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["shortened"]


def shortened(keys: Sequence[str]) -> dict[str, str]:
    """Keys with dots by their ends, as short as they are unique among one another; of two parts where there are more than two.

    >>> shortened(["series.seed", "series.curriculum.addition.share", "series.curriculum.german.share"])
    {'series.seed': 'seed', 'series.curriculum.addition.share': 'addition.share', 'series.curriculum.german.share': 'german.share'}
    """
    found = {}
    for key in keys:
        parts = key.split(".")
        for count in range(2 if len(parts) > 3 else 1, len(parts) + 1):
            end = ".".join(parts[-count:])
            if sum(other == end or other.endswith("." + end) for other in keys) == 1:
                break
        found[key] = end
    return found
