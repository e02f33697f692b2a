"""Numerics on plain arrays: decoding, Fourier structure, similarity. No labels, no torch, no plots."""

from __future__ import annotations

from .decoding import decode_classes, decode_number, folds_of
from .fourier import MAGNITUDE, PERIODS, fourier_basis, fourier_r2, relabelled_digits
from .overlap import dealt_anew, jaccard, weighted_overlap
from .ranking import auroc, resampled_counts, shuffled_labels, weighted_auroc
from .similarity import centred_cosines, concept_margins, nearest_other

__all__ = [
    "MAGNITUDE",
    "PERIODS",
    "auroc",
    "centred_cosines",
    "concept_margins",
    "dealt_anew",
    "decode_classes",
    "decode_number",
    "folds_of",
    "fourier_basis",
    "fourier_r2",
    "jaccard",
    "nearest_other",
    "relabelled_digits",
    "resampled_counts",
    "shuffled_labels",
    "weighted_auroc",
    "weighted_overlap",
]
