"""Continuing prompts from what many of them begin with: keys and values of a *prefix*, computed once.

Only for models that read from left to right and keep keys and values (``Architecture.cached``). What a token gives depends
on the tokens before it through their keys and values alone, so that the continued pass computes the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from .architecture import ModelShape

__all__ = ["Prefixes", "begin", "go_on", "numbers_per_token"]


@dataclass(frozen=True)
class Prefixes:
    """Keys and values of prefixes of equal length.

    Attributes:
        layers: of every layer the keys and the values, each (prefix, head, token, d_head), as the model caches them.
    """

    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]


def numbers_per_token(shape: ModelShape) -> int:
    """How many numbers the keys and values of one token are."""
    return 2 * shape.layers * (shape.kv_heads or shape.heads) * shape.d_head


def begin(model: Any, ids: torch.Tensor) -> Prefixes:
    """Run prefixes, ids (prefix, token), up to the head, and keep what continues them."""
    from transformers import DynamicCache

    kept = DynamicCache()  # without the config: windows are left to the mask
    model.base_model(input_ids=ids, past_key_values=kept, use_cache=True)
    return Prefixes(tuple((layer.keys, layer.values) for layer in kept.layers))


def go_on(model: Any, ids: torch.Tensor, keep: torch.Tensor, prefixes: Prefixes, of: torch.Tensor) -> torch.Tensor:
    """Logits (row, kept, vocab) of what follows prefixes.

    Args:
        model: a ``transformers`` model.
        ids: (row, token) the tokens behind the prefix.
        keep: (kept,) for which of them logits are wanted.
        prefixes: what was kept of them.
        of: (row,) which prefix each row continues.
    """
    from transformers import Cache

    layers, kind = [], _continuing()
    for keys, values in prefixes.layers:
        layer = kind()
        layer.lazy_initialization(keys, values)
        if len(keys) == 1:
            layer.keys, layer.values = (part.expand(len(of), -1, -1, -1) for part in (keys, values))
        else:
            layer.keys, layer.values = keys[of], values[of]
        layers.append(layer)
    found: torch.Tensor = model(
        input_ids=ids, past_key_values=Cache(layers=layers), use_cache=True, logits_to_keep=keep
    ).logits
    return found


@cache
def _continuing() -> Any:
    """A layer of a cache that gives the prefix with what follows it, and keeps only the prefix."""
    import torch
    from transformers.cache_utils import DynamicLayer

    class Continuing(DynamicLayer):  # type: ignore[misc]
        def update(self, key_states: Any, value_states: Any, *_args: Any, **_kwargs: Any) -> tuple[Any, Any]:
            return torch.cat([self.keys, key_states], dim=-2), torch.cat([self.values, value_states], dim=-2)

    return Continuing
