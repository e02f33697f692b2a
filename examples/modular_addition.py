"""A model of your own: a one-layer transformer in plain torch that learns addition modulo 31, traced like a Pythia.

    python examples/modular_addition.py FOLDER

Trains it (about 20 seconds), saving plain state dicts ``step0.pth``, ``step1.pth``, ..., then collects the series and
reports when it knew the sums that it was shown, when those that it was not, and which frequencies its numbers use (Power et al. 2022, "Grokking"; the
architecture follows Nanda et al. 2023, "Progress measures for grokking via mechanistic interpretability").

Two things are needed for any module: an adapter (how to build it from a state dict, where its sites are, its tokens)
and an analysis. Both are in this file; ``runs.yaml`` would say::

    grokking:
      series: {kind: folder, path: FOLDER}
      adapter: examples.modular_addition:ADAPTER
      analyses: [examples.modular_addition]
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import dynamics
from checkpoints import FolderConfig
from checkpoints.tokenizing import word_tokenizer
from dynamics.analysis import (
    Activations,
    AnalysisOptions,
    Answers,
    Context,
    CurveSpec,
    Definition,
    Figure,
    Null,
    Probe,
    Request,
    Section,
    Summary,
    Trace,
    curve_grid,
    from_units,
    shuffled_answers,
)
from dynamics.analysis.frequencies import frequency_section
from dynamics.models.architecture import ModelShape
from dynamics.models.sites import SiteTable, Where
from dynamics.numerics.frequencies import residue_periods
from dynamics.runs.config import AnalysisEntry, Run
from dynamics.runs.schedule import log_steps

__all__ = ["ADAPTER", "QUESTION", "TITLE", "Transformer", "figures", "plan", "summarise", "train"]

P = 31
"""The modulus; tokens 0 to 30 are numbers, token 31 is the equals sign."""


class Attention(nn.Module):
    """Causal attention without biases; returns (output, pattern)."""

    def __init__(self, d_model: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device).triu(1)
        pattern = scores.masked_fill(future, float("-inf")).softmax(-1)
        return self.out((pattern @ v).transpose(1, 2).flatten(-2)), pattern


class Block(nn.Module):
    """Attention, then an MLP, each added to the stream; no norms."""

    def __init__(self, d_model: int, heads: int, d_mlp: int) -> None:
        super().__init__()
        self.attention = Attention(d_model, heads)
        self.up = nn.Linear(d_model, d_mlp)
        self.down = nn.Linear(d_mlp, d_model)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(x)[0]
        return x + self.down(torch.relu(self.up(x)))


class Transformer(nn.Module):
    """(row, token) ids to (row, token, vocab) logits."""

    def __init__(self, d_model: int = 64, heads: int = 4, d_mlp: int = 256) -> None:
        super().__init__()
        self.embed = nn.Embedding(P + 1, d_model)
        self.position = nn.Parameter(torch.randn(3, d_model) * 0.1)
        self.blocks = nn.ModuleList([Block(d_model, heads, d_mlp)])
        self.unembed = nn.Linear(d_model, P + 1, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids) + self.position[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        logits: torch.Tensor = self.unembed(x)
        return logits


class _Adapter:
    """Everything that the tracer must know of :class:`Transformer`."""

    sites = SiteTable(
        block="blocks.{}",
        in_block={
            "resid_pre": Where("", "input"),
            "resid_mid": Where("up", "input"),
            "resid_post": Where(""),
            "attn_out": Where("attention"),
            "pattern": Where("attention", index=1),
            "z": Where("attention.out", "input"),
            "mlp_post": Where("down", "input"),
            "mlp_out": Where("down"),
        },
        outside={"embed": Where("embed")},
    )

    def shape(self, tensors: Mapping[str, torch.Tensor]) -> ModelShape:
        """Sizes, read off the state dict."""
        d_mlp, d_model = tensors["blocks.0.up.weight"].shape
        layers = len({name.split(".")[1] for name in tensors if name.startswith("blocks.")})
        return ModelShape(layers, 4, d_model, d_model // 4, d_mlp, vocab=P + 1, context=3)

    def build(self, tensors: Mapping[str, torch.Tensor]) -> nn.Module:
        """The module; its weights are loaded, strictly, by the tracer."""
        d_mlp, d_model = tensors["blocks.0.up.weight"].shape
        return Transformer(d_model, 4, d_mlp)

    def tokenizer(self) -> Any:
        """Numbers and the equals sign, between spaces."""
        return word_tokenizer([*map(str, range(P)), "="])


ADAPTER = _Adapter()


def shown() -> np.ndarray:
    """(a, b) whether a sum is among those that the model is trained on: four in five, a + b together with b + a."""
    drawn = np.random.default_rng(0).random((P, P))
    symmetric: np.ndarray = np.triu(drawn) + np.triu(drawn, 1).T < 0.8
    return symmetric


def train(folder: Path, steps: int = 2500, checkpoints: int = 40) -> None:
    """Full-batch AdamW with strong weight decay, as in the literature; saves ``stepN.pth``."""
    torch.manual_seed(0)
    model = Transformer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=2.0, betas=(0.9, 0.98))
    a, b = np.nonzero(shown())
    ids = torch.from_numpy(np.stack([a, b, np.full_like(a, P)], axis=1))
    sums = torch.from_numpy((a + b) % P)
    folder.mkdir(parents=True)
    saved = set(log_steps(steps, checkpoints))
    for step in range(steps + 1):
        if step in saved:
            torch.save(model.state_dict(), folder / f"step{step}.pth")
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(ids)[:, -1], sums).backward()
        optimizer.step()


TITLE = "Addition modulo 31"
QUESTION = "When are sums known that were never shown?"


def plan(context: Context, options: AnalysisOptions) -> Sequence[Request]:
    """Every sum; answers, and what the equals sign reads and writes."""
    pairs = [(a, b) for a in range(P) for b in range(P)]
    known = shown()
    probe = Probe(
        "modular_addition",
        text=tuple(f"{a} {b} =" for a, b in pairs),
        answer=tuple(f" {(a + b) % P}" for a, b in pairs),
        labels={
            "a": tuple(a for a, _ in pairs),
            "b": tuple(b for _, b in pairs),
            "shown": tuple(bool(known[pair]) for pair in pairs),
        },
        description=f"every sum modulo {P}",
    )
    alone = tuple(map(str, range(P)))
    numbers = Probe("modular_numbers", text=alone, labels={"number": tuple(range(P))}, description="every number alone")
    return [
        Request(probe, (Answers(candidates=True), Activations("resid_post"))),
        Request(numbers, (Activations("embed"),)),
    ]


def summarise(trace: Trace, options: AnalysisOptions) -> Section:
    """Log-probability of the right answer, on sums that were shown and on the others, against other sums' answers; and
    which frequencies the embedding of numbers uses."""
    logprob = trace.values("modular_addition", "answer_logprob")
    known = trace.label("modular_addition", "shown").astype(bool)
    spec = CurveSpec("log p(answer) (nat)", "sums", "mean log-probability of (a + b) mod 31", headline=True)
    meaning = Definition("log p(answer)", "natural logarithm of the probability of the right number")
    section = Section(notes=[f"{known.sum()} sums were shown, {(~known).sum()} were not"], definitions=(meaning,))
    for key, title, chosen in (("shown", "sums that were shown", known), ("held_out", "sums never shown", ~known)):
        rows = np.flatnonzero(chosen)
        shuffled = shuffled_answers(trace, "modular_addition", rows, np.zeros(len(known), dtype=int))
        null = Null(shuffled, "answers of other sums")
        section.findings.append(from_units(key, title, logprob[:, rows], null, spec))
    return section + frequency_section(trace, "modular_numbers", "number", periods=residue_periods(P), site="embed")


def figures(summary: Summary) -> Mapping[str, Figure]:
    """Both curves in one panel, and the share of power of every key frequency in another."""
    found = [(f.title, f) for f in summary.findings]
    panels = [(TITLE, [one for one in found if "period" not in one[0]])]
    if len(panels[0][1]) < len(found):
        panels.append(("Key frequencies of the embedding", [one for one in found if "period" in one[0]]))
    return {"sums": curve_grid(panels, columns=1)}


def run(folder: Path) -> Run:
    """What ``runs.yaml`` would say."""
    return Run(
        series=FolderConfig(path=folder),
        adapter="examples.modular_addition:ADAPTER",
        analyses=(AnalysisEntry(name="examples.modular_addition"),),
    )


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    where = Path(sys.argv[1] if len(sys.argv) > 1 else "modular-addition")
    if not where.exists():
        train(where)
    dynamics.collect("grokking", run=run(where))
    written = dynamics.report("grokking", run=run(where))
    for row in written.content["emergence"]:
        print(f"{row['title']}: {row['state']} {row['onset'] or ''}")
    print(written.folder / "index.html")
