"""Emergence: when did a curve rise above its null, how sure is that, and did it last?

Numerics on plain arrays only; labels are added one layer above. :func:`assess` is the way in for one curve,
:func:`definitions` for several definitions of its onset side by side, :func:`assess_many` for thousands of curves.
"""

from __future__ import annotations

from dynamics.emergence.agreement import Agreement, agreement_of
from dynamics.emergence.assess import assess
from dynamics.emergence.bootstrap import shuffled_match_null, sign_flip_null, unit_bootstrap
from dynamics.emergence.bound import Bound, draws_needed, simultaneous_bound
from dynamics.emergence.definitions import Onset, definitions
from dynamics.emergence.discovery import count_onset, discover, found_since
from dynamics.emergence.fragile import FRAGILE, looks_that_hold
from dynamics.emergence.many import Many, assess_many
from dynamics.emergence.mirage import Mirage, mirage
from dynamics.emergence.order import (
    OnsetOrder,
    Ordering,
    before,
    in_order,
    onset_draws,
    onset_ends,
    onset_intervals,
    simultaneous_bands,
)
from dynamics.emergence.runs import Runs, scan
from dynamics.emergence.types import STATES, Emergence, Interval, State, Trend, tokens_of

__all__ = [
    "FRAGILE",
    "STATES",
    "Agreement",
    "Bound",
    "Emergence",
    "Interval",
    "Many",
    "Mirage",
    "Onset",
    "OnsetOrder",
    "Ordering",
    "Runs",
    "State",
    "Trend",
    "agreement_of",
    "assess",
    "assess_many",
    "before",
    "count_onset",
    "definitions",
    "discover",
    "draws_needed",
    "found_since",
    "in_order",
    "looks_that_hold",
    "mirage",
    "onset_draws",
    "onset_ends",
    "onset_intervals",
    "scan",
    "shuffled_match_null",
    "sign_flip_null",
    "simultaneous_bands",
    "simultaneous_bound",
    "tokens_of",
    "unit_bootstrap",
]
