"""When does the model know to whom something is given? ``When Mary and John went to the store, John gave a drink to``.

The circuit of Wang et al. 2023: duplicate-token, S-inhibition and name-mover heads. Answer: the name that came once;
foil: the one that came twice; corrupted: three other names, so that none comes twice (their distribution p_ABC).
*Represented*: the answer's name can be read off the stream at the last token. *Used*, *done*, faithfulness and identity
as in ``dynamics.analysis.circuit``.
"""

from __future__ import annotations

from dynamics.analysis.circuit import CircuitTask
from dynamics.analysis.circuit_task import circuit_analysis

from .prompts import IOI, ioi_probe

__all__ = ["PLANTED", "QUESTION", "TITLE", "Options", "figures", "plan", "summarise"]

TITLE = "Indirect object"
QUESTION = "When does the model say the name that came once, from which parts, and do they stay the same?"
PLANTED = {"names": "done"}

Options, plan, summarise, figures = circuit_analysis(
    ioi_probe, CircuitTask(IOI, "indirect object", label="answer_name", meaning="the name to be said")
)
