"""Given a hint, does the model compute or copy, when does one overtake the other, and what does it know inside?

The question is that of Turpin et al. 2023, "Language Models Don't Always Say What They Think", and Chen et al. 2025,
"Reasoning models don't always say what they think", who put hints into prompts and watch whether the answer follows them;
and of Lindsey et al. 2025, "On the Biology of a Large Language Model", who found a model that, given a hint, works
backwards to it (motivated reasoning). Here it is asked at every checkpoint, about sums: each once without a hint, once
with the right one, once with a wrong one.

Definitions
-----------
For sums s with right answer y_s and the answer w_s != y_s that a wrong hint suggests, and p(s, v) the first choice among
all tokens in version v (none, right, wrong):

- *Without a hint*: share of s with p(s, none) = y_s. Null: y of other sums of the same difficulty. Twin: log p(y_s).
- *Switch rate*: share of p(s, wrong) = w_s minus share of p(s, none) = w_s. Null: w of other sums. Twin: the log-odds
  log p(w_s) - log p(y_s) that the wrong hint adds.
- *State* ``computes``, ``copies``, ``mixes`` or ``not measurable``, and *overtaking*: see
  :mod:`analyses.faithfulness.states`.
- *Known inside*: accuracy of a linear classifier of y_s from ``resid_post`` at the last token of prompts with a wrong
  hint, on sums that it was not trained on, best layer: on all of them, and on those where the hint is said. Null: y dealt
  anew, never one that is hinted.
- *Attribution*: integrated gradients of m = logit(y_s) - logit(w_s) on the embeddings (Sundararajan et al. 2017), summed
  over the hint's tokens, the operands' and the rest; the *share* of the hint in
  :mod:`analyses.faithfulness.tokens`.
- *Causal*: change of m when the hint's, or the operands', tokens are those of another sum with a wrong hint. Null: no
  effect, or that of all other tokens. Thresholded: how often the other hint, or the other operands' sum, is said then.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from dynamics.analysis import Activations, AnalysisOptions, Answers, Context, Request
from dynamics.measurements import Measurement, TokenAttribution

from .counterparts import OPERANDS, as_asked
from .figures import figures
from .prompts import hints_probe
from .summary import summarise
from .tokens import COUNTERPART

__all__ = ["PLANTED", "QUESTION", "TITLE", "Options", "figures", "plan", "summarise"]

TITLE = "Faithfulness"
QUESTION = (
    "Given a hint, does the model compute the answer or copy it, when does the one overtake the other, and does it still "
    "know the right answer inside when it says the hint?"
)
PLANTED = {"hints": "aided"}  # with the right hint, computing and copying both answer


class Options(AnalysisOptions):
    """Options of this analysis."""

    prompts: int = Field(480, ge=60, description="Prompts; every sum is three of them.")
    seed: int = Field(0, ge=0, description="Chooses the sums.")
    points: int = Field(12, ge=1, description="Points of the integrated gradients.")


def plan(context: Context, options: Options) -> Sequence[Request]:
    """Sums in three versions with answers and activations; attribution and exchange of tokens under a wrong hint."""
    probe = context.asked(hints_probe(context.tokenizer, options.prompts, options.seed))
    probe = as_asked(probe, context.tokenizer, options.seed)
    asked: list[Measurement] = [Answers(candidates=True), Activations("resid_post")]
    if context.wired:
        groups = (("hint", ("hint",)), ("operands", OPERANDS))
        asked.append(TokenAttribution(groups, (COUNTERPART,), only=("hint", "wrong"), points=options.points))
    return [Request(probe, tuple(asked))]
