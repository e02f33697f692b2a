"""Plain state dicts, one a file or a list of them in one file."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from checkpoints import CheckpointError, UserError
from checkpoints.configs import read_config
from tests.checkpoints.foreign import (
    LISTS,
    NanoGPT,
    described,
    installed,
    llama,
    logits_of,
    opened,
    read,
    save,
    save_nanogpt,
    toy,
)


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("step100.pth", 100),
        ("epoch_100.pt", 100),
        ("model_0100.pth", 100),
        ("100.pt", 100),
        ("ckpt-000500.pt", 500),
        ("model_epoch_12.pt", 12),
        ("checkpoint_7.bin", 7),
        ("state_dict_0.pt", 0),
    ],
)
def test_the_step_of_a_state_dict_is_the_number_in_its_name(tmp_path: Path, name: str, step: int) -> None:
    save(tmp_path / name, toy())
    series = opened(tmp_path)
    assert (series.layout, [(c.step, c.revision) for c in series.checkpoints]) == ("state-dicts", [(step, name)])
    prepared = read(series)
    assert (prepared.config, prepared.native) == (None, False)
    assert prepared.tensors.keys() == toy().keys()
    assert prepared.digest == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("content", "step"),
    [
        ({"model": toy(), "step": 3200, "epoch": 2}, 3200),
        ({"state_dict": toy(), "epoch": 2}, 100),
        ({"model_state_dict": toy(), "iter": 5, "optimizer_state_dict": {"state": {0: {"x": torch.ones(2)}}}}, 5),
        ({"model": toy(), "args": argparse.Namespace(lr=0.1), "loss": np.float64(0.5), "path": Path("x")}, 100),
    ],
)
def test_what_a_file_says_inside_wins_over_its_name_but_for_an_epoch(tmp_path: Path, content: Any, step: int) -> None:
    save(tmp_path / "model_100.pt", content)
    series = opened(tmp_path)
    assert [c.step for c in series.checkpoints] == [step]
    assert {n: i.shape for n, i in series.header(series.checkpoints[0]).items()} == {
        "embed.weight": (3, 2),
        "out.bias": (3,),
    }
    assert torch.equal(read(series).tensors["embed.weight"], toy()["embed.weight"])


@pytest.mark.parametrize("other", ["optimizer_100.pt", "optimizer.pt", "scheduler.pt", "rng_state_0.pth", "x.pkl", "3.pkl", "training_args.bin", "model-00001-of-00002.bin"])  # fmt: skip
def test_files_that_are_no_state_dicts_by_their_names_are_never_opened(tmp_path: Path, other: str) -> None:
    save(tmp_path / "step1.pt", toy())
    (tmp_path / other).symlink_to("/dev/full/nowhere")  # opening it would fail
    assert [c.step for c in opened(tmp_path).checkpoints] == [1]


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrappers_are_stripped(tmp_path: Path, prefix: str) -> None:
    save(tmp_path / "step1.pt", {f"{prefix}{name}": tensor for name, tensor in toy().items()})
    series = opened(tmp_path)
    assert series.header(series.checkpoints[0]).keys() == read(series).tensors.keys() == toy().keys()


def test_state_dicts_in_transformers_names_are_read_with_a_config(tmp_path: Path) -> None:
    model = llama()
    model.config.to_json_file(tmp_path / "tiny.json")
    save(tmp_path / "series" / "step5.pt", model.state_dict())
    series = opened(tmp_path / "series", config=tmp_path / "tiny.json")
    torch.testing.assert_close(installed(read(series)), logits_of(model), atol=1e-5, rtol=0)
    assert described(read_config(series.config_folder)) == described(model.config)
    with pytest.raises(UserError, match="says the architecture") as refused:
        _ = opened(tmp_path / "series").config_folder
    assert "adapter" in str(refused.value)


@pytest.mark.parametrize("kind", LISTS)
def test_a_file_that_holds_a_list_of_state_dicts_is_a_series(tmp_path: Path, kind: str) -> None:
    series = opened(save(tmp_path / "run.pth", LISTS[kind]))
    assert [(c.step, c.revision) for c in series.checkpoints] == [
        (0, "run.pth#0"),
        (50, "run.pth#1"),
        (400, "run.pth#2"),
    ]
    digests = set()
    for i in range(3):
        prepared = read(series, i)
        digests.add(prepared.digest)
        assert all(torch.equal(prepared.tensors[name], tensor) for name, tensor in toy(i).items())
        assert all(t.untyped_storage().nbytes() == t.nbytes for t in prepared.tensors.values())
    assert len(digests) == 3
    assert series.weight_files(series.checkpoints[1])[0].name == "run.pth"


def test_equal_elements_of_a_list_have_equal_digests(tmp_path: Path) -> None:
    series = opened(save(tmp_path / "run.pth", [toy(0), toy(1), toy(0), {"empty": torch.ones(0)}]), every=10)
    digests = [read(series, i).digest for i in range(4)]
    assert digests[0] == digests[2]
    assert len(set(digests)) == 3


def test_a_list_that_was_written_anew_is_read_anew(tmp_path: Path) -> None:
    series = opened(save(tmp_path / "run.pth", LISTS["by step"]))
    before = read(series, 1)
    save(tmp_path / "run.pth", {0: toy(5), 50: toy(6), 400: toy(7), 500: toy(8)})
    assert torch.equal(read(series, 1).tensors["embed.weight"], toy(6)["embed.weight"])
    assert torch.equal(before.tensors["embed.weight"], toy(1)["embed.weight"])


def test_a_list_in_the_format_before_torch_1_6_is_read(tmp_path: Path) -> None:
    torch.save([toy(0), toy(1)], tmp_path / "run.pth", _use_new_zipfile_serialization=False)
    series = opened(tmp_path / "run.pth", every=5)
    assert torch.equal(read(series, 1).tensors["embed.weight"], toy(1)["embed.weight"])
    assert read(series, 1).tensors["embed.weight"].untyped_storage().nbytes() == 24


def test_pickles_of_other_protocols_are_read(tmp_path: Path) -> None:
    torch.save(toy(), tmp_path / "step1.pt", pickle_protocol=4)
    found = read(opened(tmp_path)).tensors
    assert all(torch.equal(found[name], tensor) for name, tensor in toy().items())


def test_the_steps_of_a_list_that_does_not_say_them_come_from_the_runs_file(tmp_path: Path) -> None:
    file = save(tmp_path / "run.pth", [toy(0), toy(1), toy(2)])
    assert [c.step for c in opened(file, steps=[0, 7, 9]).checkpoints] == [0, 7, 9]
    assert [c.step for c in opened(file, every=100).checkpoints] == [0, 100, 200]
    with pytest.raises(UserError, match=r"holds 3 state dict\(s\) and does not say their steps") as refused:
        opened(file)
    assert "series.every" in str(refused.value)
    with pytest.raises(UserError, match=r"`steps` names 2 step"):
        opened(file, steps=[0, 7])
    with pytest.raises(UserError, match="two checkpoints of step 7"):
        opened(file, steps=[0, 7, 7])


def test_steps_are_said_once(tmp_path: Path) -> None:
    file = save(tmp_path / "run.pth", LISTS["by step"])
    assert [c.step for c in opened(file, steps=[0, 50, 400]).checkpoints] == [0, 50, 400]
    with pytest.raises(UserError, match="the runs file says others"):
        opened(file, every=10)
    save_nanogpt(tmp_path / "nano" / "ckpt.pt", NanoGPT(), 7)
    with pytest.raises(UserError, match="'nanogpt', which says its steps itself"):
        opened(tmp_path / "nano", every=10)
    with pytest.raises(ValueError, match="give one of the two"):
        opened(file, every=10, steps=[1])
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        opened(file, steps=[-1])


def test_one_state_dict_alone_is_a_series_of_one(tmp_path: Path) -> None:
    assert [c.step for c in opened(save(tmp_path / "step9.pt", toy())).checkpoints] == [9]
    assert [c.step for c in opened(save(tmp_path / "x.pt", {"model": toy(), "epoch": 4})).checkpoints] == [4]
    file = save(tmp_path / "final.pt", toy())
    assert [c.step for c in opened(file, steps=[1000]).checkpoints] == [1000]
    with pytest.raises(UserError, match="does not say their steps"):
        opened(file)


@pytest.mark.parametrize("content", [[], {}, "text", 3, [toy(), "text"], {"model": {}}, {3: torch.ones(2)}, [[1, 2]]])
def test_a_file_without_state_dicts_is_a_clear_error(tmp_path: Path, content: Any) -> None:
    file = save(tmp_path / "run.pth", content)
    with pytest.raises(CheckpointError, match="holds no state dict") as refused:
        opened(file)
    assert str(file) in str(refused.value)
    assert "tensors by name" in str(refused.value)


def test_the_index_of_a_file_of_several_is_read_once_and_again_when_it_was_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from checkpoints.files import torchfile

    file = tmp_path / "all.pth"
    torch.save({"checkpoints": [{"w": torch.zeros(2)}, {"w": torch.ones(2)}]}, file)
    parsed: list[Path] = []
    contents = torchfile.contents
    monkeypatch.setattr(torchfile, "contents", lambda file: parsed.append(file) or contents(file))
    kept = torchfile.KeptFile()
    for index in (0, 1, 0):
        found = torchfile.tensors_at(file, ("checkpoints", index), content=kept.contents(file))
        assert found["w"].tolist() == [index, index]
    assert parsed == [file]
    torch.save({"checkpoints": [{"w": torch.full((3,), 7.0)}]}, file)
    assert torchfile.tensors_at(file, ("checkpoints", 0), content=kept.contents(file))["w"].tolist() == [7, 7, 7]
    assert parsed == [file, file]


def test_tensors_are_read_as_they_lie_in_memory_and_tied_ones_stay_tied(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    state = {"t": base.t(), "rows": base[1:], "tied": base.t(), "one": torch.tensor(3, dtype=torch.int64)}
    state |= {"half": torch.randn(5).bfloat16(), "flag": torch.tensor([True, False]), "none": torch.empty(0, 3)}
    state["wide"] = torch.ones(1).expand(7)
    torch.save(state, tmp_path / "step1.pt")
    found = read(opened(tmp_path)).tensors
    assert all(torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype for name, tensor in state.items())
    assert found["t"].data_ptr() == found["tied"].data_ptr()
    torch.save({"w": torch.zeros(1).expand(1 << 30)}, tmp_path / "step1.pt")
    with pytest.raises(CheckpointError, match="of 1073741824 numbers is made of 1"):
        read(opened(tmp_path))
