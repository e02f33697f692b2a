"""Words for prompts in English, and which of them a tokenizer knows as one token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from checkpoints.errors import UserError

from .encoding import single_tokens

__all__ = ["FIRST_NAMES", "one_token_words"]

_WOMEN = """
Mary Sarah Jessica Ashley Jennifer Amanda Stephanie Nicole Heather Elizabeth Megan Melissa Christina Rachel
Laura Lauren Amber Brittany Danielle Kimberly Amy Crystal Michelle Tiffany Emily Rebecca Erin Samantha Sara
Angela Katherine Andrea Erica Lisa Kristen Katie Vanessa Christine Alicia Allison Anna Maria Jane Alice Susan
Helen Ruth Emma Kate Julia Nancy Linda Karen Barbara Margaret Rose Grace Diana Claire Julie Anne Lucy
"""
_MEN = """
John Michael Christopher Matthew Joshua Daniel David James Robert Joseph Andrew Ryan Brandon Jason Justin
William Jonathan Brian Nicholas Anthony Eric Adam Kevin Steven Thomas Timothy Kyle Richard Jeffrey Jeremy
Benjamin Aaron Charles Jacob Stephen Patrick Sean Nathan Dustin Paul Tyler Scott Gregory Travis Kenneth Bryan
Jose Alexander Bradley Samuel Peter George Henry Simon Tom Jack Frank Edward Martin Arthur Philip Louis
"""

FIRST_NAMES: dict[str, tuple[str, ...]] = {"female": tuple(_WOMEN.split()), "male": tuple(_MEN.split())}
"""English first names by the pronoun that usually goes with them; mostly those of Wang et al. 2023, without the names
that both women and men have."""


def one_token_words(tokenizer: Any, words: Sequence[str], *, least: int, what: str) -> list[str]:
    """The words that are one token when a space stands before them, in their order.

    Args:
        tokenizer: of the model.
        words: to choose from, without the space.
        least: how many are needed.
        what: the words in words, for the error.

    Raises:
        UserError: when fewer than ``least`` are one token.
    """
    found = single_tokens(tokenizer, [f" {word}" for word in words])
    fit = [word for word, token in zip(words, found, strict=True) if token is not None]
    if len(fit) < least:
        raise UserError(
            f"{len(fit)} of {len(words)} {what} are one token in this tokenizer",
            expected=f"at least {least}",
            remedy="leave this analysis out of the run, or bring prompts of your own (`probes`)",
        )
    return fit
