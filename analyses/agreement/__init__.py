"""When does the verb agree with its subject, whatever stands between? ``The keys near the cabinet`` (are, is).

Linzen et al. 2016; Finlayson et al. 2021. Answer: the verb in the subject's number, foil: in the other; corrupted: the
subject in the other number. The noun between them has the subject's number in half of the prompts. *Represented*: the
subject's number can be read off the stream at the last token. The rest as in ``dynamics.analysis.circuit``.
"""

from __future__ import annotations

from dynamics.analysis.circuit import CircuitTask
from dynamics.analysis.circuit_task import circuit_analysis

from .prompts import ATTRACTED, agreement_probe

__all__ = ["PLANTED", "QUESTION", "TITLE", "Options", "figures", "plan", "summarise"]

TITLE = "Subject-verb agreement"
QUESTION = "When does the verb agree with its subject, from which parts, and do they stay the same?"
PLANTED = {"agreement": "done"}

Options, plan, summarise, figures = circuit_analysis(
    agreement_probe, CircuitTask(ATTRACTED, "subject-verb agreement", label="number", meaning="the subject's number")
)
