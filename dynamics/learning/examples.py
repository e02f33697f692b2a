"""What a feature is: the tokens of a corpus on which it fires most, and what it does to the logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..circuits.norms import gain_of
from .coder import Coder
from .quality import Held
from .site import SiteAt

__all__ = ["Examples", "LogitEffect", "logit_effect", "top_examples"]

BEFORE, AFTER = 12, 3
EXAMPLES = 6
"""Tokens shown of every feature, of as many rows."""
ENDS = 5
"""Tokens shown of those that a feature promotes most, and of those that it suppresses most."""


@dataclass(frozen=True)
class Examples:
    """The strongest tokens of every feature, each with the tokens around it.

    Attributes:
        tokens: (feature, example, window) token ids; -1 outside the row. The token itself is at index ``BEFORE``.
        activation: (feature, example, window) of the feature; 0 where it does not fire, NaN outside the row.
    """

    tokens: npt.NDArray[np.int32]
    activation: npt.NDArray[np.float16]


def top_examples(coder: Coder, held: Held) -> Examples:
    """Tokens of different rows on which each feature fires most; call it before the activations are used up.

    Codes of a separate coder are those of the last checkpoint.
    """
    wide = held.rows.shape[1] - held.skip
    features = coder.dictionaries[-1].features
    rows = len(held.rows)
    best = torch.zeros(features, rows)  # the largest activation in every row
    where = torch.zeros(features, rows, dtype=torch.int32)
    for some, codes in coder.encoded(held.activations):
        codes = codes.cpu()
        number = torch.arange(some.start, some.stop) // wide
        for row in number.unique().tolist():
            mine = torch.nonzero(number == row).flatten()
            value, index = codes[mine].max(dim=0)
            better = value > best[:, row]
            best[better, row] = value[better]
            where[better, row] = (some.start + mine[index[better]]).to(torch.int32)
    count = min(EXAMPLES, rows)
    top = best.topk(count, dim=1)
    chosen = where.gather(1, top.indices)
    strongest = torch.where(top.values > 0, chosen, -1).numpy()
    tokens = np.full((features, count, BEFORE + 1 + AFTER), -1, dtype=np.int32)
    activation = np.full(tokens.shape, np.nan, dtype=np.float16)
    wanted: dict[int, list[tuple[int, int, int]]] = {}  # token of the corpus to (feature, example, index in the window)
    for feature, example in np.argwhere(strongest >= 0):
        row, at = divmod(int(strongest[feature, example]), wide)
        for window in range(tokens.shape[2]):
            token = at + window - BEFORE
            if -held.skip <= token < wide:
                tokens[feature, example, window] = held.rows[row, token + held.skip]
                if token >= 0:
                    wanted.setdefault(row * wide + token, []).append((int(feature), int(example), window))
    for some, codes in coder.encoded(held.activations):
        for token in range(some.start, some.stop):
            if token in wanted:
                f, e, p = (np.array(x) for x in zip(*wanted[token], strict=True))
                activation[f, e, p] = codes[token - some.start, torch.from_numpy(f)].cpu().numpy()
    return Examples(tokens, activation)


@dataclass(frozen=True)
class LogitEffect:
    """The tokens that a feature makes most and least likely by itself.

    Attributes:
        tokens: (feature, rank) ids, the most promoted first, then the most suppressed (the worst last).
        effect: (feature, rank) change of the logit for one unit of the scaled activation, before the final norm's scale.
    """

    tokens: npt.NDArray[np.int32]
    effect: npt.NDArray[np.float32]


STREAM = ("embed", "resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")


def logit_effect(model: Any, site: SiteAt, directions: torch.Tensor, *, vocab: int) -> LogitEffect | None:
    """Directions through the final norm's gain and the unembedding (direct logit attribution without the norm's scale).

    Args:
        model: the last checkpoint's.
        site: the site; None is returned unless it is on the residual stream.
        directions: (feature, d_model) in the model's own units.
        vocab: ids below this are tokens (an embedding may have more rows).
    """
    head = getattr(model, "get_output_embeddings", lambda: None)()
    where = site.architecture.table.outside.get("ln_final")
    if site.name not in STREAM or head is None or where is None:
        return None
    norm = model.get_submodule(where.module)
    with torch.no_grad():
        d = directions.to(head.weight.device, torch.float32)
        if isinstance(norm, torch.nn.LayerNorm):
            d = d - d.mean(dim=1, keepdim=True)
        if (gain := gain_of(norm)) is not None:
            d = d * gain.float()
        unembedding = head.weight.float()[:vocab]
        count = min(ENDS, len(unembedding) // 2)
        tokens, effect = [], []
        for some in torch.split(d, 256):
            logits = some @ unembedding.T
            up, down = logits.topk(count, dim=1), logits.topk(count, dim=1, largest=False)
            tokens.append(torch.cat([up.indices, down.indices.flip(1)], 1))
            effect.append(torch.cat([up.values, down.values.flip(1)], 1))
    return LogitEffect(
        torch.cat(tokens).cpu().numpy().astype(np.int32), torch.cat(effect).cpu().numpy().astype(np.float32)
    )
