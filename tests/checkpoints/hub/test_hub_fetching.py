"""What is downloaded of a series on a hub: its checkpoints, and its config and tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from checkpoints import CheckpointError, UserError
from checkpoints.files.weights import weights_digest
from checkpoints.hub import HubConfig, HubSeries
from checkpoints.hub.client import HubClient
from tests.checkpoints.hub.conftest import REPO, Opened, model, named, on_disk, series_of, weights
from tests.loopback import Hub

# --- fetching


def test_a_fetched_checkpoint_is_complete_and_has_what_was_published(hub: Hub, opened: Opened) -> None:
    series_of(hub, 1, 2)
    series = opened()
    checkpoint = series.checkpoints[1]
    total = series.download_bytes(checkpoint)
    folder = series.fetch(checkpoint)
    assert total == sum((folder / n).stat().st_size for n in on_disk(folder) - {".complete.json"})
    assert series.download_bytes(checkpoint) == 0
    assert all((folder / n).read_bytes() == _bytes(model(2)[n]) for n in on_disk(folder) - {".complete.json"})


def _bytes(content: bytes | str) -> bytes:
    return content.encode() if isinstance(content, str) else content


def test_fetching_again_downloads_nothing(hub: Hub, opened: Opened) -> None:
    series_of(hub, 1)
    series = opened()
    folder = series.fetch(series.checkpoints[0])
    before = len(hub.requests)
    assert series.fetch(series.checkpoints[0]) == folder
    assert len(hub.requests) == before
    (folder / "model.safetensors").write_bytes(b"short")
    assert series.fetch(series.checkpoints[0]) == folder  # what is not whole any more is fetched again
    assert (folder / "model.safetensors").read_bytes() == weights(1)
    assert len(hub.asked("/resolve/")) == 4


def test_a_checkpoint_that_cannot_be_had_leaves_the_others(hub: Hub, opened: Opened) -> None:
    series_of(hub, 1, 2, 3)
    series = opened()
    series.all_files()
    hub.fail(REPO, "step2", 503, file="model.safetensors")
    one, two, three = series.checkpoints
    with pytest.raises(CheckpointError, match="HTTP 503 after 5 tries"):
        series.fetch(two)
    assert series.fetch(one).is_dir() and series.fetch(three).is_dir()


def test_a_gated_series_can_be_listed_and_says_at_the_first_download_how_to_get_in(hub: Hub, opened: Opened) -> None:
    repo = hub.repo("owner/gated", gated=True)
    repo.branch("step1", model(1))
    series = opened(repo="owner/gated")
    assert len(series.all_files()) == 1
    with pytest.raises(UserError, match="'owner/gated' is gated") as caught:
        series.fetch(series.checkpoints[0])
    assert not isinstance(caught.value, CheckpointError)  # the others are no better


def test_the_number_of_tries_is_the_configs(hub: Hub) -> None:
    series_of(hub, 1)
    hub.fail(REPO, None, 500, what=("refs",))
    with pytest.raises(UserError, match=r"HTTP 500 after 1 try\n"):
        HubSeries(HubConfig(repo=REPO, retries=1))


def test_branch_names_that_are_paths_upwards_are_refused(hub: Hub, opened: Opened, tmp_path: Path) -> None:
    hub.repo(REPO).branch("../../step5", model(5))
    series = opened(revisions=r".*step(?P<step>\d+)")
    before = on_disk(tmp_path)
    for ask in (series.fetch, series.weight_files):
        with pytest.raises(CheckpointError, match=r"'../../step5' of model is refused"):
            ask(series.checkpoints[0])
    assert on_disk(tmp_path) == before


def test_a_name_with_a_slash_is_no_path_upwards(hub: Hub, opened: Opened) -> None:
    hub.repo(REPO).branch("runs/step5", model(5))
    series = opened(revisions=r"runs/step(?P<step>\d+)")
    assert series.fetch(series.checkpoints[0]).is_dir()


# --- reading


def test_weights_are_read_with_the_digest_that_was_verified(hub: Hub, opened: Opened) -> None:
    parts = {f"model-0000{i}-of-00002.safetensors": save({f"w{i}": np.full(3, i, dtype=np.float16)}) for i in (1, 2)}
    hub.repo(REPO).branch("step1", model(1))
    index = json.dumps({"weight_map": {f"w{i}": name for i, name in enumerate(parts, 1)}})
    hub.repo(REPO).branch("step2", {"config.json": "{}", "model.safetensors.index.json": index, **parts})
    hub.repo(REPO).branch("step3", {"config.json": "{}", "model.safetensors": save({"w": np.ones(2)})})
    series = opened()
    for checkpoint, names in zip(series.checkpoints, (["w"], ["w1", "w2"], ["w"]), strict=True):
        assert series.header(checkpoint) is None  # it would cost a download
        folder = series.fetch(checkpoint)
        prepared = series.read(folder)
        assert prepared.digest == weights_digest(folder) and sorted(prepared.tensors) == names
        header = series.header(checkpoint)
        assert header is not None and sorted(header) == names


def test_asking_for_a_header_that_is_not_here_makes_no_request(hub: Hub, opened: Opened) -> None:
    series_of(hub, 1)
    series = opened()
    before = len(hub.requests)
    assert series.header(series.checkpoints[0]) is None and len(hub.requests) == before


# --- config and tokenizer

TOKENIZER = {"tokenizer.json": '{"t": 1}', "tokenizer_config.json": "{}", "special_tokens_map.json": "{}"}


def test_config_and_tokenizer_come_without_weights(hub: Hub, opened: Opened) -> None:
    hub.repo(REPO).branch(
        "main", {**model(9), **TOKENIZER, "vocab.json": "{}", "merges.txt": "", "config.json": '"main"'}
    )
    series_of(hub, 1)
    series = opened()
    assert on_disk(series.tokenizer_folder) - {".complete.json"} == {
        *TOKENIZER,
        "vocab.json",
        "merges.txt",
        "config.json",
    }
    assert on_disk(series.config_folder) - {".complete.json"} == {"config.json"}
    assert json.loads((series.config_folder / "config.json").read_text()) == {
        "model_type": "gpt_neox"
    }  # not that of main
    asked = len(hub.requests)
    assert opened().tokenizer_folder == series.tokenizer_folder and opened().config_folder == series.config_folder
    assert len(hub.requests) == asked + 2  # two listings of revisions


def test_config_and_tokenizer_survive_release_and_sweep(hub: Hub, opened: Opened) -> None:
    hub.repo(REPO).branch("step1", {**model(1), **TOKENIZER})
    series = opened()
    folders = series.config_folder, series.tokenizer_folder
    series.fetch(series.checkpoints[0])
    series.release(series.checkpoints[0])
    series.sweep()
    assert all((f / "config.json").is_file() for f in folders)


def test_the_first_checkpoint_with_a_tokenizer_serves_where_main_has_none(hub: Hub, opened: Opened) -> None:
    series_of(hub, 1, 2)
    hub.repo(REPO).branch("main", {"README.md": ""})
    hub.repo(REPO).branch("step3", {**model(3), "tokenizer.model": b"spm", "tokenizer_config.json": "{}"})
    folder = opened().tokenizer_folder
    assert (folder / "tokenizer.model").read_bytes() == b"spm"
    hub.fail(REPO, "main", 503)  # main cannot be listed: not the end
    assert opened().tokenizer_folder == folder


def test_a_tokenizer_may_be_named_as_a_folder_or_a_repository(hub: Hub, opened: Opened, tmp_path: Path) -> None:
    series_of(hub, 1)
    hub.repo("owner/other").branch("main", {**TOKENIZER, "model.safetensors": weights()})
    folder = opened(tokenizer="owner/other").tokenizer_folder
    assert on_disk(folder) - {".complete.json"} == set(TOKENIZER)
    assert opened(tokenizer=str(tmp_path)).tokenizer_folder == tmp_path
    with pytest.raises(UserError, match="'/no/such/folder' is neither a folder nor the name of a repository"):
        _ = opened(tokenizer="/no/such/folder").tokenizer_folder
    with pytest.raises(UserError, match="there is no repository 'owner/none'"):
        _ = opened(tokenizer="owner/none").tokenizer_folder


def test_the_catalogue_may_name_the_tokenizers_repository_and_revision(
    hub: Hub, client: HubClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    series_of(hub, 1)
    hub.repo("owner/final").branch("main", {"tokenizer.json": "main"})
    commit = hub.repo("owner/final").tag("v1", {"tokenizer.json": "v1"})
    for revision in ("v1", commit):
        config = named(monkeypatch, tokenizer="owner/final", tokenizer_revision=revision)
        assert (HubSeries(config, client=client).tokenizer_folder / "tokenizer.json").read_text() == "v1"
    config = named(monkeypatch, tokenizer="owner/final", tokenizer_revision="v7")
    with pytest.raises(UserError, match="no tokenizer was found"):
        _ = HubSeries(config, client=client).tokenizer_folder


def test_a_series_without_config_or_tokenizer_says_so(hub: Hub, opened: Opened) -> None:
    hub.repo(REPO).branch("step1", {"model.safetensors": weights()})
    with pytest.raises(UserError, match="no tokenizer was found for model") as caught:
        _ = opened().tokenizer_folder
    assert "series.tokenizer" in caught.value.remedy
    with pytest.raises(UserError, match="no config was found for model"):
        _ = opened().config_folder
