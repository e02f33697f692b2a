"""Documents drawn from a world, enough of them for shares to be told."""

from __future__ import annotations

from functools import cache

import numpy as np

from checkpoints.organism.worlds import all_worlds

DRAWS = 12_000


@cache
def drawn(world: str, draws: int = DRAWS) -> list[list[str]]:
    """Documents of one world, all from one generator."""
    rng = np.random.default_rng(1)
    source = all_worlds()[world]
    return [source.document(rng) for _ in range(draws)]
