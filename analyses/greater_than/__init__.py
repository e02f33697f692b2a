"""When does the model know that a later year is larger? ``The war lasted from the year 1732 to the year 17``.

The circuit of Hanna et al. 2023. Answer: a year after the start, foil: one as far before it; corrupted: a start
before the foil, after which both are right. The metric is the logit difference between the two, the same for all
circuits here; the paper's is the probability of all later years minus that of all others. *Represented*: the decade
of the start can be read off the stream at the last token. The rest as in ``dynamics.analysis.circuit``.
"""

from __future__ import annotations

from dynamics.analysis.circuit import CircuitTask
from dynamics.analysis.circuit_task import circuit_analysis

from .prompts import GREATER_THAN, greater_than_probe

__all__ = ["PLANTED", "QUESTION", "TITLE", "Options", "figures", "plan", "summarise"]

TITLE = "Greater than"
QUESTION = "When does the model say a later year, from which parts, and do they stay the same?"
PLANTED = {"years": "done"}

# what a model has for one number and not for another is the same in all prompts of a decade
Options, plan, summarise, figures = circuit_analysis(
    greater_than_probe,
    CircuitTask(GREATER_THAN, "greater than", label="decade", meaning="the start's decade", units="decade"),
)
