"""What a *measurement* is: something computed while a checkpoint is in memory, declared before any compute.

A measurement is a frozen dataclass: two that are equal are the same measurement and run once, however many analyses ask for them.
It declares the variables that it will write. There are two kinds. An :class:`Observation` makes one
:class:`Accumulator` per checkpoint, which watches the forward passes layer by layer (so that nothing larger than one
site of one batch needs to be held) and returns the declared arrays at the end; all observations of a probe share its
forward passes. An :class:`Intervention` runs the model itself, with gradients or with parts of it replaced.

One that gives each prompt what depends on that prompt alone says so (``each_prompt = True``, a class variable): where prompts are
added to a probe that was measured, it runs on those alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from checkpoints.errors import UserError, nearest

from ..models.architecture import Architecture, ModelShape
from ..probes import TokenizedProbe
from ..store.variable import Variable

if TYPE_CHECKING:
    import torch

__all__ = [
    "Accumulator",
    "Batch",
    "Intervention",
    "Measurement",
    "Observation",
    "Placed",
    "Priced",
    "require_causal",
    "require_positions",
]


@dataclass(frozen=True)
class Batch:
    """One forward pass: prompts of equal length.

    Attributes:
        rows: (row,) which prompts of the probe these are.
        ids: (row, token) token ids on the model's device.
        logits_index: token positions for which logits exist, in the order of :attr:`logits`.
        logits: (row, kept position, vocab); None until the pass is over, or where no logits were asked for.
        index: (prompt,) which row each prompt is, for an observation that is :class:`Placed`; None where they are the
            rows, one by one.
        start: token position of the first token that the values have; 0 for all others.
    """

    rows: np.ndarray
    ids: torch.Tensor
    logits_index: tuple[int, ...] = ()
    logits: torch.Tensor | None = None
    index: np.ndarray | None = None
    start: int = 0

    def logits_at(self, positions: np.ndarray) -> torch.Tensor:
        """(prompt, vocab) float32 logits at one token position per prompt of the probe (``positions`` is (prompt,))."""
        import torch

        assert self.logits is not None, "no logits were kept for this batch"
        if self.index is None and len(self.logits_index) == 1:
            return self.logits[:, 0].float()  # no copy
        column = {position: i for i, position in enumerate(self.logits_index)}
        index = torch.tensor([column[int(p)] for p in positions[self.rows]], device=self.logits.device)
        row = np.arange(len(self.rows)) if self.index is None else self.index
        return self.logits[torch.from_numpy(row).to(self.logits.device), index].float()

    def picked(self, value: torch.Tensor, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray, torch.Tensor]:
        """What a site has at token positions, of those that these values hold.

        Args:
            value: (row, token, ...) the site's values.
            positions: (prompt, name) token positions of every prompt of this batch.

        Returns:
            Prompt of the probe (found,), number of the name (found,), and the values (found, ...).
        """
        import torch

        at = positions - self.start
        prompt, name = np.nonzero((at >= 0) & (at < value.shape[1]))
        row = prompt if self.index is None else self.index[prompt]
        found = value[torch.from_numpy(row).to(value.device), torch.from_numpy(at[prompt, name]).to(value.device)]
        return self.rows[prompt], name, found


class Accumulator(Protocol):
    """Collects one measurement of one probe at one checkpoint."""

    def observe(self, site: str, layer: int, value: torch.Tensor, batch: Batch) -> None:
        """Called during the forward pass for each site that the measurement wants, in layer order."""

    def finish(self, batch: Batch) -> None:
        """Called after the forward pass of one batch, with its logits."""

    def result(self) -> dict[str, np.ndarray]:
        """The declared variables, after the last batch."""


class Observation(Protocol):
    """See the module's docstring."""

    def sites(self) -> frozenset[str]:
        """The sites that :meth:`Accumulator.observe` must see."""

    def logits(self, probe: TokenizedProbe) -> list[np.ndarray]:
        """Token positions, each (prompt,), at which logits are needed; an empty list for none."""

    def declare(self, probe: TokenizedProbe, shape: ModelShape) -> list[Variable]:
        """The variables it will write. Raises UserError when the probe lacks what it needs."""

    def start(self, probe: TokenizedProbe, shape: ModelShape) -> Accumulator:
        """A fresh accumulator for one checkpoint."""


@runtime_checkable
class Placed(Protocol):
    """An observation that reads its sites at known token positions, through :meth:`Batch.picked`.

    Of its prompts what they begin with may come from one pass and the rest from another: :meth:`Accumulator.observe` is
    called for both, and :meth:`Accumulator.finish` for the one with the logits.
    """

    def reads(self, probe: TokenizedProbe) -> list[np.ndarray] | None:
        """Token positions, each (prompt,), at which it reads its sites; None where it needs the values of whole prompts."""


@runtime_checkable
class Intervention(Protocol):
    """See the module's docstring."""

    def declare(self, probe: TokenizedProbe, shape: ModelShape) -> list[Variable]:
        """The variables it will write. Raises UserError when the probe or the architecture lacks what it needs."""

    def run(
        self, model: Any, architecture: Architecture, probe: TokenizedProbe, batch_tokens: int
    ) -> dict[str, np.ndarray]:
        """The declared variables, of the model as it is; the model is left as it was."""


@runtime_checkable
class Priced(Protocol):
    """An intervention that knows what it costs, so that an estimate need not run it."""

    def cost(self, probe: TokenizedProbe, shape: ModelShape) -> float:
        """About how many passes of the model through the probe's prompts it takes; one with gradients is three."""


Measurement = Observation | Intervention


def require_positions(probe: TokenizedProbe, names: Sequence[str]) -> None:
    """Refuse named positions that a probe does not have.

    Raises:
        UserError: for an unknown name, and for one name that stands where a tuple of names belongs.
    """
    if isinstance(names, str):
        raise UserError(f"positions are {names!r} (str)", expected="a tuple of names", remedy=f"write ({names!r},)")
    for name in names:
        if name not in probe.positions:
            raise UserError(
                f"probe {probe.probe.name!r} has no position {name!r}",
                remedy=nearest(name, probe.positions),
                expected="a position that the probe names, or `last`",
            )


def require_causal(probe: TokenizedProbe, shape: ModelShape, what: str) -> None:
    """Refuse to measure what only a model that reads from left to right has.

    Raises:
        UserError: for a model that fills in masks.
    """
    if not shape.causal:
        raise UserError(
            f"probe {probe.probe.name!r}: {what} cannot be measured on a model that fills in masks (not supported)",
            expected="a causal language model",
            remedy="ask such a model with probes of your own: prompts with one-token answers",
        )
