"""Reports: the page, the JSON and the figures of a run, and its emergence table in the terminal."""

from __future__ import annotations

from .build import Report, report
from .terminal import print_report

__all__ = ["Report", "print_report", "report"]
