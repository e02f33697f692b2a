"""The engine: collect measurements over a training series into a trace, and say when circuits emerged.

Every verb of the command line is a function here. Names are loaded when they are first used, so that reading a trace
imports neither torch nor matplotlib.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .analyser import analyse
    from .auditing import audit
    from .callback import DynamicsCallback
    from .config import load_runs
    from .explaining import explain
    from .features.learning import learn
    from .live import LiveCollector
    from .reporting import report
    from .rounds import collect
    from .schedule import log_steps
    from .store import Trace, open_trace
    from .upkeep import status, verify
    from .validating import validate
    from .watching import watch

__all__ = [
    "DynamicsCallback",
    "LiveCollector",
    "Trace",
    "analyse",
    "audit",
    "collect",
    "explain",
    "learn",
    "load_runs",
    "log_steps",
    "open_trace",
    "report",
    "status",
    "validate",
    "verify",
    "watch",
]

# no submodule has the name of a verb: importing it would put the module in the function's place
_HOME = {
    "DynamicsCallback": "callback",
    "LiveCollector": "live",
    "Trace": "store",
    "analyse": "analyser",
    "audit": "auditing",
    "collect": "rounds",
    "explain": "explaining",
    "learn": "features.learning",
    "load_runs": "config",
    "log_steps": "schedule",
    "open_trace": "store",
    "report": "reporting",
    "status": "upkeep",
    "validate": "validating",
    "verify": "upkeep",
    "watch": "watching",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has: {', '.join(__all__)}")
