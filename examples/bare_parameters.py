"""Networks like the published ones that add modulo p: bare parameters, p answers to p + 1 tokens, one adapter for every p.

    python examples/bare_parameters.py FOLDER

Trains two of them, p = 13 and p = 17, saving state dicts, then collects both and says when each key frequency of their numbers
got its power (Nanda et al. 2023, "Progress measures for grokking via mechanistic interpretability"). ``runs.yaml`` would say::

    mod-13:
      series: {kind: folder, path: FOLDER/mod-13}
      adapter: examples.bare_parameters:ADAPTER
      analyses: [examples.bare_parameters]
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
from dynamics import analysis as da
from dynamics.analysis.frequencies import frequency_section
from dynamics.models.architecture import ModelShape
from dynamics.models.sites import SiteTable, Where
from dynamics.numerics.frequencies import residue_periods
from dynamics.runs.config import AnalysisEntry, Run
from dynamics.runs.schedule import log_steps

__all__ = ["ADAPTER", "TITLE", "Network", "plan", "run", "summarise", "train"]

HEADS = 4
"""It cannot be read off ``W_Q`` (d_model, d_model): a network of other heads needs ``Family(heads)``."""


class Network(nn.Module):
    """(row, token) ids to (row, token, p) logits: attention and an MLP without norms; no module inside, functions of parameters."""

    def __init__(self, p: int, d_model: int, d_mlp: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        sizes = {"W_E": (p + 1, d_model), "W_pos": (3, d_model), "W_U": (d_model, p), "W_in": (d_model, d_mlp)}
        sizes |= {"W_out": (d_mlp, d_model), **dict.fromkeys(("W_Q", "W_K", "W_V", "W_O"), (d_model, d_model))}
        for name, size in sizes.items():
            setattr(self, name, nn.Parameter(torch.randn(size) / d_model**0.5))
        self.b_in = nn.Parameter(torch.zeros(d_mlp))

    def attention(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = ((x @ w).unflatten(-1, (self.heads, -1)).transpose(1, 2) for w in (self.W_Q, self.W_K, self.W_V))
        return (
            nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(-2) @ self.W_O
        )

    def neurons(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x @ self.W_in + self.b_in)

    def stream(self, ids: torch.Tensor, mlp: bool = True) -> torch.Tensor:
        x = self.W_E[ids] + self.W_pos[: ids.shape[1]]
        x = x + self.attention(x)
        return x + self.neurons(x) @ self.W_out if mlp else x

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.stream(ids) @ self.W_U


class Family:
    """Everything that the tracer must know of every :class:`Network`: what differs between them is read off their weights."""

    sites = SiteTable(
        block="",  # the one block is the whole model
        in_block={
            "resid_mid": Where("", function=lambda model, args, logits: model.stream(args[0], mlp=False)),
            "resid_post": Where("", function=lambda model, args, logits: model.stream(args[0])),
            "mlp_post": Where("", function=lambda model, args, logits: model.neurons(model.stream(args[0], mlp=False))),
        },
        outside={"embed": Where("", function=lambda model, args, logits: model.W_E[args[0]])},
    )

    def __init__(self, heads: int = HEADS) -> None:
        self.heads = heads

    def shape(self, tensors: Mapping[str, torch.Tensor]) -> ModelShape:
        (tokens, d_model), d_mlp = tensors["W_E"].shape, len(tensors["b_in"])
        return ModelShape(1, self.heads, d_model, d_model // self.heads, d_mlp, vocab=tokens, context=3)

    def build(self, tensors: Mapping[str, torch.Tensor]) -> nn.Module:
        return Network(tensors["W_U"].shape[1], len(tensors["W_U"]), len(tensors["b_in"]), self.heads)

    def logits(self, model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
        """Of p + 1 tokens: the last one, the equals sign, is never an answer."""
        return nn.functional.pad(model(ids), (0, 1), value=-1e4)

    def tokenizer(self, tensors: Mapping[str, torch.Tensor]) -> Any:
        """The numbers below p, and the equals sign."""
        return word_tokenizer([*map(str, range(tensors["W_U"].shape[1])), "="])


ADAPTER = Family()

TITLE = "Addition modulo p"


def plan(context: da.Context, options: da.AnalysisOptions) -> Sequence[da.Request]:
    """When are sums known, and which frequencies do the numbers get?"""
    p = context.tokenizer.convert_tokens_to_ids("=")
    pairs = [(a, b) for a in range(p) for b in range(p)]
    sums = da.Probe(
        "mod_sums",
        text=tuple(f"{a} {b} =" for a, b in pairs),
        answer=tuple(f" {(a + b) % p}" for a, b in pairs),
        description=f"every sum modulo {p}",
    )
    numbers = da.Probe("mod_numbers", text=tuple(map(str, range(p))), labels={"number": tuple(range(p))})
    return [
        da.Request(sums, (da.Answers(candidates=True),)),
        da.Request(numbers, (da.Activations("embed"),)),
    ]


def summarise(trace: da.Trace, options: da.AnalysisOptions) -> da.Section:
    logprob = trace.values("mod_sums", "answer_logprob")
    rows = np.arange(logprob.shape[1])
    null = da.Null(da.shuffled_answers(trace, "mod_sums", rows, np.zeros_like(rows)), "answers of other sums")
    spec = da.CurveSpec("log p(answer) (nat)", "sums", headline=True)
    known = da.Section([da.from_units("known", "sums", logprob, null, spec)])
    periods = residue_periods(len(trace.label("mod_numbers", "number")))
    return known + frequency_section(trace, "mod_numbers", "number", periods=periods, site="embed")


def train(folder: Path, p: int, steps: int = 1000, checkpoints: int = 20) -> None:
    """Full-batch AdamW with strong weight decay, as in the literature; saves ``stepN.pth``."""
    torch.manual_seed(0)
    model = Network(p, d_model=32, d_mlp=128, heads=HEADS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1.0, betas=(0.9, 0.98))
    a, b = np.divmod(np.arange(p * p), p)
    ids = torch.from_numpy(np.stack([a, b, np.full_like(a, p)], axis=1))
    sums = torch.from_numpy((a + b) % p)
    folder.mkdir(parents=True)
    saved = set(log_steps(steps, checkpoints))
    for step in range(steps + 1):
        if step in saved:
            torch.save(model.state_dict(), folder / f"step{step}.pth")
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(ids)[:, -1], sums).backward()
        optimizer.step()


def run(folder: Path) -> Run:
    """What ``runs.yaml`` would say."""
    return Run(
        series=FolderConfig(path=folder),
        adapter="examples.bare_parameters:ADAPTER",
        analyses=(AnalysisEntry(name="examples.bare_parameters"),),
    )


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    for p in (13, 17):
        where = Path(sys.argv[1] if len(sys.argv) > 1 else "bare-parameters") / f"mod-{p}"
        if not where.exists():
            train(where, p)
        dynamics.collect(where.name, run=run(where))
        for finding in dynamics.analyse(where.name, run=run(where)).headlines:
            print(f"mod {p}, {finding.title}: {finding.emergence.state} {finding.emergence.onset or ''}")
