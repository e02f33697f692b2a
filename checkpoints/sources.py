"""Opening a series, whatever its kind, and whether it must be trained for that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from .bucket import BucketConfig, BucketSeries
from .hub import HubConfig, HubSeries
from .local import FolderConfig, FolderSeries
from .organism.curriculum import OrganismConfig
from .series import Checkpoint, Series, SeriesConfig
from .staged import Stage, StagedConfig, StagedSeries

__all__ = ["open_series", "steps_to_train"]


def open_series(
    name: str,
    config: SeriesConfig,
    *,
    pins: Mapping[int, Checkpoint] | None = None,
    training: Callable[[int, int, float], None] | None = None,
) -> Series:
    """The series of a run; an organism is trained first if it has to be.

    Args:
        name: the run's name.
        config: what the runs file says.
        pins: step to the checkpoint as it was collected, for hub series whose branches may have moved since.
        training: called after each training step with (steps done, steps in all, loss).

    Raises:
        UserError: when there is no such series, or no checkpoint in it.
    """
    if isinstance(config, OrganismConfig):
        from .organism import open_organism

        return open_organism(name, config, progress=training)
    if isinstance(config, HubConfig):
        return HubSeries(config, name=name, pins=pins)
    if isinstance(config, BucketConfig):
        return BucketSeries(config, name=name)
    if isinstance(config, StagedConfig):
        return _open_parts(name, config, pins or {})
    assert isinstance(config, FolderConfig), "a series without stored checkpoints cannot be opened"
    return FolderSeries(config, name=name)


def _open_parts(name: str, config: StagedConfig, pins: Mapping[int, Checkpoint]) -> StagedSeries:
    """The parts one after the other, each from where the one before ends."""
    parts: list[Stage] = []
    end = 0
    for part in config.parts:
        starts = end if part.starts is None else part.starts
        own = {s - starts: replace(c, step=s - starts) for s, c in pins.items() if c.stage == part.stage}
        series = open_series(f"{name} ({part.stage})", part.series, pins=own)
        parts.append(Stage(part.stage, series, starts))
        end = starts + series.checkpoints[-1].step
    return StagedSeries(parts, name=name, tokenizer=config.tokenizer)


def steps_to_train(name: str, config: SeriesConfig) -> int:
    """Optimizer steps of training before there are checkpoints: those of an organism that is not in the cache, or 0."""
    if not isinstance(config, OrganismConfig):
        return 0
    from .organism import is_trained

    return 0 if is_trained(name, config) else config.steps
