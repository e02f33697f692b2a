"""How many draws stand behind an interval or a null, unless a place names another number and says why?

A bound at 95% needs 19 draws at least (:func:`dynamics.emergence.draws_needed`); with more, the bound itself varies less
from one seed to another. Of n bootstrap draws no pair of onsets has a p value below 2/(1 + n), so that more draws call
orders from fewer clear pairs (:func:`dynamics.emergence.in_order`).
"""

from __future__ import annotations

__all__ = ["COSTLY_DRAWS", "DRAWS", "FINE_DRAWS"]

DRAWS = 200
"""Bootstrap draws of a curve, and draws of its null."""

FINE_DRAWS = 400
"""The same where a draw is no more than a row of a matrix product: means over resampled units, flipped signs."""

COSTLY_DRAWS = 100
"""The same where a draw deals the scores of a whole graph anew."""
