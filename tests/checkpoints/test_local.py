"""A folder of checkpoints is read as it was written: steps from names, tokens from the trainer, nothing guessed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from checkpoints import Checkpoint, CheckpointError, FolderConfig, FolderSeries, UserError
from checkpoints.series import ordered


def put(root: Path, name: str, *, weights: str = "model.safetensors", tokenizer: bool = False) -> Path:
    """A sub-folder that looks like a checkpoint."""
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / weights).write_bytes(b"")
    if tokenizer:
        (folder / "tokenizer.json").write_text("{}")
    return folder


def opened(root: Path, **more: object) -> FolderSeries:
    return FolderSeries(FolderConfig.model_validate({"path": root, **more}))


# --- names


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("step0", 0),
        ("step1000", 1000),
        ("step-17", 17),
        ("step_17", 17),
        ("step-000100", 100),
        ("step000", 0),
        ("checkpoint-500", 500),
        ("global_step1000", 1000),
        ("global_step-20", 20),
        ("iter_0000512", 512),
    ],
)
def test_the_step_is_read_from_the_folders_name(tmp_path: Path, name: str, step: int) -> None:
    put(tmp_path, name)
    assert [(c.step, c.revision) for c in opened(tmp_path).checkpoints] == [(step, name)]


@pytest.mark.parametrize(
    "name", ["main", "step", "step1000-tokens4B", "epoch-3", "step1.partial", "mystep5", "step-1e3"]
)
def test_other_folders_are_not_checkpoints(tmp_path: Path, name: str) -> None:
    put(tmp_path, name)
    put(tmp_path, "step7")
    assert [c.step for c in opened(tmp_path).checkpoints] == [7]


@pytest.mark.parametrize(
    "weights", ["model.safetensors", "model-00001-of-00002.safetensors", "pytorch_model.bin", "pytorch_model-00001.bin"]
)
def test_weights_may_be_safetensors_or_bin_in_one_or_several_files(tmp_path: Path, weights: str) -> None:
    put(tmp_path, "step7", weights=weights)
    assert [c.step for c in opened(tmp_path).checkpoints] == [7]


@pytest.mark.parametrize("other", ["optimizer.pt", "training_args.bin", "notes.txt"])
def test_a_checkpoint_that_lost_its_weights_is_not_passed_over(tmp_path: Path, other: str) -> None:
    put(tmp_path, "step1", weights=other)
    put(tmp_path, "step3")
    (tmp_path / "step5").mkdir()  # an empty folder is nothing
    series = opened(tmp_path)
    assert [c.step for c in series.checkpoints] == [1, 3]
    assert [len(series.weight_files(c)) for c in series.checkpoints] == [0, 1]
    with pytest.raises(CheckpointError, match="holds no weights"):
        series.header(series.checkpoints[0])
    assert series.config_folder == tmp_path / "step3"  # the first that has weights


@pytest.mark.parametrize("other", ["optimizer.pt", "notes.txt"])
def test_a_folder_whose_checkpoints_all_lack_weights_is_no_series(tmp_path: Path, other: str) -> None:
    put(tmp_path, "step1", weights=other)
    with pytest.raises(UserError, match="is not a series"):
        opened(tmp_path)


@given(steps=st.lists(st.integers(0, 10**7), unique=True, min_size=1, max_size=20))
def test_checkpoints_are_ordered_by_step_and_not_by_name(steps: list[int]) -> None:
    found = ordered([Checkpoint(step=s, revision=f"step{s}") for s in steps], where="here")
    assert [c.step for c in found] == sorted(steps)


def test_two_folders_of_one_step_are_refused(tmp_path: Path) -> None:
    for name in ("step100", "checkpoint-100", "step5"):
        put(tmp_path, name)
    with pytest.raises(UserError, match="two checkpoints of step 100") as refused:
        opened(tmp_path)
    assert "'step100'" in str(refused.value)
    assert "'checkpoint-100'" in str(refused.value)


def test_a_missing_folder_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no folder") as refused:
        opened(tmp_path / "nowhere")
    assert "series.path" in str(refused.value)


def test_a_folder_that_is_no_series_says_what_it_holds(tmp_path: Path) -> None:
    for name in ("alpha", "beta"):
        (tmp_path / name).mkdir()
    with pytest.raises(UserError, match="it holds alpha, beta") as refused:
        opened(tmp_path)
    assert "stepN" in str(refused.value)
    for name in "cdefgh":
        (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=r"it holds alpha, beta, c, d, e, \.\.\."):
        opened(tmp_path)


def test_a_checkpoint_itself_is_no_series(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="it holds no sub-folder at all") as refused:
        opened(put(tmp_path, "step5"))
    assert "the folder above the checkpoints" in str(refused.value)


def test_an_unknown_setting_of_a_series_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="token_per_step"):
        FolderConfig.model_validate({"path": tmp_path, "token_per_step": 5})


# --- tokens


def test_tokens_come_from_the_trainer_else_from_tokens_per_step_else_they_are_unknown(tmp_path: Path) -> None:
    for step, state in {10: {"num_input_tokens_seen": 12345}, 20: {"num_input_tokens_seen": 0}, 30: {}}.items():
        (put(tmp_path, f"checkpoint-{step}") / "trainer_state.json").write_text(json.dumps(state))
    put(tmp_path, "checkpoint-40")
    assert [c.tokens for c in opened(tmp_path).checkpoints] == [12345, None, None, None]
    assert [c.tokens for c in opened(tmp_path, tokens_per_step=7).checkpoints] == [12345, 140, 210, 280]


@pytest.mark.parametrize("content", ["{", "[1, 2]", "", '{"num_input_tokens_seen": "many"}'])
def test_a_trainer_state_that_cannot_be_read_leaves_tokens_unknown(tmp_path: Path, content: str) -> None:
    (put(tmp_path, "step5") / "trainer_state.json").write_text(content)
    assert [c.tokens for c in opened(tmp_path).checkpoints] == [None]


# --- places


def test_a_checkpoint_is_fetched_where_it_lies(tmp_path: Path) -> None:
    folder = put(tmp_path, "step5")
    series = opened(tmp_path)
    assert series.fetch(series.checkpoints[0]) == folder == series.config_folder
    series.release(series.checkpoints[0])
    assert folder.is_dir()
    assert series.origin == str(tmp_path)
    assert series.name == tmp_path.name
    assert FolderSeries(FolderConfig(path=tmp_path), name="mine").name == "mine"


def test_the_tokenizer_is_the_configured_one_else_the_series_else_the_first_checkpoints(tmp_path: Path) -> None:
    root = tmp_path / "series"
    put(root, "step5")
    with pytest.raises(UserError, match="no tokenizer was found") as refused:
        _ = opened(root).tokenizer_folder
    assert "series.tokenizer" in str(refused.value)
    later = put(root, "step10", tokenizer=True)
    put(root, "step20", tokenizer=True)
    assert opened(root).tokenizer_folder == later
    (root / "tokenizer_config.json").write_text("{}")
    assert opened(root).tokenizer_folder == root
    assert opened(root, tokenizer=tmp_path).tokenizer_folder == tmp_path


def test_the_tokenizer_may_lie_beside_the_config(tmp_path: Path) -> None:
    put(tmp_path / "series", "step5")
    folder = put(tmp_path, "config", tokenizer=True)
    for config in (folder, folder / "config.json"):
        assert opened(tmp_path / "series", config=config).tokenizer_folder == folder
        assert opened(tmp_path / "series", config=config).config_folder == folder
