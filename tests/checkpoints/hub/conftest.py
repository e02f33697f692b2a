"""A hub of our own for every test here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from checkpoints import Checkpoint
from checkpoints.catalogue.entry import Entry
from checkpoints.hub import HubConfig, HubSeries
from checkpoints.hub.client import HubClient
from checkpoints.hub.files import HubFile
from tests.loopback import Hub, connected

REPO = "owner/model"
BIG = bytes(range(256)) * 4096  # 1 MiB
Opened = Callable[..., HubSeries]


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with connected(tmp_path) as running:
        yield running


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """This project's cache of hub files; it need not exist."""
    return tmp_path / "cache" / "hub"


@pytest.fixture
def slept() -> list[float]:
    """How long the client of :func:`client` would have slept."""
    return []


@pytest.fixture
def client(hub: Hub, slept: list[float]) -> HubClient:
    """A client that does not sleep."""
    return HubClient(sleep=slept.append)


@pytest.fixture
def opened(client: HubClient) -> Opened:
    """Opens the series in ``owner/model``; arguments are the config's, except pins."""

    def open_it(pins: dict[int, str] | None = None, **config: object) -> HubSeries:
        known = {step: Checkpoint(step, commit, step * 10) for step, commit in (pins or {}).items()}
        return HubSeries(HubConfig.model_validate({"repo": REPO, **config}), pins=known, client=client)

    return open_it


@pytest.fixture
def big(hub: Hub) -> tuple[str, HubFile]:
    """A commit with one large file."""
    commit = hub.repo(REPO).branch("step1", {"model.safetensors": BIG, "config.json": "{}"})
    return commit, HubFile("model.safetensors", len(BIG), sha256=hashlib.sha256(BIG).hexdigest())


def weights(value: float = 0.0, count: int = 8) -> bytes:
    """A safetensors file with one tensor."""
    return save({"w": np.full(count, value, dtype=np.float32)})


def model(value: float = 0.0, count: int = 8) -> dict[str, bytes | str]:
    """The files of a checkpoint, among them some that nobody wants."""
    return {
        "README.md": "# model",
        "config.json": '{"model_type": "gpt_neox"}',
        "generation_config.json": "{}",
        "model.safetensors": weights(value, count),
        "optimizer.bin": b"gigabytes",
        "flax_model.msgpack": b"more",
        "checkpoints/step1/model.safetensors": b"not this one",
    }


def series_of(hub: Hub, *steps: int, count: int = 8) -> dict[int, str]:
    """Branches stepN, and their commits by step."""
    repo = hub.repo(REPO)
    return {step: repo.branch(f"step{step}", model(step, count)) for step in steps}


def on_disk(folder: Path) -> set[str]:
    """Names of all files in a folder and its folders."""
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def stored(cache: Path) -> dict[str, set[str]]:
    """Commit to the names of its files that are here."""
    commits = cache / "owner--model" / "commits"
    return {p.name: on_disk(p) for p in sorted(commits.glob("*"))}


def named(monkeypatch: pytest.MonkeyPatch, **facts: object) -> HubConfig:
    """A config that names an entry of the catalogue with these facts."""
    import checkpoints.catalogue as catalogue

    entry = Entry.model_validate({"name": "x", "family": "X", "repo": REPO, "revisions": r"step(?P<step>\d+)", **facts})
    monkeypatch.setattr(catalogue, "find_entry", lambda _name: entry)
    return HubConfig(name="x")
