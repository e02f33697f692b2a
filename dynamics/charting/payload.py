"""The data of a page's charts: checkpoints, curves by key, and figures whose panels name them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["payload"]

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999933", "#888888")
"""Okabe and Ito's, olive and grey, by the number under which the style sheet has one for light and one for dark pages."""

_DIGITS = 6


def payload(
    series: Mapping[str, Any],
    findings: Iterable[Mapping[str, Any]],
    figures: Sequence[Mapping[str, Any]],
    *,
    more: Iterable[str] = (),
    reasons: Mapping[int, str] | None = None,
    unit: str = "step",
) -> dict[str, Any]:
    """What ``charts.js`` draws.

    Args:
        series: ``steps``, ``tokens`` and ``status`` of every checkpoint, as in ``report.json``.
        findings: as in ``report.json``; those that a figure names are taken.
        figures: ``name`` (of the files that are saved) and ``panels`` (see :func:`dynamics.analysis.panels.panels_of`).
        more: keys of other findings that the page's own script draws.
        reasons: why a checkpoint was masked or failed, by its step.
        unit: what a step is called.
    """
    used = {line["key"] for f in figures for panel in f["panels"] for line in panel["lines"] if "key" in line}
    used |= set(more)
    curves = {f["key"]: _curve(f) for f in findings if f["key"] in used}
    return {
        "steps": series["steps"],
        "tokens": series["tokens"],
        "status": series["status"],
        "reasons": [(reasons or {}).get(step, "") for step in series["steps"]],
        "unit": unit,
        "curves": curves,
        "figures": [{"name": f["name"], "panels": [_panel(panel) for panel in f["panels"]]} for f in figures],
    }


def _curve(finding: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers of a finding; what it has none of is left out."""
    emergence = finding["emergence"]
    onset = emergence["onset"]
    curve: dict[str, Any] = {"values": _short(finding["values"])}
    if any(v is not None for v in finding["low"]):
        curve |= {"low": _short(finding["low"]), "high": _short(finding["high"])}
    if any(v is not None for v in emergence["null_upper"]):
        curve |= {"mean": _short(finding["null_mean"]), "bound": _short(emergence["null_upper"])}
    if emergence["direction"] == "down":
        curve["down"] = True
    if onset is not None and None not in (onset["after"], onset["by"]):
        curve["onset"] = [onset["after"], onset["by"]]
    return curve


def _panel(panel: Mapping[str, Any]) -> dict[str, Any]:
    return {**panel, "lines": [_line(line) for line in panel["lines"]]}


def _line(line: Mapping[str, Any]) -> dict[str, Any]:
    drawn = {name: line[name] for name in ("label", "dash", "stepped")} | {"colour": _colour(line["colour"])}
    if "key" in line:
        return drawn | {"curve": line["key"]}
    return drawn | {name: _short(line[name]) for name in ("values", "low", "high") if name in line}


def _colour(colour: str) -> int | str:
    """The number of a colour for which the style sheet has another one on dark pages; any other as it is."""
    return COLOURS.index(colour) if colour in COLOURS else colour


def _short(values: Sequence[float | None]) -> list[float | None]:
    return [None if v is None else float(f"{v:.{_DIGITS}g}") for v in values]
