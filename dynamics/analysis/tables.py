"""Findings as a table and as arrays: a :class:`pandas.DataFrame` with a row each, an :class:`xarray.Dataset` with their curves.

Steps are optimizer steps. An interval is ``(after, by]``: two columns, in which NaN is a side that is open. So an onset
without ``after`` had happened at the first checkpoint, and one without ``by`` never happened; ``state`` says which.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from ..emergence import Interval
from ..names import CHECKPOINT
from .findings import Finding

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLUMNS", "CURVES", "findings_dataframe", "findings_dataset"]

_FINDING, _DRAW = "finding", "draw"

CURVES: Mapping[str, str] = {
    "value": "the curve",
    "low": "lower end of the pointwise 95% bootstrap interval",
    "high": "upper end of the pointwise 95% bootstrap interval",
    "null_mean": "mean of the null",
    "null_upper": "simultaneous bound of the null",
}
"""Variables of (finding, checkpoint), in the units of each finding's metric."""

COLUMNS: Mapping[str, str] = {
    "analysis": "the analysis that found it",
    "title": "what emerged",
    "headline": "whether it is in the report's table",
    "state": "emerged, present from start, transient, not emerged, or not measurable",
    "onset_after": "last checkpoint at which it was not above its null (step)",
    "onset_by": "first checkpoint from which it was (step)",
    "onset_low": "lower end of the 95% bootstrap range of the onset (step)",
    "onset_high": "its upper end (step)",
    "tokens_after": "onset_after in tokens seen",
    "tokens_by": "onset_by in tokens seen",
    "midpoint": "half of the rise (step)",
    "completion_after": "last checkpoint before nine tenths of the rise (step)",
    "completion_by": "first checkpoint with nine tenths of the rise (step)",
    "loss_after": "of what is transient, last checkpoint before it was lost (step)",
    "loss_by": "of what is transient, first checkpoint at which it was lost (step)",
    "width_decades": "from a tenth to nine tenths of the rise, log10(step + 1)",
    "floor": "level before the onset",
    "plateau": "level at the end; of what is transient, at its peak",
    "peak": "best value",
    "final": "last value",
    "null_final": "bound of the null at the last checkpoint",
    "confidence": "share of bootstrap draws with the same state",
    "holds": "share of looks with other prompts, nulls and checkpoints that say the same",
    "episodes": "separate runs above the null",
    "metric": "what the values are, with their unit",
    "unit": "the sampling unit of the bootstrap",
    "null": "what the curve had to beat",
}
"""Columns of the table and variables of (finding), with their meaning."""


def findings_dataframe(findings: Sequence[Finding]) -> pd.DataFrame:
    """One row per finding, by key; columns are :data:`COLUMNS`, numbers as floats with NaN where there is none."""
    import pandas as pd

    rows = [_row(finding) for finding in findings]
    index = pd.Index([finding.key for finding in findings], name=_FINDING, dtype="object")
    return pd.DataFrame({name: [row[name] for row in rows] for name in COLUMNS}, index=index)


def findings_dataset(findings: Sequence[Finding], steps: Iterable[int] | None = None) -> xr.Dataset:
    """Curves, bands, bounds of nulls and onsets as labelled arrays.

    Args:
        findings: of one analysis or several.
        steps: (checkpoint,) of the arrays; all that the findings have if None.

    Returns:
        :data:`CURVES` as (finding, checkpoint), the numbers among :data:`COLUMNS` and ``state`` as (finding,), and, where there
        were bootstrap draws, ``onset_draw`` as (finding, draw): the step by which the draw was above its null, infinite
        where it never was, NaN where the draw cannot be used or a finding has fewer. ``finding`` (keys) and ``step`` are
        indexes, texts are coordinates of ``finding``.
    """
    steps = sorted({s for finding in findings for s in finding.steps}) if steps is None else [int(s) for s in steps]
    at = {step: number for number, step in enumerate(steps)}
    curves = {name: np.full((len(findings), len(steps)), np.nan) for name in CURVES}
    draws = np.full((len(findings), max((len(f.onset_by) for f in findings), default=0)), np.nan)
    for number, finding in enumerate(findings):
        columns = [at[step] for step in finding.steps if step in at]
        kept = [index for index, step in enumerate(finding.steps) if step in at]
        given = (finding.values, finding.low, finding.high, finding.null_mean, finding.emergence.null_upper)
        for name, line in zip(CURVES, given, strict=True):
            if len(line) == len(finding.steps):  # what cannot be measured may have no bound
                curves[name][number, columns] = np.asarray(line)[kept]
        draws[number, : len(finding.onset_by)] = finding.onset_by
    rows = [_row(finding) for finding in findings]
    variables: dict[str, Any] = {
        name: ((_FINDING, CHECKPOINT), curves[name], {"long_name": CURVES[name]}) for name in CURVES
    }
    labels: dict[str, Any] = {}
    for name, meaning in COLUMNS.items():
        column = [row[name] for row in rows]
        texts = name in _TEXTS
        values = np.array(column, dtype=object if texts else bool if name == "headline" else float)
        into = labels if (texts and name != "state") or name == "headline" else variables
        into[name] = (_FINDING, values, {"long_name": meaning})
    if draws.size:
        meaning = "step by which a bootstrap draw was above its null; infinite: never"
        variables["onset_draw"] = ((_FINDING, _DRAW), draws, {"long_name": meaning})
    keys = np.array([finding.key for finding in findings], dtype=object)
    made = xr.Dataset(
        variables, coords={_FINDING: keys, "step": (CHECKPOINT, np.array(steps, dtype=np.int64)), **labels}
    )
    return made.set_xindex("step")


def _end(interval: Interval | None, side: str) -> float:
    end = None if interval is None else getattr(interval, side)
    return math.nan if end is None else float(end)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


_CELLS: dict[str, Callable[[Finding], Any]] = {
    "analysis": lambda f: f.key.partition(".")[0],
    "title": lambda f: f.title,
    "headline": lambda f: f.headline,
    "state": lambda f: f.emergence.state,
    "onset_after": lambda f: _end(f.emergence.onset, "after"),
    "onset_by": lambda f: _end(f.emergence.onset, "by"),
    "onset_low": lambda f: _end(f.emergence.onset_range, "after"),
    "onset_high": lambda f: _end(f.emergence.onset_range, "by"),
    "tokens_after": lambda f: _number((f.emergence.onset_tokens or (None, None))[0]),
    "tokens_by": lambda f: _number((f.emergence.onset_tokens or (None, None))[1]),
    "completion_after": lambda f: _end(f.emergence.completion, "after"),
    "completion_by": lambda f: _end(f.emergence.completion, "by"),
    "loss_after": lambda f: _end(f.emergence.loss, "after"),
    "loss_by": lambda f: _end(f.emergence.loss, "by"),
    "null_final": lambda f: _number(f.emergence.null_upper[-1] if f.emergence.null_upper else None),
    "holds": lambda f: _number(f.holds),
    "metric": lambda f: f.metric,
    "unit": lambda f: f.unit,
    "null": lambda f: f.emergence.null,
}
"""What a column holds; one that is not named here is the number of that name in the emergence."""

_TEXTS = ("analysis", "title", "state", "metric", "unit", "null")


def _row(finding: Finding) -> dict[str, Any]:
    others = {name: _number(getattr(finding.emergence, name)) for name in COLUMNS if name not in _CELLS}
    return {name: _CELLS[name](finding) if name in _CELLS else others[name] for name in COLUMNS}
