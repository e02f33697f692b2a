"""A finding: one curve over the checkpoints, when it emerged, and what it had to beat."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..emergence import Agreement, Emergence, Mirage, Onset, agreement_of, onset_intervals

__all__ = ["Definition", "Finding"]


@dataclass(frozen=True)
class Definition:
    """A metric, its formula in words and symbols, and where it comes from."""

    term: str
    text: str
    source: str = ""


@dataclass(frozen=True)
class Finding:
    """One curve over the checkpoints, and when it emerged.

    Attributes:
        key: ``<analysis>.<curve>``, unique in a report.
        title: what emerged, in words that need no context.
        metric: what the vertical axis shows, with its unit.
        unit: the sampling unit of the bootstrap (``"sums"``, ``"prompts"``, ...).
        headline: whether it belongs in the emergence table and the timeline.
        steps: (checkpoint,) optimizer steps.
        values: (checkpoint,) the curve; NaN where it was not measured.
        low, high: (checkpoint,) pointwise 95% bootstrap interval, NaN where there is none.
        null_mean: (checkpoint,) mean of the null.
        emergence: the statistics, with the null's name and upper bound.
        definition: what exactly was computed.
        onsets: the onset by every definition in use, the first of them that of ``emergence``.
        onset_by: (draw,) for every bootstrap draw the step by which it was above its null; infinite where it never was,
            NaN where the draw cannot be used; empty without draws. The interval begins at the measured checkpoint
            before, see :meth:`onset_intervals`.
        sample: name of what was resampled. Findings with the same name had the same units resampled together, so that
            their draws can be compared one by one; empty where that is not known.
        twin: key of the finding that is the continuous twin of this one, a thresholded metric; else empty.
        mirage: whether this curve's sharpness survives in its twin; None without one.
        holds: share of looks with other prompts, other null draws and a checkpoint less that say the same, for headlines
            (:func:`dynamics.emergence.looks_that_hold`); None where it is not known.
        drawn: (checkpoint, draw) the bootstrap draws, while the analysis runs; they are not stored.
    """

    key: str
    title: str
    metric: str
    unit: str
    headline: bool
    steps: tuple[int, ...]
    values: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    null_mean: tuple[float, ...]
    emergence: Emergence
    definition: str = ""
    onsets: tuple[Onset, ...] = ()
    onset_by: tuple[float, ...] = ()
    sample: str = ""
    twin: str = ""
    mirage: Mirage | None = None
    holds: float | None = None
    drawn: np.ndarray | None = field(default=None, repr=False, compare=False)

    @property
    def agreement(self) -> Agreement:
        """How far the definitions agree."""
        return agreement_of({onset.definition: onset for onset in self.onsets})

    def onset_intervals(self) -> np.ndarray:
        """(draw, 2) the onset (after, by] of every bootstrap draw, for :func:`dynamics.emergence.before`."""
        valid = np.isfinite(self.values) & np.isfinite(self.emergence.null_upper)
        return onset_intervals(self.onset_by, np.array(self.steps)[valid])

    def to_json(self) -> dict[str, Any]:
        """As JSON values; NaN is null. Of ``onset_by``, null is "never" and "unusable" a draw that cannot be used."""
        names = ("key", "title", "metric", "unit", "headline", "definition", "sample", "twin", "holds")
        data: dict[str, Any] = {name: getattr(self, name) for name in names}
        data["steps"] = list(self.steps)
        for name in ("values", "low", "high", "null_mean"):
            data[name] = [None if np.isnan(v) else float(v) for v in getattr(self, name)]
        return data | {
            "emergence": self.emergence.to_json(),
            "onsets": [onset.to_json() for onset in self.onsets],
            "definitions_agree": self.agreement.to_json() if self.onsets else None,
            "onset_by": ["unusable" if math.isnan(v) else int(v) if v < math.inf else None for v in self.onset_by],
            "mirage": None if self.mirage is None else self.mirage.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Finding:
        """The inverse of :meth:`to_json`."""
        content = dict(data)
        content.pop("definitions_agree", None)  # follows from the onsets
        for name in ("values", "low", "high", "null_mean"):
            content[name] = tuple(np.nan if v is None else float(v) for v in content[name])
        content["steps"] = tuple(content["steps"])
        content["emergence"] = Emergence.from_json(content["emergence"])
        content["onsets"] = tuple(Onset.from_json(onset) for onset in content["onsets"])
        ends: dict[Any, float] = {None: math.inf, "unusable": math.nan}
        content["onset_by"] = tuple(float(ends.get(v, v)) for v in content["onset_by"])
        content["mirage"] = None if content["mirage"] is None else Mirage.from_json(content["mirage"])
        return cls(**content)
