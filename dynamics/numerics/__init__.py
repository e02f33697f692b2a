"""Numerics on plain arrays: decoding, Fourier structure, similarity. No labels, no torch, no plots."""

from __future__ import annotations

from .decoding import decode_classes, decode_number, folds_of
from .fourier import MAGNITUDE, PERIODS, fourier_basis, fourier_r2, relabelled_digits
from .similarity import centred_cosines, concept_margins, nearest_other

__all__ = [
    "MAGNITUDE",
    "PERIODS",
    "centred_cosines",
    "concept_margins",
    "decode_classes",
    "decode_number",
    "folds_of",
    "fourier_basis",
    "fourier_r2",
    "nearest_other",
    "relabelled_digits",
]
