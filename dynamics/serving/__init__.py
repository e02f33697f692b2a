"""What runs found, served to assistants over the Model Context Protocol."""

from __future__ import annotations

from .server import mcp, server

__all__ = ["mcp", "server"]
