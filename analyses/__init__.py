"""Analyses: one module per circuit or concept, reached by name from the runs file."""

from __future__ import annotations

__all__: list[str] = []
