"""Running one probe through one model: batches of equal length, every measurement fed from the same forward pass."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np

from checkpoints.errors import UserError

from ..models.architecture import Architecture
from ..models.sites import observe
from ..probes import TokenizedProbe
from . import Batch, Intervention, Measurement
from .base import Priced
from .sharing import sharing

__all__ = ["LOGITS", "measure"]

SAID = 1.0
"""Seconds between two messages of what is being measured."""

LOGITS = 2**25
"""At most this many logits in one batch: at every position of 8,192 tokens, 50,000 words would be 1.6 GB."""


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

    Prompts of equal length share a batch, so that nothing is padded and no attention mask is needed: what one prompt
    gives does not depend on its neighbours (up to the rounding of differently shaped matrix products).

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
    import torch

    shape = architecture.shape
    interventions = [m for m in measurements if isinstance(m, Intervention)]
    observations = [m for m in measurements if not isinstance(m, Intervention)]
    accumulators = [(m.sites(), m.start(probe, shape)) for m in observations]
    sites = frozenset().union(*(wanted for wanted, _ in accumulators))
    needed = [positions for m in observations for positions in m.logits(probe)]
    device = next(model.parameters()).device
    batch: Batch | None = None

    def callback(site: str, layer: int, value: torch.Tensor) -> None:
        assert batch is not None
        for wanted, accumulator in accumulators:
            if site in wanted:
                accumulator.observe(site, layer, value, batch)

    watched = ", ".join(dict.fromkeys(type(m).__name__ for m in observations))
    doing = nullcontext() if said is None else _saying(model, architecture, probe, watched, None, said)
    with doing, torch.no_grad(), observe(model, architecture.table, sites, shape.layers, callback):
        batches = _batches(probe, needed, batch_tokens, shape.vocab, architecture.whole) if accumulators else ()
        for rows, kept in batches:
            ids = torch.from_numpy(np.stack([probe.ids[row] for row in rows])).to(device)
            batch = Batch(rows, ids, kept)
            keep = torch.tensor(kept or [ids.shape[1] - 1], device=device)  # the head needs at least one position
            logits = architecture.logits(model, ids, keep)
            if logits.shape != (len(rows), len(keep), shape.vocab):
                raise UserError(
                    f"the model gave logits of shape {tuple(logits.shape)}",
                    expected=f"(row, token, vocab), here {(len(rows), len(keep), shape.vocab)}",
                    remedy="correct `vocab` in the adapter's shape, or what the module returns",
                )
            batch = replace(batch, logits=logits if kept else None)
            for _, accumulator in accumulators:
                accumulator.finish(batch)
    values = {name: value for _, accumulator in accumulators for name, value in accumulator.result().items()}
    with sharing():
        for measurement in interventions:
            cost = measurement.cost(probe, shape) if isinstance(measurement, Priced) else None
            name = type(measurement).__name__
            doing = nullcontext() if said is None else _saying(model, architecture, probe, name, cost, said)
            with doing:
                values |= measurement.run(model, architecture, probe, batch_tokens)
    return values


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

    blocks = (model.get_submodule(architecture.table.block.format(i)) for i in range(architecture.shape.layers))
    handles = [module.register_forward_pre_hook(block, with_kwargs=True) for module in blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _batches(
    probe: TokenizedProbe, needed: Sequence[np.ndarray], tokens: int, vocab: int, whole: bool
) -> Iterator[tuple[np.ndarray, tuple[int, ...]]]:
    """(rows, token positions that need logits): batches that keep to ``tokens`` and to :data:`LOGITS`."""
    for rows in probe.batches(tokens):
        kept = tuple(sorted({int(p) for positions in needed for p in positions[rows]}))
        computed = int(probe.lengths[rows[0]]) if whole else max(1, len(kept))
        size = max(1, LOGITS // (computed * vocab))
        for start in range(0, len(rows), size):
            yield rows[start : start + size], kept
