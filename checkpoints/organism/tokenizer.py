"""The organism's tokenizer: one token per word and per digit, saved as an ordinary Hugging Face tokenizer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from .worlds import all_worlds, vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["SEPARATOR", "build_tokenizer", "require_world", "speaks", "token_ids"]

SEPARATOR = "<|endoftext|>"
"""Begins every document, in training and in probes."""

_SPECIAL = (SEPARATOR, "<|unknown|>", "<|padding|>")


def token_ids(worlds: Iterable[str] = ()) -> dict[str, int]:
    """Token to id: the special tokens first, then the :func:`vocabulary` of an organism that names these worlds."""
    return {token: i for i, token in enumerate((*_SPECIAL, *vocabulary(worlds)))}


def build_tokenizer(worlds: Iterable[str] = ()) -> PreTrainedTokenizerFast:
    """A word-level tokenizer that splits digits and punctuation apart and begins every text with the separator.

    Needs torch-free parts of ``transformers`` only.

    Args:
        worlds: the worlds that the organism's curriculum names, shown or not (see :func:`vocabulary`).
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = token_ids(worlds)
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
    """Whether this tokenizer is an organism's: it knows every word that all organisms know, under the same ids."""
    known: dict[str, int] = tokenizer.get_vocab()
    return all(known.get(token) == i for token, i in token_ids().items())


def require_world(tokenizer: Any, world: str) -> None:
    """Refuse an organism that does not know the words of a world.

    Raises:
        UserError: when a word of ``world`` is missing from the tokenizer.
    """
    known: dict[str, int] = tokenizer.get_vocab()
    missing = [word for word in all_worlds()[world].words if word not in known]
    if missing:
        raise UserError(
            f"this organism does not know the words of world {world!r} ({', '.join(missing[:3])}, ...)",
            expected=f"an organism whose curriculum names {world!r}",
            remedy=f"add `{world}` to the run's curriculum (with `share: 0` its words are known and never shown)",
        )
