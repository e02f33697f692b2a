"""Downloads go on where they were cut off, and what arrives is what the hub says it is, or nothing."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from checkpoints import CheckpointError
from checkpoints.hub.client import HubClient
from checkpoints.hub.files import HubFile
from tests.checkpoints.hub.conftest import BIG, REPO
from tests.loopback import Hub


def test_a_download_that_was_cut_off_goes_on_where_it_was(
    hub: Hub, client: HubClient, big: tuple[str, HubFile], tmp_path: Path, slept: list[float]
) -> None:
    commit, file = big
    hub.truncate(REPO, "step1", file.name, after=300_000, times=1)
    client.download(REPO, commit, file, tmp_path / "w")
    assert (tmp_path / "w").read_bytes() == BIG and not (tmp_path / "w.part").exists()
    first, second = hub.asked("/lfs/")
    assert "range" not in first.headers and second.headers["range"] == "bytes=300000-" and second.status == 206
    assert len(slept) == 1


def test_a_download_goes_on_in_the_next_run(
    hub: Hub, client: HubClient, big: tuple[str, HubFile], tmp_path: Path
) -> None:
    commit, file = big
    hub.truncate(REPO, "step1", file.name, after=300_000)
    with pytest.raises(CheckpointError, match=r"cannot be downloaded: the connection to .* broke .* after 5 tries"):
        client.download(REPO, commit, file, tmp_path / "w")
    assert (tmp_path / "w.part").stat().st_size == 300_000
    assert len(hub.asked("/lfs/")) == 5
    hub.heal()
    HubClient().download(REPO, commit, file, tmp_path / "w")
    assert (tmp_path / "w").read_bytes() == BIG
    assert hub.asked("/lfs/")[-1].headers["range"] == "bytes=300000-"


def test_many_interruptions_do_not_matter_while_something_comes(
    hub: Hub, client: HubClient, big: tuple[str, HubFile], tmp_path: Path
) -> None:
    commit, file = big
    for after in range(100_000, 1_000_000, 100_000):
        hub.truncate(REPO, "step1", file.name, after=after, times=1)
    client.download(REPO, commit, file, tmp_path / "w")
    assert (tmp_path / "w").read_bytes() == BIG and len(hub.asked("/lfs/")) == 10


@pytest.mark.parametrize("forever", [False, True])
def test_a_server_that_knows_no_ranges_sends_all_of_it_again(
    hub: Hub, client: HubClient, big: tuple[str, HubFile], tmp_path: Path, forever: bool
) -> None:
    commit, file = big
    hub.ranges = False
    hub.truncate(REPO, "step1", file.name, after=1000, times=None if forever else 1)
    if forever:  # always the same beginning is no progress
        with pytest.raises(CheckpointError, match="after 5 tries"):
            client.download(REPO, commit, file, tmp_path / "w")
    else:
        client.download(REPO, commit, file, tmp_path / "w")
        assert (tmp_path / "w").read_bytes() == BIG


def test_a_partial_file_longer_than_the_file_is_thrown_away(
    hub: Hub, client: HubClient, big: tuple[str, HubFile], tmp_path: Path
) -> None:
    commit, file = big
    (tmp_path / "w.part").write_bytes(BIG + b"!")
    client.download(REPO, commit, file, tmp_path / "w")
    assert (tmp_path / "w").read_bytes() == BIG and "range" not in hub.asked("/lfs/")[0].headers


def test_a_partial_file_of_something_else_is_noticed_and_replaced(
    hub: Hub, client: HubClient, big: tuple[str, HubFile], tmp_path: Path
) -> None:
    commit, file = big
    (tmp_path / "w.part").write_bytes(b"\xff" * 1000)
    client.download(REPO, commit, file, tmp_path / "w")
    assert (tmp_path / "w").read_bytes() == BIG


@pytest.mark.parametrize("content", [None, BIG[:-1] + b"?", BIG + b"more"])
def test_a_damaged_file_is_fetched_once_more(
    hub: Hub, client: HubClient, big: tuple[str, HubFile], tmp_path: Path, content: bytes | None
) -> None:
    commit, file = big
    hub.corrupt(REPO, "step1", file.name, content=content, times=1)
    client.download(REPO, commit, file, tmp_path / "w")
    assert (tmp_path / "w").read_bytes() == BIG and len(hub.asked("/lfs/")) == 2


def test_a_file_that_stays_damaged_is_named_with_what_was_expected_and_found(
    hub: Hub, client: HubClient, big: tuple[str, HubFile], tmp_path: Path
) -> None:
    commit, file = big
    hub.corrupt(REPO, "step1", file.name)
    with pytest.raises(CheckpointError, match=r"model.safetensors of owner/model at .* arrives damaged") as caught:
        client.download(REPO, commit, file, tmp_path / "w")
    found = hashlib.sha256(bytes(255 - b for b in BIG)).hexdigest()
    assert str(file.sha256) in caught.value.expected and found in caught.value.observed
    assert list(tmp_path.glob("w*")) == [] and len(hub.asked("/lfs/")) == 2


def test_a_file_that_does_not_end_does_not_fill_the_disk(
    hub: Hub, client: HubClient, big: tuple[str, HubFile], tmp_path: Path
) -> None:
    commit, file = big
    hub.corrupt(REPO, "step1", file.name, content=BIG * 20)
    with pytest.raises(CheckpointError, match="arrives damaged: ") as caught:
        client.download(REPO, commit, file, tmp_path / "w")
    written = int(caught.value.observed.partition("damaged: ")[2].partition(" bytes")[0].replace(",", ""))
    assert len(BIG) < written < 2 * len(BIG)


def test_a_shorter_file_is_no_complete_one(
    hub: Hub, client: HubClient, big: tuple[str, HubFile], tmp_path: Path
) -> None:
    commit, file = big
    hub.corrupt(REPO, "step1", file.name, content=BIG[:1000])
    with pytest.raises(CheckpointError, match="cannot be downloaded"):
        client.download(REPO, commit, file, tmp_path / "w")


def test_small_files_are_verified_by_their_git_name(hub: Hub, client: HubClient, tmp_path: Path) -> None:
    commit = hub.repo(REPO).branch("main", {"config.json": '{"a": 1}', "empty.json": ""})
    by_name = {f.name: f for f in client.tree(REPO, commit)}
    for name in by_name:
        client.download(REPO, commit, by_name[name], tmp_path / name)
    assert (tmp_path / "config.json").read_text() == '{"a": 1}' and (tmp_path / "empty.json").read_bytes() == b""
    hub.corrupt(REPO, "main", "config.json", content=b'{"a": 2}')
    with pytest.raises(CheckpointError, match="arrives damaged: 8 bytes, git blob"):
        client.download(REPO, commit, by_name["config.json"], tmp_path / "again.json")
