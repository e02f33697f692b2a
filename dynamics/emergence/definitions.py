r"""When did it emerge, by each definition in use? Four of them side by side, on one curve.

Published onsets of one circuit in one model differ up to tenfold by definition. With x = log10(step + 1):

- **excess over null**: the first checkpoint from which the curve stays above the null's simultaneous bound
  (:mod:`dynamics.emergence.assess`). Truth: the first checkpoint whose *expected* value is above it.
- **change point**: the kink where the steepest part of the curve begins: a segmented model in log step, constant - linear -
  constant (Hudson 1966; Muggeo 2003), with a slope in place of either constant where the curve has it
  (:mod:`dynamics.emergence.growth`). Truth: the location of the kink.
- **half rise**: where the curve crosses the middle between floor and plateau (:mod:`dynamics.emergence.crossing`). No shape is assumed.
  Truth: the location where the expectation does.
- **sigmoid**: the midpoint of a logistic curve, with the same growth beside it. Truth: the parameter.
- **first passage**, if a level is given: the first checkpoint that reaches it, as authors of single runs report
  ("test accuracy of 99%"). It is about this curve and no expectation, and has no interval beyond its neighbours.

The shape-based ones are only given where the curve exceeds its null, and where a rise is found: what the shape explains beyond a constant is compared with
the same in every null draw, which is exact for whatever dependence between checkpoints the draws share with the curve
(a change point "found" by least squares always exists; that null distribution is not chi-squared: Davies 1987). The
kink must also be worth its parameters: the Bayesian information criterion (Schwarz 1978) of the segmented model, each
kink counted as two parameters (as the modified criterion of Zhang and Siegmund 2007 does to first order), below those
of a constant and of a straight line in x, which has no kink.

A model that does not fit gives no onset but says so: where the misfit is beyond sampling and runs along training with a
pattern (:mod:`dynamics.emergence.shapes`). Without a pattern it is noise of the training, by which the interval is widened. A curve
that is above its null from the first checkpoint on is *present from start* by them too, unless at least half of its height
above the null is a rise within the series, beyond the curve's own noise; so is one whose kink (or middle) lies before the first
checkpoint, however it goes on: what was not measured is not dated.

For transient curves the rise is fitted up to the middle of the plateau, and the loss from there on, mirrored.

Example:
    >>> rng = np.random.default_rng(0)
    >>> steps = np.round(np.geomspace(1, 1e5, 30)).astype(int) * np.arange(1, 31).clip(0, 1)
    >>> steps = np.unique(steps)
    >>> truth = 0.5 / (1 + np.exp(-(np.log10(steps + 1) - 3) / 0.2))
    >>> draws = truth[:, None] + 0.03 * rng.normal(size=(len(steps), 201))
    >>> null = 0.03 * rng.normal(size=(len(steps), 200))
    >>> found = definitions(steps, draws[:, 0], draws=draws[:, :1] + null[:, ::-1], null=null, null_name="noise")
    >>> [name for name, onset in found.items() if onset.state == "emerged"]
    ['excess over null', 'change point', 'half rise', 'sigmoid']
    >>> found["sigmoid"].range.contains(1000)
    True
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dynamics.emergence.alternatives import Comparison, compare_shapes
from dynamics.emergence.assess import assess
from dynamics.emergence.columns import Shape
from dynamics.emergence.crossing import summit
from dynamics.emergence.noise import Noise, noise_of
from dynamics.emergence.rises import half_rise, rise_p_values, rises_after_start
from dynamics.emergence.shapes import ShapeFit, fit_shape
from dynamics.emergence.types import Emergence, Interval, State, TokenPair, Trend, finite_ends, tokens_of
from dynamics.numerics.arrays import FloatArray, IntArray

__all__ = ["NAMES", "Onset", "definitions"]


NAMES = ("excess over null", "change point", "half rise", "sigmoid", "first passage")

BELOW = "never above its null"
"""Why a definition that looks at the shape alone dates no rise: the null explains it."""


@dataclass(frozen=True)
class Onset:
    """The onset of one curve by one definition. Steps are optimizer steps.

    Attributes:
        definition: one of :data:`NAMES`.
        state: as of :class:`Emergence`; ``not emerged`` where this definition finds no rise.
        step: estimate, interpolated in log10(step + 1); None where it is censored or the definition is on checkpoints.
        between: the measured neighbours of the onset, or censored.
        range: 95% interval of the true onset, in whole steps (its ends need not be checkpoints where the definition
            interpolates); None without bootstrap draws.
        tokens: ``between`` in tokens seen.
        width_decades: from 10% to 90% of the rise in log10(step + 1); None where the definition has none.
        width_range: its 95% interval.
        loss: for ``transient``, the measured neighbours of the loss.
        p_value: of "there is no rise" against the null draws; None where the definition has no test of its own.
        weights: share of the evidence for each shape of the curve (Akaike weights of the BIC), for fitted shapes.
        overdispersion: variance of the curve about the fit, in variances of the draws, if above chance; else 1.
        reach: the level of a first passage, in the curve's units; None for the others.
        reason: why there is no onset; else empty.
    """

    definition: str
    state: State
    step: float | None = None
    between: Interval | None = None
    range: Interval | None = None
    tokens: TokenPair | None = None
    width_decades: float | None = None
    width_range: tuple[float, float] | None = None
    loss: Interval | None = None
    p_value: float | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    overdispersion: float = 1.0
    reach: float | None = None
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """As a JSON object that strict parsers accept; an end of ``width_range`` that is open is null."""
        data = {name: value for name, value in vars(self).items() if not isinstance(value, Interval)}
        data |= {name: asdict(value) for name, value in vars(self).items() if isinstance(value, Interval)}
        data["tokens"] = None if self.tokens is None else list(self.tokens)
        data["width_range"] = None if self.width_range is None else finite_ends(self.width_range)
        return data | {"weights": dict(self.weights)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Onset:
        """The inverse of :meth:`to_json`."""
        values = dict(data)
        for name in ("between", "range", "loss"):
            values[name] = None if values[name] is None else Interval.from_json(values[name])
        values["tokens"] = None if values["tokens"] is None else tuple(values["tokens"])
        if values["width_range"] is not None:
            low, high = values["width_range"]
            values["width_range"] = (low, np.inf if high is None else high)
        return cls(**values)


def definitions(
    steps: npt.ArrayLike,
    values: npt.ArrayLike,
    *,
    draws: npt.ArrayLike | None = None,
    null: npt.ArrayLike | None,
    null_name: str,
    tokens: npt.ArrayLike | None = None,
    level: float = 0.95,
    direction: Trend = "up",
    limits: tuple[float, float] | None = None,
    reach: float | None = None,
    emergence: Emergence | None = None,
) -> dict[str, Onset]:
    """The onset of one curve by every definition.

    Args:
        steps, values, draws, null, null_name, tokens, level, direction, limits: as of :func:`assess`.
        reach: level of the first passage, in the curve's units; left out without one.
        emergence: what :func:`assess` says of the same arguments, where the caller has it.

    Returns:
        By name, in the order of :data:`NAMES`.

    Raises:
        ValueError: as :func:`assess`.
    """
    emergence = emergence or assess(
        steps,
        values,
        draws=draws,
        null=null,
        null_name=null_name,
        tokens=tokens,
        level=level,
        direction=direction,
        limits=limits,
    )
    at, curve = np.asarray(steps, dtype=np.int64), np.asarray(values, dtype=np.float64)

    def counted(onset: Onset) -> Onset:
        return replace(onset, tokens=tokens_of(onset.between, at, tokens))

    first = Onset(
        definition="excess over null",
        state=emergence.state,
        between=emergence.onset,
        range=emergence.onset_range,
        loss=emergence.loss,
        width_decades=emergence.width_decades,
        reason=emergence.reason,
    )
    found = {first.definition: counted(first)}
    valid = np.isfinite(np.array(emergence.null_upper))
    if emergence.state == "not measurable" or valid.sum() < 5:
        reason = emergence.reason or f"{valid.sum()} valid checkpoints; a shape needs at least 5"
        found |= {name: Onset(name, "not measurable", reason=reason) for name in NAMES[1:4]}
    elif emergence.state == "not emerged":
        never = Interval(int(at[valid][-1]), None)
        found |= {name: counted(Onset(name, "not emerged", between=never, reason=BELOW)) for name in NAMES[1:4]}
    else:
        sign = 1.0 if direction == "up" else -1.0
        table = None if draws is None else sign * np.asarray(draws, dtype=np.float64)[valid]
        against = sign * np.asarray(null, dtype=np.float64)[valid]
        for onset in _shaped(at[valid], sign * curve[valid], table, against, emergence, level):
            found[onset.definition] = counted(onset)
    if reach is not None:
        found["first passage"] = counted(_first_passage(at, curve, reach, direction))
    return found


def _shaped(
    at: IntArray, v: FloatArray, draws: FloatArray | None, null: FloatArray, emergence: Emergence, level: float
) -> list[Onset]:
    """Change point, half rise and sigmoid of a curve turned so that emergence is a rise."""
    x = np.log10(at + 1.0)
    rising, falling = slice(None), slice(0, 0)
    if emergence.state == "transient" and emergence.onset is not None and emergence.loss is not None:
        start = int(np.searchsorted(at, emergence.onset.by if emergence.onset.by is not None else at[0]))
        stop = int(np.searchsorted(at, emergence.loss.after if emergence.loss.after is not None else at[-1]))
        top = summit(v, start, stop)
        rising, falling = slice(None, top + 1), slice(top, None)
    whole = noise_of(v, draws)
    noise = whole if rising == slice(None) else noise_of(v[rising], None if draws is None else draws[rising])
    if emergence.state == "present from start" and not rises_after_start(x, v, whole, null, level=level):
        return [Onset(name, "present from start", between=emergence.onset) for name in NAMES[1:4]]
    results = []
    evidence = compare_shapes(x[rising], v[rising], noise, level=level) if v[rising].size >= 5 else None
    p_values: dict[Shape, tuple[float, float]] = {}
    for name in NAMES[1:4]:
        if evidence is None:
            state: State = emergence.state
            results.append(Onset(name, state, between=emergence.onset, reason="too short a rise for a shape"))
            continue
        shape: Shape = "ramp" if name == "change point" else "logistic"
        if shape not in p_values:  # of the whole curve: a part chosen for being high would always be found
            p_values[shape] = rise_p_values(shape, x, v, null)
        rise, far = p_values[shape]
        test = evidence, min(rise, far) if emergence.state == "transient" else rise
        onset = _one(name, at[rising], x[rising], v[rising], noise, test, level, ranges=draws is not None)
        if emergence.state == "transient" and onset.state in ("emerged", "present from start"):
            loss = _loss(name, at[falling], v[falling], None if draws is None else draws[falling], emergence)
            onset = replace(onset, state="transient", loss=loss)
        results.append(onset)
    return results


def _one(
    name: str,
    at: IntArray,
    x: FloatArray,
    v: FloatArray,
    noise: Noise,
    test: tuple[Comparison, float],
    level: float,
    *,
    ranges: bool,
) -> Onset:
    shape: Shape = "ramp" if name == "change point" else "logistic"
    evidence, p_value = test
    nowhere = Onset(name, "not emerged", between=Interval(int(at[-1]), None), p_value=p_value)
    if p_value > 1.0 - level:
        return replace(nowhere, reason="no rise beyond what the null draws show")

    def dated(location: float, low: float, high: float) -> Onset:
        between = _neighbours(at, x, location)
        if between.by is None:
            return replace(nowhere, weights=evidence.weights, reason="it lies beyond the last checkpoint")
        return Onset(
            definition=name,
            state="present from start" if between.after is None else "emerged",
            step=_step(between, location),
            between=between,
            range=_steps(x, low, high) if ranges else None,
            p_value=p_value,
            weights=evidence.weights,
        )

    if name == "half rise":
        return dated(*half_rise(x, v, noise, level=level))
    if name == "change point" and not evidence.kink:
        best = min(("constant", "linear"), key=lambda one: evidence.bic[one])
        return replace(nowhere, weights=evidence.weights, reason=f"no kink: the curve is {best} in log step")
    fits = evidence.fits["segmented" if shape == "ramp" else "sigmoid"]
    fit = fits[0]
    if not fit.fits:
        return Onset(
            name,
            "not measurable",
            p_value=p_value,
            weights=evidence.weights,
            overdispersion=fit.overdispersion,
            reason=f"does not fit: the curve strays from it with a pattern, {fit.overdispersion:.1f} times its noise",
        )
    onset = dated(fit.location, *_hull(one.location_range for one in fits))
    if onset.state == "not emerged":
        return onset
    factor = 0.8 if shape == "ramp" else 2.0 * float(np.log(9.0))
    low, high = _hull(one.scale_range for one in fits)
    return replace(
        onset,
        width_decades=factor * fit.scale,
        width_range=(factor * low, factor * high) if ranges else None,
        overdispersion=fit.overdispersion,
    )


def _hull(ranges: Iterable[tuple[float, float]]) -> tuple[float, float]:
    low, high = zip(*ranges, strict=True)
    return min(low), max(high)


def _loss(name: str, at: IntArray, v: FloatArray, draws: FloatArray | None, emergence: Emergence) -> Interval | None:
    """Where the fall crosses as the rise did: half, or (change point) the kink where it begins."""
    if v.size < 5:
        return emergence.loss
    x = np.log10(at + 1.0)
    noise = noise_of(-v, None if draws is None else -draws)
    if name == "half rise":
        location = half_rise(x, -v, noise)[0]
    else:
        fit: ShapeFit = fit_shape("ramp" if name == "change point" else "logistic", x, -v, noise, ranges=False)
        location = fit.location
    return _neighbours(at, x, location)


def _first_passage(at: IntArray, values: FloatArray, reach: float, direction: Trend) -> Onset:
    """The first checkpoint at or beyond a level."""
    finite = np.isfinite(values)
    at, v = at[finite], values[finite]
    nowhere = Onset("first passage", "not emerged", reach=reach)
    if v.size < 2:
        return replace(nowhere, state="not measurable", reason=f"{v.size} finite values; at least 2 are needed")
    there = np.flatnonzero(v >= reach if direction == "up" else v <= reach)
    if not there.size:
        return replace(nowhere, between=Interval(int(at[-1]), None), reason=f"never reached {reach:g}")
    first = int(there[0])
    if first == 0:
        return replace(nowhere, state="present from start", between=Interval(None, int(at[0])))
    return replace(nowhere, state="emerged", between=Interval(int(at[first - 1]), int(at[first])))


def _neighbours(at: IntArray, x: FloatArray, location: float) -> Interval:
    """The checkpoints between which a location in x lies; censored at the outermost."""
    if location <= x[0]:
        return Interval(None, int(at[0]))
    if location >= x[-1]:
        return Interval(int(at[-1]), None)
    index = int(np.searchsorted(x, location))
    return Interval(int(at[index - 1]), int(at[index]))


def _step(between: Interval, location: float) -> float | None:
    return None if between.after is None or between.by is None else 10.0**location - 1.0


def _steps(x: FloatArray, low: float, high: float) -> Interval:
    """An interval of x in whole steps, rounded outward; open where it leaves the checkpoints."""
    after = None if low <= x[0] else int(np.floor(10.0**low - 1.0 + 1e-9))
    by = None if high >= x[-1] else int(np.ceil(10.0**high - 1.0 - 1e-9))
    if after is not None and by is not None and after >= by:
        after = by - 1
    return Interval(after, by)
