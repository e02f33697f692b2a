"""The organism as a series: trained when it is first needed, then an ordinary folder of checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..foreign import read_json
from ..local import FolderConfig, FolderSeries
from .curriculum import OrganismConfig, schedule
from .train import Progress, organism_folder, saved_steps, train

__all__ = ["is_trained", "open_organism", "read_truth"]


def is_trained(name: str, config: OrganismConfig) -> bool:
    """Whether all weights of this organism are in the cache, trained for this run or for another one."""
    return _trained(name, config) is not None


def open_organism(name: str, config: OrganismConfig, *, progress: Progress | None = None) -> FolderSeries:
    """Train the organism if needed and open its folder, exactly as any local series is opened.

    Runs of one configuration share their weights: the folder has the name of the run that trained them first.
    """
    folder = _trained(name, config) or train(name, config, progress=progress)
    return FolderSeries(FolderConfig(path=folder, tokens_per_step=config.tokens_per_step, tokenizer=None), name=name)


def _trained(name: str, config: OrganismConfig) -> Path | None:
    """The folder with all weights of this configuration: the run's own, else any other's."""
    own = organism_folder(name, config)
    for folder in (own, *sorted(own.parent.glob(f"*-{config.digest()}"))):
        if saved_steps(folder, config) == schedule(config) and (folder / "truth.json").is_file():
            return folder
    return None


def read_truth(folder: Path) -> dict[str, Any] | None:
    """The ``truth.json`` beside an organism's weights; None for a series that is no organism."""
    file = folder / "truth.json"
    if not file.is_file():
        return None
    content: dict[str, Any] = read_json(file, dict)
    return content
