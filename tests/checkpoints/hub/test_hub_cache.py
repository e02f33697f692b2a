"""What stays on disk, and where: two checkpoints at most, in a cache of our own, offline and in a bad state too."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import constants

from checkpoints import CheckpointError, UserError
from checkpoints.hub.cache import RepositoryCache
from checkpoints.hub.client import HubClient
from tests.checkpoints.hub.conftest import REPO, Opened, series_of, stored
from tests.loopback import Hub


def size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


# --- what is there at the same time


def test_only_what_is_in_use_is_on_disk(hub: Hub, opened: Opened, cache: Path) -> None:
    series_of(hub, *range(6), count=50_000)
    series = opened()
    one = series.download_bytes(series.checkpoints[0])
    most = 0
    for index, checkpoint in enumerate(series.checkpoints):
        folder = series.fetch(checkpoint)
        assert (folder / "model.safetensors").stat().st_size > 200_000
        assert not any(p.is_symlink() for p in cache.rglob("*"))
        most = max(most, size(cache))
        if index:
            series.release(series.checkpoints[index - 1])
    series.release(series.checkpoints[-1])
    assert most < 2 * one + 20_000
    assert stored(cache) == {} and size(cache) < 20_000


def test_releasing_is_harmless_at_any_time(hub: Hub, opened: Opened, cache: Path) -> None:
    series_of(hub, 1)
    series = opened()
    series.release(series.checkpoints[0])
    series.fetch(series.checkpoints[0])
    series.release(series.checkpoints[0])
    series.release(series.checkpoints[0])
    assert stored(cache) == {}
    assert (series.fetch(series.checkpoints[0]) / "model.safetensors").is_file()


def test_what_is_to_be_kept_stays(hub: Hub, opened: Opened, cache: Path) -> None:
    commits = series_of(hub, 1, 2)
    keeping = opened(keep=True)
    folder = keeping.fetch(keeping.checkpoints[0])
    keeping.release(keeping.checkpoints[0])
    keeping.sweep()
    assert set(stored(cache)) == {commits[1]}
    other = opened()  # of somebody who keeps nothing
    before = len(hub.asked("/resolve/"))
    assert other.fetch(other.checkpoints[0]) == folder and len(hub.asked("/resolve/")) == before
    other.release(other.checkpoints[0])
    other.sweep()
    assert set(stored(cache)) == {commits[1]}


def test_wanting_to_keep_what_is_here_already_is_remembered(hub: Hub, opened: Opened, cache: Path) -> None:
    commits = series_of(hub, 1)
    one, two = opened(), opened(keep=True)
    one.fetch(one.checkpoints[0])
    two.fetch(two.checkpoints[0])
    two.release(two.checkpoints[0])
    one.release(one.checkpoints[0])
    opened().sweep()
    assert set(stored(cache)) == {commits[1]}


def test_what_was_to_be_kept_still_is_after_somebody_else_repaired_it(hub: Hub, opened: Opened, cache: Path) -> None:
    commits = series_of(hub, 1)
    keeping, other = opened(keep=True), opened()
    folder = keeping.fetch(keeping.checkpoints[0])
    keeping.release(keeping.checkpoints[0])
    (folder / "model.safetensors").unlink()
    other.fetch(other.checkpoints[0])
    other.release(other.checkpoints[0])
    assert set(stored(cache)) == {commits[1]}


def test_a_deletion_that_was_cut_off_leaves_nothing_that_looks_complete(
    hub: Hub, opened: Opened, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    commits = series_of(hub, 1)
    series = opened()
    series.fetch(series.checkpoints[0])

    def cut_off(folder: Path) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", cut_off)
        with pytest.raises(UserError, match="cannot be written: Permission denied"):
            series.release(series.checkpoints[0])
    assert ".complete.json" not in stored(cache)[commits[1]] and series.header(series.checkpoints[0]) is None


def test_a_failed_fetch_leaves_a_part_that_goes_on_and_release_deletes_it(
    hub: Hub, opened: Opened, cache: Path
) -> None:
    commits = series_of(hub, 1, count=10_000)
    hub.truncate(REPO, "step1", "model.safetensors", after=20_000)
    series = opened()
    whole = series.download_bytes(series.checkpoints[0])
    with pytest.raises(CheckpointError, match="cannot be downloaded"):
        series.fetch(series.checkpoints[0])
    assert stored(cache) == {commits[1]: {"config.json", "generation_config.json", "model.safetensors.part"}}
    assert 0 < series.download_bytes(series.checkpoints[0]) <= whole - 20_000
    opened().sweep(keep={commits[1]})
    hub.heal()
    series.fetch(series.checkpoints[0])
    assert hub.asked("/lfs/")[-1].headers["range"] == "bytes=20000-"
    series.release(series.checkpoints[0])
    assert stored(cache) == {}


# --- offline


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_offline_what_was_kept_is_still_there(
    hub: Hub, opened: Opened, monkeypatch: pytest.MonkeyPatch, slept: list[float]
) -> None:
    hub.repo(REPO).branch("main", {"tokenizer.json": "{}"})
    series_of(hub, 1, 2)
    online = opened(keep=True)
    folder = online.fetch(online.checkpoints[0])
    files, tokenizer, config = online.all_files(), online.tokenizer_folder, online.config_folder
    online.release(online.checkpoints[0])
    offline(monkeypatch)
    before = len(hub.requests)
    series = opened(keep=True)
    assert series.checkpoints == online.checkpoints and series.all_files() == files
    assert series.fetch(series.checkpoints[0]) == folder
    assert (series.tokenizer_folder, series.config_folder) == (tokenizer, config)
    with pytest.raises(CheckpointError, match="is not in the cache, and HF_HUB_OFFLINE is set"):
        series.fetch(series.checkpoints[1])
    assert len(hub.requests) == before and slept == []


def test_offline_what_was_never_listed_is_not_there(hub: Hub, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    series_of(hub, 1)
    offline(monkeypatch)
    with pytest.raises(UserError, match="were never listed, and the hub is offline") as caught:
        opened()
    assert "HF_HUB_OFFLINE" in caught.value.remedy and hub.requests == []
    monkeypatch.delenv("HF_HUB_OFFLINE")
    opened()
    offline(monkeypatch)
    series = opened()
    with pytest.raises(CheckpointError, match="were never listed, and HF_HUB_OFFLINE is set"):
        series.weight_files(series.checkpoints[0])


def test_without_a_connection_it_is_the_same(hub: Hub, opened: Opened, slept: list[float]) -> None:
    series_of(hub, 1, 2)
    online = opened(keep=True)
    folder = online.fetch(online.checkpoints[0])
    hub.stop()
    series = opened(keep=True)
    assert len(slept) == 1  # it was tried twice, and not for half a minute
    assert series.fetch(series.checkpoints[0]) == folder
    with pytest.raises(CheckpointError, match="the hub could not be reached"):
        series.fetch(series.checkpoints[1])
    assert len(slept) == 1


def test_a_hub_that_answers_badly_is_not_taken_for_no_connection(hub: Hub, opened: Opened) -> None:
    series_of(hub, 1)
    opened()
    hub.fail(REPO, None, 503, what=("refs",))
    with pytest.raises(UserError, match="HTTP 503 after 5 tries"):
        opened()


def test_the_offline_switch_may_have_been_on_when_the_library_was_imported(
    hub: Hub, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    series_of(hub, 1)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="the hub is offline"):
        opened()


# --- a cache in a bad state


@pytest.mark.parametrize("text", ["", "{", "[]", '{"step1": "../../x"}', "[[1, 2, 3, 4, 5, 6]]", "[3]"])
def test_damaged_lists_in_the_cache_are_fetched_again(hub: Hub, opened: Opened, cache: Path, text: str) -> None:
    commits = series_of(hub, 1)
    opened().all_files()
    root = cache / "owner--model"
    (root / "refs.json").write_text(text)
    (root / "trees" / f"{commits[1]}.json").write_text(text)
    series = opened()
    folder = series.fetch(series.checkpoints[0])
    (folder / ".complete.json").write_text(text)
    assert series.fetch(series.checkpoints[0]) == folder
    assert series.read(folder).digest == series.weight_files(series.checkpoints[0])[0].sha256


def test_a_cache_that_cannot_be_written_is_a_sentence(
    hub: Hub, opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    series_of(hub, 1)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DYNAMICS_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="cannot be written") as caught:
        opened()
    assert "DYNAMICS_CACHE" in caught.value.remedy


def test_too_little_room_is_noticed_before_the_download(
    hub: Hub, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil
    from types import SimpleNamespace

    series_of(hub, 1)
    series = opened()
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=10))
    with pytest.raises(UserError, match=r"needs 0\.0 GB more, and .* has 0\.0 GB free"):
        series.fetch(series.checkpoints[0])
    assert hub.asked("/resolve/") == []


def test_a_disk_that_fills_up_is_a_sentence(hub: Hub, opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    series_of(hub, 1)
    series = opened()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(HubClient, "_append", full)
    with pytest.raises(UserError, match="cannot be written: No space left on device") as caught:
        series.fetch(series.checkpoints[0])
    assert not isinstance(caught.value, CheckpointError)


@pytest.mark.parametrize("name", ["../evil", "a/b/c", "a/../b", "", "/etc", "a\\b"])
def test_a_repository_cannot_be_called_like_another_folder(hub: Hub, cache: Path, name: str) -> None:
    with pytest.raises(UserError, match="is not the name of a repository"):
        RepositoryCache(name)
    with pytest.raises(UserError, match="is no commit"):
        RepositoryCache(REPO).folder("../../x")
