"""A finding: one curve over the checkpoints, when it emerged, and what it had to beat."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from ..emergence import FRAGILE, Agreement, Emergence, Mirage, Onset, agreement_of, onset_intervals
from ..notebook import COLOURS, box, details, facts, one_line, sparkline, state_mark, table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Definition", "Finding", "findings_html", "findings_text"]


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

    def __repr__(self) -> str:
        return f"Finding({one_line(self.key)!r}: {_said(self)})"

    def _repr_html_(self) -> str:
        e = self.emergence
        happened = e.state in ("emerged", "transient")
        known = facts(
            {
                "state": state_mark(e.state, _fragile(self)),
                "onset": _onset(self),
                "95% range of the onset": _range(self),
                "midpoint": f"{e.midpoint:.0f}" if happened and e.midpoint is not None else "",
                "nine tenths": str(e.completion) if happened and e.completion is not None else "",
                "lost": str(e.loss) if e.loss is not None else "",
                "at the end": _final(self),
                "metric": self.metric,
                "null": e.null,
                "not measurable because": e.reason,
            }
        )
        read = details("definition", Markup("<div>{}</div>").format(self.definition)) if self.definition else ""
        key = Markup("<code>{}</code>").format(self.key)
        return box(self.title, key, Markup("<div>{}</div>").format(_curve(self, (420, 110))), known, read)

    def plot(self, ax: Axes | None = None, *, color: str | None = None, label: str | None = None) -> Axes:
        """Draw the curve: its bootstrap band, the null's mean and bound (dashed), and the onset interval as a strip.

        Args:
            ax: where to draw; the current axes of pyplot if None. Curves that are drawn into the same axes share its title
                and its step axis.
            color: of the curve; the next one of the axes if None.
            label: for a legend; the finding's title if None.

        Returns:
            The axes.

        Example::

            ax = results.finding("addition.digit.ones").plot()
            ax.set_ylabel("share of sums")
        """
        from .axes import draw_curve, step_axis, training_axes

        if ax is None:
            import matplotlib.pyplot as plt

            ax = plt.gca()
        first = not ax.has_data()
        seen = self.steps if first else (*self.steps, *(int(end) for end in ax.dataLim.intervalx))
        color = color or ax._get_lines.get_next_color()  # type: ignore[attr-defined]
        draw_curve(ax, self, color, label=label, alone=first)
        if first:
            training_axes(ax, self.steps, self.title, self.metric)
        else:
            step_axis(ax, seen)
        return ax

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


def findings_html(findings: Sequence[Finding]) -> Markup:
    """A table with a row for each: title, state, onset, 95% range, a small curve with its null, and the value at the end."""
    rows = [
        [
            Markup("{}<br><code>{}</code>").format(f.title, f.key),
            state_mark(f.emergence.state, _fragile(f)),
            _onset(f),
            _range(f),
            _curve(f, (170, 34)),
            _final(f),
        ]
        for f in findings
    ]
    return table(["circuit", "state", "onset", "95%", "curve and null", "at the end (null)"], rows, name="findings")


def findings_text(findings: Sequence[Finding], most: int = 12) -> str:
    """A line for each, the first ``most`` of them."""
    wide = max((len(f.key) for f in findings[:most]), default=0)
    lines = [f"  {one_line(f.key):<{wide}}  {_said(f)}" for f in findings[:most]]
    return "\n".join([*lines, *([f"  ... {len(findings) - most} more"] if len(findings) > most else [])])


def _said(finding: Finding) -> str:
    """State, onset and range in a few words."""
    interval = f"{finding.emergence.state} {_onset(finding)}".rstrip("– ")
    around = f", 95% {_range(finding)}" if _range(finding) != "–" else ""
    return interval + around + (f", {_fragile(finding)}" if _fragile(finding) else "")


def _onset(finding: Finding) -> str:
    e = finding.emergence
    return str(e.onset) if e.onset is not None and e.state != "not emerged" else "–"


def _range(finding: Finding) -> str:
    e = finding.emergence
    return str(e.onset_range) if e.state in ("emerged", "transient") and e.onset_range is not None else "–"


def _final(finding: Finding) -> str:
    value = finding.values[-1] if finding.values else math.nan
    bound = finding.emergence.null_upper[-1] if finding.emergence.null_upper else math.nan
    last = f"{value:.2f}" if math.isfinite(value) else "–"
    return f"{last} ({bound:.2f})" if math.isfinite(bound) else last


def _fragile(finding: Finding) -> str:
    """Whether other prompts, nulls and checkpoints would say something else, in a word."""
    return "fragile" if finding.holds is not None and finding.holds < FRAGILE else ""


def _curve(finding: Finding, size: tuple[int, int]) -> Markup:
    e = finding.emergence
    happened = e.onset is not None and e.state in ("emerged", "transient")
    return sparkline(
        finding.steps,
        finding.values,
        low=finding.low,
        high=finding.high,
        bound=e.null_upper,
        onset=(e.onset.after, e.onset.by) if happened and e.onset is not None else None,
        colour=COLOURS[e.state],
        label=f"{finding.title}: {_said(finding)}",
        size=size,
    )
