"""The index decides which files make up a checkpoint; what is missing or held twice is an error, what is left is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from checkpoints import CheckpointError
from checkpoints.files.weights import choose_files, header, read_tensors, weight_files
from tests.checkpoints.foreign import drawn, llama, opened

NAMES = st.sets(
    st.sampled_from(["model.safetensors", "pytorch_model.bin", "model_ema.safetensors", "model.fp16.safetensors"])
    | st.builds("model-{:05}-of-{:05}.safetensors".format, st.integers(1, 4), st.integers(1, 4))
    | st.builds("pytorch_model-{:05}-of-{:05}.bin".format, st.integers(1, 2), st.just(2))
)


@given(names=NAMES, named=st.none() | NAMES.filter(bool))
def test_every_file_of_weights_is_read_or_left_and_what_the_index_names_is_never_left(
    names: set[str], named: set[str] | None
) -> None:
    chosen = choose_files(names, {} if named is None else {"model.safetensors.index.json": named})
    assert {*chosen.files} | {*chosen.others} == names
    assert not {*chosen.files} & {*chosen.others} and not {*chosen.missing} & names
    if "model.safetensors" in names:
        assert chosen.files == ("model.safetensors",)
    elif named is not None:
        assert {*chosen.files} | {*chosen.missing} == named
    totals = {name.partition("-of-")[2] for name in chosen.files if "-of-" in name}
    if named is None and len(totals) == 1 and not chosen.missing:
        assert len(chosen.files) == int(next(iter(totals)).partition(".")[0])


def shards(folder: Path, seed: int, size: str = "8KB") -> dict[str, torch.Tensor]:
    """A checkpoint in parts, and its tensors."""
    model = drawn(llama(), seed)
    model.save_pretrained(folder, max_shard_size=size)
    state: dict[str, torch.Tensor] = model.state_dict()
    return state


def add_older_shards(folder: Path) -> None:
    shards(folder.parent / "older", 9, "6KB")
    for file in (folder.parent / "older").glob("*.safetensors"):
        shutil.copy(file, folder)


def add_average(folder: Path) -> None:
    some = load_file(next(folder.glob("*.safetensors")))
    save_file({name: tensor + 1 for name, tensor in some.items()}, folder / "model_ema.safetensors")


def add_half_of_the_other_format(folder: Path) -> None:
    torch.save({"w": torch.ones(1)}, folder / "pytorch_model-00001-of-00002.bin")


@pytest.mark.parametrize("add", [add_older_shards, add_average, add_half_of_the_other_format])
def test_what_lies_beside_the_files_of_the_index_is_not_measured_and_said(
    tmp_path: Path, add: Callable[[Path], None]
) -> None:
    folder = tmp_path / "s" / "step1"
    expected = shards(folder, 1)
    before = weight_files(folder)
    assert len(before) > 2
    add(folder)
    assert weight_files(folder) == before
    found, _ = read_tensors(folder)
    assert all(torch.equal(expected[name], tensor) for name, tensor in found.items())
    series = opened(tmp_path / "s")
    said = {name: reason for name, reason in series.left_out.items() if name.startswith("step1/")}
    assert said and all("the weights are read from model-00001-of-" in reason for reason in said.values())


def test_an_average_alone_in_its_format_does_not_stand_for_the_model(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(2)}, tmp_path / "pytorch_model.bin")
    save_file({"w": torch.ones(2)}, tmp_path / "model_ema.safetensors")
    assert read_tensors(tmp_path)[0]["w"].tolist() == [0, 0]


@pytest.mark.parametrize("mapped", [False, True])
def test_tensors_that_are_held_twice_are_an_error(tmp_path: Path, mapped: bool) -> None:
    shards(tmp_path / "x", 1)
    add_older_shards(tmp_path / "x")
    (tmp_path / "x" / "model.safetensors.index.json").unlink()  # two complete saves, and no telling which holds
    for call in (header, lambda folder: read_tensors(folder, mapped=mapped)):
        with pytest.raises(CheckpointError, match=r"holds \d+ tensor\(s\) twice, such as"):
            call(tmp_path / "x")


@pytest.mark.parametrize("index", [True, False], ids=["by the index", "by their numbers"])
def test_files_that_are_missing_are_named(tmp_path: Path, index: bool) -> None:
    shards(tmp_path, 1)
    if not index:
        (tmp_path / "model.safetensors.index.json").unlink()
    second = weight_files(tmp_path)[1]
    second.unlink()
    for call in (header, read_tensors):
        with pytest.raises(CheckpointError, match=rf"lacks 1 of its \d weight files: {second.name}"):
            call(tmp_path)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', '{"weight_map": {"w": 3}}', "[" * 9999]
)
def test_an_index_that_cannot_be_read_is_an_error_and_no_guess(tmp_path: Path, content: str) -> None:
    shards(tmp_path, 1)
    (tmp_path / "model.safetensors.index.json").write_text(content)
    for call in (header, read_tensors):
        with pytest.raises(CheckpointError, match=r"index\.json cannot be read"):
            call(tmp_path)
    assert weight_files(tmp_path) == []


def test_an_index_may_name_any_file_of_its_folder_and_no_other(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    save_file({"w": torch.ones(2)}, folder / "part.safetensors")
    save_file({"w": torch.zeros(2)}, tmp_path / "outside.safetensors")
    index: Any = {"weight_map": {"w": "part.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert read_tensors(folder)[0]["w"].tolist() == [1, 1]
    index["weight_map"]["w"] = "../outside.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"lacks 1 of its 1 weight files: \.\./outside"):
        read_tensors(folder)
