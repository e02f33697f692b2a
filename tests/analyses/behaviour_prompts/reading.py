"""Probes of behaviours, as the analyses make them, and how the tests read them back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from analyses.faithfulness.prompts import hints_probe
from analyses.hallucination.prompts import entities_probe
from analyses.sycophancy.prompts import praise_probe, views_probe
from checkpoints.organism import build_tokenizer
from dynamics.probes import Probe, TokenizedProbe, tokenize

Make = Callable[[Any, int, int], Probe | None]
PROBES: dict[str, Make] = {
    "praise": praise_probe,
    "views": views_probe,
    "hints": hints_probe,
    "entities": entities_probe,
}
WORLDS = {"praise": "praise", "views": "praise", "hints": "hints", "entities": "entities"}
COUNT = {"praise": 288, "views": 216, "hints": 480, "entities": 240}
"""Multiples of what is balanced."""

ORGANISM = build_tokenizer(["praise", "hints", "entities"])
seeds = st.integers(0, 1000)


def found(name: str, language: tuple[Any, bool], *, count: int | None = None, seed: int = 0) -> TokenizedProbe:
    """A probe, checked as the program checks it: single answers, twins of equal length, places that exist."""
    probe = PROBES[name](language[0], count or COUNT[name], seed)
    assert probe is not None
    return tokenize(probe, language[0])


def rows(probe: Probe) -> list[dict[str, Any]]:
    """Every prompt with its labels, as one mapping."""
    assert probe.answer and probe.foil
    twins = probe.corrupted or (None,) * len(probe)
    columns = {"text": probe.text, "answer": probe.answer, "foil": probe.foil, "twin": twins, **probe.labels}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def by_item(probe: Probe) -> list[list[dict[str, Any]]]:
    """The prompts of every item."""
    items: dict[int, list[dict[str, Any]]] = {}
    for row in rows(probe):
        items.setdefault(row["item"], []).append(row)
    return list(items.values())


def balanced(probe: Probe, *labels: str) -> bool:
    """Whether all combinations of values of these labels occur equally often."""
    values = [probe.labels[label] for label in labels]
    counts = Counter(zip(*values, strict=True))
    combinations = 1
    for column in values:
        combinations *= len(set(column))
    return len(counts) == combinations and len(set(counts.values())) == 1
