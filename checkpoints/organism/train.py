"""Training an organism: deterministic for a configuration, resumable, saved as ordinary ``stepN/`` folders.

Determinism holds on CPU for the same number of threads and the same torch build: batch *i* is a function of the
configuration alone, initial weights of the seed alone, and the optimizer state is saved with the last checkpoint.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from ..errors import UserError, first_line
from ..paths import cache_folder, replace_text
from .curriculum import OrganismConfig, batch, schedule, truth
from .tokenizer import SEPARATOR, build_tokenizer, token_ids

if TYPE_CHECKING:
    from transformers import GPTNeoXConfig, PreTrainedModel

__all__ = ["Progress", "model_config", "organism_folder", "saved_steps", "train"]

Progress = Callable[[int, int, float], None]
"""Called after every optimizer step with (steps done, steps in all, loss)."""

_STATE = "training_state.pt"
STATE_SECONDS = 10.0
"""Seconds between two remembered training states: the most work that an interruption costs."""


def organism_folder(name: str, config: OrganismConfig) -> Path:
    """The folder of this organism's series in the cache; another configuration is another folder."""
    return cache_folder() / "organisms" / f"{name}-{config.digest()}"


def saved_steps(folder: Path, config: OrganismConfig) -> list[int]:
    """The scheduled steps whose folder is complete (a folder gets its name only when everything is in it)."""
    return [step for step in schedule(config) if (folder / f"step{step}").is_dir()]


def model_config(config: OrganismConfig) -> GPTNeoXConfig:
    """The ``transformers`` configuration of an organism."""
    from transformers import GPTNeoXConfig

    ids = token_ids(config.curriculum)
    return GPTNeoXConfig(
        vocab_size=len(ids),
        hidden_size=config.d_model,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=4 * config.d_model,
        max_position_embeddings=max(64, config.context),
        bos_token_id=ids[SEPARATOR],
        eos_token_id=ids[SEPARATOR],
        use_cache=False,
    )


def _new_model(config: OrganismConfig) -> PreTrainedModel:
    import torch
    from transformers import GPTNeoXForCausalLM

    torch.manual_seed(config.seed)
    return GPTNeoXForCausalLM(model_config(config))


def _save(model: PreTrainedModel, config: OrganismConfig, folder: Path, step: int) -> None:
    """Write ``stepN`` under a provisional name and rename it, so that a folder of that name is complete."""
    from safetensors import SafetensorError

    final, partial, old = (folder / f"step{step}{end}" for end in ("", ".partial", ".old"))
    for left in (partial, old):
        shutil.rmtree(left, ignore_errors=True)
    try:
        model.save_pretrained(partial)
    except SafetensorError as error:  # a full disk, say
        raise OSError(str(error)) from error
    build_tokenizer(config.curriculum).save_pretrained(partial)
    # An interrupted training may have saved steps after the last remembered state: they are made again.
    # Half deleted, such a folder would still have the name of a complete one.
    if final.exists():
        os.replace(final, old)
    os.replace(partial, final)
    shutil.rmtree(old, ignore_errors=True)


def train(name: str, config: OrganismConfig, *, progress: Progress | None = None) -> Path:
    """Train the organism unless it is already there; go on where an interrupted training stopped.

    Args:
        name: the run's name; part of the folder's name.
        config: what to train.
        progress: called after every optimizer step.

    Returns:
        The folder that holds ``stepN/`` folders and ``truth.json``.

    Raises:
        UserError: when another process is training the same organism, or the cache cannot be written.
    """
    folder = organism_folder(name, config)
    if saved_steps(folder, config) == schedule(config) and (folder / "truth.json").is_file():
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=0)
        with lock:
            _train(folder, config, progress)
    except Timeout as error:
        raise UserError(
            f"organism {name!r} is being trained by another process ({folder})",
            remedy="wait until that process has finished, then run the same command again",
            expected="one process at a time that trains it",
        ) from error
    except OSError as error:
        raise UserError(
            f"cannot write the organism's weights under {folder}: {error.strerror or error}",
            expected="a writable folder with about 200 MB free",
            remedy="set DYNAMICS_CACHE to such a folder",
        ) from error
    return folder


def _train(folder: Path, config: OrganismConfig, progress: Progress | None) -> None:
    import torch
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    model = _new_model(config)
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=config.learning_rate,
        betas=(0.9, 0.98),
        fused=True,
    )
    start = _restore(folder, model, optimizer)
    wanted = set(schedule(config))
    if start == 0:
        _save(model, config, folder, 0)
    model.train()
    last_state = time.monotonic()
    for step in range(start, config.steps):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * _rate(config, step)
        ids = torch.from_numpy(batch(config, step))
        # mypy cannot see through the forward decorator of transformers
        loss = model(input_ids=ids, labels=ids).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        done = step + 1
        if done in wanted:
            _save(model, config, folder, done)
        if done < config.steps and time.monotonic() - last_state > STATE_SECONDS:
            _remember(folder, done, model, optimizer)
            last_state = time.monotonic()
        if progress is not None:
            progress(done, config.steps, float(loss.detach()))
    replace_text(folder / "truth.json", json.dumps(truth(config), indent=1, ensure_ascii=False) + "\n")
    (folder / _STATE).unlink(missing_ok=True)


def _rate(config: OrganismConfig, step: int) -> float:
    """Linear warm-up, then linear decay to a tenth, as a factor of the peak learning rate."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    gone = (step - config.warmup) / max(1, config.steps - config.warmup)
    return 1.0 - 0.9 * gone


def _remember(folder: Path, step: int, model: PreTrainedModel, optimizer: Any) -> None:
    import torch

    partial = folder / f"{_STATE}.partial"
    try:
        torch.save({"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, partial)
    except RuntimeError as error:  # a full disk, say
        raise OSError(first_line(error)) from error
    os.replace(partial, folder / _STATE)


def _restore(folder: Path, model: PreTrainedModel, optimizer: Any) -> int:
    """Load the last remembered training state, if any; returns the number of steps already done."""
    import torch

    if not (folder / _STATE).is_file():
        return 0
    state = torch.load(folder / _STATE, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])
