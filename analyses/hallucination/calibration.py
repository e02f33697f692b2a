"""Is the model as often right as it is sure? Reliability at every checkpoint, and the calibration error over training.

Only questions that are answered in kind are counted: declining and all attributes together have a probability of at
least :data:`analyses.hallucination.questions.WILLING`, and one of them is the first choice. What a model says that does
not know yet what kind of word follows is no answer. Checkpoints with fewer than
:data:`analyses.hallucination.questions.FEWEST` such questions are left out.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dynamics.analysis import Curve, CurveSpec, Null, Section
from dynamics.numerics.calibrated import calibrated_null, calibration_draws, calibration_error, reliability
from dynamics.numerics.draws import FINE_DRAWS

from .questions import FEWEST, WILLING, Questions

__all__ = ["BINS", "calibration"]

BINS = 10


def calibration(asked: Questions, spec: CurveSpec) -> Section:
    """The calibration error in bins of equal width and of equal mass, and the reliability of every bin."""
    n = len(asked.confidence)
    counted = ((asked.named == 1) | (asked.declined == 1)) & (asked.willing >= WILLING)
    confidence = np.where(counted, asked.confidence, np.nan)
    enough = counted.sum(1) >= FEWEST
    names = ("count", "confidence", "accuracy", "low", "high")
    curves = {name: np.full((n, BINS), np.nan) for name in names}
    right = np.nan_to_num(asked.right)
    for c in np.flatnonzero(enough):
        curve = reliability(confidence[c], right[c], bins=BINS)
        for name in names:
            curves[name][c] = getattr(curve, name)
    gap = np.full(n, np.nan)
    for c in np.flatnonzero(enough):
        gap[c] = confidence[c][counted[c]].mean() - right[c][counted[c]].mean()
    section = Section(coords={"bin": np.arange(BINS)}, arrays={"overconfidence": ("checkpoint", gap)})
    section.arrays |= {f"reliability_{name}": (("checkpoint", "bin"), values) for name, values in curves.items()}
    for key, words, equal_mass in (("ece", "equal width", False), ("ece.mass", "equal mass", True)):
        options: dict[str, Any] = {"bins": BINS, "equal_mass": equal_mass}
        values, drawn, null = np.full(n, np.nan), np.full((n, FINE_DRAWS), np.nan), np.full((n, FINE_DRAWS), np.nan)
        for c in np.flatnonzero(enough):
            values[c] = calibration_error(confidence[c], right[c], **options)
            drawn[c] = calibration_draws(confidence[c], right[c], clusters=asked.entity, draws=FINE_DRAWS, **options)
            null[c] = calibrated_null(confidence[c], draws=FINE_DRAWS, **options)
        section.findings.append(
            Curve(
                key,
                "entities: miscalibrated" + (f", bins of {words}" if equal_mass else ""),
                values,
                drawn,
                Null(null, "a perfectly calibrated model with the same confidences"),
                spec.but(
                    metric="expected calibration error",
                    limits=(0.0, 1.0),
                    definition=f"mean over questions of |accuracy - confidence| of their bin, {BINS} bins of {words}",
                ),
            )
        )
    return section
