"""What an analysis says: findings (one curve with its emergence and null) and a summary of them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ..emergence import (
    Agreement,
    Emergence,
    Mirage,
    Onset,
    Trend,
    agreement_of,
    assess,
    definitions,
    mirage,
    onset_ends,
    onset_intervals,
    sign_flip_null,
    unit_bootstrap,
)
from ..numerics.draws import DRAWS, FINE_DRAWS

if TYPE_CHECKING:
    from ..store import Trace

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
        onsets: the onset by every definition in use, the first of them that of ``emergence``.
        onset_by: (draw,) for every bootstrap draw the step by which it was above its null; infinite where it never was,
            NaN where the draw cannot be used; empty without draws. The interval begins at the measured checkpoint
            before, see :meth:`onset_intervals`.
        sample: name of what was resampled. Findings with the same name had the same units resampled together, so that
            their draws can be compared one by one; empty where nobody knows.
        twin: key of the finding that is the continuous twin of this one, a thresholded metric; else empty.
        mirage: whether this curve's sharpness survives in its twin; None without one.
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
        names = ("key", "title", "metric", "unit", "headline", "definition", "sample", "twin")
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
        content = {
            name: value for name, value in data.items() if name != "definitions_agree"
        }  # follows from the onsets
        for name in ("values", "low", "high", "null_mean"):
            content[name] = tuple(np.nan if v is None else float(v) for v in content[name])
        content["steps"] = tuple(content["steps"])
        content["emergence"] = Emergence.from_json(content["emergence"])
        # What is younger than the first reports may be missing.
        content["onsets"] = tuple(Onset.from_json(onset) for onset in content.get("onsets", ()))
        ends: dict[Any, float] = {None: math.inf, "unusable": math.nan}
        content["onset_by"] = tuple(float(ends.get(v, v)) for v in content.get("onset_by", ()))
        content["mirage"] = None if content.get("mirage") is None else Mirage.from_json(content["mirage"])
        return cls(**content)


@dataclass(frozen=True)
class Summary:
    """What one analysis found in one trace; figures are drawn from it alone.

    Attributes:
        analysis: its name.
        title: its title.
        question: the question it answers, in a sentence or two.
        findings: headline findings first. Where one names a continuous twin, its ``mirage`` is filled in here.
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

    def __post_init__(self) -> None:
        by_key = {finding.key: finding for finding in self.findings}
        checked = []
        for finding in self.findings:
            if finding.twin and finding.mirage is None:
                if finding.twin not in by_key:
                    raise ValueError(f"{finding.key} names the twin {finding.twin!r}; there are: {', '.join(by_key)}")
                finding = replace(finding, mirage=_mirage(finding, by_key[finding.twin]))
            checked.append(replace(finding, drawn=None))
        object.__setattr__(self, "findings", tuple(checked))

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


def _mirage(finding: Finding, twin: Finding) -> Mirage:
    """Whether the sharpness of a thresholded metric survives in its twin, both beyond what their nulls reached."""
    values, loss = np.array(finding.values), finding.emergence.loss
    if loss is not None and loss.after is not None:  # the sharpness of a transient rise is that of the rise
        values[np.array(finding.steps) > loss.after] = np.nan
    return mirage(
        finding.steps,
        values,
        twin.values,
        draws=finding.drawn,
        twin_draws=twin.drawn,
        direction=finding.emergence.direction,
        twin_direction=twin.emergence.direction,
        null=finding.null_mean,
        twin_null=twin.null_mean,
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
    direction: Trend = "up",
    limits: tuple[float, float] | None = None,
    sample: str = "",
    twin: str = "",
    reach: float | None = None,
) -> Finding:
    """A finding from a curve whose bootstrap draws are given.

    Args:
        key: ``<analysis>.<curve>``.
        values: (checkpoint,) the curve.
        draws: (checkpoint, draw) bootstrap draws of it, or None.
        null: (checkpoint, draw) draws of the same statistic under the null, with its sampling noise.
        null_name: what the null is, in words.
        limits: the metric's range, where it has one (see :func:`dynamics.emergence.assess`).
        sample: name of what the draws resample, the same for findings whose draw d resampled the same units; see
            :class:`Finding`.
        twin: key of the continuous twin of a thresholded metric, in the same analysis, on the same questions.
        reach: level of the definition "first passage", for metrics that the literature dates by one.
    """
    curve: dict[str, Any] = {"draws": draws, "null": null, "null_name": null_name, "tokens": tokens}
    curve |= {"direction": direction, "limits": limits}
    emergence = assess(steps, values, **curve)
    onsets = definitions(steps, values, reach=reach, emergence=emergence, **curve)
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
        onsets=tuple(onsets.values()),
        onset_by=() if draws is None else tuple(onset_ends(steps, values, draws, emergence).tolist()),
        sample=sample,
        twin=twin,
        drawn=draws,
    )


def from_units(
    key: str,
    title: str,
    units: np.ndarray,
    *,
    clusters: np.ndarray | None = None,
    draws: int = FINE_DRAWS,
    **rest: Any,
) -> Finding:
    """A finding from a curve that is a mean over units (prompts, sums, words).

    Args:
        units: (checkpoint, unit) what each unit contributes; NaN where it was not measured.
        clusters: (unit,) labels of what is resampled: units with one label are resampled together, and so are findings
            of one analysis that have the same labels (their draws are paired).
        rest: as for :func:`from_draws`.
    """
    rest.setdefault("sample", _sample(key, clusters))
    counts = np.isfinite(units).sum(axis=1)
    values = np.full(len(units), np.nan)
    values[counts > 0] = np.nanmean(units[counts > 0], axis=1)
    return from_draws(key, title, values=values, draws=unit_bootstrap(units, draws=draws, clusters=clusters), **rest)


def _sample(key: str, clusters: np.ndarray | None) -> str:
    """A name for the units that :func:`unit_bootstrap` resamples: they are drawn in the order of sorted labels."""
    if clusters is None:
        return ""
    labels = "\n".join(str(label) for label in np.unique(clusters))
    return f"{key.split('.')[0]}:{hashlib.sha256(labels.encode()).hexdigest()[:12]}"


def best_layer(
    key: str,
    title: str,
    units: np.ndarray,
    null: np.ndarray,
    *,
    clusters: np.ndarray | None = None,
    draws: int = DRAWS,
    **rest: Any,
) -> Finding:
    """A finding from the layer in which a curve is largest at each checkpoint.

    The largest layer is taken anew of every bootstrap draw and of every null draw, so that choosing it gains nothing.

    Args:
        units: (checkpoint, layer, unit) what each unit contributes.
        null: (checkpoint, layer, null draw).
        clusters: as for :func:`from_units`.
        rest: as for :func:`from_draws`.
    """
    rest.setdefault("sample", _sample(key, clusters))
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
    draws: int = DRAWS,
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
