"""Which units follow a label: the share of a unit's variance that the label explains, per context.

For unit *u* in context *c* with label classes *k*: eta^2 = SS_between / SS_total (Fisher's correlation ratio), the
share of the variance of the unit's activation over prompts that the class means explain. Only eta^2 and the top units
are stored, never the activations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checkpoints.errors import UserError, nearest

from ..models.architecture import ModelShape
from ..names import LAYER
from ..probes import LAST, TokenizedProbe
from ..store.variable import Variable
from .base import Batch

if TYPE_CHECKING:
    import torch

__all__ = ["Selectivity"]


@dataclass(frozen=True)
class Selectivity:
    """eta^2 of every unit of a site for a label, per value of another label, with shuffled labels beside it.

    Variables: ``selectivity`` (group, layer, d_mlp) for the real labels, and ``selectivity_top`` (group,
    permutation, rank): the flat index (layer * d_mlp + unit) of the most selective units, permutation 0 with the real
    labels and the others with labels shuffled within the context. Which units come out on top for shuffled labels
    shows how much overlap between contexts comes from units that are simply variable.

    Args:
        label: the label whose classes are compared.
        by: the label that says which context a prompt belongs to.
        where: restricts the prompts: (label, value).
        site: ``mlp_post`` (neurons).
        permutations: how many shuffled labels.
        top: share of all units that counts as top.
    """

    label: str
    by: str
    where: tuple[str, str] | None = None
    site: str = "mlp_post"
    permutations: int = 20
    top: float = 0.02

    def sites(self) -> frozenset[str]:
        """The one site."""
        return frozenset({self.site})

    def logits(self, probe: TokenizedProbe) -> list[np.ndarray]:
        """None."""
        return []

    def reads(self, probe: TokenizedProbe) -> list[np.ndarray]:
        """The last position."""
        return [probe.positions[LAST]]

    def declare(self, probe: TokenizedProbe, shape: ModelShape) -> list[Variable]:
        """See the class."""
        for name in (self.label, self.by, *([self.where[0]] if self.where else [])):
            if name not in probe.probe.labels:
                raise UserError(
                    f"probe {probe.probe.name!r} has no label {name!r}",
                    remedy=nearest(name, probe.probe.labels),
                    expected="labels that every prompt has",
                )
        contexts = tuple(str(c) for c in dict.fromkeys(probe.probe.labels[self.by]))
        units = shape.layers * shape.d_mlp
        count = max(1, round(self.top * units))
        return [
            Variable(
                "selectivity",
                ("group", LAYER, "d_mlp"),
                (len(contexts), shape.layers, shape.d_mlp),
                "float",
                f"share of variance explained by {self.label}",
                coords={"group": contexts},
            ),
            Variable(
                "selectivity_top",
                ("group", "permutation", "rank"),
                (len(contexts), self.permutations + 1, count),
                "int",
                f"flat index (layer * d_mlp + unit) of the units most selective for {self.label}",
                coords={"group": contexts},
            ),
        ]

    def start(self, probe: TokenizedProbe, shape: ModelShape) -> _CollectedSums:
        """Space for the prompts that count."""
        return _CollectedSums(self, probe, self.declare(probe, shape))


class _CollectedSums:
    """The units' activations at this checkpoint, (prompt, layer, unit) in float32; reduced layer by layer at the end.

    Running sums per class and permutation would be larger: there are more of them than prompts.
    """

    def __init__(self, measurement: Selectivity, probe: TokenizedProbe, variables: list[Variable]) -> None:
        labels = probe.probe.labels
        self._contexts, layers, units = variables[0].shape
        self._count = variables[1].shape[2]
        used = np.ones(len(probe.ids), dtype=bool)
        if measurement.where is not None:
            name, value = measurement.where
            used = np.array([str(v) == value for v in labels[name]])
        self._row = np.where(used, np.cumsum(used) - 1, -1)  # prompt -> row of the values
        order = {c: i for i, c in enumerate(dict.fromkeys(labels[measurement.by]))}
        self._context = np.array([order[c] for c in labels[measurement.by]])[used]
        classes = np.unique([str(v) for v in labels[measurement.label]], return_inverse=True)[1][used]
        self._classes = int(classes.max(initial=0)) + 1
        rng = np.random.default_rng(0)
        self._labels = np.repeat(classes[None], measurement.permutations + 1, axis=0)
        for context in range(self._contexts):
            rows = np.flatnonzero(self._context == context)
            for permutation in self._labels[1:]:
                permutation[rows] = rng.permutation(permutation[rows])
        self._last = probe.positions[LAST]
        self._values = np.full((int(used.sum()), layers, units), np.nan, dtype=np.float32)

    def observe(self, site: str, layer: int, value: torch.Tensor, batch: Batch) -> None:
        wanted = np.where(self._row[batch.rows] >= 0, self._last[batch.rows], -1)
        prompts, _, found = batch.picked(value, wanted[:, None])
        self._values[self._row[prompts], layer] = found.float().cpu().numpy()

    def finish(self, batch: Batch) -> None:
        pass

    def result(self) -> dict[str, np.ndarray]:
        permutations, layers, units = len(self._labels), *self._values.shape[1:]
        eta = np.full((self._contexts, permutations, layers, units), np.nan, dtype=np.float32)
        for context in range(self._contexts):
            rows = np.flatnonzero(self._context == context)
            if not len(rows):  # nothing was asked in this context
                continue
            hot = (self._labels[:, None, rows] == np.arange(self._classes)[:, None]).astype(np.float64)
            counts = np.maximum(hot.sum(-1), 1)  # (permutation, class)
            for layer in range(layers):
                eta[context, :, layer] = _eta_squared(self._values[rows, layer].astype(np.float64), hot, counts)
        broken = ~np.isfinite(self._values).all()
        flat = np.nan_to_num(eta, nan=-1.0).reshape(self._contexts, permutations, -1)
        top = np.argsort(-flat, axis=-1, kind="stable")[..., : self._count].astype(np.int32)
        missing = np.isnan(eta).reshape(self._contexts, -1).all(1)
        top[missing | broken] = -1
        return {"selectivity": eta[:, 0], "selectivity_top": top}


def _eta_squared(x: np.ndarray, hot: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(permutation, unit) SS_between / SS_total; 0 for a unit that does not vary, NaN where it is not finite.

    Args:
        x: (prompt, unit) activations.
        hot: (permutation, class, prompt) which prompt is of which class.
        counts: (permutation, class) prompts of each class, at least 1.
    """
    finite = np.isfinite(x).all(0)
    x = np.where(finite, x, 0.0)
    size = (x**2).sum(0)
    x = x - x.mean(0)
    total = (x**2).sum(0)
    sums = (hot.reshape(-1, hot.shape[-1]) @ x).reshape(*counts.shape, -1)  # (permutation, class, unit)
    between = (sums**2 / counts[..., None]).sum(1)
    varies = total > 1e-12 * np.maximum(size, 1e-30)
    eta: np.ndarray = np.where(varies, between / np.where(varies, total, 1.0), 0.0)
    eta[:, ~finite] = np.nan
    return eta
