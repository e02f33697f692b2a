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

from collections.abc import Sequence

from dynamics.analysis import Context, Request
from dynamics.measurements import HeadAttention, HeadCopying, HeadSuccession, HeadWeights, RepeatAttention
from dynamics.probes.sources import plain_words

from .figures import figures
from .prompts import delimiter_ids, document_probe, list_probe, repeat_probes, word_probe
from .summary import Options, summarise

__all__ = ["QUESTION", "TITLE", "Options", "figures", "plan", "summarise"]

TITLE = "Heads"
QUESTION = "Which attention head looks where and does what with the tokens that it finds, and since when?"


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
