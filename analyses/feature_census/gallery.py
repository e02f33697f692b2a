"""The top features of every label with the tokens on which they fire most, and what they do to the logits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dynamics.analysis.features import FeatureReader

from .labels import Enriched

__all__ = ["ShownFeature", "chosen", "gallery", "in_words", "nats", "plain", "spaced"]

BEFORE = 12
"""Tokens before the one on which a feature fires, in ``example_token``."""
EXAMPLES, LOGITS = 3, 4
LEAST = 0.1
"""Share of the variance from which a feature is worth showing for a label."""
_SPACES = {"Ġ": " ", "▁": " ", "Ċ": "↵", "ĉ": " "}


@dataclass(frozen=True)
class ShownFeature:
    """One feature of the gallery.

    Attributes:
        feature: its number.
        title: what it stands out for, and since when.
        tokens: (example)(token) text of the tokens around the one on which it fires.
        level: (example)(token) activation as a share of the feature's largest.
        at: (example) position of the token on which it fires among them.
        likelier, rarer: tokens that it makes more and less likely by itself.
        worth: its effect at the last checkpoint; empty where that is not known.
    """

    feature: int
    title: str
    tokens: list[list[str]]
    level: list[list[float]]
    at: list[int]
    likelier: list[str]
    rarer: list[str]
    worth: str


def chosen(labels: list[Enriched], count: int) -> list[tuple[int, str]]:
    """(feature, what for): of every label in turn the feature with the next largest share; of equals the first label."""
    orders = [
        (e, [int(j) for j in np.argsort(-np.nan_to_num(e.share)) if e.found[j] and e.share[j] >= LEAST]) for e in labels
    ]
    taken: dict[int, str] = {}
    for rank in range(count):
        for e, order in orders:
            if rank < len(order) and len(taken) < count and order[rank] not in taken:
                j = order[rank]
                what = f"{e.value[j]} {e.label}" if e.number else f"{e.label} = {e.value[j]}"
                taken[j] = f"{what} in {e.probe} ({e.position}, {e.share[j]:.0%} of the variance)"
    return list(taken.items())


def gallery(reader: FeatureReader, features: list[tuple[int, str]]) -> list[ShownFeature]:
    """Examples of features, the strongest first."""
    about = reader.table.about
    if "example_token" not in about:
        return []
    text = dict(zip(about["known_token"].values.tolist(), map(str, about["token_text"].values), strict=True))
    effects = reader.effect()
    result = []
    for feature, what in features:
        ids = about["example_token"].values[feature]
        active = np.nan_to_num(about["example_activation"].values[feature].astype(np.float64))
        peak = max(float(active.max()), 1e-9)
        examples = [e for e in range(len(ids)) if ids[e, BEFORE] >= 0 and active[e, BEFORE] > 0][:EXAMPLES]
        inside = [np.flatnonzero(ids[e] >= 0) for e in examples]
        likelier: list[str] = []
        rarer: list[str] = []
        if "logit_token" in about:
            effect = [plain(text[int(t)]).strip() or "space" for t in about["logit_token"].values[feature]]
            half = len(effect) // 2
            likelier, rarer = effect[:half][:LOGITS], effect[half:][::-1][:LOGITS]
        since = f", {reader.since(feature)}" if reader.joint or not reader.kept else ""
        worth = f"effect {nats(float(effects[0][feature]), float(effects[1][feature]))}" if effects else ""
        result.append(
            ShownFeature(
                feature,
                f"{what}{since}",
                [[plain(text[int(ids[e, t])]) for t in some] for e, some in zip(examples, inside, strict=True)],
                [[float(active[e, t] / peak) for t in some] for e, some in zip(examples, inside, strict=True)],
                [int((some < BEFORE).sum()) for some in inside],
                likelier,
                rarer,
                worth,
            )
        )
    return result


def nats(effect: float, error: float) -> str:
    """An effect with its 95% interval.

    >>> nats(0.1234, 0.01), nats(2e-4, float("nan")), nats(1e-5, 1e-5)
    ('0.123 ± 0.020 nats', '0.0002 nats', '0.0000 ± 0.0000 nats')
    """
    digits = 3 if abs(effect) >= 0.0095 else 4
    return f"{effect:.{digits}f}" + (f" ± {1.96 * error:.{digits}f} nats" if np.isfinite(error) else " nats")


def plain(token: str) -> str:
    """A token as text: the tokenizer's marks of spaces and line ends replaced, and nothing that cannot be drawn.

    >>> plain("Ġcat"), plain("dog"), plain("a\\x00")
    (' cat', 'dog', 'a□')
    """
    for mark, space in _SPACES.items():
        token = token.replace(mark, space)
    return "".join(c if c in "↵□" or (" " <= c < "\u0250" and c.isprintable()) else "□" for c in token)


def spaced(tokens: list[str]) -> list[str]:
    """Tokens with what is between them: nothing where tokens hold their spaces, else a space."""
    return tokens if any(t.startswith(" ") for t in tokens) else [f"{t} " for t in tokens]


def in_words(shown: ShownFeature) -> str:
    """One feature as a line of text; the token on which it fires is marked."""
    text = f"Feature {shown.feature}: {shown.title}."
    if shown.tokens:
        pieces = []
        for tokens, at in zip(shown.tokens[:2], shown.at[:2], strict=True):
            parts = spaced(tokens)
            marked = [
                f"«{p.strip()}»" + (" " if p.endswith(" ") else "") if i == at else p for i, p in enumerate(parts)
            ]
            pieces.append("".join(marked[max(0, at - 8) : at + 3]).strip())
        text += " Fires on: " + " | ".join(pieces) + "."
    if shown.worth:
        text += f" {shown.worth.capitalize()}."
    if shown.likelier:
        text += f" Makes {', '.join(shown.likelier)} likelier, {', '.join(shown.rarer)} less likely."
    return text
