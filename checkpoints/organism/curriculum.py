"""What an organism is trained on and when: the configuration, the batches that follow from it, and the truth."""

from __future__ import annotations

import hashlib
import json
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ..errors import nearest
from ..series import SeriesConfig
from .tokenizer import SEPARATOR, token_ids
from .worlds import all_worlds, task_names, world_names

__all__ = ["QUICK_WORLDS", "OrganismConfig", "WorldEntry", "batch", "schedule", "truth"]


class WorldEntry(BaseModel):
    """When a world enters the training data, and with what weight."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    share: float = Field(
        ge=0,
        le=1,
        description="Weight among the worlds that are present (documents, not tokens). 0: its words are known, and it "
        "is never shown.",
    )
    from_step: int = Field(0, ge=0, description="First optimizer step whose batch may contain this world.")

    @model_validator(mode="after")
    def _shown_or_not(self) -> WorldEntry:
        if self.share == 0 and self.from_step:
            raise ValueError(f"a world with share 0 is never shown, so that it cannot enter at step {self.from_step}")
        return self


def _everything() -> dict[str, WorldEntry]:
    # English has no language before it to mix with: its sentences with the others belong to their worlds
    shares = {"addition": 0.34, "english": 0.08, "french": 0.19, "german": 0.20, "induction": 0.19}
    return {name: WorldEntry(share=share, from_step=0) for name, share in shares.items()}


QUICK_WORLDS = ("french", "german", "induction")
"""Worlds that are learned within a few hundred steps; sums take more than a thousand."""


class OrganismConfig(SeriesConfig):
    """A model organism: architecture, optimisation and curriculum; two equal configurations give equal weights."""

    model_config = ConfigDict(allow_inf_nan=False)

    reading: ClassVar[frozenset[str]] = frozenset({"kind", "checkpoints"})

    kind: Literal["organism"] = "organism"
    seed: int = Field(0, ge=0, lt=2**63, description="Seeds initial weights and data.")
    steps: int = Field(1400, ge=1, description="Optimizer steps.")
    checkpoints: int = Field(40, ge=2, description="About how many checkpoints to save, log-spaced, step 0 included.")
    layers: int = Field(4, ge=1, le=64, description="Transformer layers.")
    d_model: int = Field(128, ge=8, le=4096, description="Width of the residual stream.")
    heads: int = Field(4, ge=1, description="Attention heads per layer.")
    batch: int = Field(96, ge=1, description="Rows per optimizer step.")
    context: int = Field(24, ge=8, description="Tokens per row.")
    learning_rate: float = Field(3e-3, gt=0, description="Peak learning rate of AdamW.")
    warmup: int = Field(50, ge=1, description="Steps of linear warm-up; linear decay to a tenth follows.")
    weight_decay: float = Field(0.1, ge=0, description="AdamW weight decay.")
    curriculum: dict[str, WorldEntry] = Field(default_factory=_everything, description="World name to its entry.")

    @field_validator("curriculum")
    @classmethod
    def _known_worlds(cls, value: dict[str, WorldEntry]) -> dict[str, WorldEntry]:
        for name in value:
            if name not in world_names():
                raise ValueError(f"unknown world {name!r}; {nearest(name, world_names())}")
        return value

    @model_validator(mode="after")
    def _something_at_the_start(self) -> OrganismConfig:
        shown = {name: entry for name, entry in self.curriculum.items() if entry.share > 0}
        if not any(entry.from_step == 0 for entry in shown.values()):
            raise ValueError("no world is in the data from step 0, so that there is nothing to train on")
        late = [name for name, entry in shown.items() if entry.from_step >= self.steps]
        if late:
            raise ValueError(f"{', '.join(late)} would enter after the last step {self.steps}")
        for name, entry in shown.items():
            for other in _WORLDS[name].truth().get("mixes_with", ()):
                if other not in shown or shown[other].from_step > entry.from_step:
                    raise ValueError(
                        f"documents of world {name!r} hold words of world {other!r}, which has not entered at step "
                        f"{entry.from_step}: the truth about it would be wrong"
                    )
        if self.d_model % self.heads:
            raise ValueError(f"d_model {self.d_model} is not a multiple of heads {self.heads}")
        return self

    @property
    def tokens_per_step(self) -> int:
        """Tokens in one optimizer step."""
        return self.batch * self.context

    def digest(self) -> str:
        """Twelve hexadecimal digits that change with any field and with the vocabulary."""
        text = json.dumps([self.model_dump(mode="json"), token_ids(self.curriculum), _DATA_VERSION], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


_WORLDS = all_worlds()
_DATA_VERSION = 1  # raise it when a world's documents change under the same configuration


def schedule(config: OrganismConfig) -> list[int]:
    """The steps at which weights are saved: 0, then log-spaced, about ``config.checkpoints`` of them.

    >>> schedule(OrganismConfig(steps=100, checkpoints=8))
    [0, 1, 2, 5, 10, 22, 46, 100]
    """
    wanted = min(config.checkpoints - 1, config.steps)
    points = wanted
    steps: set[int] = set()
    while len(steps) < wanted:  # rounding merges the earliest points: ask for more until enough
        steps = {config.steps} | {round(s) for s in np.geomspace(1, config.steps, points)[wanted == 1 :]}
        points += 1
    return [0, *sorted(steps)]


def batch(config: OrganismConfig, step: int) -> np.ndarray:
    """The token ids (row, token) of optimizer step ``step`` (0-based); a function of the configuration alone.

    Documents follow one another, each behind a separator; a document that does not fit is redrawn a few times and
    then cut at the end of the row.
    """
    rng = np.random.default_rng([config.seed, step])
    ids = token_ids(config.curriculum)
    present = [name for name in world_names_in(config) if config.curriculum[name].from_step <= step]
    shares = np.array([config.curriculum[name].share for name in present])
    cumulative = np.cumsum(shares / shares.sum())
    rows = np.empty((config.batch, config.context), dtype=np.int64)
    for row in rows:
        filled = 0
        while filled < config.context:
            for _ in range(4):
                world = _WORLDS[present[int(np.searchsorted(cumulative, rng.random()))]]
                document = [SEPARATOR, *world.document(rng)]
                if filled + len(document) <= config.context:
                    break
            document = document[: config.context - filled]
            row[filled : filled + len(document)] = [ids[token] for token in document]
            filled += len(document)
    return rows


def world_names_in(config: OrganismConfig) -> list[str]:
    """The worlds that a curriculum shows, in the fixed order of :func:`world_names` (not as they were written)."""
    return [name for name in world_names() if name in config.curriculum and config.curriculum[name].share > 0]


def truth(config: OrganismConfig) -> dict[str, Any]:
    """What can have formed when, as JSON values: written beside the weights as ``truth.json``.

    ``worlds`` are those that are shown, ``absent`` those whose words the organism knows and that it never sees.
    """
    shown = world_names_in(config)
    known = [name for name in world_names() if name in config.curriculum or name not in task_names()]
    return {
        "format": 1,
        "config": config.model_dump(mode="json"),
        "digest": config.digest(),
        "tokens_per_step": config.tokens_per_step,
        "steps": schedule(config),
        "worlds": {
            name: {
                "entry_step": config.curriculum[name].from_step,
                "share": config.curriculum[name].share,
                **_WORLDS[name].truth(),
            }
            for name in shown
        },
        "absent": [name for name in known if name not in shown],
    }
