"""What analyses are made of, in one import line.

An analysis is a module with ``TITLE``, ``plan`` and ``summarise`` (see :class:`Analysis`; ``examples/own_analysis.py`` is a
whole one)::

    from dynamics.analysis import Answers, Context, CurveSpec, Null, Request, Section, Trace, from_units, sign_flip_null

Importing it loads neither torch nor matplotlib; figures are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..emergence import sign_flip_null
from ..measurements import Activations, Answers
from ..probes import LAST, Probe
from ..store import Trace
from .base import Analysis, AnalysisOptions, Context, Reading, Request
from .curves import Curve, CurveSpec, Null, best_layer, from_units, shuffled_answers
from .decoding import decoded_by_layer
from .findings import Definition, Finding
from .section import Section, Summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .figures import curve_grid, heat_maps

__all__ = [
    "LAST",
    "Activations",
    "Analysis",
    "AnalysisOptions",
    "Answers",
    "Context",
    "Curve",
    "CurveSpec",
    "Definition",
    "Figure",
    "Finding",
    "Null",
    "Probe",
    "Reading",
    "Request",
    "Section",
    "Summary",
    "Trace",
    "best_layer",
    "curve_grid",
    "decoded_by_layer",
    "from_units",
    "heat_maps",
    "shuffled_answers",
    "sign_flip_null",
]


_FIGURES = {"Figure": "matplotlib.figure", "curve_grid": ".figures", "heat_maps": ".figures"}


def __getattr__(name: str) -> Any:
    if name in _FIGURES:
        return getattr(import_module(_FIGURES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has: {', '.join(__all__)}")


def __dir__() -> list[str]:
    return __all__
