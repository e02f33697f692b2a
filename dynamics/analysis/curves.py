"""A curve as an analysis hands it over: values, what they were computed from, and the null that they have to beat.

An analysis knows what a curve means; the runner knows the checkpoints, and makes a :class:`Finding` of it: the emergence,
the onset by every definition, the interval of every draw.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from checkpoints.errors import UserError, shown

from ..emergence import Trend, assess, definitions, looks_that_hold, onset_ends, unit_bootstrap
from ..names import CHECKPOINT
from ..numerics.draws import DRAWS, FINE_DRAWS
from .findings import Finding
from .returned import array_of, instance_of

if TYPE_CHECKING:
    from ..store import Trace

__all__ = ["PLAIN", "Curve", "CurveSpec", "Null", "best_layer", "from_units", "shuffled_answers"]


@dataclass(frozen=True, eq=False)
class Null:
    """What a curve has to beat.

    Attributes:
        draws: (checkpoint, draw) the same statistic where there is nothing to find, with its sampling noise; for
            :func:`best_layer` (checkpoint, layer, draw); None where there is no null, so that nothing can emerge.
        name: what it is, in words.
    """

    draws: np.ndarray | None
    name: str


@dataclass(frozen=True, eq=False)
class CurveSpec:
    """How a curve is to be read; curves that differ in little share one (:meth:`but`).

    Attributes:
        metric: what the vertical axis shows, with its unit.
        unit: the sampling unit of the bootstrap (``"sums"``, ``"prompts"``, ...).
        definition: what exactly was computed.
        headline: whether it belongs in the emergence table and the timeline.
        direction: whether it rises or falls when the circuit forms.
        limits: the metric's range, where it has one (see :func:`dynamics.emergence.assess`).
        clusters: (unit,) labels of what is resampled: units with one label are resampled together, and so are curves of
            one analysis that have the same labels (their draws are paired).
        sample: name of what was resampled, the same for curves whose draw d resampled the same units; made from
            ``clusters`` where it is empty.
        twin: key of the continuous twin of a thresholded metric, in the same analysis, on the same questions.
        reach: level of the definition "first passage", for metrics that the literature dates by one.

    Raises:
        UserError: for a direction that is neither, or limits that are no pair.
    """

    metric: str = "value"
    unit: str = "prompts"
    definition: str = ""
    headline: bool = False
    direction: Trend = "up"
    limits: tuple[float, float] | None = None
    clusters: np.ndarray | None = None
    sample: str = ""
    twin: str = ""
    reach: float | None = None

    def __post_init__(self) -> None:
        if self.direction not in ("up", "down"):
            raise UserError(
                f"`direction` of a CurveSpec is {shown(self.direction)}",
                expected="'up' or 'down'",
                remedy="say which way the curve goes when the circuit forms",
            )
        if self.limits is not None and np.shape(self.limits) != (2,):
            raise UserError(
                f"`limits` of a CurveSpec is {shown(self.limits)}",
                expected="None, or two numbers",
                remedy="give the least and the largest value of the metric, as limits=(0.0, 1.0)",
            )

    def but(self, **changes: Any) -> CurveSpec:
        """The same with some attributes changed.

        >>> CurveSpec("accuracy", "sums").but(headline=True).headline
        True
        """
        return replace(self, **changes)

    @property
    def resampled(self) -> str:
        """``sample``, or a name for the clusters: they are drawn in the order of sorted labels."""
        if self.sample or self.clusters is None:
            return self.sample
        labels = "\n".join(str(label) for label in np.unique(self.clusters))
        return hashlib.sha256(labels.encode()).hexdigest()[:12]


PLAIN = CurveSpec()
"""A mean over prompts that rises."""

_ORDER = "key, title, numbers, null, spec"


@dataclass(frozen=True, eq=False)
class Curve:
    """One number per checkpoint; :func:`from_units` and :func:`best_layer` make one with bootstrap draws.

    Attributes:
        key: unique in its analysis.
        title: what emerges, in words that need no context.
        values: (checkpoint,) the curve; NaN where it was not measured.
        draws: (checkpoint, draw) bootstrap draws of it, or None; ``spec.sample`` says what they resample.
        null: what it has to beat, (checkpoint, draw).
        spec: how it is to be read.

    Raises:
        UserError: for a key, a title, a null or a spec of another type.
    """

    key: str
    title: str
    values: np.ndarray
    draws: np.ndarray | None
    null: Null
    spec: CurveSpec = PLAIN

    def __post_init__(self) -> None:
        _refuse_others(self.key, self.title, self.null, self.spec)

    def assessed(self, trace: Trace) -> Finding:
        """When it emerged. The runner asks this of every curve; an analysis only where it needs the answer itself.

        Raises:
            UserError: when values, draws or null are no numbers, or do not fit the trace's checkpoints.
        """
        steps, spec, null = trace.steps, self.spec, self.null.draws
        values, draws = self._array("values", self.values, steps), self.draws
        if draws is not None:
            draws = self._array("draws", draws, steps, "draw")
        if null is not None:
            null = self._array("draws of the null", null, steps, "draw")
        about: dict[str, Any] = {"draws": draws, "null": null, "null_name": self.null.name, "tokens": trace.tokens}
        about |= {"direction": spec.direction, "limits": spec.limits}
        emergence = assess(steps, values, **about)
        onsets = definitions(steps, values, reach=spec.reach, emergence=emergence, **about)
        low, high, null_mean = (np.full(len(values), np.nan) for _ in range(3))
        if draws is not None and (known := np.isfinite(draws).any(axis=1)).any():
            low[known], high[known] = np.nanquantile(draws[known], [0.025, 0.975], axis=1)
        if null is not None:
            known = np.isfinite(null).any(axis=1)
            null_mean[known] = np.nanmean(null[known], axis=1)
        return Finding(
            key=self.key,
            title=self.title,
            metric=spec.metric,
            unit=spec.unit,
            headline=spec.headline,
            steps=tuple(int(s) for s in steps),
            values=tuple(float(v) for v in values),
            low=tuple(low.tolist()),
            high=tuple(high.tolist()),
            null_mean=tuple(null_mean.tolist()),
            emergence=emergence,
            definition=spec.definition,
            onsets=tuple(onsets.values()),
            onset_by=() if draws is None else tuple(onset_ends(steps, values, draws, emergence).tolist()),
            sample=spec.resampled,
            twin=spec.twin,
            holds=looks_that_hold(steps, draws, null, emergence) if spec.headline and null is not None else None,
            drawn=draws,
        )

    def _array(self, what: str, given: np.ndarray, steps: np.ndarray, *more: str) -> np.ndarray:
        return array_of(given, f"{what} of the curve {self.key!r}", (CHECKPOINT, *more), checkpoints=len(steps))


def from_units(key: str, title: str, units: np.ndarray, null: Null, spec: CurveSpec = PLAIN) -> Curve:
    """A curve that is a mean over units (prompts, sums, words).

    Args:
        key, title, spec: as for :class:`Curve`.
        units: (checkpoint, unit) what each unit contributes; NaN where it was not measured.
        null: what it has to beat, (checkpoint, draw).

    Raises:
        UserError: when ``units`` are no numbers of this shape, or one of the others is of another type.
    """
    units = _units(key, title, units, null, spec, (CHECKPOINT, "unit"))
    counts = np.isfinite(units).sum(axis=1)
    values = np.full(len(units), np.nan)
    values[counts > 0] = np.nanmean(units[counts > 0], axis=1)
    draws = unit_bootstrap(units, draws=FINE_DRAWS, clusters=spec.clusters)
    return Curve(key, title, values, draws, null, spec)


def best_layer(key: str, title: str, units: np.ndarray, null: Null, spec: CurveSpec = PLAIN) -> Curve:
    """A curve of the layer in which a mean over units is largest at each checkpoint.

    The largest layer is taken anew of every bootstrap draw and of every null draw, so that choosing it gains nothing.

    Args:
        key, title, spec: as for :class:`Curve`.
        units: (checkpoint, layer, unit) what each unit contributes.
        null: what it has to beat, (checkpoint, layer, draw).

    Raises:
        UserError: when ``units`` or the null are no numbers of this shape, or one of the others is of another type.
    """
    units = _units(key, title, units, null, spec, (CHECKPOINT, "layer", "unit"))
    if null.draws is not None:
        axes = (CHECKPOINT, "layer", "draw")
        null = replace(null, draws=array_of(null.draws, f"draws of the null of the curve {key!r}", axes))
    layers = range(units.shape[1])
    drawn = [unit_bootstrap(units[:, layer], draws=DRAWS, clusters=spec.clusters) for layer in layers]
    best = Null(None if null.draws is None else null.draws.max(axis=1), null.name)
    return Curve(key, title, units.mean(-1).max(axis=1), np.max(drawn, axis=0), best, spec)


def _units(key: str, title: str, units: np.ndarray, null: Null, spec: CurveSpec, axes: tuple[str, ...]) -> np.ndarray:
    """The units of a curve as an array, checked, and all else that the curve is made of."""
    _refuse_others(key, title, null, spec)
    array = array_of(units, f"units of the curve {key!r}", axes)
    if 0 in array.shape[1:]:
        raise UserError(
            f"units of the curve {key!r}: of shape {array.shape}",
            expected="at least one unit",
            remedy="look at the selection of prompts: none is left",
        )
    if spec.clusters is not None and np.shape(spec.clusters) != array.shape[-1:]:
        raise UserError(
            f"`clusters` of the curve {key!r}: of shape {np.shape(spec.clusters)} for {array.shape[-1]} units",
            expected="one label per unit",
            remedy="select the labels as the units were selected",
        )
    return array


def _refuse_others(key: str, title: str, null: Null, spec: CurveSpec) -> None:
    """Everything of a curve but its numbers has to be of its type."""
    parts = ((key, str, "key"), (title, str, "title"), (null, Null, "null"), (spec, CurveSpec, "spec"))
    for value, kind, name in parts:
        remedy = f"look at the order of the arguments: {_ORDER}"
        if name == "null":
            remedy = f"write da.Null(draws, 'what it is'), with None as draws where there is no null; or {remedy}"
        instance_of(kind, value, f"`{name}` of the curve {key!r} is", remedy=remedy)
    if not key:
        raise UserError(f"the curve {title!r} has no key", expected="a word, unique in its analysis", remedy="name it")


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
