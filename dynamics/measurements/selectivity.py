"""Which units follow a label: the share of a unit's variance that the label explains, per context.

For unit *u* in context *c* with label classes *k*: eta^2 = SS_between / SS_total (Fisher's correlation ratio), the
share of the variance of the unit's activation over prompts that the class means explain. Reduced on the device: only
sums per class are kept, never the activations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from checkpoints.errors import UserError, nearest

from ..names import LAYER
from ..probes import LAST, TokenizedProbe
from ..sites import ModelShape
from .base import Batch, Variable

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

    def declare(self, probe: TokenizedProbe, shape: ModelShape) -> list[Variable]:
        """See the class."""
        for name in (self.label, self.by, *([self.where[0]] if self.where else [])):
            if name not in probe.probe.labels:
                raise UserError(
                    f"probe {probe.probe.name!r} has no label {name!r}", remedy=nearest(name, probe.probe.labels)
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

    def start(self, probe: TokenizedProbe, shape: ModelShape) -> _Sums:
        """Empty sums."""
        return _Sums(self, probe, self.declare(probe, shape))


class _Sums:
    """Per context: sums of x per class and permutation, and of x and x^2, all (unit,) vectors per layer."""

    def __init__(self, measurement: Selectivity, probe: TokenizedProbe, variables: list[Variable]) -> None:
        labels = probe.probe.labels
        self._contexts, layers, units = variables[0].shape
        self._count = variables[1].shape[2]
        used = np.ones(len(probe.ids), dtype=bool)
        if measurement.where is not None:
            name, value = measurement.where
            used = np.array([str(v) == value for v in labels[name]])
        order = {c: i for i, c in enumerate(dict.fromkeys(labels[measurement.by]))}
        self._context = np.where(used, [order[c] for c in labels[measurement.by]], -1)
        _, classes = np.unique([str(v) for v in labels[measurement.label]], return_inverse=True)
        self._classes = int(classes.max()) + 1
        rng = np.random.default_rng(0)
        shuffled = np.repeat(classes[None], measurement.permutations + 1, axis=0)
        for context in range(self._contexts):
            rows = np.flatnonzero(self._context == context)
            for permutation in shuffled[1:]:
                permutation[rows] = rng.permutation(permutation[rows])
        self._labels = shuffled
        self._last = probe.positions[LAST]
        size = (self._contexts, layers, units)
        self._sum, self._squares = np.zeros(size), np.zeros(size)
        self._by_class = np.zeros((self._contexts, layers, len(shuffled), self._classes, units))

    def observe(self, site: str, layer: int, value: torch.Tensor, batch: Batch) -> None:
        import torch

        rows = torch.arange(len(batch.rows), device=value.device)
        x = value[rows, torch.from_numpy(self._last[batch.rows]).to(value.device)].double()
        for context in range(self._contexts):
            chosen = np.flatnonzero(self._context[batch.rows] == context)
            if not len(chosen):
                continue
            mine = x[torch.from_numpy(chosen).to(x.device)]
            self._sum[context, layer] += mine.sum(0).cpu().numpy()
            self._squares[context, layer] += (mine**2).sum(0).cpu().numpy()
            labels = torch.from_numpy(self._labels[:, batch.rows[chosen]]).to(x.device)
            hot = torch.nn.functional.one_hot(labels, self._classes).to(x.dtype)  # (permutation, row, class)
            self._by_class[context, layer] += torch.einsum("prk,ru->pku", hot, mine).cpu().numpy()

    def finish(self, batch: Batch) -> None:
        pass

    def result(self) -> dict[str, np.ndarray]:
        eta = np.full((self._contexts, self._labels.shape[0], *self._sum.shape[1:]), np.nan)
        for context in range(self._contexts):
            labels = self._labels[:, self._context == context]
            n = labels.shape[1]
            if n == 0:  # nothing was asked in this context
                continue
            mean = self._sum[context] / n
            with np.errstate(invalid="ignore"):  # infinities of a broken model become NaN
                total = self._squares[context] - n * mean**2
            for p, row in enumerate(labels):
                counts = np.bincount(row, minlength=self._classes).astype(float)
                sums = self._by_class[context, :, p]  # (layer, class, unit)
                with np.errstate(invalid="ignore", divide="ignore"):
                    between = np.nansum(sums**2 / counts[None, :, None], axis=1) - n * mean**2
                    eta[context, p] = np.where(
                        total > 1e-12 * np.maximum(self._squares[context], 1e-30), between / total, 0.0
                    )
        # a broken model's NaN must stay NaN, and must not rank
        eta[:, :, ~np.isfinite(self._sum).all(0)] = np.nan
        flat = np.nan_to_num(eta, nan=-1.0).reshape(self._contexts, self._labels.shape[0], -1)
        top = np.argsort(-flat, axis=-1, kind="stable")[..., : self._count].astype(np.int32)
        if not np.isfinite(self._sum).all():
            top[:] = -1
        top[[not (self._context == context).any() for context in range(self._contexts)]] = -1
        return {"selectivity": eta[:, 0].astype(np.float32), "selectivity_top": top}
