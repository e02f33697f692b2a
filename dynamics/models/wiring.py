"""How the parts of a block read from and write to the residual stream: what a circuit's graph is made of.

A table per architecture family, as in :mod:`dynamics.models.sites`. Attention heads read through three projections (queries,
keys, values), each after a norm; they write through the output projection, whose input is the site ``z``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["WIRINGS", "HeadLayout", "Wiring"]

HeadLayout = Literal["separate", "by head", "by kind"]
"""Where a head's query, key and value are in the projections' output: three matrices; (head, 3, d_head) of one, or (group,
queries + 2, d_head) where queries share a key and a value; all queries, all keys, all values of one."""


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
        shared: whether they read it through one norm, ``norm``; ``mlp`` is then what that norm's output goes into.
    """

    projections: tuple[str, ...]
    layout: HeadLayout
    out: str
    norm: str | None
    mlp: str
    after: str | None = None
    parallel: bool = False
    shared: bool = False


def _separate(norm: str | None, mlp: str, after: str | None = None, out: str = "o_proj", **others: bool) -> Wiring:
    projections = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    return Wiring(projections, "separate", f"self_attn.{out}", norm, mlp, after, **others)


def _fused(attention: str, norm: str, mlp: str, layout: HeadLayout = "by head", **others: bool) -> Wiring:
    return Wiring((f"{attention}.query_key_value",), layout, f"{attention}.dense", norm, mlp, None, **others)


_LLAMA = _separate("input_layernorm", "post_attention_layernorm")
_POST_NORM = _separate(None, "mlp", "post_attention_layernorm")
_SANDWICH = _separate("input_layernorm", "pre_feedforward_layernorm", "post_attention_layernorm")
_NORMS = "input_layernorm", "post_attention_layernorm"

WIRINGS: dict[str, Wiring] = {
    "gpt_neox": _fused("attention", *_NORMS, parallel=True),
    "gpt_neox_sequential": _fused("attention", *_NORMS),
    "gpt2": Wiring(("attn.c_attn",), "by kind", "attn.c_proj", "ln_1", "ln_2"),
    "gptj": Wiring(
        ("attn.q_proj", "attn.k_proj", "attn.v_proj"),
        "separate",
        "attn.out_proj",
        "ln_1",
        "mlp",
        parallel=True,
        shared=True,
    ),
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "olmo", "smollm3", "olmoe"), _LLAMA),
    **dict.fromkeys(("qwen2_moe", "qwen3_moe", "gemma", "stablelm"), _LLAMA),
    **dict.fromkeys(("gemma2", "gemma3_text"), _SANDWICH),
    "stablelm_parallel": _separate("input_layernorm", "mlp", parallel=True, shared=True),
    "opt": _separate("self_attn_layer_norm", "final_layer_norm", out="out_proj"),
    "phi": _separate("input_layernorm", "mlp", out="dense", parallel=True, shared=True),
    "phi3": Wiring(("self_attn.qkv_proj",), "by kind", "self_attn.o_proj", *_NORMS),
    "falcon": _fused("self_attention", "input_layernorm", "mlp", "by kind", parallel=True, shared=True),
    "falcon_grouped": _fused("self_attention", "ln_attn", "ln_mlp", parallel=True),
    "falcon_grouped_one_norm": _fused("self_attention", "input_layernorm", "mlp", parallel=True, shared=True),
    "falcon_sequential": _fused("self_attention", *_NORMS),
    **dict.fromkeys(("olmo2", "olmo3"), _POST_NORM),
    "apertus": _separate("attention_layernorm", "feedforward_layernorm"),
    "bloom": _fused("self_attention", *_NORMS),
}
"""By the names of :data:`dynamics.models.sites.FAMILIES`. Not BERT: its stream is normalised after every addition, so that it
is no sum of what was written to it. Not Mamba: it has no attention."""
