"""Emergence: when did a curve rise above its null, how sure is that, and did it last?

Numerics on plain arrays only; labels are added one layer above. :func:`assess` is the way in.
"""

from __future__ import annotations

from dynamics.emergence.assess import assess
from dynamics.emergence.bootstrap import shuffled_match_null, unit_bootstrap
from dynamics.emergence.bound import Bound, draws_needed, simultaneous_bound
from dynamics.emergence.runs import Runs, scan
from dynamics.emergence.types import STATES, Direction, Emergence, Interval, State, tokens_of

__all__ = [
    "STATES",
    "Bound",
    "Direction",
    "Emergence",
    "Interval",
    "Runs",
    "State",
    "assess",
    "draws_needed",
    "scan",
    "shuffled_match_null",
    "simultaneous_bound",
    "tokens_of",
    "unit_bootstrap",
]
