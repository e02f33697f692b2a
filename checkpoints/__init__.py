"""Weights: series of checkpoints, where they come from, and loading them. Knows nothing of probes and circuits."""

from __future__ import annotations

from .errors import CheckpointError, UserError
from .local import FolderConfig, FolderSeries
from .series import Checkpoint, Series
from .tokenizing import word_tokenizer

__all__ = ["Checkpoint", "CheckpointError", "FolderConfig", "FolderSeries", "Series", "UserError", "word_tokenizer"]
