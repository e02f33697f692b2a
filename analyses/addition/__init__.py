"""When does a model learn to add, and is it the same circuit in a sum, in words and in a citation?

Definitions
-----------
- *Accuracy*: the share of sums whose every digit is the model's first choice, given the digits before it (equal to
  greedy decoding being right). Null: the same predictions held against the answers of other sums (shuffled within
  context and digit), which is what guessing by frequency gives.
- *Answer log-probability*: mean log p(right digit), the continuous twin of accuracy. Null: log p of the digits of
  other sums that begin alike (same context, same digits before).
- *Ones digit decodable*: cross-validated accuracy of a linear classifier of (a + b) mod 10 from ``resid_post`` at the
  position that predicts the ones digit, best layer; across contexts: trained in one context, tested in the others.
  Null: shuffled labels, best layer.
- *Sum decodable*: cross-validated R^2 of a linear read-out of a + b where the answer begins. Null: shuffled sums.
- *Magnitude* and *periodic structure*: share of the variance of number representations explained by period 100 and a
  linear term, and what periods 2, 5 and 10 add (Zhou et al. 2024; Kantamneni and Tegmark 2025). Null: renamed digits.
- *Shared neurons*: overlap between contexts of the neurons most selective for the ones digit of the sum (the
  "6 + 9 ends in 5" circuit of Lindsey et al. 2025 in citations and sums alike). Null: shuffled labels.
- *Same parts* and *ones digit exchanged*: the causal half, see :mod:`analyses.addition.causal`. It is left out where the
  prompts do not fit the tokenizer, or the architecture's wiring is not known.
- *Features*: where dictionaries were learned, features for ones digits in all contexts and for magnitudes, see
  :mod:`analyses.addition.features`.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from checkpoints.errors import UserError
from dynamics.analysis import Activations, AnalysisOptions, Answers, Context, Reading, Request
from dynamics.measurements import Circuit, EdgeGroups, Interchange, Selectivity, SourceEffects
from dynamics.probes import tokenize

from .figures import figures
from .pairs import DONORS, exchange_probe, pair_probes
from .prompts import SumPrompts, grid_probe, number_probe, ones_probe, sum_probe, sums_for
from .summary import summarise

__all__ = ["PLANTED", "QUESTION", "TITLE", "Options", "figures", "plan", "readings", "summarise"]

TITLE = "Addition"
QUESTION = (
    "When does the model learn to add two-digit numbers, which digit first, and do a plain sum, a sum in words and a "
    "citation (founding year plus volume gives a year) use the same components?"
)
PLANTED = {"addition": "accuracy"}
"""Worlds of the organism, and the finding by which each shows; for `dynamics validate`."""


class Options(AnalysisOptions):
    """Options of this analysis."""

    per_context: int = Field(120, ge=20, description="Sums in each of the three contexts.")
    seed: int = Field(0, ge=0, description="Chooses the sums.")
    permutations: int = Field(20, ge=19, description="Shuffled labels behind the shared-neurons null.")
    top: float = Field(0.02, gt=0, lt=0.5, description="Share of all neurons that counts as most selective.")
    pairs_per_context: int = Field(32, ge=8, description="Sums with twins in each context, for its circuit.")
    exchanged: int = Field(
        12, ge=4, description="Sums that are asked in every context, to exchange parts between them."
    )


def plan(context: Context, options: Options) -> Sequence[Request]:
    """Sums with answers, activations where the answer is predicted, neurons' selectivity; numbers with activations."""
    sums = sums_for(context.tokenizer)
    selectivity = Selectivity(
        "ones", "context", ("digit", sums.digits[-1]), permutations=options.permutations, top=options.top
    )
    requests = [
        Request(
            sum_probe(sums, options.per_context, options.seed),
            (Answers(candidates=True), Activations("resid_post"), selectivity),
        ),
        Request(number_probe(), (Activations("resid_post", ("number",)),)),
    ]
    return [*requests, *_causal(context, sums, options)]


def _causal(context: Context, sums: SumPrompts, options: Options) -> list[Request]:
    """Circuits per context, and exchanges between contexts; nothing where that cannot be asked."""
    if not context.wired:
        return []
    pairs = pair_probes(sums, options.pairs_per_context, options.seed)
    exchange = exchange_probe(sums, options.exchanged, options.seed)
    try:
        for probe in (*pairs, exchange):
            tokenize(probe, context.tokenizer)
    except UserError:  # the summary says that it is left out
        return []
    circuits = (EdgeGroups(), Circuit(points=8), SourceEffects())
    return [*(Request(probe, circuits) for probe in pairs), Request(exchange, (Interchange(DONORS),))]


def readings(context: Context, options: Options) -> Sequence[Reading]:
    """Operands in all combinations, for the run's dictionaries."""
    sums = sums_for(context.tokenizer)
    return [Reading(ones_probe(sums, seed=options.seed)), Reading(grid_probe(sums))]
