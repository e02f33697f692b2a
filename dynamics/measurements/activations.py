"""Activations at named sites and named positions, all layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from checkpoints.errors import UserError, nearest

from ..models.architecture import ModelShape
from ..names import LAYER, POSITION, PROMPT, SITES
from ..probes import LAST, TokenizedProbe
from ..store.variable import Variable
from .base import Batch, require_positions

if TYPE_CHECKING:
    import torch

__all__ = ["Activations"]

_FEATURES = {
    "z": ("head", "d_head"),
    "pattern": ("head", "key"),
    "mlp_post": ("d_mlp",),
    "logits": ("vocab",),
}
_UNLAYERED = ("embed", "ln_final", "logits")


@dataclass(frozen=True)
class Activations:
    """The values at one site, at named positions: variable ``<site>`` (prompt, position, layer, ...).

    ``embed``, ``ln_final`` and ``logits`` have no layer. Attention patterns have one row per named position, NaN
    beyond a shorter prompt's length.
    """

    each_prompt: ClassVar[bool] = True

    site: str
    positions: tuple[str, ...] = (LAST,)

    def sites(self) -> frozenset[str]:
        """The one site."""
        return frozenset({self.site})

    def logits(self, probe: TokenizedProbe) -> list[np.ndarray]:
        """Only for the site ``logits``: the named positions."""
        return [probe.positions[name] for name in self.positions] if self.site == "logits" else []

    def reads(self, probe: TokenizedProbe) -> list[np.ndarray] | None:
        """The named positions; of patterns the whole prompt, for every token may be looked at."""
        return None if self.site == "pattern" else [probe.positions[name] for name in self.positions]

    def declare(self, probe: TokenizedProbe, shape: ModelShape) -> list[Variable]:
        """One variable, named after the site."""
        if self.site not in SITES:
            raise UserError(
                f"there is no site {self.site!r}",
                remedy=nearest(self.site, SITES),
                expected="a site of docs/reference/sites.md",
            )
        require_positions(probe, self.positions)
        sizes = {
            "head": shape.heads,
            "d_head": shape.d_head,
            "key": int(probe.lengths.max()),
            "d_mlp": shape.d_mlp,
            "vocab": shape.vocab,
            "d_model": shape.d_model,
        }
        layer = () if self.site in _UNLAYERED else (LAYER,)
        features = _FEATURES.get(self.site, ("d_model",))
        return [
            Variable(
                name=self.site,
                dims=(PROMPT, POSITION, *layer, *features),
                shape=(
                    len(probe.ids),
                    len(self.positions),
                    *(shape.layers for _ in layer),
                    *(sizes[f] for f in features),
                ),
                kind="activation",
                long_name=f"activations at {self.site}",
                padded=self.site == "pattern" and len(np.unique(probe.lengths)) > 1,
                coords={POSITION: self.positions},
            )
        ]

    def start(self, probe: TokenizedProbe, shape: ModelShape) -> _CollectedActivations:
        """Space for all prompts."""
        return _CollectedActivations(self, probe, self.declare(probe, shape)[0])


class _CollectedActivations:
    def __init__(self, measurement: Activations, probe: TokenizedProbe, variable: Variable) -> None:
        self._site = measurement.site
        self._positions = np.stack([probe.positions[name] for name in measurement.positions], axis=1)
        self._values = np.full(variable.shape, np.nan, dtype=np.float32)

    def observe(self, site: str, layer: int, value: torch.Tensor, batch: Batch) -> None:
        wanted = self._positions[batch.rows]
        # (row, head, query, key) -> (row, query, head, key)
        prompts, names, picked = batch.picked(value.transpose(1, 2) if site == "pattern" else value, wanted)
        if site == "z" and value.ndim == 3:
            picked = picked.reshape(len(picked), *self._values.shape[-2:])
        values = picked.float().cpu().numpy()
        expected = self._values.shape[2:] if layer < 0 else self._values.shape[3:]
        if values.shape[1:-1] != expected[:-1] or (site != "pattern" and values.shape[-1] != expected[-1]):
            raise UserError(
                f"site {site!r} gave values of shape {tuple(value.shape)}",
                expected=f"(row, token, {', '.join(map(str, expected))})",
                remedy="correct the site's place in the SiteTable",
            )
        target = self._values if layer < 0 else self._values[:, :, layer]
        target[prompts, names, ..., : values.shape[-1]] = values

    def finish(self, batch: Batch) -> None:
        if self._site == "logits":
            for i, positions in enumerate(self._positions.T):
                self._values[batch.rows, i] = batch.logits_at(positions).cpu().numpy()

    def result(self) -> dict[str, np.ndarray]:
        return {self._site: self._values}
