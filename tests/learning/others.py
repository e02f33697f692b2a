"""Dictionaries in the formats of others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

D, F, K = 6, 20, 4


NEW = {"d_in": D, "d_sae": F, "normalize_activations": "none", "metadata": {"hook_name": "blocks.1.hook_resid_post"}}


OLD = {"d_in": D, "d_sae": F, "hook_name": "blocks.1.hook_mlp_out", "hook_layer": 1, "hook_head_index": None}


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    shapes = {"W_enc": (D, F), "W_dec": (F, D), "b_enc": (F,), "b_dec": (D,)}
    return {name: torch.randn(*shape, generator=g).contiguous() for name, shape in shapes.items()}


def saelens(folder: Path, config: dict[str, Any], **more: torch.Tensor | None) -> Path:
    """A folder as SAELens writes it; a tensor that is None is left out."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: t for name, t in (weights() | more).items() if t is not None}
    save_file(tensors, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def sparsify(folder: Path, **config: Any) -> Path:
    """A folder as sparsify writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    w = weights()
    tensors = {"encoder.weight": w["W_enc"].T.contiguous(), "encoder.bias": w["b_enc"]}
    save_file({**tensors, "W_dec": w["W_dec"], "b_dec": w["b_dec"]}, folder / "sae.safetensors")
    about = {"expansion_factor": 32, "num_latents": F, "k": K, "d_in": D, "skip_connection": False} | config
    (folder / "cfg.json").write_text(json.dumps(about), encoding="utf-8")
    return folder
