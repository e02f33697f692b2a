"""When does the model know to whom something is given? ``When Mary and John went to the store, John gave a drink to``.

The circuit of Wang et al. 2023: duplicate-token, S-inhibition and name-mover heads. Answer: the name that came once;
foil: the one that came twice; corrupted: three other names, so that none comes twice (their distribution p_ABC).
*Represented*: the answer's name can be read off the stream at the last token. *Used*, *done*, faithfulness and identity
as in ``dynamics.analysis.circuit``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dynamics.analysis.base import Context, Request
from dynamics.analysis.circuit import CircuitTask
from dynamics.analysis.circuit_figures import circuit_figures as figures
from dynamics.analysis.circuit_task import TaskOptions as Options
from dynamics.analysis.circuit_task import circuit_request, task_summary

from .prompts import IOI, ioi_probe

if TYPE_CHECKING:
    from dynamics.analysis.findings import Summary
    from dynamics.store import Trace

__all__ = ["PLANTED", "TITLE", "Options", "figures", "plan", "summarise"]

TITLE = "Indirect object"
PLANTED = {"names": "ioi.done"}
"""Worlds of the organism, and the finding by which each shows; for `dynamics validate`."""

_TASK = CircuitTask("ioi", IOI, "indirect object", label="answer_name", meaning="the name to be said")


def plan(context: Context, options: Options) -> Sequence[Request]:
    """Prompts with corrupted twins, and everything that intervenes on them."""
    probe = ioi_probe(context.tokenizer, options.prompts, options.seed)
    return [circuit_request(probe, patch_at=options.patch_at)]


def summarise(trace: Trace, options: Options) -> Summary:
    """Curves and findings from the trace alone."""
    return task_summary(
        trace,
        _TASK,
        title=TITLE,
        question="When does the model say the name that came once, from which parts, and do they stay the same?",
    )
