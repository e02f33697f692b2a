"""Which labels of which prompts do features stand out for?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dynamics.analysis.enrichment import enrich, magnitude
from dynamics.analysis.features import FeatureReader

__all__ = ["Enriched", "enriched"]

MOST = 64
"""Numbers of more different values are followed as a magnitude; words of more are names of prompts."""


@dataclass(frozen=True)
class Enriched:
    """One label of one probe at one position, at the last checkpoint.

    Attributes:
        probe, position, label: what.
        share: (feature,) of the variance of a feature's answers that its best value explains, or a straight line on the
            number; NaN where it is not tested.
        found: (feature,) at the false discovery rate.
        value: (feature,) the best value in words; ``larger`` or ``smaller`` of a number.
        number: whether the label was followed as a number.
    """

    probe: str
    position: str
    label: str
    share: np.ndarray
    found: np.ndarray
    value: list[str]
    number: bool = False

    @property
    def title(self) -> str:
        """Which label, in words."""
        return f"{self.label} ({self.probe}, {self.position})"

    @property
    def tested(self) -> int:
        """How many features answered enough of the prompts."""
        return int(np.isfinite(self.share).sum())


def enriched(reader: FeatureReader, draws: int) -> Iterator[Enriched]:
    """Every label that says something: of several values, and not another one for every prompt."""
    for probe in reader.table.probes:
        dataset = reader.table.read(probe)
        names = [str(n) for n, c in dataset.coords.items() if c.dims == ("prompt",) and n not in ("text", "answer")]
        for position in map(str, dataset["position"].values):
            x = np.nan_to_num(reader.last(probe, position))
            for name in names:
                labels = reader.label(probe, name)
                different = len(np.unique(labels))
                if 1 < different <= min(MOST, len(labels) // 2):
                    found = enrich(x, labels, draws=draws)
                    share = np.where(np.isfinite(found.p_value), found.share, np.nan)
                    value = [str(found.values[b]) if b >= 0 else "" for b in found.best]
                    yield Enriched(probe, position, name, share, found.found, value)
                elif different > MOST and labels.dtype.kind in "iuf":
                    line = magnitude(x, labels, draws=draws)
                    share = np.where(np.isfinite(line.p_value), line.r2, np.nan)
                    value = ["larger" if s > 0 else "smaller" for s in line.spearman]
                    yield Enriched(probe, position, name, share, line.found, value, number=True)
