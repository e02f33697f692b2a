"""Prompts at every checkpoint, at one site: what dictionaries answer to. Nothing is written to disk.

All prompts are read in one pass over the checkpoints, so that each is loaded once; where their activations do not fit
into :data:`MEMORY`, they are read in blocks, with a pass for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from checkpoints.ahead import ReadAhead
from checkpoints.errors import CheckpointError
from checkpoints.loading import ResidentModel
from checkpoints.series import Checkpoint, Series

from ..probes import TokenizedProbe
from .site import SiteAt

__all__ = ["Block", "Installed", "OnCheckpoint", "installed", "read_probes"]

MEMORY = 2**30
"""Bytes of activations that are held at a time (at least one prompt's)."""

Installed = Iterator[tuple[int, torch.nn.Module]]

OnCheckpoint = Callable[[int, int], None]
"""Called with (checkpoints done, checkpoints in all)."""


@dataclass(frozen=True)
class Block:
    """Some prompts of one probe.

    Attributes:
        probe: number of the probe.
        prompts: which of its prompts.
        positions: names of the positions that were read.
        activations: (checkpoint, prompt x position, d_model), prompts outermost.
    """

    probe: int
    prompts: np.ndarray
    positions: tuple[str, ...]
    activations: torch.Tensor


def installed(
    series: Series,
    checkpoints: Sequence[Checkpoint],
    resident: ResidentModel,
    progress: OnCheckpoint | None = None,
) -> Installed:
    """Each checkpoint's model in turn, the next one read meanwhile.

    Raises:
        CheckpointError: when one cannot be had.
    """
    with ReadAhead(series, checkpoints, series.read) as ahead:
        for number, checkpoint in enumerate(checkpoints):
            try:
                model = resident.install(ahead.take())
            except CheckpointError as error:
                error.add_note(f"step {checkpoint.step}")
                raise
            ahead.release()
            yield number, model
            if progress is not None:
                progress(number + 1, len(checkpoints))


def read_probes(
    series: Series,
    checkpoints: Sequence[Checkpoint],
    resident: ResidentModel,
    site: SiteAt,
    probes: Sequence[tuple[TokenizedProbe, tuple[str, ...]]],
    *,
    batch_tokens: int,
    progress: OnCheckpoint,
) -> Iterator[Block]:
    """Activations of prompts at named positions.

    Args:
        series: where the weights come from.
        checkpoints: which.
        resident: the model that takes them.
        site: the site.
        probes: each with the names of its positions.
        batch_tokens: tokens in a forward pass.
        progress: called with (checkpoints done, checkpoints in all) in every pass.
    """
    each = len(checkpoints) * site.width * 4
    waiting = [(number, prompt) for number, (probe, positions) in enumerate(probes) for prompt in range(len(probe.ids))]
    start = 0
    while start < len(waiting):
        held, stop = 0, start
        while stop < len(waiting):
            held += each * len(probes[waiting[stop][0]][1])
            if held > MEMORY and stop > start:
                break
            stop += 1
        some = waiting[start:stop]
        blocks = []
        for number in sorted({n for n, _ in some}):
            prompts = np.array([prompt for n, prompt in some if n == number])
            positions = probes[number][1]
            shape = (len(checkpoints), len(prompts) * len(positions), site.width)
            blocks.append(Block(number, prompts, positions, torch.empty(shape)))
        for which, model in installed(series, checkpoints, resident, progress):
            for block in blocks:
                _fill(block, which, model, site, probes[block.probe][0], batch_tokens)
        yield from blocks
        start = stop


def _fill(
    block: Block, which: int, model: torch.nn.Module, site: SiteAt, probe: TokenizedProbe, batch_tokens: int
) -> None:
    at = np.stack([probe.positions[name][block.prompts] for name in block.positions], axis=1)  # (prompt, position)
    lengths = probe.lengths[block.prompts]
    into = block.activations[which].view(len(block.prompts), len(block.positions), site.width)
    for length in np.unique(lengths):
        mine = np.flatnonzero(lengths == length)
        size = max(1, batch_tokens // int(length))
        for first in range(0, len(mine), size):
            some = mine[first : first + size]
            value = site.read(model, np.stack([probe.ids[block.prompts[i]] for i in some]))
            rows = torch.arange(len(some), device=value.device)[:, None]
            into[torch.from_numpy(some)] = value[rows, torch.from_numpy(at[some]).to(value.device)].cpu()
