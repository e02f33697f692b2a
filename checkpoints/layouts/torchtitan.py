"""``step-N/`` of torchtitan (:mod:`.dcp`), read as Llama.

The architecture is not in the files: it comes from ``config``. torchtitan turns neighbouring rows of queries and keys
by one angle, (0, 1), (2, 3), ..., as Meta's Llama does; transformers turns row *i* with row *i* + size / 2. So the rows
of each head are moved: even ones first, then odd ones. Optimizer, schedulers and data loader are not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CheckpointError
from ..files.dcp import distcp_files, read_metadata, read_tensors
from ..files.tensors import TensorInfo
from ..files.torchfile import plain_names
from ..files.weights import files_digest
from ..loading import Prepared
from .base import Found, LayoutOptions, converted, found_folders, given_config, unknown_tensors

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

__all__ = ["EXPECTED", "NEEDS_CONFIG", "config", "convert", "files", "find", "halves_from_pairs", "header", "read"]

EXPECTED = "sub-folders step-N, each with .metadata and *.distcp"
NEEDS_CONFIG = True

_NOT_MODEL = re.compile(r"^(optimizers?|lr_schedulers?|dataloader|train_state|ft_\w+|rng\w*|seed)(\.|$)")
_COMPUTED = re.compile(r"^(freqs_cis|rope\.\w+)$")
"""Rotary tables, which older versions stored."""
_BLOCK = re.compile(r"^layers\.(\d+)\.([\w.]+)\.(weight|bias)$")
_OUTER = {
    "tok_embeddings": "model.embed_tokens",
    "norm": "model.norm",
    "output": "lm_head",
    "lm_head": "lm_head",
}
_INNER = {
    **{f"attention.{fused}w{part}": f"self_attn.{part}_proj" for part in "qkv" for fused in ("", "qkv_linear.")},
    "attention.wo": "self_attn.o_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
}


def find(root: Path, options: LayoutOptions) -> Found:
    """Every sub-folder that is named after a step, if any is complete: one that is not is a fault, not a gap."""
    return found_folders(root, files, options)


def files(path: Path) -> list[Path]:
    """``.metadata`` and ``*.distcp``, which hold the optimizer's tensors too."""
    return distcp_files(path)


def header(path: Path) -> dict[str, TensorInfo]:
    """The stored tensors of the model, under torchtitan's names."""
    stored = read_metadata(path)
    return {name: stored[full].info for full, name in _model_part(stored, path).items()}


def config(path: Path, options: LayoutOptions) -> PretrainedConfig | None:
    """The given one."""
    given = given_config(options)
    if given is None or given.model_type != "llama":
        raise CheckpointError(
            f"torchtitan's tensors cannot be read as {'nothing in particular' if given is None else given.model_type!r}",
            expected="a config of llama",
            remedy="name a transformers config.json as `series.config` in the runs file",
        )
    return given


def read(path: Path, options: LayoutOptions) -> Prepared:
    """The tensors of the model, as Llama's."""
    architecture = config(path, options)
    stored = read_metadata(path)
    names = _model_part(stored, path)
    tensors = {names[full]: tensor for full, tensor in read_tensors(path, stored, names).items()}
    tensors = convert(tensors, architecture, path)
    return converted(path, tensors, files_digest(files(path)), architecture)


def convert(tensors: dict[str, torch.Tensor], config: PretrainedConfig, path: Path) -> dict[str, torch.Tensor]:
    """torchtitan's tensors under transformers' names, with the rows of queries and keys in transformers' order.

    Raises:
        CheckpointError: when there are others, or they are of other sizes than the config's.
    """
    heads = {"self_attn.q_proj": config.num_attention_heads, "self_attn.k_proj": config.num_key_value_heads}
    result: dict[str, torch.Tensor] = {}
    unknown = []
    for name, tensor in tensors.items():
        module, _, kind = name.rpartition(".")
        block = _BLOCK.match(name)
        if block is not None and block[2] in _INNER:
            target = _INNER[block[2]]
            if target in heads:
                if tensor.shape[0] != heads[target] * config.head_dim or config.head_dim % 2:
                    raise CheckpointError(
                        f"{path}: {name} has {tensor.shape[0]} rows",
                        expected=f"{heads[target]} heads of size {config.head_dim}, as `series.config` says",
                        remedy="correct n_heads or n_kv_heads in `series.config`",
                    )
                tensor = halves_from_pairs(tensor, heads[target])
            result[f"model.layers.{block[1]}.{target}.{block[3]}"] = tensor
        elif module in _OUTER and kind == "weight":
            result[f"{_OUTER[module]}.weight"] = tensor
        else:
            unknown.append(name)
    if unknown:
        raise unknown_tensors(path, unknown, "torchtitan's Llama")
    return result


def halves_from_pairs(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """Move the rows of each head from (pair, member) to (member, pair).

    Args:
        rows: (heads x size, ...), where rows 2 *i* and 2 *i* + 1 of a head are turned by one angle.
        heads: how many heads.

    Returns:
        The same rows, where *i* and *i* + size / 2 of a head are.

    >>> import torch
    >>> halves_from_pairs(torch.tensor([0, 1, 2, 3, 10, 11, 12, 13]), heads=2).tolist()
    [0, 2, 1, 3, 10, 12, 11, 13]
    """
    rest = rows.shape[1:]
    return rows.reshape(heads, -1, 2, *rest).transpose(1, 2).reshape(-1, *rest)


def _model_part(names: Iterable[str], path: Path) -> dict[str, str]:
    """Full name to the name within the model, for what belongs to the model."""
    kept = plain_names({full: full for full in names if not _NOT_MODEL.match(full)}, path)
    if kept and all(name.startswith("model.") for name in kept):
        kept = plain_names({name.removeprefix("model."): full for name, full in kept.items()}, path)
    return {full: name for name, full in kept.items() if not _COMPUTED.match(name)}
