"""Which head does what, and since when? A taxonomy of attention heads through training.

Where a head looks, on documents and on random words (see ``dynamics.measurements.heads`` for the formulas):

- *previous token*, *current token*, *first token* (attention sink), *delimiter*: mean attention on documents. Null: the
  heads of the first measured checkpoint on the same prompts, any of them.
- *duplicate token*, *induction*: mean attention to the previous occurrence of the current token, and to the token after
  it, on random words written twice (Olsson et al. 2022). Null: the same offsets on words that do not repeat.

What a head does with a token that it attends to (see ``dynamics.measurements.head_weights``):

- *copying*, *negative copying*: share of words whose own logit is among the five largest (smallest) (Wang et al. 2023).
  Null: the same for the other words of the sample.
- *successor*: share of members of ordered lists (digits, days, ...) for which the logit of the next member is the
  largest of its list (Gould et al. 2023). Null: successors shuffled within their list.

*Found* is a head that has risen for good above its null, at a false discovery rate of 5% over all heads of a kind; that
can be a small rise. A head is *of a kind* if it is found and its score is at least a stated level (``least_attention``,
``least_tokens``). Of several kinds of attention it is an induction or duplicate-token head first, because those rest
elsewhere when what they look for is absent, then of the one with the largest score; likewise of several kinds of what it
does with tokens. Weights alone say, besides, how positive the eigenvalues of what a head copies are, and which
pairs of heads *compose* (Elhage et al. 2021). Null of the strongest pair: unrelated directions with the same singular
values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from dynamics.analysis.base import Context, Request
from dynamics.measurements import HeadAttention, HeadCopying, HeadSuccession, HeadWeights, RepeatAttention
from dynamics.probes.sources import plain_words

from .figures import figures as _figures
from .prompts import delimiter_ids, document_probe, list_probe, repeat_probes, word_probe
from .summary import summarise as _summarise

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dynamics.analysis.findings import Summary
    from dynamics.store import Trace

__all__ = ["TITLE", "Options", "figures", "plan", "summarise"]

TITLE = "Heads"


class Options(BaseModel):
    """Options of this analysis."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    documents: int = Field(64, ge=8, description="Documents of the organism; of other models at most 24 passages.")
    repeats: int = Field(32, ge=8, description="Random sequences, and as many controls.")
    period: int | None = Field(None, ge=4, description="Words in one copy; 10 for the organism, 25 otherwise if None.")
    words: int = Field(40, ge=8, description="Words to copy, besides digits.")
    least_attention: float = Field(0.3, gt=0, le=1, description="Mean attention from which a head is of a kind.")
    least_tokens: float = Field(0.5, gt=0, le=1, description="Share of tokens from which a head is of a kind.")
    seed: int = Field(0, ge=0, description="Chooses documents and words.")


def plan(context: Context, options: Options) -> Sequence[Request]:
    """Five probes; lists are left out where the tokenizer has none."""
    tokenizer, words = context.tokenizer, plain_words(context.tokenizer)
    documents = document_probe(tokenizer, options.documents, options.seed)
    repeats, control = repeat_probes(words, options.repeats, options.period or words.period, options.seed)
    requests = [
        Request(documents, (HeadAttention(delimiter_ids(tokenizer, documents)),)),
        Request(repeats, (RepeatAttention(),)),
        Request(control, (RepeatAttention(),)),
        Request(word_probe(tokenizer, words, options.words, options.seed), (HeadCopying(), HeadWeights())),
    ]
    lists = list_probe(tokenizer)
    return requests if lists is None else [*requests, Request(lists, (HeadSuccession(),))]


def summarise(trace: Trace, options: Options) -> Summary:
    """Curves and findings from the trace alone."""
    return _summarise(trace, options.least_attention, options.least_tokens)


def figures(summary: Summary) -> Mapping[str, Figure]:
    """Every head through training, how many there are of each kind, the final map, and the curves."""
    return _figures(summary)
