"""Whether the same concept has the same representation in two languages.

Vectors are centred per language first (what all words of a language share is not the concept), then compared by
cosine. *retrieval@1*: the share of words whose nearest vector in the other language is the translation (chance 1/n).
*Concept cosine*: mean cosine of translations minus mean cosine of mismatched concepts.
"""

from __future__ import annotations

import numpy as np

__all__ = ["centred_cosines", "concept_margins", "nearest_other"]


def centred_cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(word, word) cosine similarity of (word, feature) vectors, each set centred on its own mean."""
    a = np.asarray(a, dtype=np.float64) - a.mean(0, dtype=np.float64)
    b = np.asarray(b, dtype=np.float64) - b.mean(0, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        a /= np.linalg.norm(a, axis=1, keepdims=True)
        b /= np.linalg.norm(b, axis=1, keepdims=True)
    cosines: np.ndarray = a @ b.T
    return cosines


def nearest_other(cosines: np.ndarray) -> np.ndarray:
    """(word,) index of the nearest vector in the other language; -1 where a vector is zero or not finite."""
    finite = np.isfinite(cosines).all(1)
    return np.where(finite, np.where(np.isfinite(cosines), cosines, -2.0).argmax(1), -1)


def concept_margins(cosines: np.ndarray) -> np.ndarray:
    """(word,) cosine to the translation minus the mean cosine to all other words; their mean is the concept cosine.

    >>> concept_margins(np.eye(3))
    array([1., 1., 1.])
    """
    n = len(cosines)
    same = np.diagonal(cosines)
    margins: np.ndarray = same - (cosines.sum(1) - same) / (n - 1)
    return margins
