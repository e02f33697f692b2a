"""Hooks that look at modules or change what goes through them; those that keep what one forward pass read and wrote."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch

from .norms import scale_of
from .parts import Parts

__all__ = ["ForwardPass", "Hooks", "Keeping", "Resuming", "after_mlp", "before", "before_mlp", "instead", "replaced"]


@dataclass(frozen=True)
class ForwardPass:
    """One forward pass, with the heads of a layer still together: a fifth of the memory that they take apart.

    Attributes:
        streams: first reader of a group (a layer's attention, a layer's MLP, the logits) to (row, token, d_model), the
            stream that the group reads.
        mixed: per layer (row, token, head * d_head), what the output projection turns into what heads write.
        scale: per layer what the norm behind that projection multiplies it by; empty where there is none.
        mlp: per layer (row, token, d_model) what the MLP writes.
        logits: (row, vocab) at one position per row.
    """

    streams: dict[int, torch.Tensor]
    mixed: list[torch.Tensor]
    scale: list[torch.Tensor]
    mlp: list[torch.Tensor]
    logits: torch.Tensor


class Hooks(Protocol):
    """What happens in one forward pass."""

    def attach(self, handles: list[Any], layer: int, block: torch.nn.Module) -> None:
        """Hook one block; what undoes it is added to ``handles``."""

    def last(self, x: torch.Tensor) -> torch.Tensor | None:
        """What the final norm reads instead of ``x``, if anything."""


class Keeping:
    """Everything is kept: (see :class:`ForwardPass`) by layer."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.streams: dict[int, torch.Tensor] = {}
        self.mixed: dict[int, torch.Tensor] = {}
        self.scale: dict[int, torch.Tensor] = {}
        self.mlp: dict[int, torch.Tensor] = {}

    def run(self, logits: torch.Tensor) -> ForwardPass:
        """After the pass."""
        mixed, scale, mlp = ([of[layer] for layer in sorted(of)] for of in (self.mixed, self.scale, self.mlp))
        return ForwardPass(self.streams, mixed, scale, mlp, logits)

    def attach(self, handles: list[Any], layer: int, block: torch.nn.Module) -> None:
        """See :class:`Hooks`."""
        parts, wiring, graph = self.parts, self.parts.wiring, self.parts.graph

        def rest(_block: Any, _args: Any, output: Any) -> None:
            parts.rest[layer] = output[1:] if isinstance(output, tuple) else None

        before(handles, block, partial(self.streams.__setitem__, graph.attention_readers(layer).start))
        before(handles, block.get_submodule(wiring.out), partial(self.mixed.__setitem__, layer))
        if wiring.after is not None:
            norm = block.get_submodule(wiring.after)
            before(handles, norm, lambda raw: self.scale.__setitem__(layer, scale_of(norm, raw)))
        before_mlp(handles, parts, block, partial(self.streams.__setitem__, graph.mlp_reader(layer).start))
        # where attention is added to it in place (Falcon), it is another thing afterwards
        after_mlp(handles, parts, block, lambda x: self.mlp.__setitem__(layer, x.clone() if graph.parallel else x))
        handles.append(block.register_forward_hook(rest))

    def last(self, x: torch.Tensor) -> None:
        """See :class:`Hooks`."""
        self.streams[self.parts.graph.logits_reader.start] = x


class Resuming:
    """Begins at a layer.

    Args:
        parts: the model, of which a pass was kept before.
        first: the layer; the number of layers for the final norm alone.
        stream: (row, token, d_model) what enters there.
        added: (row, token, d_model) to what this layer's attention writes.
    """

    def __init__(self, parts: Parts, first: int, stream: torch.Tensor, added: torch.Tensor | None = None) -> None:
        self.parts, self.first, self.stream, self.added = parts, first, stream, added

    def attach(self, handles: list[Any], layer: int, block: torch.nn.Module) -> None:
        """See :class:`Hooks`."""
        if layer < self.first:
            instead(handles, block, lambda x: x, self.parts.rest[layer])
        elif layer == self.first:
            before(handles, block, lambda _x: self.stream)
            if (added := self.added) is not None:
                wiring = self.parts.wiring
                replaced(handles, block.get_submodule(wiring.after or wiring.out), lambda output: output + added)

    def last(self, x: torch.Tensor) -> torch.Tensor | None:
        """See :class:`Hooks`."""
        return self.stream if self.first == self.parts.graph.layers else None


def before(handles: list[Any], module: torch.nn.Module, change: Callable[[torch.Tensor], torch.Tensor | None]) -> None:
    """Call ``change`` with the module's input; what it returns, if anything, takes its place."""

    def hook(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        new = change(args[0] if args else kwargs["hidden_states"])
        if new is None:
            return None
        return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": new})

    handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))


def before_mlp(
    handles: list[Any], parts: Parts, block: torch.nn.Module, change: Callable[[torch.Tensor], torch.Tensor | None]
) -> None:
    """Call ``change`` with the stream (row, token, d_model) that a block's MLP reads; what it returns takes its place.

    Hook what enters the block before.
    """
    wiring = parts.wiring
    entered: list[torch.Tensor] = []
    norm = block.get_submodule(wiring.norm) if wiring.shared and wiring.norm else None
    before(handles, block, entered.append)

    def read(x: torch.Tensor) -> torch.Tensor | None:
        stream = entered.pop()
        entered.clear()
        new = change(x.view(stream.shape) if norm is None else stream)
        return None if new is None else new.reshape(x.shape) if norm is None else norm(new)

    before(handles, block.get_submodule(wiring.mlp), read)


def after_mlp(handles: list[Any], parts: Parts, block: torch.nn.Module, look: Callable[[torch.Tensor], None]) -> None:
    """Call ``look`` with what a block's MLP writes, (row, token, d_model)."""
    sizes: list[torch.Size] = []
    before(handles, block, lambda x: sizes.append(x.shape))

    def hook(_module: Any, _args: Any, output: Any) -> None:
        size = sizes.pop()
        sizes.clear()
        look((output[0] if isinstance(output, tuple) else output).view(size))

    handles.append(parts.mlp_out(block).register_forward_hook(hook))


def replaced(handles: list[Any], module: torch.nn.Module, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """What ``change`` makes of the module's output takes its place."""
    handles.append(module.register_forward_hook(lambda _module, _args, output: change(output)))


def instead(
    handles: list[Any],
    module: torch.nn.Module,
    make: Callable[[torch.Tensor], torch.Tensor],
    rest: tuple[Any, ...] | None = None,
) -> None:
    """The module is not computed; it returns what ``make`` makes of its input.

    Args:
        rest: what it returns besides, None where it returns one tensor alone.
    """

    def forward(*args: Any, **kwargs: Any) -> Any:
        made = make(args[0] if args else kwargs["hidden_states"])
        return made if rest is None else (made, *rest)

    handles.append(_Restored(module, module.__dict__.get("forward")))
    module.forward = forward


class _Restored:
    """Gives a module its own ``forward`` back; removed like a hook."""

    def __init__(self, module: torch.nn.Module, own: Any) -> None:
        self.module, self.own = module, own

    def remove(self) -> None:
        del self.module.forward
        if self.own is not None:
            self.module.forward = self.own
