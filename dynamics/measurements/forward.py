"""Running probes through one model: every measurement is fed from the same forward passes (:mod:`.passes`)."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from checkpoints.errors import UserError

from ..models.architecture import Architecture
from ..models.prefixes import Prefixes, begin, go_on
from ..models.sites import observe
from ..probes import TokenizedProbe
from . import Accumulator, Batch, Intervention, Measurement
from .base import Placed, Priced
from .passes import Part, Pass, Passes, tokens_at_once
from .sharing import sharing

if TYPE_CHECKING:
    import torch

__all__ = ["Together", "measure"]

SAID = 1.0
"""Seconds between two messages of what is being measured."""


def measure(
    model: Any,
    probe: TokenizedProbe,
    measurements: Sequence[Measurement],
    *,
    architecture: Architecture,
    batch_tokens: int = 8192,
    said: Callable[[str], None] | None = None,
) -> dict[str, np.ndarray]:
    """All variables of all measurements of one probe, with the model as it is.

    What one prompt gives does not depend on its neighbours (up to the rounding of differently shaped matrix products).

    Args:
        model: a language model in evaluation mode.
        probe: the tokenized prompts.
        measurements: what to measure.
        architecture: its sizes, where its sites are, how it is asked for logits.
        batch_tokens: at most this many tokens in one forward pass.
        said: called about once a second, in the midst of forward passes, with what is being measured.

    Returns:
        Variable name to array, as the measurements declared them.

    Raises:
        UserError: when a site is not where the table says, or the logits are not of the declared shape.
    """
    return Together(model, [(probe, measurements)], architecture=architecture, batch_tokens=batch_tokens).of(0, said)


class Together:
    """Several probes through one model with its weights as they are: what they have in common is computed once.

    The passes are those of all probes, and only those are run that hold a prompt of a probe that is wanted: what is
    measured of it is the same, bit by bit, whichever others are wanted too.

    Args:
        model: a language model in evaluation mode.
        asked: every probe and what to measure of it.
        architecture: its sizes, where its sites are, how it is asked for logits.
        batch_tokens: at most this many tokens in one forward pass.
        wanted: numbers of the probes that will be asked for; None for all of them.
    """

    def __init__(
        self,
        model: Any,
        asked: Sequence[tuple[TokenizedProbe, Sequence[Measurement]]],
        *,
        architecture: Architecture,
        batch_tokens: int = 8192,
        wanted: Collection[int] | None = None,
    ) -> None:
        self._model, self._asked, self._architecture = model, asked, architecture
        self._device = next(model.parameters()).device
        self._tokens = tokens_at_once(batch_tokens, architecture.shape, self._device)
        self._wanted = set(range(len(asked)) if wanted is None else wanted)
        watched = [(probe, [m for m in all_ if not isinstance(m, Intervention)]) for probe, all_ in asked]
        self._watched = watched
        self._passes = Passes(watched, architecture, self._tokens)
        self._accumulators: dict[int, list[_Watching]] = {}
        self._run: set[int] = set()

    def of(self, number: int, said: Callable[[str], None] | None = None) -> dict[str, np.ndarray]:
        """All variables of one probe; of what its passes give for others, their accumulators are kept until they are asked for.

        Args:
            number: of the probe; one that is wanted, once.
            said: called about once a second, in the midst of forward passes, with what is being measured.

        Raises:
            UserError: when a site is not where the table says, or the logits are not of the declared shape.
        """
        probe, measurements = self._asked[number]
        names = ", ".join(dict.fromkeys(type(m).__name__ for m in self._watched[number][1]))
        with self._saying(said, number, names, None):
            for home in self._passes.homes(number):
                if home not in self._run:
                    self._run.add(home)
                    self._observe(home)
        watching = self._accumulators.pop(number, None) or self._start(number)
        values = {name: value for one in watching for name, value in one.accumulator.result().items()}
        with sharing():
            for measurement in measurements:
                if isinstance(measurement, Intervention):
                    cost = (
                        measurement.cost(probe, self._architecture.shape) if isinstance(measurement, Priced) else None
                    )
                    with self._saying(said, number, type(measurement).__name__, cost):
                        values |= measurement.run(self._model, self._architecture, probe, self._tokens)
        return values

    def _saying(
        self, said: Callable[[str], None] | None, number: int, what: str, cost: float | None
    ) -> AbstractContextManager[None]:
        if said is None:
            return nullcontext()
        return _saying(self._model, self._architecture, self._asked[number][0], what, cost, said)

    def _start(self, number: int) -> list[_Watching]:
        probe, observations = self._watched[number]
        return [
            _Watching(
                m.sites(),
                m.start(probe, self._architecture.shape),
                isinstance(m, Placed) and m.reads(probe) is not None,
            )
            for m in observations
        ]

    def _observe(self, home: int) -> None:
        """Run the passes of one probe for all that are wanted and have prompts in them."""
        import torch

        passes = [p for p in self._passes.of(home) if any(part.probe in self._wanted for part in p.parts)]
        numbers = {part.probe for p in passes for part in p.parts} & self._wanted
        for number in numbers - self._accumulators.keys():
            self._accumulators[number] = self._start(number)
        sites = frozenset().union(*(one.sites for number in numbers for one in self._accumulators[number]))
        views: list[tuple[_Watching, _View]] = []
        size = (0, 0)  # rows and tokens of the pass

        def callback(site: str, layer: int, value: torch.Tensor) -> None:
            _refuse_other_axes(site, layer, value, size)
            for one, view in views:
                if site in one.sites:
                    one.accumulator.observe(site, layer, view.of(value), view.batch)

        shape, kept = self._architecture.shape, None
        with torch.no_grad(), observe(self._model, self._architecture.table, sites, shape.layers, callback):
            for each in passes:
                ids = torch.from_numpy(each.ids).to(self._device)
                size = (len(ids), ids.shape[1] - each.start)
                views[:] = [
                    (one, _view(each, part, ids, placed=one.placed))
                    for part in each.parts
                    if part.probe in self._wanted
                    for one in self._accumulators[part.probe]
                ]
                if each.shared:
                    views[:] = [(one, view) for one, view in views if one.placed]
                    kept = begin(self._model, ids)
                    continue
                logits = self._logits(each, ids, kept)
                for one, view in views:
                    one.accumulator.finish(replace(view.batch, logits=view.of(logits) if each.kept else None))

    def _logits(self, each: Pass, ids: torch.Tensor, prefixes: Prefixes | None) -> torch.Tensor:
        import torch

        # the head needs at least one position
        keep = torch.tensor(each.kept or [ids.shape[1] - 1], device=self._device) - each.start
        if each.prefix is None:
            logits = self._architecture.logits(self._model, ids, keep)
        else:
            assert prefixes is not None
            of = torch.from_numpy(each.prefix).to(self._device)
            logits = go_on(self._model, ids[:, each.start :], keep, prefixes, of)
        expected = (len(ids), len(keep), self._architecture.shape.vocab)
        if logits.shape != expected:
            raise UserError(
                f"the model gave logits of shape {tuple(logits.shape)}",
                expected=f"(row, token, vocab), here {expected}",
                remedy="correct `vocab` in the adapter's shape, or what the module returns",
            )
        return logits


def _refuse_other_axes(site: str, layer: int, value: Any, size: tuple[int, int]) -> None:
    """A site's values must have rows and tokens where they are looked for."""
    axes = (0, 2) if site == "pattern" else (0, 1)
    given = tuple(value.shape) if hasattr(value, "shape") else ()
    ranks = {"pattern": (4,), "z": (3, 4)}.get(site, (3,))  # z may be apart by head
    if len(given) in ranks and (given[axes[0]], given[axes[1]]) == size:
        return
    of = f"{site!r}" + (f" of layer {layer}" if layer >= 0 else "")
    expected = "(row, head, query, key)" if site == "pattern" else "(row, token, feature)"
    raise UserError(
        f"the table's place of {of} gave values of shape {given}"
        if given
        else f"the table's place of {of} gave {value!r:.60}",
        expected=f"{expected} for {size[0]} rows of {size[1]} tokens",
        remedy="correct the table of sites, or let the module return rows first, then tokens",
    )


@dataclass(frozen=True)
class _Watching:
    """One observation of one probe: whether it is :class:`Placed`, which takes rows and finds its prompts in them itself."""

    sites: frozenset[str]
    accumulator: Accumulator
    placed: bool


@dataclass(frozen=True)
class _View:
    """What one observation sees of a pass."""

    batch: Batch
    index: torch.Tensor | None

    def of(self, value: torch.Tensor) -> torch.Tensor:
        """(prompt, ...) where prompts are picked for it, else (row, ...)."""
        return value if self.index is None else value[self.index]


def _view(each: Pass, part: Part, ids: torch.Tensor, *, placed: bool) -> _View:
    import torch

    index = None if np.array_equal(part.index, np.arange(len(each.ids))) else part.index
    if placed:
        return _View(Batch(part.rows, ids, each.kept, index=index, start=each.start), None)
    picked = None if index is None else torch.from_numpy(index).to(ids.device)
    return _View(Batch(part.rows, ids if picked is None else ids[picked], each.kept), picked)


@contextmanager
def _saying(
    model: Any,
    architecture: Architecture,
    probe: TokenizedProbe,
    what: str,
    cost: float | None,
    said: Callable[[str], None],
) -> Iterator[None]:
    """Says what is being measured, and how many passes that has taken of about how many."""
    import torch

    tokens = int(probe.lengths.sum()) * architecture.shape.layers
    passed, last = 0.0, time.monotonic()

    def block(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal passed, last
        stream = args[0] if args else kwargs["hidden_states"]
        passed += stream.shape[0] * stream.shape[1] * (3 if torch.is_grad_enabled() else 1) / tokens
        if time.monotonic() - last >= SAID:
            last = time.monotonic()
            of = "" if cost is None else f" of about {max(cost, passed):.0f}"
            said(f"{what} (pass {passed:.0f}{of})")

    modules, table = dict(model.named_modules()), architecture.table
    blocks = (modules.get(table.block.format(layer)) for layer in range(architecture.shape.layers))
    handles = [m.register_forward_pre_hook(block, with_kwargs=True) for m in blocks if m is not None]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
