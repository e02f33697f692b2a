"""When does the verb agree with its subject, whatever stands between? ``The keys near the cabinet`` (are, is).

Linzen et al. 2016; Finlayson et al. 2021. Answer: the verb in the subject's number, foil: in the other; corrupted: the
subject in the other number. The noun between them has the subject's number in half of the prompts. *Represented*: the
subject's number can be read off the stream at the last token. The rest as in ``dynamics.analysis.circuit``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dynamics.analysis.base import Context, Request
from dynamics.analysis.circuit import CircuitTask
from dynamics.analysis.circuit_figures import circuit_figures as figures
from dynamics.analysis.circuit_task import TaskOptions as Options
from dynamics.analysis.circuit_task import circuit_request, task_summary

from .prompts import ATTRACTED, agreement_probe

if TYPE_CHECKING:
    from dynamics.analysis.findings import Summary
    from dynamics.store import Trace

__all__ = ["PLANTED", "TITLE", "Options", "figures", "plan", "summarise"]

TITLE = "Subject-verb agreement"
PLANTED = {"agreement": "agreement.done"}
"""Worlds of the organism, and the finding by which each shows; for `dynamics validate`."""

_TASK = CircuitTask("agreement", ATTRACTED, "subject-verb agreement", label="number", meaning="the subject's number")


def plan(context: Context, options: Options) -> Sequence[Request]:
    """Prompts with corrupted twins, and everything that intervenes on them."""
    probe = agreement_probe(context.tokenizer, options.prompts, options.seed)
    return [circuit_request(probe, patch_at=options.patch_at)]


def summarise(trace: Trace, options: Options) -> Summary:
    """Curves and findings from the trace alone."""
    return task_summary(
        trace,
        _TASK,
        title=TITLE,
        question="When does the verb agree with its subject, from which parts, and do they stay the same?",
    )
