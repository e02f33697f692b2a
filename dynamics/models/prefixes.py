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


def go_on(
    model: Any, ids: torch.Tensor, keep: torch.Tensor, prefixes: Prefixes, of: torch.Tensor | None = None
) -> torch.Tensor:
    """Logits (row, kept, vocab) of what follows prefixes.

    Args:
        model: a ``transformers`` model.
        ids: (row, token) the tokens behind the prefix.
        keep: (kept,) for which of them logits are wanted.
        prefixes: what was kept of them.
        of: (row,) which prefix each row continues; None where each has its own.
    """
    from transformers import Cache

    layers, kind = [], _continuing()
    for keys, values in prefixes.layers:
        layer = kind(of)
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
        layers.append(layer)
    found: torch.Tensor = model(
        input_ids=ids, past_key_values=Cache(layers=layers), use_cache=True, logits_to_keep=keep
    ).logits
    return found


@cache
def _continuing() -> Any:
    """A layer of a cache that gives each row's prefix with what follows it, and keeps only the prefixes."""
    import torch
    from transformers.cache_utils import DynamicLayer

    class Continuing(DynamicLayer):  # type: ignore[misc]
        def __init__(self, of: torch.Tensor | None) -> None:
            super().__init__()
            self.of = of

        def update(self, key_states: Any, value_states: Any, *_args: Any, **_kwargs: Any) -> tuple[Any, Any]:
            return self._behind(self.keys, key_states), self._behind(self.values, value_states)

        def _behind(self, kept: Any, new: Any) -> Any:
            if len(kept) == 1:
                kept = kept.expand(len(new), -1, -1, -1)
            elif self.of is not None:
                kept = kept[self.of]
            return torch.cat([kept, new], dim=-2)

    return Continuing
