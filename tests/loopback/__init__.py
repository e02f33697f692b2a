"""A hub on this machine, for tests: it speaks as much of the hub's protocol as reading repositories takes.

::

    with Hub() as hub:
        repo = hub.repo("owner/model")
        commit = repo.branch("step1000", {"config.json": "{}", "model.safetensors": weights})
        hub.fail("owner/model", "step1000", 503, times=2)  # every kind of request about it, twice
        ...
        assert hub.asked("/resolve/") == 2

That it speaks the real protocol is tested in tests/checkpoints/hub/test_loopback.py, with ``huggingface_hub``'s own functions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.loopback.hub import Hub

__all__ = ["Hub", "connected"]


@contextmanager
def connected(folder: Path) -> Iterator[Hub]:
    """A hub that is the only one that code under test can reach; caches and home are empty folders in ``folder``.

    ``huggingface_hub`` reads its environment when it is imported, so that its constants are replaced too.
    """
    import huggingface_hub
    from huggingface_hub import constants

    home = folder / "home"
    home.mkdir()
    with Hub() as hub, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DYNAMICS_CACHE", str(folder / "cache"))
        patch.setenv("HF_ENDPOINT", hub.url)
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            patch.delenv(name, raising=False)
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        for name in ("HF_HOME", "HF_HUB_CACHE", "HF_ASSETS_CACHE", "HF_XET_CACHE", "HF_TOKEN_PATH", "HF_STORED_TOKENS_PATH", "AGENT_HARNESSES_PATH"):  # fmt: skip
            patch.setattr(constants, name, str(home / name.lower()))
        huggingface_hub.close_session()
        try:
            yield hub
        finally:
            huggingface_hub.close_session()
