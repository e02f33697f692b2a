"""What is said about a curve: its state, and the intervals of training in which its events fell.

A series is measured at some checkpoints and at nothing in between, so that an event is known only to lie between two
*measured* neighbours: an :class:`Interval`. An :class:`Emergence` collects the events of one curve together with the
null that they were held against.

>>> str(Interval(512, 1000)), str(Interval(None, 0)), str(Interval(143000, None))
('(512, 1000]', '≤ 0', '> 143000')
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

__all__ = ["STATES", "Emergence", "Interval", "State", "TokenPair", "Trend", "finite_ends", "tokens_of"]

State = Literal["emerged", "present from start", "not emerged", "transient", "not measurable"]
STATES: tuple[State, ...] = get_args(State)

Trend = Literal["up", "down"]

TokenPair = tuple[int | None, int | None]


@dataclass(frozen=True)
class Interval:
    """The half-open interval ``(after, by]`` of optimizer steps, both ends *measured* checkpoints.

    Attributes:
        after: the last measured step at which it had not happened yet; None if it had already happened at the first
            valid checkpoint (left-censored).
        by: the first measured step at which it had happened; None if it never did (right-censored).

    Raises:
        ValueError: the interval is empty or reversed.
    """

    after: int | None
    by: int | None

    def __post_init__(self) -> None:
        if self.after is not None and self.by is not None and self.after >= self.by:
            raise ValueError(f"the interval ({self.after}, {self.by}] is empty; expected after < by")

    def contains(self, step: float) -> bool:
        """Whether ``step`` (optimizer steps) lies in the interval; a censored side has no end.

        >>> Interval(512, 1000).contains(1000), Interval(512, 1000).contains(512), Interval(512, None).contains(10**9)
        (True, False, True)
        """
        return (self.after is None or step > self.after) and (self.by is None or step <= self.by)

    def covers(self, other: Interval) -> bool:
        """Whether every step of ``other`` lies in this interval."""
        starts = self.after is None or (other.after is not None and self.after <= other.after)
        ends = self.by is None or (other.by is not None and other.by <= self.by)
        return starts and ends

    def __str__(self) -> str:
        if self.after is None:
            return "unknown" if self.by is None else f"≤ {self.by}"
        return f"> {self.after}" if self.by is None else f"({self.after}, {self.by}]"

    def to_json(self) -> dict[str, int | None]:
        """As a JSON object; a censored side is null."""
        return {"after": self.after, "by": self.by}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Interval:
        """The inverse of :meth:`to_json`."""
        return cls(after=data["after"], by=data["by"])


@dataclass(frozen=True)
class Emergence:
    """The statistics of one curve. Values are in the curve's own units and sign, steps are optimizer steps.

    :mod:`dynamics.emergence.assess` defines every one of them.

    Attributes:
        state: what happened, in one of five words (:data:`STATES`).
        null: name of the null that the curve was held against, e.g. ``"shuffled answers"``.
        null_upper: the null's simultaneous bound, one per checkpoint, NaN where the checkpoint is not valid. With
            ``direction="down"`` this is the bound from below.
        direction: ``"up"`` where emergence is a rise, ``"down"`` where it is a fall (a loss).
        reason: why the curve is ``not measurable``; else empty.
        onset: when the curve left the null. Left-censored for ``present from start``, right-censored for
            ``not emerged``, None for ``not measurable``.
        onset_range: 95% bootstrap interval of the onset; contains ``onset``. None without bootstrap draws.
        onset_tokens: ``onset`` in tokens seen, as (after, by); None where unknown or censored.
        midpoint: step at half of the rise, interpolated in log10(step + 1); None where no such crossing was seen.
        midpoint_interval: the neighbouring checkpoints of the midpoint.
        completion: when 90% of the rise was reached for good (transient: reached and held until the peak).
        loss: for ``transient``, when it was lost.
        width_decades: log10(step + 1) at 90% minus that at 10% of the rise; None where either was not seen.
        confidence: share of bootstrap draws with the same state; None without draws.
        episodes: number of separate runs above the null; more than 1 says that the curve came and went.
        floor: level before the onset.
        plateau: level at the end (transient: at the peak).
        peak: the best value of the curve (largest for ``"up"``, smallest for ``"down"``).
        final: the last finite value.
        fall: peak minus final value where that is more than noise (95%); None where it is not, or not known. A curve
            that stays above its null may still have lost much of its height.
    """

    state: State
    null: str
    null_upper: tuple[float, ...]
    direction: Trend = "up"
    reason: str = ""
    onset: Interval | None = None
    onset_range: Interval | None = None
    onset_tokens: TokenPair | None = None
    midpoint: float | None = None
    midpoint_interval: Interval | None = None
    completion: Interval | None = None
    loss: Interval | None = None
    width_decades: float | None = None
    confidence: float | None = None
    episodes: int = 0
    floor: float | None = None
    plateau: float | None = None
    peak: float | None = None
    final: float | None = None
    fall: float | None = None

    def __post_init__(self) -> None:
        # One NaN object for all: tuples compare by identity first, so that two equal findings with NaN are equal.
        bound = tuple(math.nan if math.isnan(value) else float(value) for value in self.null_upper)
        object.__setattr__(self, "null_upper", bound)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object that strict parsers accept: NaN is null, an interval is ``{"after": ..., "by": ...}``."""
        data: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Interval):
                value = value.to_json()
            elif isinstance(value, tuple):
                value = [None if item is None or math.isnan(item) else item for item in value]
            data[field.name] = value
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Emergence:
        """The inverse of :meth:`to_json`.

        Raises:
            ValueError: unknown state, missing or unknown fields.
        """
        names = {field.name for field in fields(cls)}
        if set(data) != names:
            wrong = sorted(set(data) ^ names)
            raise ValueError(f"fields missing or unknown: {wrong}; expected exactly: {sorted(names)}")
        if data["state"] not in STATES:
            raise ValueError(f"unknown state {data['state']!r}; expected one of: {', '.join(STATES)}")
        values = dict(data)
        for name in ("onset", "onset_range", "midpoint_interval", "completion", "loss"):
            if values[name] is not None:
                values[name] = Interval.from_json(values[name])
        if values["onset_tokens"] is not None:
            values["onset_tokens"] = tuple(values["onset_tokens"])
        values["null_upper"] = tuple(math.nan if value is None else value for value in values["null_upper"])
        return cls(**values)


def finite_ends(ends: tuple[float, float]) -> list[float | None]:
    """The two ends of an interval as JSON values: an end that is open (infinite or NaN) is null.

    >>> finite_ends((0.5, math.inf))
    [0.5, None]
    """
    return [float(end) if math.isfinite(end) else None for end in ends]


def tokens_of(interval: Interval | None, steps: npt.ArrayLike, tokens: npt.ArrayLike | None) -> TokenPair | None:
    """An interval in tokens seen, read off its two checkpoints (never computed from steps).

    Args:
        interval: in optimizer steps, between checkpoints of ``steps``.
        steps: (checkpoint,) optimizer steps.
        tokens: (checkpoint,) tokens seen; NaN where not known.

    Returns:
        (after, by) in tokens, None for a side that is censored or not known; None if there is nothing to convert.

    Raises:
        ValueError: an end of the interval is not one of ``steps``.

    >>> tokens_of(Interval(512, 1000), [0, 512, 1000], [0, 2**30, 2_097_152_000])
    (1073741824, 2097152000)
    """
    if interval is None or tokens is None:
        return None
    positions = {int(step): index for index, step in enumerate(np.asarray(steps))}
    known = np.asarray(tokens)

    def convert(step: int | None) -> int | None:
        if step is None:
            return None
        if step not in positions:
            raise ValueError(f"step {step} of {interval} is no checkpoint; expected one of: {sorted(positions)}")
        count = known[positions[step]]
        return int(count) if np.isfinite(count) else None

    return convert(interval.after), convert(interval.by)
