"""Hand-made models with words: questions about them, and runs of their checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from checkpoints.tokenizing import word_tokenizer
from dynamics.circuits.wired import Wired
from dynamics.explaining.prompts import Question, ask
from dynamics.models.architecture import ModelShape
from dynamics.runs.config import Run
from tests.circuits.handmade import LENGTH, WORDS, Described, Toy, described, induction_toy

WORD_LIST = tuple("abcdefgh")
PROMPT = "a b c d e f c"  # the third word again: what came after it is the answer, d
TWIN = "a b h d e f c"
SHAPE = ModelShape(2, 2, 36, 20, 8, WORDS, LENGTH)


def wired_toy(toy: Toy | None = None) -> Wired:
    toy = toy or induction_toy()
    return Wired(toy, described(toy))


def asked(**given: Any) -> Question:
    return ask(word_tokenizer(WORD_LIST), SHAPE, given.pop("prompt", PROMPT), **given)


class Named(Described):
    """The adapter of the hand-made models, with words."""

    def __init__(self) -> None:
        super().__init__(2)

    def tokenizer(self) -> Any:  # type: ignore[override]
        return word_tokenizer(WORD_LIST)


class Unwired(Named):
    """The same, of which nobody said how it is wired."""

    def __init__(self) -> None:
        super().__init__()
        self.sites = replace(self.sites, wiring=None)


class Blind(Named):
    """The same, of which nobody said where it looks."""

    def __init__(self) -> None:
        super().__init__()
        within = {site: where for site, where in self.sites.in_block.items() if site != "pattern"}
        self.sites = replace(self.sites, in_block=within)


ADAPTER, UNWIRED, BLIND = Named(), Unwired(), Blind()


def toy_run(folder: Path, models: Mapping[int, Toy], adapter: str = "ADAPTER") -> Run:
    """A run of hand-made checkpoints."""
    series = folder / "series"
    series.mkdir(exist_ok=True)
    for step, toy in models.items():
        torch.save(toy.state_dict(), series / f"step{step}.pth")
    return Run.model_validate(
        {
            "series": {"kind": "folder", "path": str(series)},
            "adapter": f"tests.explaining.toys:{adapter}",
            "analyses": ["induction"],
            "device": "cpu",
        }
    )
