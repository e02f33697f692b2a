"""When does the model refer back to a name with the right pronoun? ``Mary went home because`` (she, he).

(Mathwin et al. 2023.) Answer: the pronoun of the name's gender, foil: the other; corrupted: a name of the other gender.
*Represented*: the gender can be read off the stream at the last token. The rest as in ``dynamics.analysis.circuit``.
Names are used as they are used in English text, where most have one pronoun; nothing is said about persons.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dynamics.analysis.base import Context, Request
from dynamics.analysis.circuit import CircuitTask
from dynamics.analysis.circuit_figures import circuit_figures as figures
from dynamics.analysis.circuit_task import TaskOptions as Options
from dynamics.analysis.circuit_task import circuit_request, task_summary

from .prompts import GENDER, gender_probe

if TYPE_CHECKING:
    from dynamics.analysis.findings import Summary
    from dynamics.store import Trace

__all__ = ["PLANTED", "TITLE", "Options", "figures", "plan", "summarise"]

TITLE = "Pronoun gender"
PLANTED = {"gender": "gender.done"}
"""Worlds of the organism, and the finding by which each shows; for `dynamics validate`."""

_TASK = CircuitTask("gender", GENDER, "pronoun", label="gender", meaning="the name's gender")


def plan(context: Context, options: Options) -> Sequence[Request]:
    """Prompts with corrupted twins, and everything that intervenes on them."""
    probe = gender_probe(context.tokenizer, options.prompts, options.seed)
    return [circuit_request(probe, patch_at=options.patch_at)]


def summarise(trace: Trace, options: Options) -> Summary:
    """Curves and findings from the trace alone."""
    return task_summary(
        trace,
        _TASK,
        title=TITLE,
        question="When does the pronoun follow the name, from which parts, and do they stay the same?",
    )
