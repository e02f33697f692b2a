"""Making the dictionary that a run asks for, or going on with one that was interrupted.

What was made lies in a folder beside the trace. Its ``about.json`` holds a key of everything that the result depends on
(settings, weights of the checkpoints, rows of the corpus): with another key it is made anew, with the same one it is not
made again.
"""

from __future__ import annotations

import itertools
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from checkpoints.foreign import read_json
from checkpoints.loading import ResidentModel
from checkpoints.paths import replace_text
from checkpoints.series import Checkpoint, Series

from ..models.architecture import Architecture
from ..runs.dictionaries import DictionaryConfig
from .coder import Coder
from .crosscoder import TrainConfig, Trainer
from .dictionary import Dictionary, refit
from .streams import ActivationStream, StreamConfig

__all__ = ["Material", "about", "make", "stored"]

OnBatch = Callable[[int, int, str], None]
"""Called with (batches done, batches in all, what is trained and how well)."""
SAVE_SECONDS = 30.0
"""Seconds between two saved states of a training: the most work that an interruption costs."""
BUFFER = 4 * 2**30
"""Bytes of activations from which on a buffer is kept in 16 bits."""


@dataclass(frozen=True)
class Material:
    """What a dictionary is made from.

    Attributes:
        series, checkpoints: the weights.
        architecture: of the models.
        rows: (row, token) token ids to train on.
        layer: of the site.
        device, dtype: to compute in.
        build: makes the module, for an adapter's.
        batch_tokens: tokens in a forward pass.
    """

    series: Series
    checkpoints: Sequence[Checkpoint]
    architecture: Architecture
    rows: npt.NDArray[np.integer]
    layer: int
    device: str
    dtype: str
    build: Callable[..., Any] | None
    batch_tokens: int

    def resident(self) -> ResidentModel:
        """A model without weights yet."""
        return ResidentModel(self.device, self.dtype, self.build)

    def stream(self, config: DictionaryConfig, checkpoints: Sequence[Checkpoint]) -> ActivationStream:
        """The activations of these checkpoints, in random order.

        Rows are given out as often as the training asks, ``refills`` times with other rows.
        """
        rows = min(config.rows, len(self.rows))
        tokens = rows * (self.rows.shape[1] - config.skip)
        batch = min(config.batch, tokens)
        # the batches that refit the decoder are after those of the training
        wanted = max(config.steps, config.further) + _refit_batches(tokens, batch)
        passes = -(-wanted // max(1, config.refills * (tokens // batch)))
        size = tokens * len(checkpoints) * self.architecture.shape.d_model * 4
        settings = StreamConfig(
            config.site,
            self.layer,
            batch=batch,
            rows=rows,
            passes=passes,
            skip=config.skip,
            half=size > BUFFER,
            batch_tokens=self.batch_tokens,
            seed=config.seed,
        )
        return ActivationStream(
            self.series,
            checkpoints,
            self.architecture,
            self.rows,
            settings,
            device=self.device,
            dtype=self.dtype,
            build=self.build,
        )


def stored(folder: Path, key: str) -> Coder | None:
    """The finished dictionaries of this key in a folder; None where there are none."""
    said = about(folder)
    if said.get("key") != key or not said.get("finished"):
        return None
    return Coder(tuple(Dictionary.load(folder / name) for name in said["folders"]), bool(said["joint"]))


def make(folder: Path, key: str, config: DictionaryConfig, material: Material, progress: OnBatch) -> Coder:
    """Train (or go on training) a crosscoder or a chain, and keep it in the folder."""
    if about(folder).get("key") != key:
        old = folder.with_name(folder.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():  # moved first: half deleted, it would pass for the new one
            folder.replace(old)
            shutil.rmtree(old, ignore_errors=True)
        folder.mkdir(parents=True)
        _say(folder, {"key": key, "finished": False})
    made = _crosscoder if config.method == "crosscoder" else _chain
    coder = made(folder, config, material, progress)
    names = ["dictionary"] if coder.joint else [f"step{c.step}" for c in material.checkpoints]
    _say(folder, {"key": key, "finished": True, "joint": coder.joint, "folders": names})
    shutil.rmtree(folder / "training", ignore_errors=True)
    return coder


def _crosscoder(folder: Path, config: DictionaryConfig, material: Material, progress: OnBatch) -> Coder:
    stream = material.stream(config, material.checkpoints)
    names = [f"step {c.step}" for c in material.checkpoints]
    settings = _train_config(config, config.steps)
    trainer = _trained(folder / "training", settings, stream, material.device, progress, names)
    count = _refit_batches(stream.tokens, stream.config.batch)
    dictionary = refit(trainer.dictionary(), itertools.islice(stream.batches(config.steps), count))
    dictionary.save(folder / "dictionary")
    return Coder((dictionary,), True)


def _chain(folder: Path, config: DictionaryConfig, material: Material, progress: OnBatch) -> Coder:
    """One sparse autoencoder per checkpoint, each starting from its neighbour's weights (SAE-Track; Xu et al. 2025).

    It begins with the last checkpoint, where most features are; each is kept when it is done. Most features keep their
    number, but nothing guarantees it: :mod:`dynamics.learning.chains` matches them.
    """
    last = len(material.checkpoints) - 1
    done: dict[int, Dictionary] = {}
    before: Dictionary | None = None
    for number in range(last, -1, -1):
        checkpoint = material.checkpoints[number]
        mine, training = folder / f"step{checkpoint.step}", folder / f"step{checkpoint.step}.training"
        if (mine / "dictionary.json").is_file():
            done[number] = before = Dictionary.load(mine, device=material.device)
            continue
        stream = material.stream(config, [checkpoint])
        steps = config.steps if before is None else config.further
        note = f"step {checkpoint.step}"

        already = 0 if before is None else config.steps + config.further * (last - 1 - number)

        def on_batch(at: int, of: int, text: str, note: str = note, already: int = already) -> None:
            progress(already + at, of, f"{note}, {text}")

        trainer = _trained(
            training, _train_config(config, steps), stream, material.device, on_batch, [note], like=before
        )
        before = trainer.dictionary()
        before.save(mine)
        shutil.rmtree(training, ignore_errors=True)
        done[number] = before
    return Coder(tuple(done[number] for number in range(last + 1)), False)


def _trained(
    folder: Path,
    config: TrainConfig,
    stream: ActivationStream,
    device: str,
    progress: OnBatch,
    names: Sequence[str],
    like: Dictionary | None = None,
) -> Trainer:
    partial = folder.with_name(folder.name + ".partial")

    def put() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        partial.replace(folder)

    if (partial / "training.json").is_file():  # what is written last is there: only the move was cut off
        put()
    if (folder / "training.json").is_file():
        trainer = Trainer.load(folder, device=device)
    else:
        trainer = Trainer.start(config, stream, device=device, like=like, names=names)
    saved = time.monotonic()

    def on_batch(done: int, total: int, loss: float) -> None:
        nonlocal saved
        progress(done, total, f"unexplained {loss:.3f}")
        if done < total and time.monotonic() - saved > SAVE_SECONDS:
            shutil.rmtree(partial, ignore_errors=True)
            trainer.save(partial)
            put()
            saved = time.monotonic()

    trainer.run(stream, progress=on_batch)
    return trainer


def _train_config(config: DictionaryConfig, steps: int) -> TrainConfig:
    return TrainConfig(
        config.features,
        config.k,
        steps,
        learning_rate=config.learning_rate,
        resample=max(10, min(50, steps // 10)),
        seed=config.seed,
    )


def _refit_batches(tokens: int, batch: int) -> int:
    """All tokens of one buffer, once."""
    return max(1, tokens // batch)


def about(folder: Path) -> dict[str, Any]:
    """What a folder of dictionaries says of itself; nothing where it says nothing."""
    try:
        found: dict[str, Any] = read_json(folder / "about.json", dict)
        return found
    except (OSError, ValueError):
        return {}


def _say(folder: Path, content: dict[str, Any]) -> None:
    replace_text(folder / "about.json", json.dumps(content))
