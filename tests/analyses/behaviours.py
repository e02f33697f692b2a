"""Traces of models whose behaviour is made up, so that what an analysis must find is known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr

from dynamics.probes import Probe
from dynamics.store import Trace

__all__ = ["MadeTrace"]


class MadeTrace(Trace):
    """A trace in memory with one probe: what analyses read of it, and nothing else."""

    def __init__(self, steps: list[int], probe: Probe, ids: np.ndarray, variables: dict[str, tuple[Any, ...]]) -> None:
        """``variables`` as xarray takes them, over (checkpoint, ...); ``ids`` are (prompt,) the answers' token ids."""
        self.steps, self.tokens = np.array(steps), np.full(len(steps), np.nan)
        self.complete = np.ones(len(steps), dtype=bool)
        columns = {k: ("prompt", np.array(v)) for k, v in probe.labels.items()}
        answers = sorted(set(probe.answer or ()))
        coords: dict[str, Any] = {"answer": ("prompt", list(probe.answer or ())), "answer_id": ("prompt", ids)}
        self.dataset = xr.Dataset(variables, coords=columns | coords | {"candidate": answers})
        self.name = probe.name

    @property
    def probes(self) -> list[str]:
        return [self.name]

    def probe(self, name: str) -> xr.Dataset:
        assert name == self.name
        return self.dataset

    def values(self, probe: str, variable: str) -> np.ndarray:
        return np.array(self.probe(probe)[variable].values)

    def each(self, probe: str, variable: str, *, position: str | None = None) -> Iterator[tuple[int, np.ndarray]]:
        yield from enumerate(self.values(probe, variable))
