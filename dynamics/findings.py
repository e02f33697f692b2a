"""What an analysis says: findings (one curve with its emergence and null) and a summary of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from .emergence import Emergence, assess, unit_bootstrap
from .emergence.types import Direction

if TYPE_CHECKING:
    from .store import Trace

__all__ = [
    "Definition",
    "Finding",
    "Summary",
    "best_layer",
    "from_draws",
    "from_units",
    "shuffled_answers",
    "sign_flip_null",
]


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

    def to_json(self) -> dict[str, Any]:
        """As JSON values; NaN is null."""
        data = {name: getattr(self, name) for name in ("key", "title", "metric", "unit", "headline", "definition")}
        data["steps"] = list(self.steps)
        for name in ("values", "low", "high", "null_mean"):
            data[name] = [None if np.isnan(v) else float(v) for v in getattr(self, name)]
        return data | {"emergence": self.emergence.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Finding:
        """The inverse of :meth:`to_json`."""
        content = dict(data)
        for name in ("values", "low", "high", "null_mean"):
            content[name] = tuple(np.nan if v is None else float(v) for v in content[name])
        content["steps"] = tuple(content["steps"])
        content["emergence"] = Emergence.from_json(content["emergence"])
        return cls(**content)


@dataclass(frozen=True)
class Summary:
    """What one analysis found in one trace; figures are drawn from it alone.

    Attributes:
        analysis: its name.
        title: its title.
        question: the question it answers, in a sentence or two.
        findings: headline findings first.
        definitions: every metric with its source.
        notes: what a reader must know to judge the figures, among them what could not be measured.
        data: arrays behind the figures (heat maps over layers and heads), over ``checkpoint`` with ``step``.
    """

    analysis: str
    title: str
    question: str
    findings: tuple[Finding, ...]
    definitions: tuple[Definition, ...] = ()
    notes: tuple[str, ...] = ()
    data: xr.Dataset = field(default_factory=xr.Dataset)

    def finding(self, key: str) -> Finding:
        """The finding ``<analysis>.<key>``; KeyError if there is none."""
        for finding in self.findings:
            if finding.key == f"{self.analysis}.{key}":
                return finding
        raise KeyError(key)

    def to_json(self) -> dict[str, Any]:
        """Everything but the arrays, as JSON values."""
        return {
            "analysis": self.analysis,
            "title": self.title,
            "question": self.question,
            "findings": [f.to_json() for f in self.findings],
            "definitions": [{"term": d.term, "text": d.text, "source": d.source} for d in self.definitions],
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], arrays: xr.Dataset) -> Summary:
        """The inverse of :meth:`to_json`, with the arrays."""
        return cls(
            analysis=data["analysis"],
            title=data["title"],
            question=data["question"],
            findings=tuple(Finding.from_json(f) for f in data["findings"]),
            definitions=tuple(Definition(**d) for d in data["definitions"]),
            notes=tuple(data["notes"]),
            data=arrays,
        )


def from_draws(
    key: str,
    title: str,
    *,
    steps: np.ndarray,
    tokens: np.ndarray | None,
    values: np.ndarray,
    draws: np.ndarray | None,
    null: np.ndarray | None,
    null_name: str,
    metric: str,
    unit: str,
    headline: bool = False,
    definition: str = "",
    direction: Direction = "up",
    limits: tuple[float, float] | None = None,
) -> Finding:
    """A finding from a curve whose bootstrap draws are given.

    Args:
        key: ``<analysis>.<curve>``.
        values: (checkpoint,) the curve.
        draws: (checkpoint, draw) bootstrap draws of it, or None.
        null: (checkpoint, draw) draws of the same statistic under the null, with its sampling noise.
        null_name: what the null is, in words.
        limits: the metric's range, where it has one (see :func:`dynamics.emergence.assess`).
    """
    emergence = assess(
        steps, values, draws=draws, null=null, null_name=null_name, tokens=tokens, direction=direction, limits=limits
    )
    nothing = np.full(len(values), np.nan)
    low, high = nothing, nothing
    if draws is not None:
        known = np.isfinite(draws).any(axis=1)
        low, high = nothing.copy(), nothing.copy()
        if known.any():
            low[known], high[known] = np.nanquantile(draws[known], [0.025, 0.975], axis=1)
    null_mean = nothing.copy()
    if null is not None:
        known = np.isfinite(null).any(axis=1)
        null_mean[known] = np.nanmean(null[known], axis=1)
    return Finding(
        key=key,
        title=title,
        metric=metric,
        unit=unit,
        headline=headline,
        steps=tuple(int(s) for s in steps),
        values=tuple(float(v) for v in values),
        low=tuple(low.tolist()),
        high=tuple(high.tolist()),
        null_mean=tuple(null_mean.tolist()),
        emergence=emergence,
        definition=definition,
    )


def from_units(
    key: str,
    title: str,
    units: np.ndarray,
    *,
    clusters: np.ndarray | None = None,
    draws: int = 400,
    **rest: Any,
) -> Finding:
    """A finding from a curve that is a mean over units (prompts, sums, words).

    Args:
        units: (checkpoint, unit) what each unit contributes; NaN where it was not measured.
        clusters: (unit,) units that share something and are resampled together.
        rest: as for :func:`from_draws`.
    """
    counts = np.isfinite(units).sum(axis=1)
    values = np.full(len(units), np.nan)
    values[counts > 0] = np.nanmean(units[counts > 0], axis=1)
    return from_draws(key, title, values=values, draws=unit_bootstrap(units, draws=draws, clusters=clusters), **rest)


def sign_flip_null(
    units: np.ndarray,
    control: np.ndarray | None = None,
    *,
    direction: Direction = "up",
    draws: int = 400,
    seed: int = 1,
) -> np.ndarray:
    """(checkpoint, draw) null of paired differences: their deviations from the mean, with random signs.

    Without an effect a unit's difference is noise about zero. The observed mean is taken off first, so that a large
    effect does not widen its own null. The same signs are used at every checkpoint: a draw is a whole curve.

    Args:
        units: (checkpoint, unit) differences.
        control: (checkpoint, unit) the same differences where there cannot be an effect. What they show (say, of the
            position in the prompt) is added to the null where it goes in the curve's direction; where it goes against
            it, it is ignored, because an effect may harm its own control.
        direction: of the curve.
    """
    rng = np.random.default_rng(seed)

    def noise(of: np.ndarray) -> np.ndarray:
        signs = rng.choice([-1.0, 1.0], size=(draws, of.shape[1]))
        return np.asarray((of - of.mean(axis=1, keepdims=True)) @ signs.T / of.shape[1])

    null = noise(units)
    if control is not None:
        bias = control.mean(axis=1, keepdims=True)
        null = null + noise(control) + (np.maximum(bias, 0) if direction == "up" else np.minimum(bias, 0))
    return null


def best_layer(
    key: str,
    title: str,
    units: np.ndarray,
    null: np.ndarray,
    *,
    clusters: np.ndarray | None = None,
    draws: int = 200,
    **rest: Any,
) -> Finding:
    """A finding from the layer in which a curve is largest at each checkpoint.

    The largest layer is taken anew of every bootstrap draw and of every null draw, so that choosing it gains nothing.

    Args:
        units: (checkpoint, layer, unit) what each unit contributes.
        null: (checkpoint, layer, null draw).
        clusters: (unit,) units that share something and are resampled together.
        rest: as for :func:`from_draws`.
    """
    drawn = [unit_bootstrap(units[:, layer], draws=draws, clusters=clusters) for layer in range(units.shape[1])]
    return from_draws(
        key, title, values=units.mean(-1).max(axis=1), draws=np.max(drawn, axis=0), null=null.max(axis=1), **rest
    )


def shuffled_answers(
    trace: Trace,
    probe: str,
    rows: np.ndarray,
    strata: np.ndarray,
    *,
    questions: np.ndarray | None = None,
    draws: int = 200,
) -> np.ndarray:
    """(checkpoint, draw) mean log-probability of answers shuffled within strata: the null of the answers' own.

    Needs ``candidate_logprob`` (measurement ``Answers(candidates=True)``).

    Args:
        rows: (row,) prompts of the probe that are used.
        strata: (prompt,) answers are shuffled among prompts of one stratum.
        questions: (prompt,) prompts of one question keep one answer between them.
    """
    rng = np.random.default_rng(0)
    order = {str(c): i for i, c in enumerate(trace.probe(probe)["candidate"].values)}
    index = np.array([order[t] for t in trace.label(probe, "answer")])
    asked = np.arange(len(index)) if questions is None else np.unique(questions, return_inverse=True)[1]
    first, back = np.unique(asked[rows], return_index=True, return_inverse=True)[1:]
    answer, stratum = index[rows][first], strata[rows][first]
    parts = [np.flatnonzero(stratum == s) for s in np.unique(stratum)]
    dealt = np.empty((draws, len(first)), dtype=int)
    for part in parts:
        for draw in range(draws):
            dealt[draw, part] = answer[rng.permutation(part)]
    result = np.full((len(trace.steps), draws), np.nan)
    for checkpoint, values in trace.each(probe, "candidate_logprob"):
        result[checkpoint] = values[rows[None], dealt[:, back]].mean(axis=1)
    return result
