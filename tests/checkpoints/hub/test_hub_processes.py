"""A cache among processes: some are killed, others use the same checkpoints at the same time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from checkpoints import CheckpointError
from checkpoints.hub import HubConfig, HubSeries
from checkpoints.hub.cache import RepositoryCache
from tests.checkpoints.hub.conftest import REPO, Opened, model, series_of, stored, weights
from tests.loopback import Hub

ROOT = Path(__file__).parents[3]


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


@pytest.mark.slow
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


@pytest.mark.slow
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
