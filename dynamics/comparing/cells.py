"""What stands in the cells of a comparison's tables, in the terminal and on the page."""

from __future__ import annotations

from typing import Any

__all__ = ["effect_text", "interval_text", "onset_text", "shift_text", "spread_text", "steps_of"]

_DATED = ("emerged", "transient")


def onset_text(known: dict[str, Any] | None) -> str:
    """One run's onset.

    >>> onset_text({"state": "emerged", "onset": {"after": 512, "by": 1000}, "fragile": True})
    '(512, 1000] fragile'
    """
    if known is None:
        return "–"
    onset = known["onset"]
    if known["state"] not in _DATED or onset is None:
        return str(known["state"])
    after, by = onset["after"], onset["by"]
    text = f"≤ {by}" if after is None else f"> {after}" if by is None else f"({after}, {by}]"
    marks = [
        word for word, there in (("lost again", known["state"] == "transient"), ("fragile", known["fragile"])) if there
    ]
    return " ".join([text, *marks])


def interval_text(ends: list[float | None] | None) -> str:
    """An interval in log2.

    >>> interval_text([None, 0.5]), interval_text([-0.25, 1.0])
    ('[≤ +0.50]', '[-0.25, +1.00]')
    """
    if ends is None or ends == [None, None]:
        return "open"
    low, high = ends
    if low is None:
        return f"[≤ {high:+.2f}]"
    return f"[≥ {low:+.2f}]" if high is None else f"[{low:+.2f}, {high:+.2f}]"


def shift_text(shift: dict[str, Any] | None) -> str:
    """A shift, with what it is called."""
    if shift is None:
        return "–"
    verdict = "" if shift["verdict"] == "cannot be told" else f" {shift['verdict']}"
    return interval_text(shift["interval"]) + verdict


def effect_text(effect: dict[str, Any]) -> str:
    """An effect, with what it is called."""
    if effect["interval"] is None:
        return "cannot be told"
    estimate = "" if effect["estimate"] is None else f"{effect['estimate']:+.2f} "
    return estimate + interval_text(effect["interval"])


def steps_of(log2: float) -> int:
    """Steps of a number that is log2(step + 1)."""
    steps: float = 2.0**log2 - 1.0
    return round(steps)


def spread_text(content: dict[str, Any], circuit: dict[str, Any], group: int) -> str:
    """The mean onset of a group's seeds in steps, and how many of them have one where not all do."""
    runs = content["groups"][group]["runs"]
    known = [circuit["onsets"][run] for run in runs if circuit["onsets"][run] is not None]
    measured = [k for k in known if k["state"] != "not measurable"]
    dated = [k for k in measured if k["state"] != "not emerged"]
    if not measured:
        return "–"
    spread = circuit["spread"]
    mean = None if spread is None else spread["group_means"][group]
    if not dated:
        return f"0 of {len(measured)}"
    text = "before the first" if mean is None else f"{steps_of(mean)}"
    return text if len(dated) == len(measured) else f"{text} ({len(dated)} of {len(measured)})"
