"""Files of weights and of tokenizers are read whatever their format, and refused when they are broken or malicious."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from checkpoints import CheckpointError, UserError
from checkpoints.configs import read_config
from checkpoints.files.weights import header, read_tensors, weight_files, weights_digest
from checkpoints.loading import Prepared, ResidentModel, prepare
from checkpoints.organism import build_tokenizer
from checkpoints.tokenizing import load_tokenizer
from tests.checkpoints.saved import assert_same, saved

# --- unreadable files


@pytest.mark.parametrize("stored", ["safetensors", "bin"])
@pytest.mark.parametrize("kept", [0, 5, 1000, -1])
def test_a_truncated_weight_file_is_a_clear_error(tmp_path: Path, stored: str, kept: int) -> None:
    file = weight_files(saved(tmp_path / "step1", stored=stored))[0]
    file.write_bytes(file.read_bytes()[:kept])
    for read in (read_tensors, header, prepare):
        with pytest.raises(CheckpointError, match="cannot be read as weights") as refused:
            read(tmp_path / "step1")
        assert str(file) in str(refused.value)


class Malicious:
    """Runs code when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path: Path, zipped: bool) -> None:
    folder = saved(tmp_path / "step1", stored="bin")
    mark = tmp_path / "executed"
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    torch.save({**state, "extra": Malicious(mark)}, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    for read in (read_tensors, header, prepare):
        with pytest.raises(CheckpointError, match="was refused: it is a pickle that holds more than tensors"):
            read(folder)
    assert not mark.exists()


def test_bin_files_of_the_format_before_torch_1_6_are_read(tmp_path: Path) -> None:
    folder = saved(tmp_path / "step1", stored="bin")
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    assert_same(ResidentModel().install(prepare(folder)), folder)


def test_a_bin_file_that_holds_no_state_dict_is_a_clear_error(tmp_path: Path) -> None:
    folder = saved(tmp_path / "step1", stored="bin")
    torch.save([torch.ones(2)], folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="cannot be read as weights") as refused:
        prepare(folder)
    assert "state dict" in str(refused.value)


def test_a_folder_without_weights_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no weights"):
        prepare(tmp_path)


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", '{"model_type": "no_such_model"}'])
def test_a_config_that_cannot_be_used_is_a_clear_error(tmp_path: Path, content: str | None) -> None:
    folder = saved(tmp_path / "step1")
    (folder / "config.json").unlink()
    if content is not None:
        (folder / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"the config in .* cannot be used"):
        read_config(folder)
    with pytest.raises(CheckpointError):
        ResidentModel().install(prepare(folder))


@pytest.mark.parametrize(
    ("size", "value"),
    [
        *(("num_hidden_layers", n) for n in (-1, 0, 300_000, 10**30, "12", 1.5, True, [1])),
        *(("hidden_size", 2**40), ("vocab_size", 2**60), ("intermediate_size", -5), ("num_attention_heads", 0)),
        *(("num_hidden_layers", 9_000), ("hidden_size", 2**20), ("max_position_embeddings", 2**60)),
    ],
)
def test_sizes_that_these_weights_cannot_have_are_refused_before_anything_is_built(
    tmp_path: Path, size: str, value: object
) -> None:
    folder = saved(tmp_path / "step1")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, size: value}))
    with pytest.raises(CheckpointError, match=rf"{size} is|describes a model of [\d,]+ (layers|numbers)") as refused:
        ResidentModel().install(prepare(folder))
    assert refused.value.expected and refused.value.remedy


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_tensor_that_repeats_one_number_without_end_is_refused(tmp_path: Path, zipped: bool) -> None:
    folder = saved(tmp_path / "step1", stored="bin")
    endless = {"x": torch.zeros(1).expand(2**20, 2**20)}
    torch.save(endless, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    for read in (read_tensors, header, prepare):
        with pytest.raises(CheckpointError, match="of 1099511627776 numbers is made of 1"):
            read(folder)


def test_a_module_without_parameters_is_refused(tmp_path: Path) -> None:
    class Buffers(torch.nn.Module):
        def __init__(self, tensors: Mapping[str, torch.Tensor]) -> None:
            super().__init__()
            self.register_buffer("x", tensors["x"])

    prepared = Prepared(tmp_path, {"x": torch.ones(2)}, "d", "float32")
    for build, said in ((Buffers, r"without parameters(.|\n)*remedy"), (lambda tensors: Buffers, "built a type")):
        with pytest.raises(UserError, match=said) as refused:
            ResidentModel(build=build).install(prepared)
        assert not isinstance(refused.value, CheckpointError)  # it is no fault of one checkpoint


# --- tokenizers


def test_a_tokenizer_is_loaded_from_its_folder(tmp_path: Path) -> None:
    build_tokenizer().save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path)("36+59=")["input_ids"] == build_tokenizer()("36+59=")["input_ids"]


@pytest.mark.parametrize("content", [None, "", "{", "{}", '{"model": {"type": "NoSuch"}}'])
def test_a_tokenizer_that_cannot_be_read_is_a_clear_error(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        build_tokenizer().save_pretrained(tmp_path)
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"no usable tokenizer|tokenizer\.json cannot be") as refused:
        load_tokenizer(tmp_path)
    assert "series.tokenizer" in str(refused.value)


# --- digests, and what is read


def test_the_digest_of_one_file_is_its_sha256(tmp_path: Path) -> None:
    folder = saved(tmp_path / "step1")
    expected = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert weights_digest(folder) == prepare(folder).digest == expected


def test_the_digest_of_several_files_depends_on_each_and_on_their_order(tmp_path: Path) -> None:
    for name, content in {"a": [b"1", b"2"], "b": [b"2", b"1"], "c": [b"1", b"3"], "d": [b"1", b"2"]}.items():
        (tmp_path / name).mkdir()
        for i, part in enumerate(content):
            (tmp_path / name / f"model-{i}.safetensors").write_bytes(part)
    a, b, c, d = (weights_digest(tmp_path / name) for name in "abcd")
    assert a == d
    assert len({a, b, c}) == 3


def test_safetensors_are_preferred_to_bin(tmp_path: Path) -> None:
    folder = saved(tmp_path / "step1")
    (folder / "pytorch_model.bin").write_bytes(b"not read")
    assert [f.name for f in weight_files(folder)] == ["model.safetensors"]
    assert_same(ResidentModel().install(prepare(folder)), folder)


def test_prepared_weights_are_tensors_on_the_cpu_under_their_stored_names(tmp_path: Path) -> None:
    folder = saved(tmp_path / "step1")
    prepared = prepare(folder)
    assert isinstance(prepared, Prepared)
    stored = load_file(folder / "model.safetensors")
    assert prepared.tensors.keys() == stored.keys()
    assert all(torch.equal(prepared.tensors[k], v) and v.device.type == "cpu" for k, v in stored.items())
    assert prepared.folder == folder
