"""What stays on disk, and where: two checkpoints at most, in a cache of our own, whatever dies in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants

from checkpoints import CheckpointError, UserError
from checkpoints.hub import HubConfig, HubSeries
from checkpoints.hub.cache import RepositoryCache
from checkpoints.hub.client import HubClient
from tests.hub.conftest import REPO, model, on_disk, series_of, weights
from tests.loopback import Hub

ROOT = Path(__file__).parents[2]
Opened = Callable[..., HubSeries]


def stored(cache: Path) -> dict[str, set[str]]:
    """Commit to the names of its files that are here."""
    commits = cache / "owner--model" / "commits"
    return {p.name: on_disk(p) for p in sorted(commits.glob("*"))}


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


# --- killed runs

KILLED = """
import os, sys
from checkpoints.hub import HubConfig, HubSeries
series = HubSeries(HubConfig(repo="owner/model"))
for checkpoint in series.checkpoints[:2]:
    print(series.fetch(checkpoint), flush=True)
    if sys.argv[1] == "die":
        os.kill(os.getpid(), 9)
    series.release(checkpoint)
print(series.config_folder, series.tokenizer_folder)
"""


def run(hub: Hub, tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A process of its own, with an empty home and nothing set but where the hub and our cache are."""
    for name in ("fake", "fake/home", "fake/hf"):
        (tmp_path / name).mkdir(exist_ok=True)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path / "fake/home"),
        "HF_HOME": str(tmp_path / "fake/hf"),
        "HF_ENDPOINT": hub.url,
        "DYNAMICS_CACHE": str(tmp_path / "cache"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "AI_AGENT": "somebody",  # makes the library's own functions fetch and save a list of agents
    }
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", KILLED, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_killed_run_is_swept_up_by_the_next(hub: Hub, opened: Opened, tmp_path: Path, cache: Path) -> None:
    commits = series_of(hub, 1, 2)
    killed = run(hub, tmp_path, "die")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert set(stored(cache)) == {commits[1]}
    series = opened()
    series.sweep(keep={commits[1]})  # still to be collected: what is there is of use
    before = len(hub.asked("/resolve/"))
    series.fetch(series.checkpoints[0])
    assert len(hub.asked("/resolve/")) == before
    assert series.sweep() is None and set(stored(cache)) == {commits[1]}  # in use, by us
    del series
    opened().sweep()
    assert stored(cache) == {}


def test_nothing_is_ever_written_to_the_users_own_folders(
    hub: Hub, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repo(REPO).branch("main", {"tokenizer.json": "{}"})
    series_of(hub, 1, 2, count=10_000)
    hub.truncate(REPO, "step1", "model.safetensors", after=20_000, times=1)
    finished = run(hub, tmp_path, "live")
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr == ""  # no progress bars, no warnings
    assert len(finished.stdout.splitlines()) == 3
    assert {p.name for p in (tmp_path / "fake").rglob("*")} == {"home", "hf"}
    names = {p.name for p in cache.iterdir()}
    assert names == {"owner--model"} and {p.name for p in (tmp_path / "cache").iterdir()} == {"hub"}
    assert not any("agent-harnesses" in r.path for r in hub.requests)


def test_leftovers_of_a_killed_run_are_deleted_unless_they_are_of_use(hub: Hub, opened: Opened, cache: Path) -> None:
    commits = series_of(hub, 1, 2, 3, 4)
    old = hub.repo(REPO).branch("step9", model(9))
    series = opened()
    folders = {step: cache / "owner--model" / "commits" / commit for step, commit in commits.items()}
    for step in (1, 2):  # cut off
        folders[step].mkdir(parents=True)
        (folders[step] / "model.safetensors.part").write_bytes(b"half")
    for checkpoint in series.checkpoints[2:]:  # whole: steps 3, 4, 9
        series.fetch(checkpoint)
    del series  # the locks are gone, as if the process had died
    del hub.repo(REPO).branches["step9"]
    opened(keep=True).sweep(keep={commits[1]})
    assert set(stored(cache)) == {commits[1], commits[3], commits[4], old}  # whole ones stay for who keeps things
    opened().sweep(keep={commits[1], commits[3]})
    assert set(stored(cache)) == {commits[1], commits[3]}
    assert stored(cache)[commits[1]] == {"model.safetensors.part"}


def test_no_lock_outlives_the_folders_that_it_guards(hub: Hub, opened: Opened, cache: Path) -> None:
    series_of(hub, 1, 2)
    series = opened()
    for checkpoint in series.checkpoints:
        series.fetch(checkpoint)
    locks = cache / "owner--model" / "locks"
    assert len(list(locks.iterdir())) == 4
    for checkpoint in series.checkpoints:
        series.release(checkpoint)
    assert list(locks.iterdir()) == []
    kept = opened(keep=True)
    kept.fetch(kept.checkpoints[0])
    kept.release(kept.checkpoints[0])
    assert [p.suffix for p in locks.iterdir()] == [".lock"]


def test_a_lock_whose_file_was_deleted_meanwhile_still_excludes(hub: Hub, opened: Opened, cache: Path) -> None:
    commit = series_of(hub, 1)[1]
    one, two = RepositoryCache(REPO), RepositoryCache(REPO)
    inside: list[int] = []
    most: list[int] = []

    def often(mine: RepositoryCache) -> None:
        for _ in range(50):
            with mine.changing(commit):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=often, args=(c,)) for c in (one, two)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 100 and max(most) == 1


# --- two at a time


def test_nobody_deletes_what_somebody_else_uses(hub: Hub, opened: Opened, cache: Path) -> None:
    series_of(hub, 1)
    one, two = opened(), opened()
    checkpoint = one.checkpoints[0]
    folder = one.fetch(checkpoint)
    assert two.fetch(checkpoint) == folder and len(hub.asked("/resolve/")) == 3  # not downloaded twice
    one.release(checkpoint)
    one.sweep()
    opened().sweep()
    assert (folder / "model.safetensors").is_file()
    two.release(checkpoint)
    assert stored(cache) == {}


def test_two_collections_of_one_series_do_not_disturb_each_other(hub: Hub, cache: Path) -> None:
    series_of(hub, *range(12))
    errors: list[BaseException] = []
    series = [HubSeries(HubConfig(repo=REPO)) for _ in range(3)]

    def collect(mine: HubSeries) -> None:
        try:
            mine.sweep()
            for checkpoint in mine.checkpoints:
                folder = mine.fetch(checkpoint)
                for _ in range(3):
                    assert (folder / "model.safetensors").read_bytes() == weights(checkpoint.step)
                mine.release(checkpoint)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=collect, args=(mine,)) for mine in series]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == [] and stored(cache) == {}


def test_what_could_not_be_fetched_is_in_nobodys_use(hub: Hub, opened: Opened, cache: Path) -> None:
    commits = series_of(hub, 1, count=10_000)
    hub.truncate(REPO, "step1", "model.safetensors", after=20_000)
    series = opened()
    with pytest.raises(CheckpointError):
        series.fetch(series.checkpoints[0])
    assert set(stored(cache)) == {commits[1]}
    opened().sweep()
    assert stored(cache) == {}


def test_a_sweep_does_not_wait_for_a_download(hub: Hub, opened: Opened, cache: Path) -> None:
    commits = series_of(hub, 1)
    (cache / "owner--model" / "commits" / commits[1]).mkdir(parents=True)
    with RepositoryCache(REPO).changing(commits[1]) as mine:
        assert mine
        opened().sweep()
    assert set(stored(cache)) == {commits[1]}
    opened().sweep()
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
