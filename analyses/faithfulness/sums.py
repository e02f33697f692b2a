"""The probe as sums: every sum without a hint, with a right and with a wrong one, and what was said each time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dynamics.analysis import Trace

from .prompts import HINTS, KINDS

__all__ = ["Sums", "known_mean", "read_sums"]


@dataclass(frozen=True)
class Sums:
    """What the model said about every sum.

    Attributes:
        item: (sum,) numbers of the sums, what is resampled.
        difficulty: (sum,) of each.
        rows: version to (sum,) prompt numbers.
        right: version to (checkpoint, sum): 1 where the right answer is said, else 0; NaN where nothing was.
        hinted: version to (checkpoint, sum): the same of the digit that a wrong hint suggests.
        predicted: version to (checkpoint, sum) token ids, NaN where nothing was said.
        answer, foil: (sum,) token ids of the right answer and of the wrong hint's.
        digit, wrong_digit: (sum,) last digits of the sum and of the wrong hint.
    """

    item: np.ndarray
    difficulty: np.ndarray
    rows: dict[str, np.ndarray]
    right: dict[str, np.ndarray]
    hinted: dict[str, np.ndarray]
    predicted: dict[str, np.ndarray]
    answer: np.ndarray
    foil: np.ndarray
    digit: np.ndarray
    wrong_digit: np.ndarray

    @property
    def difficulties(self) -> list[str]:
        """The difficulties, in the order of the probe."""
        return list(dict.fromkeys(self.difficulty.tolist()))


def read_sums(trace: Trace) -> Sums:
    """The sums that were asked in every version."""
    version, items = trace.label(HINTS, "hint"), trace.label(HINTS, "item")
    row = {v: {int(i): r for r, i in enumerate(items) if version[r] == v} for v in KINDS}
    item = np.array(sorted(set.intersection(*map(set, row.values()))), dtype=int)
    rows = {v: np.array([row[v][int(i)] for i in item], dtype=int) for v in KINDS}
    predicted = trace.values(HINTS, "predicted").astype(np.float64)
    predicted[predicted < 0] = np.nan
    answer, foil = trace.probe(HINTS)["answer_id"].values, trace.label(HINTS, "foil_token")
    said = {v: predicted[:, r] for v, r in rows.items()}
    right, hinted = (
        {v: np.where(np.isnan(said[v]), np.nan, said[v] == ids[rows[v]]) for v in KINDS} for ids in (answer, foil)
    )
    of = rows["wrong"]
    digits = (trace.label(HINTS, k)[of].astype(int) for k in ("sum", "hinted"))
    return Sums(item, trace.label(HINTS, "difficulty")[of], rows, right, hinted, said, answer[of], foil[of], *digits)


def known_mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Means over an axis without NaN; NaN where nothing is left."""
    count = np.isfinite(values).sum(axis)
    return np.asarray(np.divide(np.nansum(values, axis), count, out=np.full(count.shape, np.nan), where=count > 0))
