"""When do induction heads form, and when does the model use them?

Definitions (Olsson et al. 2022, "In-context Learning and Induction Heads"), on random tokens written twice with
period L:

- *Prefix matching* of a head: mean attention from the second copy to the token after the previous occurrence of the
  current token (offset L - 1). The curve is the largest head. Null: the largest head on sequences without a repeat,
  where the same offsets mean nothing.
- *Previous token* and *duplicate token* of a head: offsets 1 and L.
- *Copying*: loss on the first copy minus loss on the second, per prompt. Null: no difference, or the difference that
  unrelated halves show where that is larger. (A model with induction heads expects a repeat and does worse than chance
  on unrelated halves; that direction does not count, so that the circuit cannot lower its own null.)
- *In-context score*: loss at 90% of the prompt minus loss at 10% of it (negative when context helps). Olsson et al.
  use tokens 500 and 50 of 512, the same shares. Null: as for copying.
- *Heads above 0.3 / 0.4*: how many heads pass the thresholds in use. The published step of one circuit moves by a
  factor of ten with this choice, so that both are shown beside the curve of the largest head.
- *Heads found*: how many have risen for good above their own score without a repeat, at a false discovery rate of 5%
  over all heads (Benjamini and Hochberg 1995); no threshold is chosen.

The circuit (``analyses.induction.pairs`` has the prompts): words of which one comes again, and twins in which its first
occurrence was another word, so that the match is destroyed and not what is copied. *Represented*: which word came before
can be read off the stream at the word after it. *Used* and *done* as in ``dynamics.analysis.circuit``. *K-composition*:
EAP-IG attribution of the edge from a head to another head's keys that is strongest in the end. Null: the other edges from
heads to keys.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from dynamics.analysis import AnalysisOptions, Context, Request
from dynamics.analysis.circuit_task import circuit_request
from dynamics.measurements import RepeatAttention, TokenLoss
from dynamics.probes.sources import plain_words

from .figures import figures
from .pairs import pair_probe
from .prompts import repeat_probes
from .summary import summarise

__all__ = ["PLANTED", "QUESTION", "TITLE", "Options", "figures", "plan", "summarise"]

TITLE = "Induction"
QUESTION = (
    "When do heads form that look back to what followed the current token before, and when does the model predict a "
    "repetition with them?"
)
PLANTED = {"induction": "copying"}
"""Worlds of the organism, and the finding by which each shows; for `dynamics validate`."""


class Options(AnalysisOptions):
    """Options of this analysis."""

    prompts: int = Field(64, ge=8, description="Random sequences, and as many controls.")
    period: int | None = Field(None, ge=4, description="Tokens in one copy; 10 for the organism, 25 otherwise if None.")
    pairs: int = Field(100, ge=20, description="Prompts by which the circuit is found.")
    seed: int = Field(0, ge=0, description="Chooses the tokens.")


def plan(context: Context, options: Options) -> Sequence[Request]:
    """Repeats and controls, each with attention scores per head and loss per token; prompts to find the circuit."""
    words = plain_words(context.tokenizer)
    period = options.period or words.period
    probes = repeat_probes(words, options.prompts, period, options.seed)
    requests = [Request(probe, (RepeatAttention(), TokenLoss())) for probe in probes]
    if context.wired:
        pairs = pair_probe(words, options.pairs, period, options.seed)
        requests.append(circuit_request(pairs, position="successor"))
    return requests
