"""Where the marks of a comparison's two figures lie; the page draws them as SVG, in its own colours.

Circuits are rows. *Onsets*: one mark per run on an axis of log2(step + 1), runs of a group in one colour and shape. *Effects*: estimate
and 95% interval of one effect, in log2 steps; an interval without an end leaves the figure with an arrow.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .cells import effect_text, onset_text

__all__ = ["WIDTH", "effects_drawing", "onsets_drawing"]

WIDTH = 720.0
"""Of the axis in units of the drawing."""

_ROW, _LANE = 20.0, 7.0
COLOURS = 6
"""Groups beyond so many share colours, and differ in their shape."""


def onsets_drawing(content: dict[str, Any]) -> dict[str, Any]:
    """Rows of circuits with the marks of their runs, and the axis; empty rows where no run has an onset."""
    groups = len(content["groups"])
    ends = [
        end
        for circuit in content["circuits"]
        for known in circuit["onsets"].values()
        if known and known["log2_steps"]
        for end in known["log2_steps"]
        if end is not None
    ]
    if not ends:
        return {}
    low, high = min(ends), max(max(ends), min(ends) + 1.0)
    high += 0.04 * (high - low)

    def x(value: float) -> float:
        return float(round(WIDTH * (value - low) / (high - low), 1))

    rows, top = [], 0.0
    for circuit in content["circuits"]:
        marks = []
        for run in content["runs"]:
            known = circuit["onsets"][run["run"]]
            if not known or not known["log2_steps"]:
                continue
            after, by = known["log2_steps"]
            group = run["group"]
            label = f"{run['run']}: {onset_text(known)}"
            y = top + _LANE * (group + 0.5) + 3.0
            start, end = (low if after is None else after), (high if by is None else by)
            marks.append(
                {
                    "y": round(y, 1),
                    "x1": x(start),
                    "x2": x(end),
                    "middle": x((start + end) / 2),
                    "open": by is None,
                    "group": group,
                    "label": label,
                }
            )
        height = _LANE * groups + 8.0
        rows.append(
            {"title": circuit["title"], "key": circuit["key"], "y": round(top, 1), "height": height, "marks": marks}
        )
        top += height
    return {"rows": rows, "height": top, "width": WIDTH, "ticks": _step_ticks(low, high, x)}


def _step_ticks(low: float, high: float, x: Any) -> list[dict[str, Any]]:
    """Powers of two apart by whole octaves, at most about ten."""
    octaves = np.arange(np.ceil(low), np.floor(high) + 1)
    every = max(1, int(np.ceil(len(octaves) / 10)))
    return [
        {"x": x(np.log2(2.0**o + 1)), "text": f"{int(2**o)}"} for o in octaves[::every] if np.log2(2.0**o + 1) <= high
    ]


def effects_drawing(content: dict[str, Any], contrast: str) -> dict[str, Any]:
    """Rows of circuits with the estimate and interval of one effect."""
    effects = [e for e in content["effects"] if e["contrast"] == contrast]
    ends = [abs(end) for e in effects if e["interval"] for end in e["interval"] if end is not None]
    reach = min(max([1.0, *ends]), 6.0) * 1.08

    def x(value: float | None, side: float) -> float:
        at = side * reach if value is None else min(max(value, -reach), reach)
        return float(round(WIDTH * (at + reach) / (2 * reach), 1))

    rows: list[dict[str, Any]] = []
    for number, effect in enumerate(effects):
        row: dict[str, Any] = {
            "title": effect["title"],
            "y": number * _ROW,
            "verdict": effect["verdict"],
            "told": False,
        }
        row["label"] = f"{effect['title']}: {effect_text(effect)}, {effect['verdict']}"
        if effect["interval"] is not None:
            low, high = effect["interval"]
            row |= {"told": True, "x1": x(low, -1.0), "x2": x(high, 1.0)}
            row |= {"open_low": low is None or low < -reach, "open_high": high is None or high > reach}
            row["x"] = None if effect["estimate"] is None else x(effect["estimate"], 1.0)
        rows.append(row)
    step = 1 if reach < 4 else 2
    ticks = [{"x": x(float(t), 1.0), "text": _factor(t)} for t in range(-int(reach), int(reach) + 1) if t % step == 0]
    return {
        "contrast": contrast,
        "rows": rows,
        "height": len(rows) * _ROW,
        "width": WIDTH,
        "zero": x(0.0, 1.0),
        "ticks": ticks,
    }


def _factor(log2: int) -> str:
    return "same" if log2 == 0 else f"{2 ** abs(log2)}× {'later' if log2 > 0 else 'earlier'}"
