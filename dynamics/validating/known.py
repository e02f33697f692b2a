"""Models whose circuit is known, because its weights were set by hand: noise, distractors, and a circuit at any strength.

A small transformer in plain torch without norms. Its stream has room for words as they are, for another word about each (the one
before it, or its successor), for words to be said, and for positions. Two circuits can be planted, in heads and layers at random:

- *match and copy*: a head writes which word came before, a head of a later layer finds the word after the current one's earlier
  occurrence and says it (Olsson et al. 2022). Edges: embed to the first head's values, that head to the other's keys, that one to
  the logits. In the twin the earlier occurrence is of another word.
- *two steps*: an MLP writes the next word of the alphabet, an MLP of a later layer says the one after that. Edges: embed to the
  first MLP, that one to the other, that one to the logits. In the twin the last word is another one.

All other weights are noise, and there are two distractors: a head that copies words into a part of the stream that nothing reads,
and an MLP that says a word to every prompt alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch
from torch import nn

from ..circuits.graph import graph_of
from ..models.architecture import Architecture, ModelShape, adapted
from ..models.sites import SiteTable, Where
from ..models.wiring import Wiring
from ..probes import LAST, Probe, TokenizedProbe

__all__ = ["CircuitKind", "KnownModel", "known", "prompts"]

CircuitKind = Literal["match and copy", "two steps"]

LAYERS, HEADS, WORDS, LENGTH = 3, 3, 8, 8
D_HEAD = WORDS + LENGTH
ROOM = 4 * WORDS + LENGTH
NOW, ABOUT, SAY, UNREAD, AT = (slice(i * WORDS, (i + 1) * WORDS if i < 4 else ROOM) for i in range(5))
SHARP = 40.0
"""Scores of a head at a word that it looks for; others have none."""

NOISE = (0.02, 0.08)
"""Standard deviations of weights that do nothing: one for each model, between these."""


class _Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(ROOM, 3 * HEADS * D_HEAD, bias=False)
        self.out = nn.Linear(HEADS * D_HEAD, ROOM, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0)
        out: torch.Tensor = self.out(mixed.transpose(1, 2).flatten(-2))
        return out


class _Neurons(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(ROOM, WORDS)
        self.down = nn.Linear(WORDS, ROOM, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.down(torch.relu(self.up(x)))
        return out


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = _Heads()
        self.mlp = _Neurons()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(x)
        mlp: torch.Tensor = self.mlp(x)
        return x + mlp


class _Model(nn.Module):
    """(row, token) words to (row, token, word) logits."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([_Block() for _ in range(LAYERS)])
        self.final = nn.Identity()
        self.unembed = nn.Linear(ROOM, WORDS, bias=False)
        nn.init.zeros_(self.unembed.weight)
        self.unembed.weight.data[:, SAY] = torch.eye(WORDS)

    def block(self, layer: int) -> _Block:
        return cast(_Block, self.blocks[layer])

    def get_output_embeddings(self) -> nn.Module:
        return self.unembed

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = torch.zeros(*ids.shape, ROOM)
        x[..., NOW] = nn.functional.one_hot(ids, WORDS).float()
        x[..., AT] = torch.eye(LENGTH)[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        logits: torch.Tensor = self.unembed(self.final(x))
        return logits


class _Described:
    """The adapter of these models."""

    sites = SiteTable(
        "blocks.{}",
        {
            "resid_pre": Where("", "input"),
            "resid_post": Where(""),
            "mlp_out": Where("mlp"),
            "z": Where("attention.out", "input"),
        },
        {"ln_final": Where("final")},
        Wiring(("attention.qkv",), "by kind", "attention.out", None, "mlp"),
    )

    def shape(self, tensors: Mapping[str, torch.Tensor]) -> ModelShape:
        return ModelShape(LAYERS, HEADS, ROOM, D_HEAD, WORDS, WORDS, LENGTH)

    def build(self, tensors: Mapping[str, torch.Tensor]) -> nn.Module:
        return _Model()

    def tokenizer(self) -> None:
        return None


Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class KnownModel:
    """One model, and what can be planted in it.

    Attributes:
        kind: of the circuit.
        model: its weights are set by :meth:`at`.
        architecture: how it is measured.
        edges: (source, reader) the edges of the circuit.
        circuit, distractors: weights at full strength.
        noise: weights at the beginning and at the end of the training.
    """

    kind: CircuitKind
    model: nn.Module
    architecture: Architecture
    edges: np.ndarray
    circuit: Weights
    distractors: Weights
    noise: tuple[Weights, Weights]

    def at(self, progress: float, *, circuit: float, distractors: float) -> nn.Module:
        """The model at one checkpoint.

        Args:
            progress: of the training, from 0 to 1: the noise goes from one draw to another meanwhile.
            circuit, distractors: factors of their weights, from 0 to 1.
        """
        angle = progress * np.pi / 2  # noise of one size throughout
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                if name in self.circuit:
                    noise = np.cos(angle) * self.noise[0][name] + np.sin(angle) * self.noise[1][name]
                    parameter.copy_(noise + circuit * self.circuit[name] + distractors * self.distractors[name])
        return self.model


def known(kind: CircuitKind, seed: int) -> KnownModel:
    """A model with a circuit, and distractors, in heads and layers at random.

    >>> int(known("match and copy", 0).edges.sum()), int(known("two steps", 0).edges.sum())
    (3, 3)

    Args:
        kind: of the circuit.
        seed: of heads, layers and noise.
    """
    rng = np.random.default_rng(seed)
    first, last = sorted(int(layer) for layer in rng.permutation(LAYERS)[:2])
    quiet = next(layer for layer in range(LAYERS) if layer not in (first, last))
    chosen = (first, int(rng.integers(HEADS))), (last, int(rng.integers(HEADS)))
    idle = (quiet, int(rng.integers(HEADS)))
    distracting, working = _Model(), _Model()
    for model in (distracting, working):
        for name, parameter in model.named_parameters():
            if not name.startswith("unembed"):
                nn.init.zeros_(parameter)
    with torch.no_grad():
        _, _, v, out = _head(distracting, *idle)
        v[:WORDS, NOW], out[UNREAD, :WORDS] = torch.eye(WORDS), torch.eye(WORDS)
        mlp = distracting.block(quiet).mlp
        mlp.up.bias[0], mlp.down.weight[SAY.start + int(rng.integers(WORDS)), 0] = 1.0, 3.0
        between = _match_and_copy(working, *chosen) if kind == "match and copy" else _two_steps(working, first, last)
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    circuit, distractors = (_weights(model) for model in (working, distracting))
    size = float(rng.uniform(*NOISE))
    noise = [{n: size * torch.randn(w.shape, generator=generator) for n, w in circuit.items()} for _ in range(2)]
    architecture = adapted(_Described(), {})
    graph = graph_of(architecture.shape)
    sources, readers = [s.name for s in graph.sources], [r.name for r in graph.readers]
    edges = np.zeros(graph.edges.shape, dtype=bool)
    for source, reader in between:
        edges[sources.index(source), readers.index(reader)] = True
    return KnownModel(kind, working, architecture, edges, circuit, distractors, (noise[0], noise[1]))


def prompts(kind: CircuitKind, count: int, seed: int) -> TokenizedProbe:
    """Prompts with answers, foils and twins for a circuit of this kind."""
    rng = np.random.default_rng(seed)
    ids, twins = np.empty((count, LENGTH - 1), dtype=np.int64), np.empty((count, LENGTH - 1), dtype=np.int64)
    answers, foils = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
    for row in range(count):
        words = rng.permutation(WORDS)
        if kind == "match and copy":
            at = int(rng.integers(5))
            ids[row] = [*words[:6], words[at]]
            twins[row] = [*words[:at], words[7], *words[at + 1 : 6], words[at]]
            answers[row], foils[row] = words[at + 1], rng.choice(np.delete(words[:6], [at, at + 1]))
        else:
            ids[row] = words[: LENGTH - 1]
            twins[row] = [*ids[row, :-1], words[-1]]
            answers[row], foils[row] = (ids[row, -1] + 2) % WORDS, (twins[row, -1] + 2) % WORDS
    text = tuple(" ".join(map(str, row)) for row in ids)
    last = np.full(count, LENGTH - 2)
    return TokenizedProbe(Probe("known", text), tuple(ids), answers, foils, tuple(twins), {LAST: last}, {})


def _weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if not n.startswith("unembed")}


def _head(model: _Model, layer: int, index: int) -> tuple[torch.Tensor, ...]:
    """Views of one head's query, key and value matrices (d_head, stream) and of its output (stream, d_head)."""
    attention = model.block(layer).attention
    rows = [slice((kind * HEADS + index) * D_HEAD, (kind * HEADS + index + 1) * D_HEAD) for kind in range(3)]
    return *(attention.qkv.weight[r] for r in rows), attention.out.weight[:, index * D_HEAD : (index + 1) * D_HEAD]


def _match_and_copy(model: _Model, one: tuple[int, int], other: tuple[int, int]) -> list[tuple[str, str]]:
    words = torch.eye(WORDS)
    q, k, v, out = _head(model, *one)
    for place in range(1, LENGTH):
        q[place - 1, AT.start + place] = SHARP  # asks for the place before its own
    k[:LENGTH, AT] = torch.eye(LENGTH)
    v[:WORDS, NOW], out[ABOUT, :WORDS] = words, words
    q, k, v, out = _head(model, *other)
    q[:WORDS, NOW], k[:WORDS, ABOUT], v[:WORDS, NOW], out[SAY, :WORDS] = SHARP * words, words, words, 5 * words
    first, last = (f"L{layer}H{head}" for layer, head in (one, other))
    return [("embed", f"{first}.v"), (first, f"{last}.k"), (last, "logits")]


def _two_steps(model: _Model, first: int, last: int) -> list[tuple[str, str]]:
    words = torch.eye(WORDS)
    one, other = model.block(first).mlp, model.block(last).mlp
    one.up.weight[:, NOW], one.down.weight[ABOUT] = words, words.roll(1, 0)
    other.up.weight[:, ABOUT], other.down.weight[SAY] = words, 5 * words.roll(1, 0)
    return [("embed", f"L{first}M"), (f"L{first}M", f"L{last}M"), (f"L{last}M", "logits")]
