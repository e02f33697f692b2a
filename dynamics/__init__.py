"""The engine: collect measurements over a training series into a trace, and say when circuits emerged.

Every verb of the command line is a function here. Names are loaded when they are first used, so that reading a trace
imports neither torch nor matplotlib.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .analyse import analyse
    from .collect import collect
    from .config import load_runs
    from .report import report
    from .status import status, verify
    from .store import Trace, open_trace

__all__ = ["Trace", "analyse", "collect", "load_runs", "open_trace", "report", "status", "verify"]

_HOME = {
    "Trace": "store",
    "analyse": "analyse",
    "collect": "collect",
    "load_runs": "config",
    "open_trace": "store",
    "report": "report",
    "status": "status",
    "verify": "status",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(import_module(f".{_HOME[name]}", __name__), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has: {', '.join(__all__)}")


class _Verbs(ModuleType):
    """Keeps ``dynamics.collect`` the function: importing the submodule of that name would put the module there."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Verbs
