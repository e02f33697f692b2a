"""What an analysis is, and what it asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel, ConfigDict

from ..measurements import Measurement
from ..probes import LAST, Probe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..store import Trace
    from .findings import Summary

__all__ = ["Analysis", "Context", "NoOptions", "Reading", "Request"]


class NoOptions(BaseModel):
    """For analyses that take no options."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Context:
    """What an analysis may look at when it plans.

    Attributes:
        tokenizer: the series' tokenizer.
        probes: the user's own probes, from the runs file.
        wired: whether it is known what reads and writes where, so that edges can be attributed and patched.
    """

    tokenizer: Any
    probes: Mapping[str, Probe] = field(default_factory=dict)
    wired: bool = True


@dataclass(frozen=True)
class Request:
    """One probe and the measurements wanted on it."""

    probe: Probe
    measurements: tuple[Measurement, ...]


@dataclass(frozen=True)
class Reading:
    """Prompts that an analysis wants to see through the run's dictionaries (``dynamics learn``).

    Attributes:
        probe: the prompts.
        positions: named positions of their tokens.
    """

    probe: Probe
    positions: tuple[str, ...] = (LAST,)


class Analysis(Protocol):
    """The interface of an analysis module (``analyses/*.py``, or anybody's importable module).

    ``Options`` is a pydantic model; ``plan`` says what to measure; ``summarise`` reads a trace alone (no weights);
    ``figures`` draws a summary alone. A module may also have ``readings(context, options) -> Sequence[Reading]``: the prompts
    that are read through the run's dictionaries.
    """

    TITLE: str
    Options: type[BaseModel]

    def plan(self, context: Context, options: Any) -> Sequence[Request]:
        """Probes and measurements that this analysis needs."""

    def summarise(self, trace: Trace, options: Any) -> Summary:
        """Curves, findings and arrays from the trace."""

    def figures(self, summary: Summary) -> Mapping[str, Figure]:
        """Figure name to figure."""
