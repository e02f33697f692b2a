"""How the parts of a block read from and write to the residual stream: what a circuit's graph is made of.

A table per architecture family, as in :mod:`dynamics.models.sites`. Attention heads read through three projections (queries,
keys, values), each after a norm; they write through the output projection, whose input is the site ``z``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["WIRINGS", "Wiring"]

HeadLayout = Literal["separate", "by head", "by kind"]
"""Where a head's query, key and value are in the projections' output: three matrices; (head, 3, d_head) of one;
(3, head, d_head) of one."""


@dataclass(frozen=True)
class Wiring:
    """How one family's block is wired; module paths are relative to the block.

    Attributes:
        projections: one module for queries, keys and values together, or three.
        layout: how heads lie in their output.
        out: the output projection, a matrix that all heads share, each with its own rows.
        norm: what attention reads the stream through; None where it reads the stream itself.
        after: a norm between the output projection and the stream; None where there is none.
        mlp: the first module of the MLP's path, whose input is the stream as the MLP reads it.
        parallel: whether attention and MLP of a block read the same stream.
    """

    projections: tuple[str, ...]
    layout: HeadLayout
    out: str
    norm: str | None
    mlp: str
    after: str | None = None
    parallel: bool = False


def _separate(norm: str | None, mlp: str, after: str | None = None) -> Wiring:
    projections = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    return Wiring(projections, "separate", "self_attn.o_proj", norm, mlp, after)


_LLAMA = _separate("input_layernorm", "post_attention_layernorm")
_POST_NORM = _separate(None, "mlp", "post_attention_layernorm")
_NEOX = ("attention.query_key_value",), "attention.dense", "input_layernorm", "post_attention_layernorm"

WIRINGS: dict[str, Wiring] = {
    "gpt_neox": Wiring(_NEOX[0], "by head", _NEOX[1], _NEOX[2], _NEOX[3], parallel=True),
    "gpt_neox_sequential": Wiring(_NEOX[0], "by head", _NEOX[1], _NEOX[2], _NEOX[3]),
    "gpt2": Wiring(("attn.c_attn",), "by kind", "attn.c_proj", "ln_1", "ln_2"),
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "olmo", "smollm3", "olmoe"), _LLAMA),
    **dict.fromkeys(("olmo2", "olmo3"), _POST_NORM),
    "apertus": _separate("attention_layernorm", "feedforward_layernorm"),
    "bloom": Wiring(
        ("self_attention.query_key_value",),
        "by head",
        "self_attention.dense",
        "input_layernorm",
        "post_attention_layernorm",
    ),
}
"""By the names of :data:`dynamics.models.sites.FAMILIES`. Not BERT: its stream is normalised after every addition, so that it
is no sum of what was written to it."""
