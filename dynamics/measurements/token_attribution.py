"""Which tokens of a prompt does the answer come from: integrated gradients by token, and tokens exchanged exactly.

With m = logit(answer) - logit(foil) at the last token, x the stream that enters the first layer (a token's embedding,
and its position where the model adds one) and x' a baseline, the attribution of token t is

    A_t = sum over d of (x_td - x'_td) * integral from 0 to 1 of dm/dx_td at x' + s (x - x') ds

(Sundararajan et al. 2017, "Axiomatic Attribution for Deep Networks"), the integral by Gauss-Legendre quadrature. It is
*complete*: the A_t add up to m(x) - m(x') as far as the quadrature is exact. Attributions are summed over named groups
of tokens; all tokens in no group are the group ``rest``. Baselines:

- ``mean``: at each token the mean of x over the probe's prompts of the same length: what an average prompt holds there.
  Tokens that all these prompts share have no attribution.
- ``twin``: x of the corrupted twin: only tokens that differ between the two have an attribution.

Gradients say what an infinitesimal change would do; beside them a group's tokens are *exchanged*: the prompt is run with
the tokens at these positions replaced by those of a counterpart prompt at its own positions of the same names, and all
that follows is computed anew. (The first layer's input depends on a token and its position alone, so that this is patching
of the embeddings.) Counterparts are labels of the probe, as in :mod:`dynamics.measurements.interchange`: for one named
``other`` the label ``other_donor`` holds the number of a prompt for each prompt, -1 for none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from checkpoints.errors import UserError, nearest

from ..models.architecture import Architecture, ModelShape
from ..names import PROMPT
from ..probes import TokenizedProbe
from ..store.variable import Variable
from .base import require_causal, require_positions
from .interchange import donor_label

if TYPE_CHECKING:
    import torch

__all__ = ["REST", "TokenAttribution"]

REST = "rest"
"""The group of all tokens that are in no named group."""

LOGITS = 2**25
"""At most this many logits in one batch."""

MEMORY = 2**30
"""Bytes that what one batch keeps for its gradients may take, about."""

FEWEST = 5
"""Prompts of one length from which a mean embedding is taken; prompts of rarer lengths are not attributed."""


@dataclass(frozen=True)
class TokenAttribution:
    """Integrated gradients by groups of tokens, and groups of tokens exchanged; see the module's docstring.

    Variables, in logits:

    - ``token_attribution`` (prompt, token_group): the sum of A_t over the tokens of each group;
    - ``attribution_whole`` (prompt): m(x) - m(x'), which a complete attribution adds up to;
    - ``exchange_base`` (prompt): m(x);
    - ``exchange_effect`` (counterpart, token_group, prompt): m with the group's tokens exchanged, minus m(x). NaN without
      a counterpart; the group ``rest`` is exchanged only between prompts of one length;
    - ``exchange_said`` (counterpart, token_group, prompt): the first choice among all tokens then, -1 where there is none.

    Attributes:
        groups: name of each group and the named positions of the probe that are in it.
        counterparts: names of counterparts; the probe's labels say which prompts they are.
        baseline: ``mean`` or ``twin``.
        only: label and value of the prompts that are measured; the others are NaN. All prompts if None. Prompts that
            are not measured count for the mean all the same.
        points: of the quadrature.
    """

    groups: tuple[tuple[str, tuple[str, ...]], ...]
    counterparts: tuple[str, ...] = ()
    baseline: Literal["mean", "twin"] = "mean"
    only: tuple[str, str] | None = None
    points: int = 12

    def declare(self, probe: TokenizedProbe, shape: ModelShape) -> list[Variable]:
        """The variables; needs answers and foils, the positions, and the labels that are named."""
        require_causal(probe, shape, "the attribution of tokens")
        name, labels = probe.probe.name, probe.probe.labels
        if probe.answer_ids is None or probe.foil_ids is None:
            raise UserError(
                f"probe {name!r} cannot be attributed",
                expected="an answer and a foil for every prompt",
                remedy="give every prompt an `answer` and a `foil`",
            )
        if self.baseline == "twin" and probe.corrupted_ids is None:
            raise UserError(
                f"probe {name!r} has no corrupted twins",
                expected="twins, or the baseline 'mean'",
                remedy="give every prompt a `corrupted` twin, or choose the baseline 'mean'",
            )
        for _, positions in self.groups:
            require_positions(probe, positions)
        if self.only is not None and self.only[0] not in labels:
            raise UserError(
                f"probe {name!r} has no label {self.only[0]!r}",
                remedy=nearest(self.only[0], labels),
                expected="a label that every prompt has",
            )
        n = len(probe.ids)
        for counterpart in self.counterparts:
            given = labels.get(donor_label(counterpart))
            if given is None or any(not isinstance(v, int) or not -1 <= v < n for v in given):
                raise UserError(
                    f"probe {name!r} does not say which prompt is the counterpart {counterpart!r}",
                    expected=f"a label {donor_label(counterpart)!r} with the number of a prompt, 0 to {n - 1}, or -1",
                    remedy=f"label every prompt with {donor_label(counterpart)}",
                )
        groups = {"token_group": (*(group for group, _ in self.groups), REST)}
        named = {"counterpart": self.counterparts, **groups}
        by_group, exchanged = (PROMPT, "token_group"), ("counterpart", "token_group", PROMPT)
        count = len(groups["token_group"])
        size = (len(self.counterparts), count, n)
        baseline = "an average prompt" if self.baseline == "mean" else "the corrupted twin"
        found = [
            Variable(
                "token_attribution",
                by_group,
                (n, count),
                "float",
                f"integrated gradients by group of tokens, from {baseline}",
                "logits",
                True,
                groups,
            ),
            Variable(
                "attribution_whole",
                (PROMPT,),
                (n,),
                "float",
                f"logit difference above that of {baseline}",
                "logits",
                True,
            ),
        ]
        if self.counterparts:
            found += [
                Variable(
                    "exchange_base", (PROMPT,), (n,), "float", "logit difference as the prompt is", "logits", True
                ),
                Variable(
                    "exchange_effect",
                    exchanged,
                    size,
                    "float",
                    "change of the logit difference with a group's tokens of the counterpart",
                    "logits",
                    True,
                    named,
                ),
                Variable(
                    "exchange_said",
                    exchanged,
                    size,
                    "int",
                    "first choice with a group's tokens of the counterpart",
                    coords=named,
                ),
            ]
        return found

    def cost(self, probe: TokenizedProbe, shape: ModelShape) -> float:
        """See :class:`dynamics.measurements.base.Priced`."""
        exchanged = 1 + len(self.counterparts) * (len(self.groups) + 1) if self.counterparts else 0
        share = 1.0
        if self.only is not None:
            share = float(np.mean([str(v) == self.only[1] for v in probe.probe.labels[self.only[0]]]))
        return share * (3 * self.points + 4 + exchanged)

    def run(
        self, model: Any, architecture: Architecture, probe: TokenizedProbe, batch_tokens: int
    ) -> dict[str, np.ndarray]:
        """See the class.

        Raises:
            UserError: where the architecture's table does not say what the first layer reads.
        """
        n = len(probe.ids)
        wanted = np.ones(n, dtype=bool)
        if self.only is not None:
            wanted = np.array([str(v) for v in probe.probe.labels[self.only[0]]]) == self.only[1]
        start = _Start(model, architecture)
        result = self._attributed(start, probe, wanted, batch_tokens)
        return result | (self._exchanged(start, probe, wanted, batch_tokens) if self.counterparts else {})

    def _attributed(
        self, start: _Start, probe: TokenizedProbe, wanted: np.ndarray, batch_tokens: int
    ) -> dict[str, np.ndarray]:
        n = len(wanted)
        by_group, whole = np.full((n, len(self.groups) + 1), np.nan), np.full(n, np.nan)
        for length in np.unique(probe.lengths):
            same = np.flatnonzero(probe.lengths == length)
            if not wanted[same].any() or (self.baseline == "mean" and len(same) < FEWEST):
                continue
            size = start.rows(int(length), batch_tokens, gradients=True)
            mean = start.mean(probe.ids, same, size) if self.baseline == "mean" else None
            measured = same[wanted[same]]
            for first in range(0, len(measured), size):
                rows = measured[first : first + size]
                ids = np.stack([probe.ids[r] for r in rows])
                twins = None if probe.corrupted_ids is None else np.stack([probe.corrupted_ids[r] for r in rows])
                given = start.read(twins) if mean is None else mean
                tokens, whole[rows] = start.integrated(ids, given, _pair(probe, rows), self.points)
                mask = self._members(probe, rows)  # (row, token, group)
                by_group[rows] = np.einsum("rt,rtg->rg", tokens, mask)
        return {"token_attribution": by_group, "attribution_whole": whole}

    def _members(self, probe: TokenizedProbe, rows: np.ndarray) -> np.ndarray:
        """(row, token, group) 1 where a token is in a group; prompts of one length."""
        mask = np.zeros((len(rows), int(probe.lengths[rows[0]]), len(self.groups) + 1))
        for group, (_, positions) in enumerate(self.groups):
            for position in positions:
                mask[np.arange(len(rows)), probe.positions[position][rows], group] = 1
        mask[..., -1] = ~mask.any(-1)
        return mask

    def _exchanged(
        self, start: _Start, probe: TokenizedProbe, wanted: np.ndarray, batch_tokens: int
    ) -> dict[str, np.ndarray]:
        n, groups = len(wanted), len(self.groups) + 1
        donor = np.array([probe.probe.labels[donor_label(c)] for c in self.counterparts])  # (counterpart, prompt)
        base = np.full(n, np.nan)
        effect, said = np.full((*donor.shape[:1], groups, n), np.nan), np.full((*donor.shape[:1], groups, n), -1)
        for same in probe.batches(n * int(probe.lengths.max())):  # all prompts of one length
            rows = same[wanted[same]]
            size = start.rows(int(probe.lengths[same[0]]), batch_tokens)
            jobs = [(c, g, r) for c in range(len(donor)) for g in range(groups) for r in rows]
            for begin in range(0, len(rows), size):
                some = rows[begin : begin + size]
                base[some] = _difference(start.logits(np.stack([probe.ids[r] for r in some])), _pair(probe, some))
            swapped = [(c, g, r, ids) for c, g, r in jobs if (ids := self._swap(probe, g, r, donor[c, r])) is not None]
            for begin in range(0, len(swapped), size):
                part = swapped[begin : begin + size]
                c, g, r = (np.array([job[i] for job in part]) for i in range(3))
                logits = start.logits(np.stack([ids for *_, ids in part]))
                effect[c, g, r] = _difference(logits, _pair(probe, r)) - base[r]
                said[c, g, r] = np.where(np.isfinite(logits.max(1)), logits.argmax(1), -1)
        return {"exchange_base": base, "exchange_effect": effect, "exchange_said": said}

    def _swap(self, probe: TokenizedProbe, group: int, row: int, donor: int) -> np.ndarray | None:
        """(token,) ids of a prompt with a group's tokens of its counterpart, or None where that cannot be."""
        if donor < 0:
            return None
        ids = probe.ids[row].copy()
        if group < len(self.groups):
            for position in self.groups[group][1]:
                ids[probe.positions[position][row]] = probe.ids[donor][probe.positions[position][donor]]
            return ids
        if len(ids) != len(probe.ids[donor]):
            return None
        named = self._members(probe, np.array([row]))[0, :, :-1].any(-1)
        return np.where(named, ids, probe.ids[donor])


def _pair(probe: TokenizedProbe, rows: np.ndarray) -> np.ndarray:
    """(row, 2) token ids of answer and foil."""
    assert probe.answer_ids is not None and probe.foil_ids is not None
    return np.stack([probe.answer_ids[rows], probe.foil_ids[rows]], axis=1)


def _difference(logits: np.ndarray, pair: np.ndarray) -> np.ndarray:
    """(row,) logit(answer) - logit(foil)."""
    both = np.take_along_axis(logits.astype(np.float64), pair, axis=1)
    return np.asarray(both[:, 0] - both[:, 1])


class _Start:
    """Runs a model from a given input of its first layer, with gradients; the model is left as it was."""

    def __init__(self, model: Any, architecture: Architecture) -> None:
        where = architecture.table.in_block.get("resid_pre")
        if where is None or where.side != "input" or where.function is not None:
            raise UserError(
                "the architecture's table does not say what its blocks read",
                expected="a site resid_pre that is the input of a module",
                remedy="leave this measurement out, or add the site to the table",
            )
        path = ".".join(part for part in (architecture.table.block.format(0), where.module) if part)
        self.model, self.architecture = model, architecture
        self.module = model.get_submodule(path)
        self.device = next(model.parameters()).device

    def rows(self, length: int, batch_tokens: int, *, gradients: bool = False) -> int:
        """How many prompts of one length go into a batch."""
        s = self.architecture.shape
        size = min(batch_tokens // length, LOGITS // s.vocab)
        if gradients:  # of every layer, what goes in and out of its matrices, and its attention patterns
            size = min(size, MEMORY // (4 * length * s.layers * (16 * s.d_model + 3 * s.d_mlp + 3 * s.heads * length)))
        return max(1, size)

    def read(self, ids: np.ndarray | None) -> torch.Tensor:
        """(row, token, d_model) what the first layer reads for token ids (row, token)."""
        import torch

        assert ids is not None
        seen: list[torch.Tensor] = []
        with torch.no_grad(), self._hooked(lambda x: seen.append(x.detach())):
            self._forward(ids)
        return seen[0]

    def mean(self, ids: tuple[np.ndarray, ...], rows: np.ndarray, size: int) -> torch.Tensor:
        """(1, token, d_model) the mean of :meth:`read` over prompts of one length."""
        parts = [rows[first : first + size] for first in range(0, len(rows), size)]
        sums = [self.read(np.stack([ids[r] for r in part])).double().sum(0, keepdim=True) for part in parts]
        total = sums[0]
        for other in sums[1:]:
            total = total + other
        return total / len(rows)

    def logits(self, ids: np.ndarray) -> np.ndarray:
        """(row, vocab) logits at the last token of the model as it is."""
        import torch

        with torch.no_grad():
            return np.asarray(self._forward(ids).float().cpu().numpy())

    def integrated(
        self, ids: np.ndarray, baseline: torch.Tensor, pair: np.ndarray, points: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """(row, token) attributions, and (row,) m(x) - m(x')."""
        import torch

        full = self.read(ids)
        baseline = baseline.to(full.dtype).expand_as(full)
        difference = full - baseline
        gradient = torch.zeros_like(full, dtype=torch.float32)
        nodes, weights = np.polynomial.legendre.leggauss(points)
        for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            gradient += weight * self._gradient(ids, baseline + float(node) * difference, pair)
        tokens = (gradient * difference.float()).sum(-1).cpu().numpy()
        ends = [self._value(ids, stream, pair) for stream in (full, baseline)]
        return tokens, ends[0] - ends[1]

    def _value(self, ids: np.ndarray, stream: torch.Tensor, pair: np.ndarray) -> np.ndarray:
        """(row,) m of a stream that enters the first layer."""
        import torch

        with torch.no_grad(), self._hooked(lambda _: stream):
            return _difference(self._forward(ids).float().cpu().numpy(), pair)

    def _gradient(self, ids: np.ndarray, stream: torch.Tensor, pair: np.ndarray) -> torch.Tensor:
        """(row, token, d_model) gradient of m with respect to the stream."""
        import torch

        leaf = stream.detach().clone().requires_grad_()
        with torch.enable_grad(), self._hooked(lambda _: leaf):
            both = self._forward(ids).float().gather(1, torch.from_numpy(pair).to(self.device))
            (found,) = torch.autograd.grad((both[:, 0] - both[:, 1]).sum(), leaf)
        return found.float()

    def _forward(self, ids: np.ndarray) -> torch.Tensor:
        import torch

        given = torch.from_numpy(ids).to(self.device)
        last = torch.tensor([ids.shape[1] - 1], device=self.device)
        return self.architecture.logits(self.model, given, last)[:, 0]

    @contextmanager
    def _hooked(self, see: Callable[[torch.Tensor], Any]) -> Iterator[None]:
        """``see`` looks at what the first layer reads, and may return another; no weight has a gradient meanwhile."""

        def hook(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            new = see(args[0] if args else kwargs["hidden_states"])
            if new is None:
                return None
            return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": new})

        learning = [p for p in self.model.parameters() if p.requires_grad]
        for parameter in learning:
            parameter.requires_grad_(False)
        handle = self.module.register_forward_pre_hook(hook, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()
            for parameter in learning:
                parameter.requires_grad_(True)
