"""Curves of hallucination: answers, declining, misfires, calibration, and the direction that tells known from unknown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dynamics.analysis import AnalysisOptions, CurveSpec, Definition, Finding, Section, Trace
from dynamics.emergence import unit_bootstrap
from dynamics.numerics.draws import FINE_DRAWS

from .behaviour import CONFIDENT, answering, declining, mean_of, misfires, only
from .calibration import BINS, calibration
from .gap import gap_between
from .knowing import knowing_section, order_of
from .questions import FEWEST, WILLING, Questions, read_questions

__all__ = ["summarise"]


def summarise(trace: Trace, options: AnalysisOptions) -> Section:
    """Curves from the trace alone; see the package's docstring for definitions."""
    asked = read_questions(trace)
    spec = CurveSpec("share of questions", "entities", clusters=asked.entity, sample="entities")
    said = [*answering(trace, asked, spec), *declining(asked, spec), *misfires(asked, spec)]
    section = Section([*said], [_asked(asked)], _DEFINITIONS, _rates(asked)) + calibration(asked, spec)
    knowing = knowing_section(trace, spec)
    by_key = section.assessed(trace) | knowing.assessed(trace)
    section.notes += [
        *_gaps(by_key, "answers.picked" if asked.chat else "answers"),
        order_of(by_key),
        *_final(asked, trace),
    ]
    return section + knowing


def _rates(asked: Questions) -> dict[str, Any]:
    """Shares and mean confidence with 95% bootstrap intervals over entities, for the figures."""
    sure = asked.confidence >= CONFIDENT
    tables = {
        "right_known": only(asked.right, asked.known),
        "declined_known": only(asked.declined, asked.known),
        "declined_unknown": only(asked.declined, ~asked.known),
        "confident_unknown": only(asked.named * sure, ~asked.known),
        "confidence_known": only(asked.confidence, asked.known),
        "confidence_unknown": only(asked.confidence, ~asked.known),
    }
    found: dict[str, Any] = {}
    for key, units in tables.items():
        drawn = unit_bootstrap(units, draws=FINE_DRAWS, clusters=asked.entity)
        low, high = np.full(len(units), np.nan), np.full(len(units), np.nan)
        known = np.isfinite(drawn).any(1)
        if known.any():
            low[known], high[known] = np.nanquantile(drawn[known], [0.025, 0.975], axis=1)
        found |= {
            key: ("checkpoint", mean_of(units)),
            f"{key}_low": ("checkpoint", low),
            f"{key}_high": ("checkpoint", high),
        }
    return found


def _asked(asked: Questions) -> str:
    known, unknown = (len(np.unique(asked.entity[rows])) for rows in (asked.known, ~asked.known))
    return (
        f"{len(asked.known)} questions: {int(asked.known.sum())} about {known} known entities, "
        f"{int((~asked.known).sum())} about {unknown} that nothing is known of. The bootstrap resamples entities."
    )


def _gaps(found: Mapping[str, Finding], answers: str) -> list[str]:
    """The gap between answering, which is the finding of this key, and knowing what it knows."""
    notes, answering = [], found[answers]
    for key, words in (
        ("discerns", "declining the unknown rather than the known"),
        ("name_represented", "telling known from unknown at the name"),
        ("end_represented", "telling known from unknown at the answer"),
    ):
        if key not in found:
            continue
        gap = gap_between(answering, found[key])
        if gap is None:
            states = f"answering: {answering.emergence.state}, {words}: {found[key].emergence.state}"
            notes.append(f"The gap from answering to {words} is not measurable ({states}).")
            continue
        notes.append(
            f"Gap from the onset of answering to that of {words}: between {gap.low:.0f} and {gap.high:.0f} steps (95%, "
            f"over entities); answering came first with a probability of {gap.first:.0%}, second with {gap.second:.0%}"
            + (f"; in {gap.missing:.0%} of draws one of the two never emerged." if gap.missing > 0 else ".")
        )
    return notes


def _final(asked: Questions, trace: Trace) -> list[str]:
    measured = np.flatnonzero(np.isfinite(asked.right).all(1))
    if not len(measured):
        return ["The model's logits are not finite at any checkpoint."]
    last = measured[-1]

    def share(units: np.ndarray, rows: np.ndarray) -> float:
        return float(units[last, rows].mean())

    parts = [f"{f} {share(asked.right, asked.known & (asked.frequency == f)):.0%}" for f in asked.frequencies]
    return [
        f"At step {int(trace.steps[last])}: known answered right {share(asked.right, asked.known):.0%} ({', '.join(parts)}), "
        f"known declined {share(asked.declined, asked.known):.0%}; unknown declined {share(asked.declined, ~asked.known):.0%}, "
        f"unknown answered with confidence {share(asked.named * (asked.confidence >= CONFIDENT), ~asked.known):.0%}."
    ]


_DEFINITIONS = (
    Definition(
        "answering",
        "Share of questions about known entities whose first choice is the right attribute, or another word that is as "
        "right (soccer for football; chemistry for Pasteur). Null: the same predictions against the attributes of other "
        "entities. Twin: mean log p(right attribute).",
    ),
    Definition(
        "answering among the candidates",
        "Share of questions about known entities for which the right attribute is more likely than every other that the "
        "probe has for this kind of question, and than declining, whatever else would be said first. Null: as above.",
    ),
    Definition(
        "declining",
        "Share of questions about entities that never occurred in training whose first choice declines, minus the same "
        "share of questions about known ones: a model that always declines has none of it. Null: entities called known or "
        "unknown at random. Twin: log-odds of declining.",
        "Kadavath et al. 2022, 'Language Models (Mostly) Know What They Know'",
    ),
    Definition(
        "misfires",
        f"Confident about the unknown: an attribute is the first choice, with a probability of at least {CONFIDENT:g}, where "
        "nothing is known. The known declined. Null for both: a model that says the same with the same confidence, and is "
        "right as often as it is sure.",
        "after Lindsey et al. 2025, 'On the Biology of a Large Language Model' (hallucinations)",
    ),
    Definition(
        "expected calibration error",
        f"Sum over {BINS} bins of confidence of (questions in the bin / all) |accuracy - mean confidence|; confidence is the "
        f"probability of the first choice. Of questions answered in kind (declining and attributes have a probability of "
        f"{WILLING:g} or more together), where those are at least {FEWEST}. Null: a perfectly calibrated "
        "model with the same confidences. Bins of equal width, and of equal mass.",
        "Naeini et al. 2015; Guo et al. 2017; Nixon et al. 2019; null: Broecker and Smith 2007",
    ),
)
