"""Which checkpoints a series on a hub has, at which commits, and which files of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from checkpoints import Checkpoint, CheckpointError, UserError
from checkpoints.files.weights import weights_digest
from checkpoints.hub import HubSeries
from checkpoints.hub.client import HubClient
from tests.checkpoints.hub.conftest import REPO, Opened, model, named, on_disk, series_of, weights
from tests.loopback import Hub

# --- listing


def test_branches_and_tags_become_checkpoints_by_step_pinned_to_their_commits(hub: Hub, opened: Opened) -> None:
    repo = hub.repo(REPO)
    repo.branch("main", model(9))
    late, early = repo.branch("step1000", model(1)), repo.tag("step2", model(2))
    repo.branch("experiment", model(3))
    series = opened(tokens_per_step=4)
    assert series.checkpoints == (Checkpoint(2, early, 8, "", "step2"), Checkpoint(1000, late, 4000, "", "step1000"))
    assert series.origin == f"{hub.url}/{REPO}" and series.name == "model"
    assert len(hub.requests) == 1  # one listing, and nothing else


def test_a_branch_is_preferred_to_a_tag_of_the_same_name(hub: Hub, opened: Opened) -> None:
    repo = hub.repo(REPO)
    repo.tag("step1", model(1))
    branch = repo.branch("step1", model(2))
    assert [c.revision for c in opened().checkpoints] == [branch]


def test_two_names_of_one_step_are_refused(hub: Hub, opened: Opened) -> None:
    series_of(hub, 1)
    hub.repo(REPO).tag("checkpoint-1", model())
    with pytest.raises(UserError, match="two checkpoints of step 1: ") as caught:
        opened()
    assert "series.revisions" in caught.value.remedy


def test_a_stage_is_chosen_where_steps_occur_in_several(hub: Hub, opened: Opened) -> None:
    for name in ("stage1-step1", "stage1-step2", "stage2-step1"):
        hub.repo(REPO).branch(name, model())
    pattern = r"(?P<stage>stage\d)-step(?P<step>\d+)"
    with pytest.raises(UserError, match="two checkpoints of step 1") as caught:
        opened(revisions=pattern)
    assert "`series.stage`; there are 'stage1', 'stage2'" in caught.value.remedy
    assert [c.label for c in opened(revisions=pattern, stage="stage1").checkpoints] == ["stage1-step1", "stage1-step2"]


def test_a_repository_without_checkpoints_says_what_it_has_and_what_was_expected(hub: Hub, opened: Opened) -> None:
    for name in ("main", "v1", "v2", "v3", "v4", "v5", "v6"):
        hub.repo(REPO).branch(name, model())
    with pytest.raises(
        UserError, match="no branch or tag of 'owner/model' is a checkpoint: it has 'main', 'v1'"
    ) as caught:
        opened(revisions=r"step(?P<step>\d+)")
    assert "and 2 more" in caught.value.observed and r"step(?P<step>\d+)" in caught.value.expected
    hub.repo("owner/empty")
    with pytest.raises(UserError, match="it has none at all"):
        opened(repo="owner/empty")


@pytest.mark.parametrize("pattern", [r"step(?P<step>.+)", r"step(?P<step>\d+)?(x)?.*", r"(step)(?P<step>\D)"])
def test_a_pattern_that_finds_no_number_is_named(hub: Hub, opened: Opened, pattern: str) -> None:
    hub.repo(REPO).branch("stepx", model())
    with pytest.raises(UserError, match=r"'stepx' matches .* is no number"):
        opened(revisions=pattern)


def test_one_repository_per_checkpoint(
    hub: Hub, client: HubClient, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    names = [f"google/bert-step_{n}k" for n in (0, 20, 40)]
    commits = {name: hub.repo(name).branch("main", model(i)) for i, name in enumerate(names[:2])}
    config = named(
        monkeypatch,
        repo=names[0],
        repositories=names,
        revisions=r"google/bert-step_(?P<step>\d+)k",
        step_unit=1000,
    )
    series = HubSeries(config, client=client)
    assert [(c.step, c.label, c.revision) for c in series.checkpoints] == [
        (0, names[0], commits[names[0]]),
        (20_000, names[1], commits[names[1]]),
        (40_000, names[2], "main"),  # not there, but not passed over
    ]
    folder = series.fetch(series.checkpoints[1])
    assert (folder / "model.safetensors").read_bytes() == weights(1)
    for ask in (series.fetch, series.weight_files, series.download_bytes):
        with pytest.raises(CheckpointError, match="there is no repository 'google/bert-step_40k'"):
            ask(series.checkpoints[2])
    assert series.header(series.checkpoints[2]) is None and series.main_files() == ()
    assert set(series.all_files()) == set(series.checkpoints[:2]) and set(series.unlisted) == {series.checkpoints[2]}
    for checkpoint in series.checkpoints:
        series.release(checkpoint)
    assert not any("safetensors" in name for name in on_disk(cache))
    assert series.config_folder.joinpath("config.json").is_file()


def test_one_repository_per_checkpoint_with_none_to_be_had(
    hub: Hub, client: HubClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = named(monkeypatch, repositories=["a/step1", "a/step2"], revisions=r"a/step(?P<step>\d+)")
    with pytest.raises(UserError, match="there is no repository 'a/step"):
        HubSeries(config, client=client)
    with pytest.raises(UserError, match="no repository of 'x' is a checkpoint: it has 'b/one'"):
        HubSeries(named(monkeypatch, repositories=["b/one"]), client=client)


# --- pins


def test_pinned_commits_are_used_wherever_branches_point_by_now(hub: Hub, opened: Opened, cache: Path) -> None:
    old = series_of(hub, 1, 2, 3)
    new = hub.repo(REPO).branch("step2", model(99))
    del hub.repo(REPO).branches["step3"]
    series = opened(pins=old, tokens_per_step=10)
    assert {c.step: c.revision for c in series.checkpoints} == old
    assert series.moved == (Checkpoint(2, new, 20, "", "step2"),)
    assert series.vanished == (Checkpoint(3, old[3], 30),)
    for checkpoint in series.checkpoints:
        assert (series.fetch(checkpoint) / "model.safetensors").read_bytes() == weights(checkpoint.step)
    assert opened(pins={1: old[1]}).moved == () and opened(pins={1: old[1]}).vanished == ()


def test_a_pin_that_is_gone_is_a_fault_of_that_checkpoint(hub: Hub, opened: Opened) -> None:
    series_of(hub, 1, 2)
    series = opened(pins={1: "0" * 40})
    with pytest.raises(CheckpointError, match="this commit is not there any more"):
        series.fetch(series.checkpoints[0])
    assert series.fetch(series.checkpoints[1]).is_dir()


@pytest.mark.parametrize("pin", ["main", "../../x", "ABC"])
def test_a_pin_is_a_commit(hub: Hub, opened: Opened, pin: str) -> None:
    series_of(hub, 1)
    with pytest.raises(UserError, match="step 1 is pinned to"):
        opened(pins={1: pin})


def test_a_pinned_commit_of_a_repository_that_is_gone_may_still_be_in_the_cache(
    hub: Hub, client: HubClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = {"repo": "a/step1", "repositories": ["a/step1", "a/step2"], "revisions": r"a/step(?P<step>\d+)"}
    commits = {step: hub.repo(f"a/step{step}").branch("main", model(step)) for step in (1, 2)}
    pins = {step: Checkpoint(step, commit) for step, commit in commits.items()}
    config = named(monkeypatch, **facts).model_copy(update={"keep": True})
    before = HubSeries(config, client=client)
    folder = before.fetch(before.checkpoints[0])
    hub.repos = {"a/step3": hub.repo("a/step3")}
    with pytest.raises(UserError, match="there is no repository 'a/step"):
        HubSeries(config, client=client, pins=pins)
    hub.repo("a/step2").branch("main", model(5))
    after = HubSeries(config, client=client, pins=pins)
    assert after.fetch(after.checkpoints[0]) == folder
    with pytest.raises(CheckpointError, match="not there any more"):
        after.fetch(after.checkpoints[1])


# --- which files


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        ({"model.safetensors", "pytorch_model.bin", "tf_model.h5", "training_args.bin"}, {"model.safetensors"}),
        ({"pytorch_model.bin", "flax_model.msgpack"}, {"pytorch_model.bin"}),
        (
            {"pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin", "pytorch_model.bin.index.json"},
            {"pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin", "pytorch_model.bin.index.json"},
        ),
        (
            {"model-00001-of-00001.safetensors", "model.safetensors.index.json", "pytorch_model.bin.index.json"},
            {"model-00001-of-00001.safetensors", "model.safetensors.index.json"},
        ),
        (
            {"model.safetensors", "model-00001-of-00001.safetensors", "model.safetensors.index.json"},
            {"model.safetensors"},
        ),
        ({"model.fp32.safetensors", "old/pytorch_model.bin"}, {"model.fp32.safetensors"}),
    ],
)
def test_one_format_is_downloaded_and_nothing_beside_it(
    hub: Hub, opened: Opened, files: set[str], chosen: set[str]
) -> None:
    content = {name: name.encode() for name in files} | {"config.json": b"{}", "generation_config.json": b"{}"}
    hub.repo(REPO).branch("step1", content)
    series = opened()
    (checkpoint,) = series.checkpoints
    listed = {f.name: f.size for f in series.weight_files(checkpoint)}
    assert listed == {name: len(name) for name in chosen if not name.endswith(".json")}
    folder = series.fetch(checkpoint)
    assert on_disk(folder) - {".complete.json"} == chosen | {"config.json", "generation_config.json"}
    assert all((folder / name).read_bytes() == content[name] for name in chosen)


def test_weight_files_carry_the_hubs_checksum(hub: Hub, opened: Opened) -> None:
    series_of(hub, 1)
    series = opened()
    (file,) = series.weight_files(series.checkpoints[0])
    folder = series.fetch(series.checkpoints[0])
    assert file.sha256 == weights_digest(folder) and file.size == (folder / "model.safetensors").stat().st_size


def test_a_checkpoint_without_weights_is_listed_and_cannot_be_fetched(hub: Hub, opened: Opened) -> None:
    series_of(hub, 1)
    hub.repo(REPO).branch("step2", {"config.json": "{}", "sub/model.safetensors": weights()})
    series = opened()
    assert series.weight_files(series.checkpoints[1]) == ()
    with pytest.raises(CheckpointError, match="step2 of model holds no weights"):
        series.fetch(series.checkpoints[1])


def test_a_checkpoint_that_lacks_a_part_cannot_be_fetched(hub: Hub, opened: Opened) -> None:
    hub.repo(REPO).branch("step1", {"config.json": "{}", "model-00002-of-00003.safetensors": weights()})
    series = opened()
    with pytest.raises(CheckpointError, match="lacks 2 of its 3 weight files"):
        series.fetch(series.checkpoints[0])
    assert hub.asked("/resolve/") == []


def test_the_files_of_main_are_for_comparison(hub: Hub, opened: Opened) -> None:
    commits = series_of(hub, 1)
    assert opened().main_files() == ()
    hub.repo(REPO).branch("main", {"README.md": ""})
    assert opened().main_files() == ()
    hub.repo(REPO).branches["main"] = commits[1]
    series = opened()
    assert series.main_files() == series.weight_files(series.checkpoints[0])


def test_all_listings_are_had_at_once_and_only_once(hub: Hub, opened: Opened) -> None:
    series_of(hub, *range(30))
    series = opened()
    counts: list[int] = []
    files = series.all_files(progress=lambda done, of: counts.append(done))
    assert list(files) == list(series.checkpoints) and counts[-1] == 30
    assert len({f[0].sha256 for f in files.values()}) == 30
    assert len(hub.asked("/tree/")) == 30
    again = opened()  # of saved listings
    assert again.all_files(again.checkpoints[:3]) == {c: files[c] for c in again.checkpoints[:3]}
    assert len(hub.asked("/tree/")) == 30


def test_what_cannot_be_listed_does_not_hide_the_others(hub: Hub, opened: Opened) -> None:
    series_of(hub, 1, 2, 3)
    hub.fail(REPO, "step2", 503)
    series = opened()
    one, two, three = series.checkpoints
    assert set(series.all_files()) == {one, three}
    assert "HTTP 503 after 5 tries" in series.unlisted[two].observed
    hub.heal()
    assert set(series.all_files()) == {one, two, three} and series.unlisted == {}
