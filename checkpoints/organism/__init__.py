"""The model organism: a small GPT-NeoX model that this project trains itself, on worlds whose circuits are known."""

from __future__ import annotations

from .curriculum import OrganismConfig, WorldEntry, schedule, truth
from .series import is_trained, open_organism, read_truth
from .tokenizer import build_tokenizer, speaks
from .train import Progress, model_config, organism_folder, train

__all__ = [
    "OrganismConfig",
    "Progress",
    "WorldEntry",
    "build_tokenizer",
    "is_trained",
    "model_config",
    "open_organism",
    "organism_folder",
    "read_truth",
    "schedule",
    "speaks",
    "train",
    "truth",
]
