"""Every site equals what TransformerLens records under the same name, for the families that both cover.

TransformerLens is not among the development dependencies (it brings a hundred packages): ``pip install
transformer_lens`` to run this.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from checkpoints.organism import build_tokenizer
from tests.models.families import CONFIGS, HEADS, LAYERS, MORE, close, measured, model_of, probe

bridge = pytest.importorskip("transformer_lens.model_bridge", reason="TransformerLens is not installed")

pytestmark = pytest.mark.filterwarnings("default")

NAMES = {
    "embed": "hook_embed",
    "resid_pre": "blocks.{}.hook_resid_pre",
    "resid_mid": "blocks.{}.hook_resid_mid",
    "resid_post": "blocks.{}.hook_resid_post",
    "attn_out": "blocks.{}.hook_attn_out",
    "mlp_out": "blocks.{}.hook_mlp_out",
    "pattern": "blocks.{}.attn.hook_pattern",
    "z": "blocks.{}.attn.hook_z",
    "mlp_post": "blocks.{}.mlp.hook_post",
}


@pytest.mark.parametrize("kind", [k for k in CONFIGS if k not in ("bert", "gpt2 upcast", "apertus", "olmoe", *MORE)])
def test_sites_are_those_of_transformerlens(kind: str, tmp_path: Path) -> None:
    model_of(kind).save_pretrained(tmp_path)
    build_tokenizer().save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    values = measured(kind)  # before the bridge puts its own modules into the model
    copy = type(model_of(kind)).from_pretrained(tmp_path, attn_implementation="eager").eval()
    lens = bridge.TransformerBridge.boot_transformers(
        str(tmp_path), hf_model=copy, tokenizer=tokenizer, dtype=torch.float32
    )
    compared = set()
    for prompt, ids in enumerate(probe().ids):
        with torch.no_grad():
            _, cache = lens.run_with_cache(torch.from_numpy(ids)[None])
        for site, name in NAMES.items():
            for layer in range(LAYERS) if "{}" in name else [None]:
                key = name.format(layer)
                if site not in values or key not in cache:
                    continue
                if (kind, site) == (
                    "bloom",
                    "embed",
                ):  # theirs is behind the norm that follows; ours is the token's row
                    continue
                compared.add(site)
                theirs = _at(cache[key], site, prompt)
                ours = values[site][prompt] if layer is None else values[site][prompt, :, layer]
                close(ours[..., : theirs.shape[-1]], theirs.reshape(ours[..., : theirs.shape[-1]].shape))
    assert compared >= {"resid_pre", "resid_post", "attn_out", "pattern"}, compared


def _at(value: Any, site: str, prompt: int) -> np.ndarray:
    """(position, ...) of a cached (1, token, ...) value, patterns as (position, head, key)."""
    places = [probe().positions[name][prompt] for name in ("last", "middle")]
    array: np.ndarray = value[0].detach().numpy()
    if site == "pattern":
        return array[:, places].transpose(1, 0, 2)
    picked = array[places]
    return picked.reshape(2, HEADS, -1) if site == "z" else picked
