"""Several runs side by side: onsets, shifts, and which choice about training moved which onset."""

from __future__ import annotations

from .build import Compared, compare
from .terminal import print_compared

__all__ = ["Compared", "compare", "print_compared"]
