"""Where the sites of a model are, known or proposed, and checked on random weights: ``dynamics sites MODEL``."""

from __future__ import annotations

from .described import Described, describe_sites

__all__ = ["Described", "describe_sites"]
