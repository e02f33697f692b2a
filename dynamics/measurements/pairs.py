"""Prompts and their twins, batch by batch, and the attribution between them that circuits and source effects share.

Everything that intervenes between a prompt and its twin begins with both runs and with the gradient on the way from the
one to the other (:mod:`dynamics.circuits.attribution`). They are computed once for all measurements of a probe.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from checkpoints.errors import UserError

from ..probes import LAST, TokenizedProbe
from .sharing import once

if TYPE_CHECKING:
    import torch

    from ..circuits.wired import Metric, Wired

__all__ = [
    "MEMORY",
    "Attributed",
    "PromptPairs",
    "attributed",
    "discovery_half",
    "groups_of",
    "numbers",
    "pairs_of",
    "prompt_groups",
    "require_pairs",
    "share_apart",
    "tokens_at_once",
]

GROUPS = 4
"""Groups of prompts in each half of them."""

MEMORY = 2**30
"""Bytes that one batch's inputs and gradients may take."""


@dataclass(frozen=True)
class PromptPairs:
    """Prompts of equal length with their twins, without the tokens with which each begins as its twin does.

    Attributes:
        wired: the model, behind those tokens.
        start: how many they are; nothing of them differs in any run, whatever of it is the twin's.
        rows: (row,) which prompts of the probe these are.
        ids, corrupted: (row, token) token ids of the rest.
        positions: (row,) where the metric is taken, counted from ``start``.
        answer, foil: (row,) token ids.
        metric: logit(answer) - logit(foil) there.
    """

    wired: Wired
    start: int
    rows: np.ndarray
    ids: torch.Tensor
    corrupted: torch.Tensor
    positions: torch.Tensor
    answer: torch.Tensor
    foil: torch.Tensor
    metric: Metric


@dataclass(frozen=True)
class Attributed:
    """The attribution between all prompts of a probe and their twins.

    Attributes:
        clean, corrupted: (prompt,) the metric of prompts and twins.
        direct: (prompt, source) direct logit attribution.
        source: (prompt, source) attribution of each source: that of all its edges together.
        groups: (group, source, reader) mean attribution of edges over the prompts of each group (:func:`prompt_groups`); NaN
            where there is no edge.
        edge: (half, source, reader) the same over each half.
    """

    clean: np.ndarray
    corrupted: np.ndarray
    direct: np.ndarray
    source: np.ndarray
    groups: np.ndarray
    edge: np.ndarray


def discovery_half(prompts: int, seed: int) -> np.ndarray:
    """(prompt,) true where a prompt is used to rank edges; the others check the circuit.

    >>> int(discovery_half(10, 0).sum())
    5
    """
    half = np.zeros(prompts, dtype=bool)
    half[np.random.default_rng(seed).permutation(prompts)[: prompts // 2]] = True
    return half


def groups_of(prompts: int) -> int:
    """Into how many groups so many prompts fall: up to four a half.

    >>> groups_of(32), groups_of(4)
    (8, 4)
    """
    return 2 * min(GROUPS, prompts // 2)


def prompt_groups(prompts: int, seed: int) -> np.ndarray:
    """(prompt,) group of each prompt; the first half of the groups are the prompts that rank edges (:func:`discovery_half`).

    >>> prompt_groups(8, 0).tolist()
    [4, 5, 0, 1, 2, 6, 3, 7]
    """
    half, count = discovery_half(prompts, seed), groups_of(prompts) // 2
    group = np.empty(prompts, dtype=np.int64)
    for first, mine in ((0, np.flatnonzero(half)), (count, np.flatnonzero(~half))):
        for number, rows in enumerate(np.array_split(mine, count)):
            group[rows] = first + number
    return group


def require_pairs(probe: TokenizedProbe) -> None:
    """Refuse a probe whose prompts have no answer, foil and twin.

    Raises:
        UserError: for such a probe.
    """
    if probe.answer_ids is None or probe.foil_ids is None or probe.corrupted_ids is None:
        raise UserError(
            f"probe {probe.probe.name!r} cannot be patched",
            expected="an answer, a foil and a corrupted twin for every prompt",
            remedy="give its prompts `answer`, `foil` and `corrupted`",
        )


def attributed(wired: Wired, probe: TokenizedProbe, batch_tokens: int, steps: int, seed: int) -> Attributed:
    """EAP-IG of every edge at ``steps`` points, over the halves of ``seed``; computed once per checkpoint."""
    return once(("attributed", steps, seed), lambda: _attributed(wired, probe, batch_tokens, steps, seed))


def _attributed(wired: Wired, probe: TokenizedProbe, batch_tokens: int, steps: int, seed: int) -> Attributed:
    from ..circuits.attribution import attribute, direct_logits

    graph, n = wired.graph, len(probe.ids)
    clean, corrupted = np.full(n, np.nan), np.full(n, np.nan)
    direct, source = np.full((n, len(graph.sources)), np.nan), np.full((n, len(graph.sources)), np.nan)
    group = prompt_groups(n, seed)
    edge = np.zeros((groups_of(n), *graph.edges.shape))
    shape = wired.architecture.shape
    # differences of sources, gradients of readers, and what autograd keeps of every layer
    width = (
        shape.d_model * (len(graph.sources) + len(graph.readers) + 20 * graph.layers) + 4 * shape.d_mlp * graph.layers
    )
    tokens = tokens_at_once(batch_tokens, width)
    for batch in pairs_of(wired, probe, tokens, np.arange(n), group):
        rows, own = batch.rows, batch.wired
        run, twin = own.run(batch.ids, batch.positions), own.run(batch.corrupted, batch.positions)
        clean[rows], corrupted[rows] = (numbers(batch.metric(each.logits.float())) for each in (run, twin))
        direct[rows] = numbers(direct_logits(own, batch.ids, batch.positions, batch.answer, batch.foil, run)[0])
        between = twin.streams[0], own.sources(run, twin)
        del run, twin
        there, first = np.unique(group[rows], return_index=True)
        sets = [slice(*ends) for ends in zip(first, [*first[1:], len(rows)], strict=True)]
        given = batch.ids, batch.corrupted, batch.positions, batch.metric
        found = attribute(own, *given, steps=steps, between=between, rows=sets)
        source[rows] = numbers(found.sources)
        edge[there] += numbers(found.edges)
    size = np.bincount(group)[:, None, None]
    halves = np.stack([edge[of].sum(0) / size[of].sum() for of in np.split(np.arange(len(edge)), 2)])
    apart, whole = (np.where(graph.edges, scores, np.nan) for scores in (edge / size, halves))
    return Attributed(clean, corrupted, direct, source, apart, whole)


def tokens_at_once(batch_tokens: int, width: int) -> int:
    """How many tokens, of ``width`` numbers each, keep to :data:`MEMORY`."""
    return max(1, min(batch_tokens, MEMORY // (4 * width)))


def pairs_of(
    wired: Wired, probe: TokenizedProbe, tokens: int, chosen: np.ndarray, group: np.ndarray | None = None
) -> Iterator[PromptPairs]:
    """The chosen prompts, in batches of equal length and at most so many tokens behind what they have in common.

    With the (prompt,) ``group`` of each, those of one group stand together in every batch.
    """
    import torch

    from ..circuits.attribution import logit_difference

    assert probe.answer_ids is not None and probe.foil_ids is not None and probe.corrupted_ids is not None

    def given(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values).to(wired.device)

    lengths = probe.lengths[chosen]
    alike = np.zeros(len(probe.ids), dtype=np.int64)
    if wired.architecture.cached:
        alike[chosen] = [_alike(probe, row) for row in chosen]
    for length in np.unique(lengths):
        left = chosen[lengths == length]
        left = left[np.argsort(alike[left], kind="stable")]
        while len(left):
            start = int(alike[left[0]])
            size = max(1, tokens // (int(length) - start))
            rows, left = left[:size], left[size:]
            if group is not None:
                rows = rows[np.argsort(group[rows], kind="stable")]
            ids, corrupted = (given(np.stack([of[r] for r in rows])) for of in (probe.ids, probe.corrupted_ids))
            answer, foil = given(probe.answer_ids[rows]), given(probe.foil_ids[rows])
            yield PromptPairs(
                wired.behind(ids[:, :start]) if start else wired,
                start,
                rows,
                ids[:, start:],
                corrupted[:, start:],
                given(probe.positions[LAST][rows] - start),
                answer,
                foil,
                logit_difference(answer, foil),
            )


def share_apart(probe: TokenizedProbe) -> float:
    """How much of the prompts' tokens come after those with which each begins as its twin does."""
    return 1 - sum(_alike(probe, row) for row in range(len(probe.ids))) / float(probe.lengths.sum())


def _alike(probe: TokenizedProbe, row: int) -> int:
    """With how many tokens a prompt begins as its twin does, up to where the metric is taken."""
    assert probe.corrupted_ids is not None
    other = np.flatnonzero(np.asarray(probe.ids[row]) != np.asarray(probe.corrupted_ids[row]))
    last = int(probe.positions[LAST][row])
    return min(int(other[0]), last) if len(other) else last


def numbers(tensor: Any) -> np.ndarray:
    """As float64 on the CPU."""
    return np.asarray(tensor.detach().double().cpu().numpy())
