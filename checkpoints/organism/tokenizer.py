"""The organism's tokenizer: one token per word and per digit, saved as an ordinary Hugging Face tokenizer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .worlds import vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["SEPARATOR", "build_tokenizer", "speaks", "token_ids"]

SEPARATOR = "<|endoftext|>"
"""Begins every document, in training and in probes."""

_SPECIAL = (SEPARATOR, "<|unknown|>", "<|padding|>")


def token_ids() -> dict[str, int]:
    """Token to id: the special tokens first, then the worlds' words."""
    return {token: i for i, token in enumerate((*_SPECIAL, *vocabulary()))}


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer that splits digits and punctuation apart and begins every text with the separator.

    Needs torch-free parts of ``transformers`` only.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = token_ids()
    core = Tokenizer(models.WordLevel(ids, unk_token=_SPECIAL[1]))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.Punctuation()]
    )
    core.post_processor = processors.TemplateProcessing(
        single=f"{SEPARATOR} $A", pair=f"{SEPARATOR} $A $B", special_tokens=[(SEPARATOR, ids[SEPARATOR])]
    )
    core.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=SEPARATOR,
        eos_token=SEPARATOR,
        unk_token=_SPECIAL[1],
        pad_token=_SPECIAL[2],
        clean_up_tokenization_spaces=False,
    )


def speaks(tokenizer: Any) -> bool:
    """Whether this tokenizer is an organism's: it knows every word of the worlds, under the same ids."""
    known: dict[str, int] = tokenizer.get_vocab()
    return all(known.get(token) == i for token, i in token_ids().items())
