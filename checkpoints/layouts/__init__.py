"""Local series in the layouts of other people's trainers: finding their checkpoints, and reading them as transformers'."""

from __future__ import annotations

from .adapters import Base
from .base import FoundCheckpoint, Layout, LayoutOptions
from .choose import LAYOUTS, choose

__all__ = ["LAYOUTS", "Base", "FoundCheckpoint", "Layout", "LayoutOptions", "choose"]
