"""Texts and numbers as a reader sees them: tokens whose blanks and control characters show, numbers with a true minus.

Tokens and prompts come from anywhere. Invisible characters, marks that turn the direction of writing and half
characters (lone surrogates) are replaced by a sign that shows, because they could hide or reverse what stands beside
them, and because XML and UTF-8 cannot hold some of them.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

__all__ = [
    "guessed_in_words",
    "number",
    "percent",
    "quoted",
    "short_step",
    "shorten",
    "text_width",
    "visible",
    "visible_prose",
]

_KEPT = "\u200c\u200d"
"""Joiners: they shape letters and emoji, and hide nothing."""

_SIGNS = {"\n": "↵", "\r": "␍", "\t": "⇥", "\u00a0": "⍽"}


def guessed_in_words(guessed: Sequence[str]) -> str:
    """Which of answer and foil were not given.

    >>> guessed_in_words(["foil"]), guessed_in_words(["answer", "foil"])
    ('foil guessed from the final checkpoint', 'both guessed from the final checkpoint')
    """
    return ("both" if len(guessed) > 1 else guessed[0]) + " guessed from the final checkpoint"


def visible(token: str) -> str:
    """A token in one line, with its outer blanks and its control characters shown.

    >>> visible(" Paris"), visible("\\n\\n"), visible("a b"), visible("\\u202eabc"), visible("")
    ('␣Paris', '↵↵', 'a b', '⟨U+202E⟩abc', '∅')
    """
    if not token:
        return "∅"
    inner = token.strip(" ")
    before = len(token) - len(token.lstrip(" "))
    shown = "␣" * before + inner + "␣" * (len(token) - before - len(inner))
    return "".join(_shown(c) for c in shown)


def visible_prose(text: str) -> str:
    """A prompt over as many lines as it has; control characters are shown, blanks stay.

    >>> visible_prose("two\\n lines\\x00")
    'two\\n lines⟨U+0000⟩'
    """
    return "".join(c if c in "\n\t" else _shown(c) for c in text)


def _shown(character: str) -> str:
    if character in _SIGNS:
        return _SIGNS[character]
    hidden = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    return f"⟨U+{ord(character):04X}⟩" if hidden and character not in _KEPT else character


def quoted(token: str) -> str:
    """A token within a sentence.

    >>> quoted(" Paris")
    '“␣Paris”'
    """
    return f"“{visible(token)}”"


def shorten(text: str, most: int) -> str:
    """``text`` with at most ``most`` characters.

    >>> shorten("internationalisation", 8)
    'interna…'
    """
    return text if len(text) <= most else text[: most - 1] + "…"


def text_width(text: str, size: float) -> float:
    """About how wide ``text`` is in a sans-serif of ``size``, in the same unit: rather too wide than too narrow.

    >>> text_width("ab", 10) < text_width("日本", 10)
    True
    """
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return size * (0.62 * (len(text) - wide) + 1.05 * wide)


def number(value: float | None, digits: int = 2, *, sign: bool = False) -> str:
    """A number with ``digits`` decimals (templates ask for three); a dash where there is none.

    >>> number(-0.314), number(2, sign=True), number(None), number(-0.001)
    ('−0.31', '+2.00', '–', '0.00')
    """
    if value is None:
        return "–"
    text = f"{abs(value):.{digits}f}"
    if not float(text):
        return text
    return ("−" if value < 0 else "+" if sign else "") + text


def percent(value: float | None) -> str:
    """A share in percent; small ones keep a digit that tells.

    >>> percent(0.834), percent(0.004), percent(0.00001), percent(None)
    ('83%', '0.4%', '<0.1%', '–')
    """
    if value is None:
        return "–"
    if 0 < abs(value) < 0.001:
        return "<0.1%"
    return f"{value * 100:.{1 if 0 < abs(value) < 0.01 else 0}f}%".replace("-", "−")


def short_step(step: int) -> str:
    """A step as an axis shows it: in three digits, if it is large.

    >>> short_step(512), short_step(143000), short_step(12512), short_step(1000000)
    ('512', '143k', '12.5k', '1M')
    """
    if step >= 1_000_000:
        return f"{step / 1_000_000:.3g}M"
    return f"{step / 1000:.3g}k" if step >= 10_000 else str(step)
