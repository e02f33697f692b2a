"""Is every checkpoint what its label says? From the listing of a series' files, and from the weights once loaded.

>>> sorted(__all__)[0]
'AuditFinding'
"""

from __future__ import annotations

from .findings import AuditFinding, Kind
from .listing import audit_listing
from .path import audit_weights, neighbours
from .sketch import SAMPLE, Sketch, sketch
from .vectors import Vectors

__all__ = [
    "SAMPLE",
    "AuditFinding",
    "Kind",
    "Sketch",
    "Vectors",
    "audit_listing",
    "audit_weights",
    "neighbours",
    "sketch",
]
