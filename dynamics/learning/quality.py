r"""How well a dictionary describes text that it was not trained on, at every checkpoint.

*Loss recovered* (Bricken et al. 2023; Gao et al. 2024): with L the loss of the model as it is, L* with the activations at
the site replaced by the dictionary's reconstruction, and L0 with all of them replaced by their mean,

.. math:: 1 - \frac{L^* - L}{L_0 - L},

1 where the reconstruction loses nothing, 0 where it is worth no more than the mean; NaN where the site's mean does as well
as its values (an untrained model), because there is nothing to recover.

Beside it stands what each feature does at each checkpoint: how strongly it answers (the mean length of its part, activation
times decoder norm), and what it is worth to the model (:mod:`dynamics.learning.effects`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_array

from checkpoints.loading import ResidentModel
from checkpoints.series import Checkpoint, Series

from ..numerics.arrays import FloatArray
from .coder import Coder
from .dictionary import Fit, evaluate
from .effects import measure_effects
from .readings import OnCheckpoint, installed
from .site import SiteAt

__all__ = ["Held", "Quality", "measure", "read_rows"]

LOGITS = 2**25
LEAST_GAP = 1e-2
"""A loss of the mean that is less than this many nats above the model's own leaves nothing to recover."""


@dataclass(frozen=True)
class Held:
    """Rows of a corpus, and their activations.

    Attributes:
        rows: (row, token) token ids.
        skip: first tokens of every row that are left out.
        activations: (checkpoint, row x token, d_model) of the others.
    """

    rows: npt.NDArray[np.integer]
    skip: int
    activations: torch.Tensor


@dataclass(frozen=True)
class Quality:
    """One number per checkpoint, unless it says otherwise.

    Attributes:
        fits: of every dictionary: one over all checkpoints, or one for each.
        fvu: fraction of variance unexplained.
        l0: features that fire on a token on average.
        loss, loss_replaced, loss_without: nats per token; see the module's docstring.
        loss_recovered: see there.
        activation: (checkpoint, feature) mean over tokens of the length of the feature's part, in the dictionary's units.
        effect: (checkpoint, feature) nats per token by which the loss would rise without it, estimated.
        activation_error, effect_error: their standard errors over rows.
    """

    fits: tuple[Fit, ...]
    fvu: FloatArray
    l0: FloatArray
    loss: FloatArray
    loss_replaced: FloatArray
    loss_without: FloatArray
    loss_recovered: FloatArray
    activation: FloatArray
    activation_error: FloatArray
    effect: FloatArray
    effect_error: FloatArray


def read_rows(
    series: Series,
    checkpoints: Sequence[Checkpoint],
    resident: ResidentModel,
    site: SiteAt,
    rows: npt.NDArray[np.integer],
    *,
    skip: int,
    batch_tokens: int,
    progress: OnCheckpoint | None = None,
) -> Held:
    """Activations of whole rows at every checkpoint, in memory."""
    tokens = len(rows) * (rows.shape[1] - skip)
    found = torch.empty(len(checkpoints), tokens, site.width)
    size = max(1, batch_tokens // rows.shape[1])
    for number, model in installed(series, checkpoints, resident, progress):
        parts = [site.read(model, rows[start : start + size])[:, skip:] for start in range(0, len(rows), size)]
        found[number] = torch.cat([part.reshape(-1, site.width).cpu() for part in parts])
    return Held(rows, skip, found)


def measure(
    series: Series,
    checkpoints: Sequence[Checkpoint],
    resident: ResidentModel,
    site: SiteAt,
    coder: Coder,
    held: Held,
    *,
    batch_tokens: int,
    progress: OnCheckpoint | None = None,
) -> Quality:
    """Fit, loss recovered, and what features do; codes are held for some rows at a time (a joint coder's for all)."""
    batches = torch.split(held.activations, 512, dim=1)
    if coder.joint:
        fits: tuple[Fit, ...] = (evaluate(coder.dictionaries[0], batches),)
        fvu, l0 = fits[0].fvu, fits[0].l0
    else:
        fits = tuple(evaluate(d, (b[i : i + 1] for b in batches)) for i, d in enumerate(coder.dictionaries))
        fvu, l0 = np.concatenate([f.fvu for f in fits]), np.concatenate([f.l0 for f in fits])
    mean = held.activations.mean(dim=1)
    pieces = _pieces(site, held, batch_tokens)
    kept = [coder.sparse(held.activations[:, tokens], 0) for _, tokens in pieces] if coder.joint else None
    losses = np.full((3, len(checkpoints)), np.nan)
    said = np.full((4, len(checkpoints), coder.features), np.nan)
    for number, model in installed(series, checkpoints, resident, progress):

        def codes(piece: int, number: int = number) -> csr_array:
            return coder.sparse(held.activations[:, pieces[piece][1]], number) if kept is None else kept[piece]

        decoder = coder.decoder(number)
        found = measure_effects(model, site, held.rows, held.skip, [rows for rows, _ in pieces], codes, decoder)
        each = found.activation, found.activation_error, found.effect, found.effect_error
        said[:, number, : len(decoder.vectors)] = each
        rebuilt = torch.from_numpy(found.rebuilt)
        losses[0, number] = found.loss
        losses[1, number] = _loss(model, site, held, rebuilt, batch_tokens)
        losses[2, number] = _loss(model, site, held, mean[number].expand_as(rebuilt), batch_tokens)
    own, replaced, without = losses
    gap = without - own
    recovered = np.where(gap > LEAST_GAP, 1.0 - (replaced - own) / np.where(gap > LEAST_GAP, gap, 1.0), np.nan)
    return Quality(fits, fvu, l0, own, replaced, without, recovered, *said)


def _pieces(site: SiteAt, held: Held, batch_tokens: int) -> list[tuple[slice, slice]]:
    """Rows of one backward pass, and their tokens; a pass that remembers its layers gets a quarter of the tokens."""
    count, length = held.rows.shape
    size = max(1, min(batch_tokens // 4 // length, LOGITS // 4 // (length * site.architecture.shape.vocab)))
    wide = length - held.skip
    cuts = [slice(start, min(start + size, count)) for start in range(0, count, size)]
    return [(rows, slice(rows.start * wide, rows.stop * wide)) for rows in cuts]


def _loss(model: Any, site: SiteAt, held: Held, by: torch.Tensor, batch_tokens: int) -> float:
    """Mean nats per token of the rows behind the skipped tokens, with the site's values there replaced."""
    rows, skip = held.rows, held.skip
    count, length = rows.shape
    vocab = site.architecture.shape.vocab
    size = max(1, min(batch_tokens // length, LOGITS // (length * vocab)))
    total, tokens = 0.0, 0
    device = next(model.parameters()).device
    keep = torch.arange(skip, length - 1, device=device)
    for start in range(0, count, size):
        ids = torch.from_numpy(np.ascontiguousarray(rows[start : start + size], dtype=np.int64)).to(device)

        def swapped(value: torch.Tensor, start: int = start, ids: torch.Tensor = ids) -> torch.Tensor:
            wide = length - skip
            mine = by[start * wide : (start + len(ids)) * wide].view(len(ids), wide, -1).to(value)
            return torch.cat([value[:, :skip], mine], dim=1)

        with torch.no_grad(), site.replaced(model, swapped):
            logits = site.architecture.logits(model, ids, keep)
        targets = ids[:, skip + 1 :]
        total += float(
            torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="sum")
        )
        tokens += targets.numel()
    return total / tokens
