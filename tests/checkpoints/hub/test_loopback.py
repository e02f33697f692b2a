"""The hub that these tests use speaks the protocol that huggingface_hub speaks."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile

from checkpoints.hub.client import HubClient
from tests.loopback import Hub

FILES = {
    "config.json": '{"a": 1}',
    "model.safetensors": b"weights" * 100,
    "sub/folder/optimizer.bin": b"x" * 50,
    "sub/notes.md": "text",
}


@pytest.fixture
def api(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> HfApi:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    return HfApi(endpoint=hub.url)


def test_the_library_lists_what_we_list(hub: Hub, api: HfApi) -> None:
    repo = hub.repo("owner/model")
    repo.branch("main", {"config.json": "{}"})
    commit = repo.branch("step1", FILES)
    repo.tag("step2", FILES)
    hub.page = 3  # several pages
    refs = api.list_repo_refs("owner/model")
    theirs = {r.name: r.target_commit for r in (*refs.branches, *refs.tags)}
    assert HubClient().refs("owner/model") == theirs and set(theirs) == {"main", "step1", "step2"}
    tree = [f for f in api.list_repo_tree("owner/model", recursive=True, revision=commit) if isinstance(f, RepoFile)]
    ours = HubClient().tree("owner/model", commit)
    assert [(f.name, f.size, f.sha256) for f in ours] == sorted(
        (f.path, f.size, f.lfs.sha256 if f.lfs else None) for f in tree
    )
    assert {f.name for f in ours} == set(FILES)
    assert api.repo_info("owner/model", revision="step1").sha == commit


def test_the_library_downloads_from_it(hub: Hub, api: HfApi, tmp_path: Path) -> None:
    hub.repo("owner/model").branch("step1", FILES)
    folder = Path(api.snapshot_download("owner/model", revision="step1", local_dir=tmp_path / "there"))
    for name, content in FILES.items():
        assert (folder / name).read_bytes() == (content.encode() if isinstance(content, str) else content)
    one = api.hf_hub_download("owner/model", "model.safetensors", revision="step1", cache_dir=tmp_path / "cached")
    assert Path(one).resolve().name == hashlib.sha256(b"weights" * 100).hexdigest()


def test_the_library_understands_its_refusals(hub: Hub, api: HfApi, tmp_path: Path) -> None:
    hub.repo("owner/gated", gated=True).branch("main", FILES)
    with pytest.raises(GatedRepoError):
        api.hf_hub_download("owner/gated", "config.json", cache_dir=tmp_path)
    with pytest.raises(RepositoryNotFoundError):
        api.list_repo_refs("owner/nothing")
    with pytest.raises(RevisionNotFoundError):
        list(api.list_repo_tree("owner/gated", revision="step7"))
