"""What features are worth to the model: the loss if each were taken away, and how strong the same ones are through training."""

from __future__ import annotations

import numpy as np

from dynamics.analysis import Section
from dynamics.analysis.features import FeatureReader

from .gallery import nats, plain

__all__ = ["effects"]

SHOWN = 6


def effects(reader: FeatureReader) -> Section:
    """Effect and strength through training of the features with the largest effects at the last checkpoint; empty where
    they are not known."""
    known = reader.effect()
    if known is None:
        return Section()
    value = np.nan_to_num(known[0])
    ranked = [int(j) for j in np.argsort(-value, kind="stable")[:SHOWN] if value[j] > 0]
    if not ranked:
        return Section()
    top = f"{reader.name}_top"
    section = Section(
        notes=[_note(reader, ranked, *known)], coords={top: [f"feature {j}{_likelier(reader, j)}" for j in ranked]}
    )
    for what in ("effect", "strength"):
        curves = [reader.curve(what, reader.number(j)) for j in ranked]
        for at, suffix in enumerate(("", "_error")):
            values = [np.full(len(reader.steps), np.nan) if c is None else c[at] for c in curves]
            section.arrays[f"{top}_{what}{suffix}"] = (("checkpoint", top), reader.spread(np.stack(values, axis=1)))
    return section


def _likelier(reader: FeatureReader, feature: int) -> str:
    tokens = [plain(t).strip() or "space" for t in reader.promotes(feature)]
    return f" (makes {', '.join(tokens)} likelier)" if tokens else ""


def _note(reader: FeatureReader, ranked: list[int], value: np.ndarray, error: np.ndarray) -> str:
    """The features that are worth most in the end, and how many carry half of it."""
    positive = np.sort(np.maximum(np.nan_to_num(value), 0.0))[::-1]
    half = int(np.searchsorted(np.cumsum(positive), positive.sum() / 2)) + 1
    listed = "; ".join(
        f"feature {j}, {nats(float(value[j]), float(error[j]))}{_likelier(reader, j)}"
        + (f", {reader.since(j)}" if reader.joint or not reader.kept else "")
        for j in ranked
    )
    return (
        f"Effects, dictionary {reader.name}: the loss at step {reader.steps[-1]} would rise most, per token, without {listed}. "
        f"{half} of {reader.features} features carry half of all effects. An effect is an estimate from gradients with several "
        "features away at a time: it ranks features, and is too large where several stand for the same thing."
    )
