"""Activations of every checkpoint on the same tokens, streamed through a buffer in memory; nothing is written to disk.

A buffer is filled by running each checkpoint's model in turn over the same rows of tokens: weights come one checkpoint
at a time (:class:`checkpoints.ahead.ReadAhead`, :class:`checkpoints.loading.ResidentModel`), and the pass ends at the
wanted layer. The tokens are then given out in random order, ``passes`` times, before the next rows fill it. Loading all
checkpoints again is what a refill costs, so that a buffer should be as large as memory allows.

Buffer n holds rows n x rows to (n + 1) x rows of the corpus, from the beginning again at its end, and its order depends
on the seed and n: batch numbers mean the same in every run.

Batches are float32; the buffer is float16 after each checkpoint's activations were divided by their largest absolute value, or float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from checkpoints.errors import UserError
from checkpoints.loading import ResidentModel
from checkpoints.series import Checkpoint, Series
from dynamics.models.architecture import Architecture

from .readings import OnCheckpoint, installed
from .site import SiteAt

__all__ = ["ActivationStream", "StreamConfig"]


@dataclass(frozen=True)
class StreamConfig:
    """What is streamed, and how.

    Attributes:
        site: the site, such as ``resid_post``; not ``pattern`` or ``logits``.
        layer: 0 is the first.
        batch: tokens in a batch.
        rows: rows of the corpus in a buffer; with ``context`` tokens each, memory is rows x context x checkpoints x
            d_model x 4 bytes (2 with ``half``).
        passes: how often the buffer is given out before it is filled anew.
        skip: first tokens of every row that are left out (the first token is an outlier in many models).
        half: keep the buffer in 16 bits.
        batch_tokens: tokens in one forward pass.
        seed: of the order.
    """

    site: str
    layer: int
    batch: int = 512
    rows: int = 2048
    passes: int = 1
    skip: int = 0
    half: bool = False
    batch_tokens: int = 8192
    seed: int = 0


class ActivationStream:
    """Batches (checkpoint, token, d_model) of one site of every checkpoint; see :class:`dictionary.Stream`.

    Args:
        series: where the weights come from.
        checkpoints: which of its checkpoints, in the order of the result.
        architecture: of the models (``dynamics.models.architecture.architecture``).
        rows: (row, token) token ids of the corpus.
        config: what is streamed.
        device: torch device of the models and of the buffer.
        dtype: to compute in.
        build: makes the module, where it is not transformers' (an adapter's ``build``).
        progress: called with (checkpoints done, checkpoints in all) while a buffer is filled.

    Raises:
        UserError: when the site, the layer or the corpus does not fit.

    Attributes:
        refills: how many times the buffer was filled.
    """

    def __init__(
        self,
        series: Series,
        checkpoints: Sequence[Checkpoint],
        architecture: Architecture,
        rows: npt.NDArray[np.integer],
        config: StreamConfig,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        build: Callable[..., torch.nn.Module] | None = None,
        progress: OnCheckpoint | None = None,
    ) -> None:
        self._site = SiteAt(architecture, config.site, config.layer)
        if rows.ndim != 2 or not len(rows) or rows.shape[1] <= config.skip:
            raise UserError(
                f"the corpus has shape {rows.shape}, of which {config.skip} tokens a row are left out",
                expected="token ids (row, token)",
                remedy="give rows of equal length, longer than `skip`",
            )
        if rows.min() < 0 or rows.max() >= architecture.shape.vocab:
            raise UserError(
                f"the corpus has token ids from {rows.min()} to {rows.max()}",
                expected=f"0 to {architecture.shape.vocab - 1}",
                remedy="name the tokenizer of this model as `series.tokenizer`",
            )
        if not checkpoints:
            raise UserError(
                "there is no checkpoint to stream from",
                expected="at least one",
                remedy="collect the run first, or choose other checkpoints",
            )
        self.config, self.refills = config, 0
        self._series, self._checkpoints = series, tuple(checkpoints)
        self._rows, self._device, self._progress = rows, device, progress
        self._resident = ResidentModel(device, dtype, build)
        per_buffer = min(config.rows, len(rows)) * (rows.shape[1] - config.skip)
        self.tokens = per_buffer
        """Tokens in a buffer."""
        if per_buffer < config.batch:
            raise UserError(
                f"a buffer has {per_buffer} tokens",
                expected=f"at least a batch of {config.batch}",
                remedy="raise `rows` or `context` of the dictionary, give it a larger corpus, or lower `batch`",
            )
        self._per_pass = per_buffer // config.batch
        self._number = -1
        self._buffer: torch.Tensor | None = None
        self._scale = torch.ones(len(checkpoints), device=device)

    @property
    def checkpoints(self) -> int:
        """Checkpoints in a batch."""
        return len(self._checkpoints)

    @property
    def d_model(self) -> int:
        """Width of the activations (of the site)."""
        return self._site.width

    def batches(self, start: int = 0) -> Iterator[torch.Tensor]:
        """Batches from number ``start`` on, without end.

        Raises:
            CheckpointError: when a checkpoint cannot be had: a series with a hole has no activations there.
        """
        per_buffer = self._per_pass * self.config.passes
        while True:
            number, within = divmod(start, per_buffer)
            if number != self._number:
                self._fill(number)
            assert self._buffer is not None
            turn, position = divmod(within, self._per_pass)
            rng = np.random.default_rng([self.config.seed, number, turn])
            order = torch.from_numpy(rng.permutation(self.tokens)).to(self._buffer.device)
            while turn == within // self._per_pass and number == self._number:
                chosen = order[position * self.config.batch : (position + 1) * self.config.batch]
                yield self._buffer[:, chosen].float() * self._scale[:, None, None]
                start, within, position = start + 1, within + 1, position + 1

    def _fill(self, number: int) -> None:
        """Run every checkpoint over the rows of buffer ``number``."""
        count = min(self.config.rows, len(self._rows))
        rows = self._rows[np.arange(number * count, (number + 1) * count) % len(self._rows)]
        if self._buffer is None:
            kind = torch.float16 if self.config.half else torch.float32
            shape = (self.checkpoints, self.tokens, self._site.width)
            self._buffer = torch.empty(shape, dtype=kind, device=self._device)
        self._number = -1  # half-filled until the end
        for index, model in installed(self._series, self._checkpoints, self._resident, self._progress):
            values = self._activations(model, rows)
            if self.config.half:  # large activations would not fit into 16 bits
                self._scale[index] = values.abs().max().clamp_min(1e-30)
                values = values / self._scale[index]
            self._buffer[index] = values
        self._number = number
        self.refills += 1

    def _activations(self, model: Any, rows: npt.NDArray[np.integer]) -> torch.Tensor:
        """(token, width) the site's values on all rows."""
        step = max(1, self.config.batch_tokens // rows.shape[1])
        found = [self._site.read(model, rows[first : first + step]) for first in range(0, len(rows), step)]
        return torch.cat([value[:, self.config.skip :].reshape(-1, value.shape[-1]) for value in found])
