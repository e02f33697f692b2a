"""A small model of the same architecture, with random weights, large enough that every part does something."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch

from checkpoints.configs import auto_class, quiet, read_config
from checkpoints.errors import UserError, first_line, nearest
from checkpoints.paths import StrPath, as_path

__all__ = ["LAYERS", "config_of", "small_model"]

LAYERS, _HEADS, _WIDTH, _HEAD, _INNER, _VOCAB, _EXPERTS = 3, 4, 32, 8, 48, 64, 4

_SIZES = {
    ("num_hidden_layers", "num_layers", "n_layer", "n_layers"): LAYERS,
    ("num_attention_heads", "n_head", "n_heads"): _HEADS,
    ("hidden_size", "n_embd", "d_model", "word_embed_proj_dim"): _WIDTH,
    ("head_dim",): _HEAD,
    ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size"): _INNER,
    ("moe_intermediate_size", "shared_expert_intermediate_size"): 24,
    ("num_experts", "num_local_experts", "n_routed_experts"): _EXPERTS,
    ("num_experts_per_tok",): 2,
    ("vocab_size",): _VOCAB,
    ("max_position_embeddings", "n_positions", "n_ctx"): 32,
    ("rotary_dim",): 4,
    ("sliding_window",): 4,
}
_KEY_VALUE = ("num_key_value_heads", "num_kv_heads")
_LARGEST = 3 * 10**8
"""Parameters of a model that cannot be made small, beyond which it is not built."""


def config_of(model: StrPath) -> Any:
    """The config that a name means: a folder of a checkpoint or of a series, a config.json, or a type of ``transformers``.

    Raises:
        UserError: for what is none of them, or a config that cannot be used.
    """
    from transformers import CONFIG_MAPPING

    path = as_path(model, "model")
    if path.exists():
        inside = [path] if path.is_file() or (path / "config.json").exists() else sorted(path.glob("*/config.json"))
        return read_config(inside[0] if inside else path)
    kinds = [kind for kind in CONFIG_MAPPING.keys() if kind == kind.lower()]  # noqa: SIM118  # it is no dict
    if str(model) not in kinds:
        raise UserError(
            f"there is no folder or file {model}, and transformers has no model type of this name",
            expected="the folder of a checkpoint, a config.json, or a model type such as `gpt_neox`",
            remedy=nearest(Path(model).name, kinds),
        )
    with quiet():
        return CONFIG_MAPPING[str(model)]()


def small_model(config: Any) -> torch.nn.Module:
    """A model of a config made small, on the CPU, in evaluation mode, every parameter random.

    Sizes that do not fit each other are left as they are, one kind after the other, as long as the model is no large one.

    Raises:
        UserError: when no such model can be built, or it gives no logits.
    """
    problems = []
    for inner in (True, False, None):
        try:
            attempt = config if inner is None else _small(config, inner=inner)
            with quiet(), torch.device("meta"):
                size = sum(p.numel() for p in auto_class(attempt).from_config(attempt).parameters())
            if size > _LARGEST:
                problems.append(f"it has {size:,} parameters, and cannot be made smaller")
                continue
            return _randomised(attempt)
        except Exception as error:  # a config may describe anything, and transformers then raises anything
            problems.append(first_line(error))
    raise UserError(
        f"no model of type {config.model_type!r} can be built from its config: {problems[0]}",
        expected="a language model that transformers builds from a config",
        remedy="describe it by an adapter (docs/howto/own-architecture.md)",
    )


def _small(config: Any, *, inner: bool) -> Any:
    """A copy with fewer and narrower layers; with ``inner`` false only with fewer layers and tokens."""
    made = copy.deepcopy(config)
    heads = int(getattr(config, "num_attention_heads", 0) or 0)
    for names, size in _SIZES.items():
        if inner or size in (LAYERS, _VOCAB):
            for name in names:
                if type(vars(made).get(name)) is int:
                    setattr(made, name, size)
    for name in _KEY_VALUE:
        known = vars(config).get(name)
        if inner and type(known) is int and heads:
            setattr(made, name, _HEADS if known == heads else 1 if known == 1 else 2)
    for name, value in list(vars(made).items()):
        if isinstance(value, list) and len(value) == getattr(config, "num_hidden_layers", -1):
            setattr(made, name, value[:LAYERS])
        elif name.endswith("_token_id") and isinstance(value, int) and value >= _VOCAB:
            setattr(made, name, 0)
    made._attn_implementation = "eager"
    return made


def _randomised(config: Any) -> torch.nn.Module:
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: torch.nn.Module = auto_class(config).from_config(config, attn_implementation="eager").float().eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                around = 1.0 if parameter.ndim == 1 and name.endswith("weight") else 0.0
                parameter.copy_(around + 0.2 * torch.randn_like(parameter))
            model(input_ids=torch.arange(6)[None] + 2, use_cache=False)
    return model
