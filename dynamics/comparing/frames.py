"""A comparison as data frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["effects_frame", "onsets_frame"]


def onsets_frame(content: dict[str, Any]) -> pd.DataFrame:
    """One row for each circuit and run.

    Columns: ``key``, ``title``, ``run``, ``group`` (its number), one for each factor, ``state``, ``after`` and ``by`` (steps, NaN where
    censored), ``low`` and ``high`` (the same in log2 steps), ``shift_low`` and ``shift_high`` (95% interval of the shift against the first
    run, in log2 steps), ``verdict`` of the shift.
    """
    import pandas as pd

    rows = []
    for circuit in content["circuits"]:
        moved = {shift["run"]: shift for shift in circuit["shifts"]}
        for index, run in enumerate(content["runs"]):
            known = circuit["onsets"][run["run"]]
            if known is None:
                continue
            onset, log2 = known["onset"] or {"after": None, "by": None}, known["log2_steps"] or [None, None]
            shift = moved.get(run["run"])
            low, high = shift["interval"] if shift else (None, None)
            rows.append(
                {"key": circuit["key"], "title": circuit["title"], "run": run["run"], "group": run["group"]}
                | {factor["label"]: factor["levels"][factor["level"][index]] for factor in content["factors"]}
                | {"state": known["state"], "after": onset["after"], "by": onset["by"], "low": log2[0], "high": log2[1]}
                | {"shift_low": low, "shift_high": high, "verdict": shift["verdict"] if shift else ""}
            )
    return _numbers(pd.DataFrame(rows), ["after", "by", "low", "high", "shift_low", "shift_high"])


def effects_frame(content: dict[str, Any]) -> pd.DataFrame:
    """One row for each circuit and effect: ``key``, ``title``, ``contrast``, ``estimate``, ``low``, ``high``, ``p_value``, ``verdict``, ``reason``."""
    import pandas as pd

    columns = ["key", "title", "contrast", "estimate", "low", "high", "p_value", "freedom", "verdict", "reason"]
    rows = []
    for effect in content["effects"]:
        low, high = effect["interval"] or (None, None)
        rows.append({"low": low, "high": high} | {k: effect[k] for k in columns if k not in ("low", "high")})
    return _numbers(pd.DataFrame(rows, columns=columns), ["estimate", "low", "high", "p_value"])


def _numbers(frame: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """None as NaN."""
    for column in columns:
        if column in frame:
            frame[column] = frame[column].astype(float)
    return frame
