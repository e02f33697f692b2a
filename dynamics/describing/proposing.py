"""Which module is which? Found out from what goes through every module of a model with random weights.

A block is what takes one of the hidden states that ``transformers`` gives and returns the next. In it, with x what it takes and
y what it returns, attention and MLP write a and m where x + a + m = y; what reads x + a stands between them; the output
projection is the matrix that returns a (or what a norm makes a of), and so on. Tensors are compared by their values, which
coincide by chance nowhere in a random model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch

from checkpoints.errors import UserError

from ..circuits.checking import check_wiring
from ..models.architecture import Architecture, model_shape
from ..models.sites import SiteTable, Where
from ..models.wiring import HeadLayout, Wiring

__all__ = ["Proposal", "propose"]


@dataclass(frozen=True)
class Proposal:
    """A table for an architecture.

    Attributes:
        table: what was found, with a wiring that was checked, if there is one.
        missing: what was not found, and why, in words.
    """

    table: SiteTable
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Call:
    """What went through a module: its path, and the tensors it took and returned, in the order of the calls."""

    path: str
    module: torch.nn.Module
    given: torch.Tensor
    returned: tuple[torch.Tensor, ...]

    @property
    def out(self) -> torch.Tensor:
        return self.returned[0]

    @property
    def is_matrix(self) -> bool:
        return isinstance(self.module, torch.nn.Linear) or type(self.module).__name__ == "Conv1D"


def propose(model: torch.nn.Module, config: Any) -> Proposal:
    """A table of sites and a wiring from the module tree of a small model with random weights.

    Raises:
        UserError: when its blocks cannot be told, so that there is nothing to propose.
    """
    ids = torch.arange(10).view(2, 5) + 2
    seen = _Seen(model, ids)
    block, states = _blocks(seen, model)
    outside, missing = _outside(seen, model, states)
    layer = 1  # neither the first nor the last
    inside = _Inside(seen, block.format(layer))
    sites, more = inside.sites(seen.attentions[layer] if layer < len(seen.attentions) else None)
    table = SiteTable(block, sites, outside)
    missing += more
    wirings = list(inside.wirings()) if {"z", "mlp_out", "pattern"} <= sites.keys() and "ln_final" in outside else []
    why = "no matrices and norms are found that all of attention's queries, keys and values go through"
    for wiring in wirings:
        with_it = replace(table, wiring=wiring)
        try:
            check_wiring(
                model, Architecture(replace(model_shape(config), parallel=wiring.parallel), with_it), random=True
            )
        except UserError as error:
            why = error.observed
            continue
        return Proposal(with_it, tuple(missing))
    if "z" not in sites:
        why = "it has no attention heads that were found"
    return Proposal(table, (*missing, f"wiring: {why}"))


class _Seen:
    """One forward pass, with every module's calls."""

    def __init__(self, model: torch.nn.Module, ids: torch.Tensor) -> None:
        self.calls: list[_Call] = []
        handles = []
        for path, module in model.named_modules():

            def keep(module: Any, args: Any, kwargs: Any, output: Any, path: str = path) -> None:
                given = next(_tensors((*args, *kwargs.values())), None)
                returned = tuple(t.clone() for t in _tensors((output,)))
                if given is not None and returned:
                    taken = self._given.pop(path, given)
                    self.calls.append(_Call(path, module, taken, returned))

            def enter(_module: Any, args: Any, kwargs: Any, path: str = path) -> None:
                if (given := next(_tensors((*args, *kwargs.values())), None)) is not None:
                    self._given[path] = given.clone()  # it may be changed in place

            handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
            handles.append(module.register_forward_hook(keep, with_kwargs=True))
        self._given: dict[str, torch.Tensor] = {}
        self.attentions: Sequence[torch.Tensor] = ()
        try:
            with torch.no_grad():
                output: Any = None
                for more in ({"output_attentions": True}, {}):  # what has no attention may not take the word
                    with suppress(Exception):
                        self.calls.clear()
                        output = model(input_ids=ids, output_hidden_states=True, use_cache=False, **more)
                        break
        finally:
            for handle in handles:
                handle.remove()
        if output is None or getattr(output, "hidden_states", None) is None:
            raise UserError(
                f"a {type(model).__name__} returns no hidden states",
                expected="a language model of transformers that takes `output_hidden_states`",
                remedy="describe it by an adapter (docs/howto/own-architecture.md)",
            )
        self.states = list(output.hidden_states)
        found = getattr(output, "attentions", None) or ()
        self.attentions = [a for a in found if a is not None]

    def under(self, path: str) -> list[_Call]:
        return [call for call in self.calls if call.path.startswith(f"{path}.")]

    def of(self, path: str) -> _Call | None:
        return next((call for call in self.calls if call.path == path), None)


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    """The floating or integer tensors in tuples, in their order."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from _tensors(value)


def _same(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    """Whether two tensors have the same values, also where rows and tokens are one dimension of one of them."""
    if one is None or other is None or one.numel() != other.numel() or one.shape[-1] != other.shape[-1]:
        return False
    if not (one.is_floating_point() and other.is_floating_point()):
        return False
    return torch.allclose(one.reshape(-1), other.reshape(-1), atol=1e-5, rtol=1e-4)


def _blocks(seen: _Seen, model: torch.nn.Module) -> tuple[str, list[torch.Tensor]]:
    """Path of a block with ``{}`` for the layer, and the hidden states."""
    for path, module in model.named_modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) > 1:
            calls = [seen.of(f"{path}.{layer}") for layer in range(len(module))]
            takes = [call is not None and any(_same(call.given, state) for state in seen.states) for call in calls]
            gives = [call is not None and any(_same(call.out, state) for state in seen.states) for call in calls]
            if all(a or b for a, b in zip(takes, gives, strict=True)) and any(takes[1:]):
                return f"{path}.{{}}", seen.states
    raise UserError(
        f"the blocks of a {type(model).__name__} cannot be told from its modules: none of its lists of modules takes and returns "
        "the hidden states",
        expected="a list of blocks, one behind the other",
        remedy="describe it by an adapter (docs/howto/own-architecture.md)",
    )


def _outside(seen: _Seen, model: Any, states: Sequence[torch.Tensor]) -> tuple[dict[str, Where], list[str]]:
    found: dict[str, Where] = {}
    missing = []
    names = {id(module): path for path, module in model.named_modules()}
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if id(embedding) in names:
        found["embed"] = Where(names[id(embedding)])
    else:
        missing.append("embed: the model does not say which module embeds")
    read = seen.of(names.get(id(head), "")) if head is not None else None
    last = None if read is None else read.given
    norm = next(
        (c for c in reversed(seen.calls) if c is not read and "Norm" in type(c.module).__name__ and _same(c.out, last)),
        None,
    )
    if norm is None:
        missing.append("ln_final: what the unembedding reads is not what a norm returns")
    else:
        found["ln_final"] = Where(norm.path)
    return found, missing


def _outermost(calls: Iterable[_Call]) -> _Call | None:
    """The one that lies in no other, the first of them."""
    return min(calls, key=lambda call: call.path.count("."), default=None)


class _Inside:
    """One block, whose parts are found by what they take and return."""

    def __init__(self, seen: _Seen, path: str) -> None:
        whole = seen.of(path)
        assert whole is not None
        self.prefix, self.x, self.y = f"{path}.", whole.given, whole.out
        self.calls = seen.under(path)
        self.width = self.x.shape[-1]
        self.attention: _Call | None = None
        self.out: _Call | None = None
        self.a: _Call | None = None
        self.m: _Call | None = None
        self.mid: _Call | None = None

    def _name(self, call: _Call) -> str:
        return call.path.removeprefix(self.prefix)

    def _where(self, call: _Call, side: str = "output", index: int = 0) -> Where:
        tensor = call.given if side == "input" else call.returned[index]
        return Where(self._name(call), "input" if side == "input" else "output", index, flat=tensor.ndim == 2)

    def sites(self, pattern: torch.Tensor | None) -> tuple[dict[str, Where], list[str]]:
        """What is found, and what is not."""
        found = {"resid_pre": Where("", "input"), "resid_post": Where("")}
        missing: list[str] = []
        self._writers()
        returning = {
            call.path: [
                i
                for i, t in enumerate(call.returned)
                if pattern is not None and t.shape == pattern.shape and _same(t, pattern)
            ]
            for call in self.calls
        }
        self.attention = _outermost(call for call in self.calls if returning[call.path])
        if self.attention is not None:
            found["pattern"] = Where(self._name(self.attention), index=returning[self.attention.path][0])
        else:
            missing.append("pattern: no module in a block returns attention weights")
        if self.a is None or self.m is None:
            missing.append(
                "attn_out, mlp_out, resid_mid: what a block adds is not the sum of what two of its modules return"
            )
            return found, missing
        found["attn_out"], found["mlp_out"] = self._where(self.a), self._where(self.m)
        between = (self.x + self.a.out.view_as(self.x)).detach()
        self.mid = _outermost(call for call in self.calls if _same(call.given, between))
        if self.mid is not None:
            found["resid_mid"] = self._where(self.mid, "input")
        else:
            missing.append("resid_mid: attention and MLP read the same stream")
        self.out = self._matrix_of(self.a)
        if self.out is not None and self.attention is not None:
            found["z"] = self._where(self.out, "input")
        else:
            missing.append("z: no one matrix returns what attention writes")
        if (down := self._matrix_of(self.m)) is not None:
            found["mlp_post"] = self._where(down, "input")
        else:
            missing.append("mlp_post: no one matrix returns what the MLP writes (experts?)")
        return found, missing

    def _writers(self) -> None:
        """The two modules whose outputs the block adds; of those that return the same the last matrix or norm, or the outermost."""
        right = [c for c in self.calls if c.out.shape[-1] == self.width and c.out.numel() == self.x.numel()]
        added = self.y - self.x
        for number, first in enumerate(right):
            for second in right[number + 1 :]:
                if _same(first.out.view_as(self.x) + second.out.view_as(self.x), added):
                    alike = [c for c in right if _same(c.out, first.out)]
                    self.a = next((c for c in alike if c.is_matrix or "Norm" in type(c.module).__name__), first)
                    also = [c for c in right if _same(c.out, second.out)]
                    self.m = min(
                        also,
                        key=lambda c: (
                            c.path.count("."),
                            "Norm" not in type(c.module).__name__,
                            c.path.count("dropout"),
                        ),
                    )
                    return

    def _matrix_of(self, writer: _Call) -> _Call | None:
        """The matrix that returns what a writer does, or what it makes its norm of."""
        wanted = (writer.out, writer.given) if "Norm" in type(writer.module).__name__ else (writer.out,)
        return next((c for c in self.calls if c.is_matrix and any(_same(c.out, each) for each in wanted)), None)

    def wirings(self) -> Iterator[Wiring]:
        """Wirings that may be right, the likeliest first."""
        assert self.attention is not None and self.out is not None and self.a is not None and self.m is not None
        inside = [
            c for c in self.calls if c.path.startswith(f"{self.attention.path}.") and c.is_matrix and c is not self.out
        ]
        reads = [c for c in inside if c.given.shape[-1] == self.width]
        if not reads:
            return
        read = reads[0].given
        projections = [c for c in reads if _same(c.given, read)]
        if len(projections) not in (1, 3):
            return
        norm = next((c for c in self.calls if _same(c.given, self.x) and _same(c.out, read)), None)
        if norm is None and not _same(read, self.x):
            return
        after = self._name(self.a) if "Norm" in type(self.a.module).__name__ else None
        outside = [c for c in self.calls if not c.path.startswith(f"{self.attention.path}") and c is not norm]
        shared = False
        mlp = self.mid
        if mlp is None:  # side by side: a norm of its own, or what the norm of attention returns
            mlp = _outermost(c for c in outside if _same(c.given, self.x))
        if mlp is None and norm is not None:
            shared = True
            mlp = _outermost(c for c in outside if _same(c.given, norm.out))
        if mlp is None:
            return
        paths = tuple(self._name(c) for c in projections)
        layouts: tuple[HeadLayout, ...] = ("separate",) if len(paths) == 3 else ("by kind", "by head")
        for layout in layouts:
            yield Wiring(
                paths,
                layout,
                self._name(self.out),
                None if norm is None else self._name(norm),
                self._name(mlp),
                after,
                parallel=self.mid is None,
                shared=shared,
            )
