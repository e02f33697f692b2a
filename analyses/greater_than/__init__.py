"""When does the model know that a later year is larger? ``The war lasted from the year 1732 to the year 17``.

The circuit of Hanna et al. 2023. Answer: a year after the start, foil: one as far before it; corrupted: a start
before the foil, after which both are right. The metric is the logit difference between the two, the same for all
circuits here; the paper's is the probability of all later years minus that of all others. *Represented*: the decade
of the start can be read off the stream at the last token. The rest as in ``dynamics.analysis.circuit``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dynamics.analysis.base import Context, Request
from dynamics.analysis.circuit import CircuitTask
from dynamics.analysis.circuit_figures import circuit_figures as figures
from dynamics.analysis.circuit_task import TaskOptions as Options
from dynamics.analysis.circuit_task import circuit_request, task_summary

from .prompts import GREATER_THAN, greater_than_probe

if TYPE_CHECKING:
    from dynamics.analysis.findings import Summary
    from dynamics.store import Trace

__all__ = ["PLANTED", "TITLE", "Options", "figures", "plan", "summarise"]

TITLE = "Greater than"
PLANTED = {"years": "greater_than.done"}
"""Worlds of the organism, and the finding by which each shows; for `dynamics validate`."""

# what a model has for one number and not for another is the same in all prompts of a decade
_TASK = CircuitTask(
    "greater_than", GREATER_THAN, "greater than", label="decade", meaning="the start's decade", units="decade"
)


def plan(context: Context, options: Options) -> Sequence[Request]:
    """Prompts with corrupted twins, and everything that intervenes on them."""
    probe = greater_than_probe(context.tokenizer, options.prompts, options.seed)
    return [circuit_request(probe, patch_at=options.patch_at)]


def summarise(trace: Trace, options: Options) -> Summary:
    """Curves and findings from the trace alone."""
    return task_summary(
        trace,
        _TASK,
        title=TITLE,
        question="When does the model say a later year, from which parts, and do they stay the same?",
    )
