"""The engine: collect measurements over a training series into a trace, and say when circuits emerged.

Every verb of the command line is a function here. Names are loaded when they are first used, so that reading a trace
imports neither torch nor matplotlib.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .models import sites

if TYPE_CHECKING:
    from .analyser import analyse
    from .analysis.results import Results, open_results
    from .auditing.audit import audit
    from .collecting.callback import DynamicsCallback
    from .collecting.estimating import estimate
    from .collecting.live import LiveCollector
    from .collecting.rounds import collect
    from .collecting.submitting import submit
    from .collecting.upkeep import status
    from .collecting.verifying import verify
    from .collecting.watching import watch
    from .comparing import compare
    from .explaining import explain, explain_prompts
    from .learning.learn import learn
    from .reporting import report
    from .runs.config import load_runs
    from .runs.lookup import find_cells, find_run
    from .runs.schedule import log_steps
    from .serving import mcp
    from .store import Trace, open_trace
    from .validating.validate import validate

__all__ = [
    "DynamicsCallback",
    "LiveCollector",
    "Results",
    "Trace",
    "analyse",
    "audit",
    "collect",
    "compare",
    "estimate",
    "explain",
    "explain_prompts",
    "find_cells",
    "find_run",
    "learn",
    "load_runs",
    "log_steps",
    "mcp",
    "open_results",
    "open_trace",
    "report",
    "status",
    "submit",
    "validate",
    "verify",
    "watch",
]

# no submodule has the name of a verb: importing it would put the module in the function's place
_HOME = {
    "DynamicsCallback": "collecting.callback",
    "LiveCollector": "collecting.live",
    "Results": "analysis.results",
    "Trace": "store",
    "analyse": "analyser",
    "audit": "auditing.audit",
    "collect": "collecting.rounds",
    "compare": "comparing",
    "estimate": "collecting.estimating",
    "explain": "explaining",
    "explain_prompts": "explaining",
    "find_cells": "runs.lookup",
    "find_run": "runs.lookup",
    "learn": "learning.learn",
    "load_runs": "runs.config",
    "log_steps": "runs.schedule",
    "mcp": "serving",
    "open_results": "analysis.results",
    "open_trace": "store",
    "report": "reporting",
    "status": "collecting.upkeep",
    "submit": "collecting.submitting",
    "validate": "validating.validate",
    "verify": "collecting.verifying",
    "watch": "collecting.watching",
}


sys.modules[f"{__name__}.sites"] = sites  # tables of sites were published under this name


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    message = f"module {__name__!r} has no attribute {name!r}; it has: {', '.join(__all__)}"
    raise AttributeError(message, name=name, obj=sys.modules[__name__])  # so that Python adds the nearest name


def __dir__() -> list[str]:
    return __all__
