r"""What is a feature worth to the model at one checkpoint: how much would the loss rise if it were taken away?

With :math:`f_{tj} = a_{tj} d_j` the part of feature j in the activation of token t (its activation times its decoder) and
:math:`g_t(x)` the gradient of the loss at activations x, taking the part away from a whole row of text costs

.. math:: \int_0^1 \sum_t - g_t(x - \alpha f_j) \cdot f_{tj} \, d\alpha,

its *effect*. Everything else stays as it is, what the dictionary leaves out (its error) included. The gradient at
:math:`\alpha = 0` alone (attribution patching: Nanda 2023) does not do: a trained model is near a minimum of its loss, also
with respect to how strong each feature is, so that the mean of :math:`g \cdot f` over text is near 0 whatever the feature is
worth. The gradient has to be read along the way (integrated gradients: Sundararajan et al. 2017; of features: Marks et al.
2024, "Sparse feature circuits"). Here it is read at its start and at two thirds, with weights 1/4 and 3/4 (Radau's rule,
exact for a loss that is a polynomial of degree 3 along the way).

A pass for each feature would cost thousands of passes. Instead every pass takes away, from every row, the parts of a random
sixteenth of the features that fire in it: features are few per token, and what they do to each other is of second order. Only
four passes are made, so that a feature is tried in its first four rows, and in one of four of all others in which it fires.
Both make the estimate one of *rank* and order of magnitude; where features stand for the same thing, a pass takes away several
of them, and the effect of each comes out too large.

Rows are the independent units, because tokens of one row depend on each other: means are over rows, and so are their standard
errors, which contain that not every row was tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_array

from ..numerics.arrays import BoolArray, FloatArray
from .coder import Decoder
from .site import SiteAt

__all__ = ["Effects", "RowMeans", "by_row", "loss_and_gradient", "measure_effects", "removed"]


GROUPS = 16
"""A pass takes away one of so many of the features that fire in a row."""
PASSES = 4
LEAST = 4
"""Rows in which a feature is tried whatever the passes, if it fires in as many."""
AWAY, WEIGHTS = 2 / 3, (1 / 4, 3 / 4)
"""Where the gradient is read besides the start, as a share of the way, and the weights of the two (Radau)."""
_NUMBERS = 2**22
"""Numbers of gathered vectors in memory at a time."""


@dataclass(frozen=True)
class Effects:
    """What a dictionary's features do at one checkpoint.

    Attributes:
        loss: of the model as it is, nats per token.
        rebuilt: (token, d_model) what the dictionary makes of the activations.
        activation: (feature,) mean over tokens of the length of the feature's part, in the dictionary's units.
        effect: (feature,) nats per token; see the module's docstring.
        activation_error, effect_error: (feature,) their standard errors over rows; NaN for fewer than two rows.
    """

    loss: float
    rebuilt: npt.NDArray[np.float32]
    activation: FloatArray
    activation_error: FloatArray
    effect: FloatArray
    effect_error: FloatArray


def measure_effects(
    model: Any,
    site: SiteAt,
    rows: npt.NDArray[np.integer],
    skip: int,
    cuts: Sequence[slice],
    codes: Callable[[int], csr_array],
    decoder: Decoder,
) -> Effects:
    """Activations and effects of all features on rows of text.

    Args:
        model: with the checkpoint's weights.
        site: the site.
        rows: (row, token) token ids.
        skip: first tokens of every row that the dictionary does not describe, and that predict nothing.
        cuts: the rows of one pass, in order.
        codes: from the number of a cut to its activations (row x (token - skip), feature).
        decoder: what they stand for at this checkpoint.
    """
    features, wide = len(decoder.vectors), rows.shape[1] - skip
    activation, effect = RowMeans(features, wide), RowMeans(features, wide - 1)
    rng, seen = np.random.default_rng(0), np.zeros(features, dtype=np.int64)
    loss, rebuilt = 0.0, []
    for number, cut in enumerate(cuts):
        ids, code = rows[cut], codes(number)
        rebuilt.append(decoder.rebuilt(code))
        fires = by_row(code, len(ids)) > 0
        activation.add(by_row(csr_array(code.multiply(decoder.lengths)), len(ids)), fires, fires)
        turn = _turns(fires, seen, rng)
        seen += fires.sum(axis=0)
        value, start = loss_and_gradient(model, site, ids, skip)
        loss += value
        rise = np.zeros(fires.shape)
        sparse = code.tocoo()
        turn_of = turn[sparse.row // wide, sparse.col]
        for one in range(PASSES):
            mine = turn_of == one
            some = csr_array((sparse.data[mine], (sparse.row[mine], sparse.col[mine])), shape=code.shape)
            part = np.asarray(some @ decoder.vectors, dtype=np.float32).reshape(start.shape)
            _, away = loss_and_gradient(model, site, ids, skip, less=AWAY * part)
            mean = (WEIGHTS[0] * start + WEIGHTS[1] * away).reshape(-1, decoder.vectors.shape[1])
            rise += by_row(removed(mean, some, decoder.vectors), len(ids))
        effect.add(rise, fires, turn >= 0)
    return Effects(
        loss / (len(rows) * (wide - 1)),
        np.concatenate(rebuilt),
        activation.mean,
        activation.error,
        effect.mean,
        effect.error,
    )


def _turns(fires: BoolArray, seen: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.int8]:
    """(row, feature) the pass that takes a feature away from a row; -1 for none.

    Args:
        fires: (row, feature) whether it fires there.
        seen: (feature,) rows before these in which it fired.
        rng: deals the passes.
    """
    rank = seen + fires.cumsum(axis=0) - 1
    tried = fires & ((rank < LEAST) | (rank % (GROUPS // PASSES) == 0))
    return np.where(tried, rng.integers(PASSES, size=fires.shape, dtype=np.int8), np.int8(-1))


def loss_and_gradient(
    model: Any,
    site: SiteAt,
    ids: npt.NDArray[np.integer],
    skip: int,
    less: npt.NDArray[np.floating] | None = None,
) -> tuple[float, npt.NDArray[np.float32]]:
    """The loss of some rows, and its gradient at the site.

    Args:
        model: with weights.
        site: the site.
        ids: (row, token) token ids.
        skip: first tokens of every row; they predict nothing.
        less: (row, token - skip, width) what is subtracted from the site's values.

    Returns:
        Nats, summed over rows and predicted tokens; (row, token - skip, width) its gradient with respect to the site's
        values behind the skipped tokens.
    """
    device = next(model.parameters()).device
    given = torch.from_numpy(np.ascontiguousarray(ids, dtype=np.int64)).to(device)
    keep = torch.arange(skip, ids.shape[1] - 1, device=device)
    leaves: list[torch.Tensor] = []

    def leave(value: torch.Tensor) -> torch.Tensor:
        value = value.detach().clone()
        if less is not None:
            value[:, skip:] -= torch.from_numpy(less).to(value)
        leaves.append(value.requires_grad_())
        return value

    with _fixed(model), torch.enable_grad(), site.replaced(model, leave):
        logits = site.architecture.logits(model, given, keep)
        targets = given[:, skip + 1 :]
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="sum")
        (gradient,) = torch.autograd.grad(loss, leaves[-1])
    return float(loss.detach()), gradient[:, skip:].float().cpu().numpy()


@contextmanager
def _fixed(model: Any) -> Iterator[None]:
    """While the context is open no weight asks for a gradient, so that the layers below the site keep nothing."""
    learning = [p for p in model.parameters() if p.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def removed(gradient: npt.NDArray[np.floating], codes: csr_array, vectors: npt.NDArray[np.floating]) -> csr_array:
    """(token, feature) rise of the loss if a feature's part is subtracted from a token's activation, by a gradient.

    Args:
        gradient: (token, d_model) of the loss.
        codes: (token, feature) activations; only where there is one is anything computed.
        vectors: (feature, d_model) decoder, in the activations' own units.
    """
    sparse = codes.tocoo()
    token, feature, values = sparse.row, sparse.col, sparse.data.astype(np.float64)
    step = max(1, _NUMBERS // vectors.shape[1])
    for start in range(0, len(token), step):
        some = slice(start, start + step)
        values[some] *= -np.einsum("nd,nd->n", gradient[token[some]], vectors[feature[some]], dtype=np.float64)
    return csr_array((values, (token, feature)), shape=codes.shape)


def by_row(values: csr_array, rows: int) -> FloatArray:
    """(row, feature) sums of (row x token, feature)."""
    tokens, features = values.shape
    sparse = values.tocoo()
    cell = sparse.row.astype(np.int64) // (tokens // rows) * features + sparse.col
    return np.asarray(np.bincount(cell, weights=sparse.data, minlength=rows * features).reshape(rows, features))


class RowMeans:
    r"""Mean per token of a number of every feature that is 0 in rows where the feature does not fire, and its error.

    With R rows, a feature that fires in n of them (:math:`p = n / R`) and was tried in m of these, with mean :math:`\mu` and
    variance :math:`s^2`, the mean over rows is :math:`p \mu` and its squared standard error
    :math:`p^2 s^2 / m + \mu^2 p (1 - p) / R` (two-stage sampling; with m = n that of a plain mean over rows).

    Args:
        features: how many.
        tokens: of a row, by which its sum is divided.
    """

    def __init__(self, features: int, tokens: int) -> None:
        self._tokens, self._rows = tokens, 0
        self._fired, self._tried, self._total, self._squares = np.zeros((4, features))

    def add(self, sums: FloatArray, fires: BoolArray, tried: BoolArray) -> None:
        """Add rows: sums (row, feature), 0 unless tried; whether the feature fires, and was tried, there."""
        self._rows += len(sums)
        self._fired += fires.sum(axis=0)
        self._tried += tried.sum(axis=0)
        self._total += sums.sum(axis=0)
        self._squares += (sums**2).sum(axis=0)

    @property
    def mean(self) -> FloatArray:
        """(feature,) per token; 0 for a feature that does not fire."""
        return np.asarray(self._fired / self._rows * self._each / self._tokens)

    @property
    def error(self) -> FloatArray:
        """(feature,) the standard error of the mean; NaN for fewer than two rows."""
        if self._rows < 2:
            return np.full(len(self._total), np.nan)
        share, each, tried = self._fired / self._rows, self._each, np.maximum(self._tried, 1)
        spread = np.maximum(self._squares - tried * each**2, 0.0) / np.maximum(tried - 1, 1)
        squared = share**2 * spread / tried + each**2 * share * (1 - share) / self._rows
        return np.asarray(np.sqrt(squared) / self._tokens)

    @property
    def _each(self) -> FloatArray:
        return np.asarray(self._total / np.maximum(self._tried, 1))
