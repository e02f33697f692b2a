"""Running a model with its residual stream edited: something added, or what it says along a direction taken away.

Many edits of the same prompts share a forward pass, one a row. What comes before an edit of one layer is not computed
again: the blocks up to it hand on what they are given, and the layer's output is the remembered one, edited.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from ..models.architecture import Architecture
from ..probes import LAST, TokenizedProbe

if TYPE_CHECKING:
    import torch

__all__ = ["LOGITS", "Edited"]

LOGITS = 2**25
"""At most this many logits in one pass."""

_See = Callable[[int, Any], Any]


class Edited:
    """A model, and the prompts of one batch whose stream is edited.

    An edit of the stream x at a layer, from a token of each prompt on: x + g - ((x - c) . u) u, with a vector g that is given,
    a unit vector u that is removed (or zero), and c the stream's usual value so many tokens after it.

    Args:
        model: in evaluation mode; it is changed only while a pass runs.
        architecture: its sizes and sites.
    """

    def __init__(self, model: Any, architecture: Architecture) -> None:
        self.model, self.architecture = model, architecture
        self.layers = architecture.shape.layers
        self.device = next(model.parameters()).device
        site = architecture.table.place("resid_post")
        self._module = site.module
        self._blocks = [model.get_submodule(architecture.table.block.format(layer)) for layer in range(self.layers)]
        self._forms: dict[int, int] = {}  # layer to the length of what its module returns; 0 for a plain tensor
        self._streams: dict[int, torch.Tensor] = {}

    def logits_of(self, probe: TokenizedProbe, rows: np.ndarray) -> int:
        """How many logits one prompt of a batch takes."""
        return self.architecture.shape.vocab * (len(probe.ids[rows[0]]) if self.architecture.whole else 1)

    def load(
        self, probe: TokenizedProbe, rows: np.ndarray, starts: np.ndarray, layers: Sequence[int], usual: np.ndarray
    ) -> np.ndarray:
        """Takes prompts of one length, and remembers their streams.

        Args:
            probe: with answers and foils.
            rows: (row,) prompts.
            starts: (row,) tokens from which they are edited.
            layers: those that will be edited alone.
            usual: (layer, after, width) c: the stream's usual value so many tokens after it.

        Returns:
            (row,) logit(answer) - logit(foil) of the model as it is.
        """
        import torch

        assert probe.answer_ids is not None and probe.foil_ids is not None
        self._ids = torch.from_numpy(np.stack([probe.ids[row] for row in rows])).to(self.device)
        pair = np.stack([probe.answer_ids[rows], probe.foil_ids[rows]], axis=1)
        self._pair = torch.from_numpy(pair).to(self.device)
        last = probe.positions[LAST][rows]
        assert (last == last[0]).all(), "a causal model is asked at its prompts' last token"
        self._last = torch.tensor([int(last[0])], device=self.device)
        after = np.arange(self._ids.shape[1]) - starts[:, None]  # (row, token)
        self._after = torch.from_numpy(after).to(self.device)
        self._usual = usual
        self._streams = {}

        def remember(layer: int, x: torch.Tensor) -> None:
            if layer in layers:
                self._streams[layer] = x

        every = torch.arange(len(rows), device=self.device)
        with torch.no_grad(), self._hooked(range(self.layers), remember):
            return self._ask(every)[0]

    def variants(
        self, given: np.ndarray, removed: np.ndarray, layer: int | None, size: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Every prompt with every edit.

        Args:
            given, removed: (variant, width) g and u of an edit at ``layer``; (layer, variant, width) of edits at all
                layers at once.
            layer: where; None for all layers.
            size: at most so many rows in one pass.

        Returns:
            (variant, row) logit(answer) - logit(foil), and the first choice: -1 where a logit is not finite.
        """
        import torch

        here = range(self.layers) if layer is None else [layer]
        g, u = (
            torch.from_numpy(v if layer is None else v[None]).to(self.device, torch.float32) for v in (given, removed)
        )
        c = torch.from_numpy(self._usual[list(here)]).to(self.device, torch.float32)
        level = u @ c.transpose(1, 2)  # (edited layer, variant, after): c . u
        rows, count = len(self._ids), g.shape[1]
        found, said = np.empty((count, rows)), np.empty((count, rows), dtype=np.int64)
        jobs = torch.arange(count * rows, device=self.device)
        for some in torch.split(jobs, size):
            variant, row = some // rows, some % rows
            after = self._after[row]
            inside = (after >= 0)[..., None]
            ahead = after.clamp(min=0)

            def edit(at: int, x: torch.Tensor, variant: Any = variant, row: Any = row, inside: Any = inside, ahead: Any = ahead) -> torch.Tensor:  # fmt: skip
                which = 0 if layer is not None else at
                stream = x if layer is None else self._streams[at][row]
                mine = u[which, variant]  # (job, width)
                along = (stream.float() @ mine[..., None])[..., 0] - level[which, variant].gather(1, ahead)
                new = stream + g[which, variant][:, None] - along[..., None] * mine[:, None]
                return torch.where(inside, new.to(stream.dtype), stream)

            with torch.no_grad(), self._skipping(layer), self._hooked(here, edit):
                one, other = self._ask(row)
            at = some.cpu().numpy()
            found.reshape(-1)[at], said.reshape(-1)[at] = one, other
        return found, said

    def slopes(self, vectors: np.ndarray, size: int) -> np.ndarray:
        """How the difference begins to change when vectors are added to the stream, exactly, from its gradient.

        Args:
            vectors: (layer, vector, width).
            size: at most so many rows in one pass.

        Returns:
            (layer, vector, row) derivative by the strength at which a vector is added from a token of each prompt on, at 0.
        """
        import torch

        v = torch.from_numpy(vectors).to(self.device, torch.float32)
        found = np.empty((*vectors.shape[:2], len(self._ids)))
        for row in torch.split(torch.arange(len(self._ids), device=self.device), size):
            streams: list[torch.Tensor] = []

            def leave(layer: int, x: torch.Tensor, streams: list[torch.Tensor] = streams) -> torch.Tensor | None:
                streams.append(x if layer else x.detach().requires_grad_())
                return None if layer else streams[0]

            with torch.enable_grad(), self._hooked(range(self.layers), leave):
                logits = self.architecture.logits(self.model, self._ids[row], self._last)[:, 0].float()
                pair = logits.gather(1, self._pair[row])
                gradients = torch.autograd.grad((pair[:, 0] - pair[:, 1]).sum(), streams)
            inside = (self._after[row] >= 0)[..., None]
            for layer, gradient in enumerate(gradients):
                whole = torch.where(inside, gradient.float(), 0.0).sum(1)
                found[layer][:, row.cpu().numpy()] = (v[layer] @ whole.T).double().cpu().numpy()
        return found

    def _ask(self, row: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """(job,) difference and first choice of the prompts ``row``, with whatever hooks are in place."""
        import torch

        logits = self.architecture.logits(self.model, self._ids[row], self._last)[:, 0].float()
        pair = logits.gather(1, self._pair[row])
        said = torch.where(torch.isfinite(logits.amax(1)), logits.argmax(1), -1)
        return (pair[:, 0] - pair[:, 1]).double().cpu().numpy(), said.cpu().numpy()

    @contextmanager
    def _hooked(self, layers: Sequence[int], see: _See) -> Iterator[None]:
        """``see(layer, value)`` looks at the stream after each of the layers, and may return another."""
        handles: list[Any] = []

        def hook(layer: int) -> Callable[[Any, Any, Any], Any]:
            def after(_module: Any, _args: Any, output: Any) -> Any:
                self._forms[layer] = len(output) if isinstance(output, tuple) else 0
                new = see(layer, output[0] if isinstance(output, tuple) else output)
                if new is None:
                    return None
                return (new, *output[1:]) if isinstance(output, tuple) else new

            return after

        try:
            for layer in layers:
                module = self._blocks[layer].get_submodule(self._module)
                handles.append(module.register_forward_hook(hook(layer)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def _skipping(self, layer: int | None) -> Iterator[None]:
        """Blocks up to ``layer`` hand on what they are given, where the stream is what a block returns."""
        blocks = [] if layer is None or self._module else self._blocks[: layer + 1]
        before = [vars(block).get("forward") for block in blocks]
        try:
            for i, block in enumerate(blocks):
                block.forward = _hand_on(self._forms[i])
            yield
        finally:
            for block, own in zip(blocks, before, strict=True):
                if own is None:
                    vars(block).pop("forward", None)
                else:
                    block.forward = own


def _hand_on(length: int) -> Callable[..., Any]:
    """A block's forward pass that returns its input, in the form that the block returns its output."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        x = args[0] if args else next(iter(kwargs.values()))
        return (x, *(None for _ in range(length - 1))) if length else x

    return forward
