"""What features are worth to the model: the loss if each were taken away, and how strong the same ones are through training."""

from __future__ import annotations

from typing import Any

import numpy as np

from dynamics.analysis.features import Parts

from .gallery import nats, plain

__all__ = ["effect_arrays", "effect_labels", "effect_note", "strongest"]

SHOWN = 6


def strongest(parts: Parts) -> list[int]:
    """The features with the largest effects at the last checkpoint, the largest first; none where they are not known."""
    effects = parts.effect()
    if effects is None:
        return []
    value = np.nan_to_num(effects[0])
    return [int(j) for j in np.argsort(-value, kind="stable")[:SHOWN] if value[j] > 0]


def effect_labels(parts: Parts, ranked: list[int]) -> list[str]:
    """Names of these features for a legend."""
    return [f"feature {j}{_likelier(parts, j)}" for j in ranked]


def _likelier(parts: Parts, feature: int) -> str:
    tokens = [plain(t).strip() or "space" for t in parts.promotes(feature)]
    return f" (makes {', '.join(tokens)} likelier)" if tokens else ""


def effect_arrays(parts: Parts, ranked: list[int]) -> dict[str, Any]:
    """Effect and strength of these features through training, over checkpoints of the trace."""
    arrays: dict[str, Any] = {}
    for what in ("effect", "strength"):
        curves = [parts.curve(what, parts.number(j)) for j in ranked]
        for at, suffix in enumerate(("", "_error")):
            values = [np.full(len(parts.steps), np.nan) if c is None else c[at] for c in curves]
            arrays[f"{parts.name}_top_{what}{suffix}"] = (
                ("checkpoint", f"{parts.name}_top"),
                parts.spread(np.stack(values, axis=1)),
            )
    return arrays


def effect_note(parts: Parts, ranked: list[int]) -> str:
    """The features that are worth most in the end, and how many carry half of it."""
    effects = parts.effect()
    assert effects is not None
    value, error = effects
    positive = np.sort(np.maximum(np.nan_to_num(value), 0.0))[::-1]
    half = int(np.searchsorted(np.cumsum(positive), positive.sum() / 2)) + 1
    listed = "; ".join(
        f"feature {j}, {nats(float(value[j]), float(error[j]))}{_likelier(parts, j)}"
        + (f", {parts.since(j)}" if parts.joint or not parts.kept else "")
        for j in ranked
    )
    return (
        f"Effects, dictionary {parts.name}: the loss at step {parts.steps[-1]} would rise most, per token, without {listed}. "
        f"{half} of {parts.features} features carry half of all effects. An effect is an estimate from gradients with several "
        "features away at a time: it ranks features, and is too large where several stand for the same thing."
    )
