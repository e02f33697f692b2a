"""When does the model refer back to a name with the right pronoun? ``Mary went home because`` (she, he).

(Mathwin et al. 2023.) Answer: the pronoun of the name's gender, foil: the other; corrupted: a name of the other gender.
*Represented*: the gender can be read off the stream at the last token. The rest as in ``dynamics.analysis.circuit``.
Names are used as they are used in English text, where most have one pronoun; nothing is said about persons.
"""

from __future__ import annotations

from dynamics.analysis.circuit import CircuitTask
from dynamics.analysis.circuit_task import circuit_analysis

from .prompts import GENDER, gender_probe

__all__ = ["PLANTED", "QUESTION", "TITLE", "Options", "figures", "plan", "summarise"]

TITLE = "Pronoun gender"
QUESTION = "When does the pronoun follow the name, from which parts, and do they stay the same?"
PLANTED = {"gender": "done"}

Options, plan, summarise, figures = circuit_analysis(
    gender_probe, CircuitTask(GENDER, "pronoun", label="gender", meaning="the name's gender")
)
