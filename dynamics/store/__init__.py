"""The trace: one Zarr v3 store per run (``docs/trace-format.md``). Importing this package imports no torch."""

from __future__ import annotations

from .declaration import FEATURES, FORMAT, FORMAT_VERSION, WEIGHTS, Group, TraceDeclaration
from .features import FeatureTable, dictionaries_in, write_features
from .format import trace_attributes
from .lock import writer_lock
from .paths import open_run_trace, trace_path
from .reader import Trace, open_trace
from .recorder import remark
from .results import read_result, write_result
from .variable import Variable
from .writer import TraceWriter

__all__ = [
    "FEATURES",
    "FORMAT",
    "FORMAT_VERSION",
    "WEIGHTS",
    "FeatureTable",
    "Group",
    "Trace",
    "TraceDeclaration",
    "TraceWriter",
    "Variable",
    "dictionaries_in",
    "open_run_trace",
    "open_trace",
    "read_result",
    "remark",
    "trace_attributes",
    "trace_path",
    "write_features",
    "write_result",
    "writer_lock",
]
