"""Published series: the branches or tags of a repository on a hub, downloaded one at a time and deleted again."""

from __future__ import annotations

from .config import HubConfig
from .series import HubSeries

__all__ = ["HubConfig", "HubSeries"]
