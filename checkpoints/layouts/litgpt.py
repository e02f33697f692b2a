"""``step-00000000/lit_model.pth`` of litgpt, read as GPT-NeoX or Llama.

The file is a state dict, or holds one as ``model`` beside the optimizer, which is not read. litgpt fuses queries, keys
and values into one linear map with the rows ``[all queries, all keys, all values]`` (``attn.qkv``); before version 0.5.5
the rows were ``[queries, key, value]`` of one group after the other (``attn.attn``). Rotary embeddings turn halves, as
in transformers, so that no other row moves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CheckpointError
from ..files.tensors import TensorInfo
from ..files.torchfile import contents, plain_names, state_dict_at, tensors_at
from ..files.weights import files_digest
from ..loading import Prepared
from .base import Found, LayoutOptions, converted, found_folders, given_config, unknown_tensors, zero_biases
from .content import KeyPath, recorded_step, state_dict_path
from .litgpt_config import model_config

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig

__all__ = ["EXPECTED", "NEEDS_CONFIG", "config", "convert", "files", "find", "header", "read"]

EXPECTED = "sub-folders step-N, each with lit_model.pth and model_config.yaml"
NEEDS_CONFIG = False

_FILE = "lit_model.pth"
_BLOCK = re.compile(r"^transformer\.h\.(\d+)\.([\w.]+)\.(weight|bias)$")
_OUTER = {
    "gpt_neox": {"transformer.wte": "gpt_neox.embed_in", "transformer.ln_f": "gpt_neox.final_layer_norm"},
    "llama": {"transformer.wte": "model.embed_tokens", "transformer.ln_f": "model.norm"},
}
_LAYERS = {"gpt_neox": "gpt_neox.layers", "llama": "model.layers"}
_INNER = {
    "gpt_neox": {
        "norm_1": "input_layernorm",
        "norm_2": "post_attention_layernorm",
        "attn.proj": "attention.dense",
        "mlp.fc": "mlp.dense_h_to_4h",
        "mlp.proj": "mlp.dense_4h_to_h",
    },
    "llama": {
        "norm_1": "input_layernorm",
        "norm_2": "post_attention_layernorm",
        "attn.proj": "self_attn.o_proj",
        "mlp.fc_1": "mlp.gate_proj",
        "mlp.fc_2": "mlp.up_proj",
        "mlp.proj": "mlp.down_proj",
    },
}


def find(root: Path, options: LayoutOptions) -> Found:
    """Every sub-folder that is named after a step, and ``final`` if it says its step; one without weights is a fault."""
    return found_folders(root, files, options, _said)


def _said(path: Path) -> int | None:
    """Its optimizer steps; ``iter_num`` counts parts of batches."""
    try:
        content = contents(path / _FILE)
    except CheckpointError:
        return None
    return recorded_step({"step": content.get("step_count")}) if isinstance(content, Mapping) else None


def files(path: Path) -> list[Path]:
    """``lit_model.pth``."""
    return [file] if (file := path / _FILE).is_file() else []


def header(path: Path) -> dict[str, TensorInfo]:
    """The stored tensors of the model, under litgpt's names."""
    file, content, keys = _opened(path)
    return plain_names(state_dict_at(content, keys), file)


def config(path: Path, options: LayoutOptions) -> PretrainedConfig | None:
    """The given one, else what ``model_config.yaml`` says."""
    given = given_config(options)
    return model_config(path, tied="lm_head.weight" not in header(path)) if given is None else given


def read(path: Path, options: LayoutOptions) -> Prepared:
    """The tensors of the model, as GPT-NeoX's or Llama's."""
    file, content, keys = _opened(path)
    architecture = config(path, options)
    tensors = convert(tensors_at(file, keys, content=content), architecture, path)
    return converted(path, tensors, files_digest([file]), architecture)


def convert(tensors: dict[str, torch.Tensor], config: PretrainedConfig, path: Path) -> dict[str, torch.Tensor]:
    """litgpt's tensors under transformers' names and in transformers' order.

    Raises:
        CheckpointError: when there are others, or they are of other sizes than the config's.
    """
    family = config.model_type
    if family not in _LAYERS:
        raise CheckpointError(
            f"litgpt's tensors cannot be read as {family!r}",
            expected="a config of gpt_neox or llama",
            remedy="convert this series with `litgpt convert_from_litgpt`, and use that",
        )
    result: dict[str, torch.Tensor] = {}
    unknown = []
    for name, tensor in tensors.items():
        module, _, kind = name.rpartition(".")
        block = _BLOCK.match(name)
        if block is None and (module in _OUTER[family] or name == "lm_head.weight"):
            result[f"{_OUTER[family].get(module, module)}.{kind}"] = tensor
        elif block is not None and block[2] in _INNER[family]:
            result[f"{_LAYERS[family]}.{block[1]}.{_INNER[family][block[2]]}.{kind}"] = tensor
        elif block is not None and block[2] in ("attn.qkv", "attn.attn"):
            parts = _split(tensor, config, grouped=block[2] == "attn.attn", named=f"{path}: {name}")
            layer = f"{_LAYERS[family]}.{block[1]}"
            if family == "llama":
                result |= {f"{layer}.self_attn.{part}_proj.{kind}": x for part, x in zip("qkv", parts, strict=True)}
            else:
                result[f"{layer}.attention.query_key_value.{kind}"] = _by_head(parts, config)
        else:
            unknown.append(name)
    if unknown:
        raise unknown_tensors(path, unknown, f"litgpt's {family}")
    _add_zero_biases(result, config)
    return result


def _split(
    fused: torch.Tensor, config: PretrainedConfig, *, grouped: bool, named: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The rows of queries, keys and values, by head."""
    heads = config.num_attention_heads
    groups = getattr(config, "num_key_value_heads", None) or heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    if fused.shape[0] != (heads + 2 * groups) * size or heads % groups:
        raise CheckpointError(
            f"{named} has {fused.shape[0]} rows",
            expected=f"{heads} queries and {groups} keys and values of size {size}, as the config says",
            remedy="put the model_config.yaml of this training beside the checkpoint",
        )
    if not grouped:
        first, second = heads * size, (heads + groups) * size
        return fused[:first], fused[first:second], fused[second:]
    rows = fused.reshape(groups, heads // groups + 2, size, *fused.shape[1:])
    parts = (rows[:, :-2], rows[:, -2], rows[:, -1])
    query, key, value = (part.reshape(-1, *fused.shape[1:]) for part in parts)
    return query, key, value


def _by_head(parts: tuple[torch.Tensor, ...], config: PretrainedConfig) -> torch.Tensor:
    """Queries, keys and values of one head after the other, as GPT-NeoX has them."""
    import torch

    heads = config.num_attention_heads
    return torch.cat([p.reshape(heads, -1, *p.shape[1:]) for p in parts], dim=1).reshape(-1, *parts[0].shape[1:])


def _add_zero_biases(tensors: dict[str, torch.Tensor], config: PretrainedConfig) -> None:
    """Where transformers' architecture has a kind of bias that the stored model has in no layer."""
    if config.model_type == "gpt_neox":
        wanted = ["mlp.dense_h_to_4h", "mlp.dense_4h_to_h"]
        wanted += ["attention.query_key_value", "attention.dense"] if config.attention_bias else []
    else:
        wanted = ["self_attn.o_proj"] if config.attention_bias else []
    for module in wanted:
        if not any(name.endswith(f".{module}.bias") for name in tensors):
            named = [name.removesuffix(".weight") for name in tensors if name.endswith(f".{module}.weight")]
            zero_biases(tensors, {name: tensors[f"{name}.weight"].shape[0] for name in named})


def _opened(path: Path) -> tuple[Path, object, KeyPath]:
    if not files(path):
        raise CheckpointError(
            f"{path} holds no weights", expected=f"one file {_FILE}", remedy="save it again, without sharding"
        )
    content = contents(path / _FILE)
    keys = state_dict_path(content)
    if keys is None:
        raise CheckpointError(
            f"{path / _FILE} holds no state dict",
            expected="tensors by name, or `model` with them",
            remedy="name the folder of checkpoints as litgpt saves them, each with its lit_model.pth",
        )
    return path / _FILE, content, keys
