"""When do languages come to share concepts, and can a model answer in one language what it only met in others?

Definitions
-----------
- *Accuracy*: the opposite word is the model's first choice. For the organism, *held-out transfer* is accuracy on
  concepts whose antonym never occurs within that language, so that only a concept shared with other languages
  answers. Null: answers of other prompts of the same language.
- *Retrieval@1*: share of words whose nearest vector in another language is their translation (chance 1/n), vectors
  centred per language, by layer. Null: the same neighbours held against shuffled translations, best layer.
- *Concept cosine*: centred cosine of translations minus that of mismatched concepts. Null: shuffled translations.

- *Concept exchanged*: the causal test, see :mod:`analyses.shared_concepts.causal`; left out where too few prompts fit the
  tokenizer, or the architecture's wiring is not known.
- *Features*: where dictionaries were learned, what translations share of them, and features for one concept in all
  languages, see :mod:`analyses.shared_concepts.features`.

Source: after Lindsey et al. 2025 ("On the Biology of a Large Language Model", multilingual circuits) and Dumas et al.
2024 ("Separating Tongue from Thought").
"""

from __future__ import annotations

from collections.abc import Sequence

from checkpoints.errors import UserError
from dynamics.analysis import LAST, Activations, AnalysisOptions, Answers, Context, Reading, Request
from dynamics.measurements import Interchange
from dynamics.probes import tokenize

from .causal import DONORS, POSITIONS, exchange_probe
from .figures import figures
from .prompts import antonym_probe, antonym_prompts, word_probe
from .summary import summarise

__all__ = ["PLANTED", "QUESTION", "TITLE", "figures", "plan", "readings", "summarise"]

TITLE = "Shared concepts"
QUESTION = (
    "When do languages come to share concepts, in which layers, and can the model answer in one language what it only met "
    "in the others?"
)
PLANTED = {"french": "transfer.french", "german": "transfer.german"}
"""Worlds of the organism, and the finding by which each shows; for `dynamics validate`."""


def plan(context: Context, options: AnalysisOptions) -> Sequence[Request]:
    """Antonyms with answers; words with activations at the word and where the answer is predicted; questions with donors."""
    requests = [
        Request(antonym_probe(context.tokenizer), (Answers(candidates=True),)),
        Request(word_probe(antonym_prompts(context.tokenizer)), (Activations("resid_post", ("word", LAST)),)),
    ]
    exchange = exchange_probe(context.tokenizer) if context.wired else None
    if exchange is None:
        return requests
    try:
        tokenize(exchange, context.tokenizer)
    except UserError:  # the summary says that it is left out
        return requests
    return [*requests, Request(exchange, (Interchange(DONORS, POSITIONS),))]


def readings(context: Context, options: AnalysisOptions) -> Sequence[Reading]:
    """The same concepts in three languages, for the run's dictionaries."""
    return [Reading(word_probe(antonym_prompts(context.tokenizer)), ("word", LAST))]
