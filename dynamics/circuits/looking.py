r"""Why a head looks where it does: the score of a token taken apart by what wrote the query and what wrote the key.

A head's score for key j at query i is bilinear in the stream, q_i . k_j, once the scales of norms are taken as they are
(Elhage et al. 2021). With q_i and k_j the sums of what each source contributes, it is a sum over pairs of sources. A pattern
says scores up to a number per query, so that what is taken apart is

    score(i -> j) = log p_ij - mean over visible t of log p_it,

how much more the head looks at j than at what it could look at else. The matrices in between (rotary positions, gains
of norms of queries and keys) are the model's own: the second derivative of that score by query and key, so that no
family needs a formula. What is no product of two sources, such as a bias by distance (ALiBi) or a cap of scores, is the
rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from .hooks import ForwardPass, replaced
from .norms import norm_of
from .wired import Wired

__all__ = ["Look", "LookedAt", "looks", "weights"]


@dataclass(frozen=True)
class LookedAt:
    """A head at a position, and a token that it may look at."""

    layer: int
    head: int
    position: int
    token: int


@dataclass(frozen=True)
class Look:
    """How a head looks at a token.

    Attributes:
        weight: attention, in [0, 1].
        score: natural log of the weight, less the mean over all tokens that the head sees from there.
        parts: (source + 1, source + 1) what the query of one source and the key of another add to the score; the last of
            each is what no source wrote (biases). None where the norm before the head has no closed form.
    """

    weight: float
    score: float
    parts: torch.Tensor | None

    @property
    def rest(self) -> float | None:
        """What is no product of a query and a key."""
        return None if self.parts is None else self.score - float(self.parts.sum())


def weights(wired: Wired, ids: torch.Tensor, places: Sequence[LookedAt]) -> torch.Tensor:
    """(row, place) attention for token ids (row, token)."""
    watching = _Patterns(wired, {at.layer for at in places}, differentiable=False)
    wired.going_on(ids, watching)
    found = [watching.patterns[at.layer][:, at.head, at.position, at.token] for at in places]
    return torch.stack(found, dim=1).detach().float()


def looks(wired: Wired, ids: torch.Tensor, run: ForwardPass, places: Sequence[LookedAt]) -> list[Look | None]:
    """Each place's score, taken apart.

    Args:
        wired: a model whose table has the site ``pattern``.
        ids: (1, token) token ids.
        run: the model's run of them.
        places: which heads look where.

    Returns:
        One entry a place; None where the head does not see the token at all (masked, or less than float32 can say).
    """
    watching = _Patterns(wired, {at.layer for at in places}, differentiable=True)
    wired.going_on(ids, watching, differentiable=True)
    sources = wired.sources(run)[:, 0].float()
    return [_look(wired, run, sources, watching, at) for at in places]


def _look(wired: Wired, run: ForwardPass, sources: torch.Tensor, watching: _Patterns, at: LookedAt) -> Look | None:
    """Of one place; ``sources`` (source, token, d_model) is what they wrote."""
    graph = wired.graph
    seen = watching.patterns[at.layer][0, at.head, at.position, : at.position + 1].float()
    if not bool(torch.isfinite(seen).all()) or float(seen[at.token].detach()) < torch.finfo(torch.float32).tiny:
        return None
    logs = seen[seen >= torch.finfo(torch.float32).tiny].log()
    score = seen[at.token].log() - logs.mean()
    found = Look(float(seen[at.token].detach()), float(score.detach()), None)
    norm, module = None, wired.norm(at.layer)
    stream = wired.entering(run, at.layer)[0].detach()
    if module is not None:
        norm = norm_of(module)
        if norm is None or not norm.computes(module, stream):
            return found
    key = graph.heads + at.head // (graph.heads // graph.kv_heads)
    leaves = watching.leaves(at.layer)
    by_query = _gradients(wired, score, leaves)[at.head, 0, at.position]
    middle = _gradients(wired, by_query, leaves)[key, :, 0]  # (query's d_head, token, key's d_head)

    # what each source contributes to the query here and to the keys, and last what none of them does
    sources = sources[: graph.seen_by(graph.attention_readers(at.layer))]
    if norm is not None:
        sources = sources * norm.unit(stream)[1]
    matrices = wired.folded_matrices(at.layer)
    whole = _apart(wired, [leaf.detach() for leaf in leaves])[:, 0]  # (reader, token, d_head)
    query = _with_rest(sources[:, at.position] @ matrices[at.head].T, whole[at.head, at.position])
    keys = _with_rest(sources @ matrices[key].T, whole[key])
    parts = torch.einsum("ad,dte,bte->ab", query, middle, keys)
    wide = torch.zeros(len(graph.sources) + 1, len(graph.sources) + 1)
    of = [*range(len(sources)), len(graph.sources)]
    wide[torch.tensor(of)[:, None], torch.tensor(of)] = parts.cpu()
    return Look(found.weight, found.score, wide)


def _with_rest(parts: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """Parts, and one more that makes up their sum."""
    return torch.cat([parts, (whole - parts.sum(0))[None]])


def _gradients(wired: Wired, of: torch.Tensor, leaves: Sequence[torch.Tensor]) -> torch.Tensor:
    """(reader, ..., row, token, d_head) of each number of (...,) by what the projections returned; values do not matter to it."""
    every = torch.eye(of.numel(), device=of.device, dtype=of.dtype).view(-1, *of.shape) if of.ndim else None
    found = torch.autograd.grad(
        of,
        leaves,
        every,
        is_grads_batched=every is not None,
        create_graph=not of.ndim,
        retain_graph=True,
        allow_unused=True,
    )
    sizes = [(*of.shape, *leaf.shape) for leaf in leaves]
    pairs = zip(found, leaves, sizes, strict=True)
    return _apart(wired, [leaf.new_zeros(size) if one is None else one for one, leaf, size in pairs])


def _apart(wired: Wired, projected: Sequence[torch.Tensor]) -> torch.Tensor:
    """(reader, ..., token, d_head) of (..., token, feature) at the projections."""
    values = torch.cat(list(projected), dim=-1).float()
    return wired.by_reader(values.movedim(-1, 0)).movedim(1, -1)


class _Patterns:
    """Patterns of some layers; see :class:`dynamics.circuits.hooks.Hooks`.

    Args:
        wired: the model.
        layers: which.
        differentiable: whether patterns can be differentiated by what the layers' projections return.
    """

    def __init__(self, wired: Wired, layers: set[int], *, differentiable: bool) -> None:
        self.wired, self.layers, self.differentiable = wired, layers, differentiable
        self.where = wired.architecture.table.in_block["pattern"]
        self.patterns: dict[int, torch.Tensor] = {}
        self.projected: dict[tuple[int, int], torch.Tensor] = {}

    def leaves(self, layer: int) -> list[torch.Tensor]:
        """What the projections of a layer returned."""
        return [self.projected[key] for key in sorted(self.projected) if key[0] == layer]

    def attach(self, handles: list[Any], layer: int, block: torch.nn.Module) -> None:
        """See :class:`Hooks`."""
        if layer not in self.layers:
            return
        wiring = self.wired.wiring
        handles.append(block.get_submodule(self.where.module).register_forward_hook(partial(self._see, layer)))
        if not self.differentiable:
            return
        for index, path in enumerate(wiring.projections):
            replaced(handles, block.get_submodule(path), partial(self._leaf, (layer, index)))
        for within in block.get_submodule(wiring.out.rpartition(".")[0]).modules() if "." in wiring.out else ():
            if norm_of(within) is not None:  # of queries and keys
                handles.append(within.register_forward_hook(_scale_as_it_is))

    def last(self, x: torch.Tensor) -> None:
        """See :class:`Hooks`."""

    def _leaf(self, key: tuple[int, int], output: torch.Tensor) -> torch.Tensor:
        self.projected[key] = output.detach().requires_grad_()
        return self.projected[key].clone()  # a model may clip it in place

    def _see(self, layer: int, _module: Any, _args: Any, output: Any) -> None:
        while isinstance(output, tuple):  # as `models.sites.observe` reads it
            output = output[self.where.index]
        self.patterns[layer] = output


def _scale_as_it_is(module: torch.nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
    """The same value; its gradient takes the norm's scale for a constant, so that it is linear in what it reads."""
    norm, x = norm_of(module), args[0]
    assert norm is not None
    linear = norm.centre(x.float()) * norm.unit(x)[1].detach()
    linear = (linear if norm.gain is None else linear * norm.gain).to(output.dtype)
    return linear + (output - linear).detach()
