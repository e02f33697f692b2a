"""What tests share: a cache of their own, and an organism so small that it trains in seconds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from checkpoints.organism import OrganismConfig

TINY = OrganismConfig(steps=12, checkpoints=6, layers=2, d_model=32, heads=2, batch=8)
"""Two layers, twelve steps: it learns nothing, but it has everything that a series has."""


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing is read from or written to the user's cache, and no hub is ever asked."""
    before = {name: os.environ.get(name) for name in ("DYNAMICS_CACHE", "HF_HUB_OFFLINE")}
    os.environ["DYNAMICS_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["HF_HUB_OFFLINE"] = "1"
    yield
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Models this small are slower on several threads, and the weights' last bits depend on how many there are."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_series() -> Path:
    """Folder of a trained tiny organism: steps 0 to 12, truth.json. Read-only: copy it before changing anything."""
    from checkpoints.organism import train

    return train("tiny", TINY)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data of others, beside the checkout or named by CIRCUIT_DYNAMICS_DATA; skips where it is absent."""
    folder = Path(os.environ.get("CIRCUIT_DYNAMICS_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("the real data set is not here (set CIRCUIT_DYNAMICS_DATA)")
    return folder


def runs_file(folder: Path, series: Path, *, analyses: str = "[addition, shared_concepts, induction]") -> Path:
    """A runs file with one run, ``mine``, on a local series."""
    file = folder / "runs.yaml"
    file.write_text(f"mine:\n  series: {{kind: folder, path: {series}}}\n  analyses: {analyses}\n", encoding="utf-8")
    return file
