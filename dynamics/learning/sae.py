"""A sparse autoencoder per checkpoint, as a chain: each starts from its neighbour's weights (SAE-Track; Xu et al. 2025).

A sparse autoencoder is a crosscoder over one checkpoint (:mod:`dynamics.learning.crosscoder`): BatchTopK, its metrics,
its saving and its determinism are the same code. The first of the chain is trained for ``config.steps`` batches, every
following one for ``further``, at the same peak learning rate. Starting from the neighbour keeps most features at their
number, but nothing guarantees it: match the decoders of neighbours (:func:`dynamics.learning.matching.match_decoders`),
then :func:`dynamics.learning.chains.chain`. Resampled features are new ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from checkpoints.errors import UserError

from .crosscoder import TrainConfig, Trainer
from .dictionary import Dictionary, Stream

__all__ = ["OneCheckpoint", "train_chain"]


class OneCheckpoint:
    """One checkpoint of a stream, as a stream over one checkpoint.

    Args:
        stream: over several checkpoints.
        place: which one, from 0.
    """

    def __init__(self, stream: Stream, place: int) -> None:
        if not 0 <= place < stream.checkpoints:
            raise UserError(f"there is no checkpoint {place} in the stream", expected=f"0 to {stream.checkpoints - 1}")
        self._stream, self._place = stream, place

    @property
    def checkpoints(self) -> int:
        """One."""
        return 1

    @property
    def d_model(self) -> int:
        """Width of the activations."""
        return self._stream.d_model

    def batches(self, start: int = 0) -> Iterator[Any]:
        """Batches (1, token, d_model) from number ``start`` on."""
        for batch in self._stream.batches(start):
            yield batch[self._place : self._place + 1]


def train_chain(
    streams: Sequence[Stream],
    config: TrainConfig,
    *,
    further: int,
    backwards: bool = False,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[int, Dictionary]]:
    """Train one sparse autoencoder after another; each is given out and can be stored or matched before the next begins.

    Args:
        streams: one per checkpoint, each over one checkpoint: :class:`OneCheckpoint`, or an ``ActivationStream`` of a
            single checkpoint, which holds no more than one checkpoint's activations.
        config: of the first one.
        further: steps of every following one.
        backwards: begin with the last checkpoint, where most features are.
        device: torch device.
        progress: called with (autoencoders done, all of them).

    Returns:
        Place of the checkpoint and its dictionary, in the order of training.

    Raises:
        UserError: when a stream is over several checkpoints.
    """
    places = list(range(len(streams)))[:: -1 if backwards else 1]
    before: Dictionary | None = None
    for done, place in enumerate(places):
        if streams[place].checkpoints != 1:
            raise UserError(
                f"stream {place} is over {streams[place].checkpoints} checkpoints",
                expected="one: OneCheckpoint(stream, place)",
            )
        used = config if before is None else replace(config, steps=further)
        trainer = Trainer.start(used, streams[place], device=device, like=before)
        trainer.run(streams[place])
        before = trainer.dictionary()
        yield place, before
        if progress is not None:
            progress(done + 1, len(places))
