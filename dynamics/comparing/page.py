"""The page of a comparison: one file that needs nothing else."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from .cells import effect_text, interval_text, onset_text, shift_text, spread_text
from .drawing import effects_drawing, onsets_drawing

__all__ = ["comparison_page"]


def comparison_page(content: dict[str, Any]) -> str:
    """The page as HTML; text of runs is no markup in it."""
    made = Environment(loader=PackageLoader("dynamics.comparing"), autoescape=True, undefined=StrictUndefined)
    made.globals |= {
        "effect_text": effect_text,
        "interval_text": interval_text,
        "onset_text": onset_text,
        "shift_text": shift_text,
        "spread_text": spread_text,
    }
    names = list(dict.fromkeys(effect["contrast"] for effect in content["effects"]))
    return made.get_template("compare.html.j2").render(
        content=content,
        contrasts=names,
        onsets=onsets_drawing(content),
        effects=[effects_drawing(content, name) for name in names if _drawn(content, name)],
        by_contrast={
            circuit["key"]: {e["contrast"]: e for e in content["effects"] if e["key"] == circuit["key"]}
            for circuit in content["circuits"]
        },
    )


def _drawn(content: dict[str, Any], contrast: str) -> bool:
    """Whether an effect has a figure: an interaction only where it is called for some circuit."""
    mine = [e for e in content["effects"] if e["contrast"] == contrast]
    return len(mine[0]["factors"]) == 1 or any(e["verdict"] != "cannot be told" for e in mine)
