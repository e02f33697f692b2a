"""Transformers whose weights are set by hand, so that their circuits are known: plain torch, no norms."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from dynamics.models.architecture import Architecture, ModelShape, adapted
from dynamics.models.sites import SiteTable, Where
from dynamics.models.wiring import Wiring

HEADS, WORDS, LENGTH = 2, 8, 12
D_HEAD = WORDS + LENGTH
ROOM = 3 * WORDS + LENGTH
"""The stream: words as they are, words one place earlier, words to be said, positions."""

NOW, EARLIER, SAY, AT = (
    slice(0, WORDS),
    slice(WORDS, 2 * WORDS),
    slice(2 * WORDS, 3 * WORDS),
    slice(3 * WORDS, ROOM),
)


class Attention(nn.Module):
    """Causal attention; queries, keys and values of all heads in one matrix, by kind."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(ROOM, 3 * HEADS * D_HEAD, bias=False)
        self.look = nn.Identity()
        self.out = nn.Linear(HEADS * D_HEAD, ROOM, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        scores = q @ k.transpose(-1, -2)
        future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        pattern = self.look(scores.masked_fill(future, float("-inf")).softmax(-1))
        return self.out((pattern @ v).transpose(1, 2).flatten(-2))


class Mlp(nn.Module):
    """One hidden layer."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(ROOM, WORDS)
        self.down = nn.Linear(WORDS, ROOM, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(torch.relu(self.up(x)))


class Block(nn.Module):
    """Attention, then an MLP, each added to the stream."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.mlp = Attention(), Mlp()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(x)
        return x + self.mlp(x)


class Toy(nn.Module):
    """Words and positions side by side in the stream; logits are what is to be said."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block() for _ in range(layers)])
        self.final = nn.Identity()
        self.unembed = nn.Linear(ROOM, WORDS, bias=False)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)
        self.unembed.weight.data[:, SAY] = torch.eye(WORDS)

    def get_output_embeddings(self) -> nn.Module:
        return self.unembed

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = torch.zeros(*ids.shape, ROOM, dtype=self.unembed.weight.dtype)
        x[..., NOW] = nn.functional.one_hot(ids, WORDS).to(x.dtype)
        x[..., AT] = torch.eye(LENGTH, dtype=x.dtype)[: ids.shape[1]]
        return self.unembed(self.final(self._enter(x)))

    def _enter(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x)
        return x


def head(toy: Toy, layer: int, index: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Views of one head's query, key and value matrices (d_head, stream) and its output (stream, d_head)."""
    attention = toy.blocks[layer].attention
    rows = [slice((kind * HEADS + index) * D_HEAD, (kind * HEADS + index + 1) * D_HEAD) for kind in range(3)]
    q, k, v = (attention.qkv.weight.data[r] for r in rows)
    return q, k, v, attention.out.weight.data[:, index * D_HEAD : (index + 1) * D_HEAD]


def induction_toy() -> Toy:
    """L0H1 writes which word came before; L1H0 finds the word after the current one's earlier occurrence."""
    toy = Toy(2)
    q, k, v, o = head(toy, 0, 1)
    for place in range(1, LENGTH):
        q[place - 1, 3 * WORDS + place] = 40  # asks for the place before its own
    k[:LENGTH, AT] = torch.eye(LENGTH)
    v[:WORDS, NOW] = torch.eye(WORDS)
    o[EARLIER, :WORDS] = torch.eye(WORDS)
    q, k, v, o = head(toy, 1, 0)
    q[:WORDS, NOW] = 40 * torch.eye(WORDS)
    k[:WORDS, EARLIER] = torch.eye(WORDS)
    v[:WORDS, NOW] = torch.eye(WORDS)
    o[SAY, :WORDS] = 5 * torch.eye(WORDS)
    return toy


def lookup_toy() -> Toy:
    """The MLP says the next word of the alphabet."""
    toy = Toy(1)
    mlp = toy.blocks[0].mlp
    mlp.up.weight.data[:, NOW] = torch.eye(WORDS)
    mlp.down.weight.data[SAY] = 5 * torch.eye(WORDS).roll(1, 0)
    return toy


class Described:
    """The adapter of these models."""

    def __init__(self, layers: int) -> None:
        self.layers = layers
        self.sites = SiteTable(
            "blocks.{}",
            {
                "resid_pre": Where("", "input"),
                "resid_post": Where(""),
                "mlp_out": Where("mlp"),
                "z": Where("attention.out", "input"),
                "pattern": Where("attention.look"),
            },
            {"ln_final": Where("final")},
            Wiring(("attention.qkv",), "by kind", "attention.out", None, "mlp"),
        )

    def shape(self, tensors: Mapping[str, torch.Tensor]) -> ModelShape:
        return ModelShape(self.layers, HEADS, ROOM, D_HEAD, WORDS, WORDS, LENGTH)

    def build(self, tensors: Mapping[str, torch.Tensor]) -> nn.Module:
        return Toy(self.layers)

    def tokenizer(self) -> None:
        return None


def described(toy: Toy) -> Architecture:
    """How a toy is measured."""
    return adapted(Described(len(toy.blocks)), {})
