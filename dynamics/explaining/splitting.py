r"""What crosses a site of the residual stream, split into a dictionary's features and what they do not rebuild.

With :math:`x_t` the activation at token t of the prompt, :math:`x'_t` that of its twin and :math:`\bar g_t` the mean gradient
of the metric with respect to it, on the same path from the twin's embeddings to the prompt's as the edges' scores
(:mod:`dynamics.circuits.attribution`), the site passes on :math:`(x_t - x'_t) \cdot \bar g_t`. That is the sum of the scores of
all edges from what was written before the site to what reads after it. With the dictionary's codes f and decoders d,

.. math:: (x_t - x'_t) \cdot \bar g_t = \sum_j (f_{tj} - f'_{tj}) \, d_j \cdot \bar g_t + (e_t - e'_t) \cdot \bar g_t

where e is the reconstruction's error: exactly, because the dictionary's constants cancel. These are the indirect effects of
features and errors in Marks et al. 2024 (*Sparse Feature Circuits*); edges into features are not computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ..circuits.wired import Metric, Wired
from ..learning.coder import Coder
from ..learning.site import SiteAt
from ..numerics.arrays import FloatArray
from .flow import STEPS, rows_at_once

__all__ = ["FeatureSplit", "Shown", "SiteActivations", "cross", "split", "strongest"]


DIFFERENT = 1e-4
"""Root mean square lengths: activations that are closer are the same, up to rounding."""


@dataclass(frozen=True)
class SiteActivations:
    """The activations at a site at one checkpoint, and how the metric changes with them.

    Attributes:
        clean: (token, d_model) of the prompt.
        twins: (twin, token, d_model) of its twins.
        gradient: (twin, token, d_model) mean on the way from each twin to the prompt; None where it was not wanted.
    """

    clean: torch.Tensor
    twins: torch.Tensor
    gradient: torch.Tensor | None

    @property
    def finite(self) -> bool:
        """Whether all activations are finite."""
        return bool(torch.isfinite(self.clean).all() and torch.isfinite(self.twins).all())


def cross(
    wired: Wired, site: SiteAt, after: int, ids: torch.Tensor, twins: torch.Tensor, metric: Metric | None
) -> SiteActivations:
    """What a model has at a site.

    Args:
        wired: the model.
        site: on the residual stream.
        after: how many layers have written before it.
        ids: (1, token) the prompt.
        twins: (twin, token) corrupted prompts.
        metric: of the logits at the last token; None where no gradient is wanted.
    """
    size = rows_at_once(wired, ids.shape[1])
    chunks = torch.split(twins, size)
    clean = site.read(wired.model, ids.cpu().numpy())[0].cpu()
    other = torch.cat([site.read(wired.model, chunk.cpu().numpy()).cpu() for chunk in chunks])
    if metric is None:
        return SiteActivations(clean, other, None)
    # what reads after the site adds up: each reader has its own copy of the stream, which the site is part of
    readers = slice(wired.graph.attention_readers(after).start, len(wired.graph.readers))
    begin = wired.written(ids)[0]
    gradients = []
    for chunk in chunks:
        rows = ids.expand(len(chunk), -1)
        last = torch.full((len(chunk),), ids.shape[1] - 1, device=ids.device)
        start = wired.written(chunk)[0]
        mean = torch.zeros(*chunk.shape, site.width)
        for k in range(1, STEPS + 1):
            found = wired.gradients(rows, last, metric, start + (k / STEPS) * (begin - start))
            mean += found.readers[readers].float().sum(0).cpu() / STEPS
        gradients.append(mean)
    return SiteActivations(clean, other, torch.cat(gradients))


@dataclass(frozen=True)
class FeatureSplit:
    """What crosses a site at one checkpoint, mean over twins, in logits.

    Attributes:
        features: (token, feature) attribution.
        error: (token,) of what no feature rebuilds; with the features it adds up to ``total``.
        total: (token,) of the whole activation.
        active: (token, feature) length of the feature's part in the activation, in root mean square lengths.
        corrupted: (token, feature) the same for the twins.
    """

    features: FloatArray
    error: FloatArray
    total: FloatArray
    active: FloatArray
    corrupted: FloatArray

    @property
    def differ(self) -> int:
        """How many (token, feature) pairs are not as active as for the twins."""
        return int((np.abs(self.active - self.corrupted) > DIFFERENT).sum())


def split(
    coder: Coder, crossings: Sequence[SiteActivations | None], known: Sequence[npt.NDArray[np.bool_]] | None = None
) -> list[FeatureSplit | None]:
    """Each checkpoint's crossing by the features of a dictionary.

    Args:
        coder: the dictionary, over as many snapshots as there are crossings.
        crossings: of these snapshots, with finite activations; None where there is none, which a joint coder does not
            allow.
        known: per snapshot (feature,) which features count as such; what others carry is part of the error.

    Returns:
        One entry for each snapshot; None where there is nothing, or no gradient.
    """
    joint = _codes(coder, [c for c in crossings if c is not None], 0) if coder.joint else None
    found: list[FeatureSplit | None] = []
    for snapshot, crossing in enumerate(crossings):
        if crossing is None or crossing.gradient is None:
            found.append(None)
            continue
        codes, other = joint or _codes(coder, [crossing], snapshot)
        dictionary = coder.dictionaries[0 if coder.joint else snapshot]
        at = snapshot if coder.joint else 0
        decoder = dictionary.decoder[:, at].cpu().double()
        scale = float(dictionary.scale[at])
        if known is not None:
            decoder = decoder * torch.from_numpy(known[snapshot])[:, None]
        length = decoder.norm(dim=1)
        gradient = crossing.gradient.double()
        total = torch.einsum("td,wtd->wt", crossing.clean.double(), gradient)
        total -= torch.einsum("wtd,wtd->wt", crossing.twins.double(), gradient)
        features = torch.zeros_like(codes)
        for twin, its in zip(gradient, other, strict=True):  # one at a time: (token, feature) may be large
            features += (codes - its) * (twin @ (scale * decoder).T) / len(other)
        whole = total.mean(0)
        found.append(
            FeatureSplit(
                features.numpy(),
                (whole - features.sum(1)).numpy(),
                whole.numpy(),
                (codes * length).numpy(),
                (other.mean(0) * length).numpy(),
            )
        )
    return found


def _codes(coder: Coder, crossings: list[SiteActivations], snapshot: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(token, feature) codes of the prompt, (twin, token, feature) of its twins; float64."""
    dictionary = coder.dictionaries[snapshot]
    clean = torch.stack([c.clean for c in crossings])
    twins = torch.stack([c.twins.flatten(0, 1) for c in crossings])
    with torch.no_grad():
        codes = dictionary.encode(clean).cpu().double()
        other = dictionary.encode(twins).cpu().double()
    return codes, other.unflatten(0, crossings[0].twins.shape[:2])  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class Shown:
    """What is drawn of a split.

    Attributes:
        features: (token, feature, attribution), the strongest first.
        errors: (token, attribution), the strongest first.
        share: of the sum of the absolute attributions of all features, what is shown.
    """

    features: tuple[tuple[int, int, float], ...]
    errors: tuple[tuple[int, float], ...]
    share: float


def strongest(found: FeatureSplit, share: float, most: int) -> Shown:
    """The fewest features that make up a share of the sum of their absolute attributions, and errors likewise.

    Apart, so that features are shown however large the error is; ``most`` of each at most.
    """
    features = _fewest(found.features, share, most)
    whole = np.abs(found.features).sum()
    shown = float(sum(abs(found.features[at]) for at in features) / whole) if whole else 0.0
    return Shown(
        tuple((t, j, float(found.features[t, j])) for t, j in features),
        tuple((t, float(found.error[t])) for (t,) in _fewest(found.error, share, most)),
        min(shown, 1.0),
    )


def _fewest(scores: FloatArray, share: float, most: int) -> list[tuple[int, ...]]:
    """Indices of the largest absolute values, none of them 0, until their sum reaches a share of all."""
    sizes = np.abs(scores).reshape(-1)
    order = np.argsort(-sizes, kind="stable")[:most]
    before = np.cumsum(sizes[order]) - sizes[order]
    chosen = order[(sizes[order] > 0) & (before < share * sizes.sum())]
    indices = np.unravel_index(chosen, scores.shape)
    return [tuple(int(i) for i in index) for index in zip(*indices, strict=True)]
