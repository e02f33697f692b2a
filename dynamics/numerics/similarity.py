"""Whether the same concept has the same representation in two languages.

Vectors are centred per language first (what all words of a language share is not the concept), then compared by
cosine. *retrieval@1*: the share of words whose nearest vector in the other language is the translation (chance 1/n).
*Concept cosine*: mean cosine of translations minus mean cosine of mismatched concepts.
"""

from __future__ import annotations

import numpy as np

__all__ = ["centred_cosines", "concept_margins", "nearest_other"]


def centred_cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(word, word) cosine similarity of (word, feature) vectors, each set centred on its own mean.

    NaN for a word that does not differ from that mean, or is not finite.
    """
    a, b = _directions(a), _directions(b)
    return np.asarray(a @ b.T)


def _directions(x: np.ndarray) -> np.ndarray:
    """(word, feature) unit vectors from the mean; NaN where a word differs from the mean by no more than rounding."""
    x = np.asarray(x, dtype=np.float64)
    with np.errstate(invalid="ignore"):  # infinities of a broken model become NaN
        centred = x - x.mean(0)
        length = np.linalg.norm(centred, axis=1, keepdims=True)
        least = 1e-6 * np.linalg.norm(x, axis=1, keepdims=True)  # what float32 cannot hold
        return np.asarray(centred / np.where(length > least, length, np.nan))


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
    return np.asarray(same - (cosines.sum(1) - same) / (n - 1))
