"""torchtitan's distributed checkpoints are read as Llama: the same logits, or a refusal."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoints import CheckpointError, UserError
from checkpoints.files.tensors import TensorInfo
from checkpoints.loading import ResidentModel
from tests.checkpoints.foreign import (
    as_torchtitan,
    installed,
    llama,
    logits_of,
    neox,
    opened,
    read,
    rewritten,
    save_dcp,
    save_torchtitan,
)


@pytest.mark.parametrize("new", [False, True], ids=["names of 2024", "names of 2026"])
@pytest.mark.parametrize("prefix", ["", "model."])
def test_torchtitan_read_as_llama_computes_the_same(tmp_path: Path, prefix: str, new: bool) -> None:
    model = llama()
    model.config.save_pretrained(tmp_path / "config")
    folder = tmp_path / "checkpoint" / "step-3"
    if prefix:
        save_dcp(folder, {"model": as_torchtitan(model, new=new), "optimizer": {"a": torch.ones(2)}})
    else:
        save_torchtitan(folder, model, new=new)
    series = opened(tmp_path / "checkpoint", config=tmp_path / "config")
    assert (series.layout, [c.step for c in series.checkpoints]) == ("torchtitan", [3])
    prepared = read(series)
    assert prepared.tensors.keys() == model.state_dict().keys()
    torch.testing.assert_close(installed(prepared), logits_of(model), atol=1e-5, rtol=0)
    assert not any("optim" in name for name in series.header(series.checkpoints[0]))


def test_the_rows_of_queries_and_keys_are_moved_as_the_rotation_wants(tmp_path: Path) -> None:
    """Attention as torchtitan computes it, by complex numbers over neighbouring rows, against transformers' attention."""
    model = llama()
    model.config.save_pretrained(tmp_path / "config")
    save_torchtitan(tmp_path / "series" / "step-3", model)
    state = as_torchtitan(model)
    x = torch.randn(1, 12, 32, generator=torch.Generator().manual_seed(1))

    def turned(rows: torch.Tensor) -> torch.Tensor:
        length, size = rows.shape[1], rows.shape[-1]
        angles = torch.outer(torch.arange(length), 10000.0 ** (-torch.arange(0, size, 2) / size))
        turns = torch.polar(torch.ones_like(angles), angles)[None, :, None]
        pairs = torch.view_as_complex(rows.reshape(*rows.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * turns).flatten(-2)

    q, k, v = (x @ state[f"layers.0.attention.w{n}.weight"].T for n in "qkv")
    q, k = turned(q.view(1, 12, 4, 8)), turned(k.view(1, 12, 2, 8)).repeat_interleave(2, dim=2)
    v = v.view(1, 12, 2, 8).repeat_interleave(2, dim=2)
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(8)
    scores = scores.masked_fill(torch.ones(12, 12).triu(1).bool(), -torch.inf)
    mixed = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v).reshape(1, 12, 32)
    expected = mixed @ state["layers.0.attention.wo.weight"].T

    fresh = ResidentModel().install(read(opened(tmp_path / "series", config=tmp_path / "config")))
    position = torch.arange(12)[None]
    mask = torch.full((1, 1, 12, 12), -torch.inf).triu(1)
    with torch.no_grad():
        inner: Any = fresh.model
        turns = inner.rotary_emb(x, position)
        attention = inner.layers[0].self_attn
        got = attention(x, position_embeddings=turns, attention_mask=mask)[0]
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_torchtitan_needs_a_config_of_llama(tmp_path: Path) -> None:
    save_torchtitan(tmp_path / "series" / "step-3", llama())
    with pytest.raises(UserError, match="do not say the architecture") as refused:
        opened(tmp_path / "series")
    assert "series.config" in str(refused.value)
    neox().config.save_pretrained(tmp_path / "config")
    with pytest.raises(CheckpointError, match="cannot be read as 'gpt_neox'"):
        read(opened(tmp_path / "series", config=tmp_path / "config"))
    llama(num_key_value_heads=4).config.save_pretrained(tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"attention.wk.weight has 16 rows"):
        read(opened(tmp_path / "series", config=tmp_path / "other"))


def test_torchtitans_tensors_of_another_model_are_named(tmp_path: Path) -> None:
    llama().config.save_pretrained(tmp_path / "config")
    save_dcp(tmp_path / "series" / "step-3", {**as_torchtitan(llama()), "layers.0.moe.router.weight": torch.ones(2)})
    with pytest.raises(CheckpointError, match=r"torchtitan's Llama does not have: layers.0.moe.router.weight"):
        read(opened(tmp_path / "series", config=tmp_path / "config"))


def test_a_tensor_in_several_parts_is_put_together(tmp_path: Path) -> None:
    from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex

    from checkpoints.files.dcp import read_metadata, read_tensors

    whole = torch.randn(5, 3)
    file = save_dcp(tmp_path / "step-1", {"w": whole[:2].clone(), "rest": whole[2:].clone()})

    def join(metadata: Any) -> None:
        size = torch.Size
        metadata.state_dict_metadata["w"].size = size([5, 3])
        metadata.state_dict_metadata["w"].chunks += [
            ChunkStorageMetadata(size([2, 0]), size([3, 3])),
            ChunkStorageMetadata(size([5, 0]), size([0, 3])),  # of a process that had no rows
        ]
        del metadata.state_dict_metadata["rest"]
        rest = next(index for index in metadata.storage_data if index.fqn == "rest")
        metadata.storage_data[MetadataIndex("w", [2, 0])] = metadata.storage_data.pop(rest)

    rewritten(file, join)
    stored = read_metadata(file.parent)
    assert stored["w"].info == TensorInfo((5, 3), "float32")
    assert torch.equal(read_tensors(file.parent, stored, ["w"])["w"], whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.state_dict_metadata["norm.weight"].chunks.clear(), "do not make up the whole"),
        (lambda m: m.state_dict_metadata["norm.weight"].chunks.append(m.state_dict_metadata["norm.weight"].chunks[0]), "do not make up"),
        (lambda m: setattr(m.state_dict_metadata["norm.weight"].chunks[0], "offsets", torch.Size([1])), "cannot be read"),
        (lambda m: setattr(m.state_dict_metadata["norm.weight"].properties, "dtype", torch.float16), "is not what .metadata says"),
        (lambda m: [setattr(i, "relative_path", "../../secret") for i in m.storage_data.values()], "which is not there"),
        (lambda m: [setattr(i, "length", 10**9) for i in m.storage_data.values()], "is too short"),
        (lambda m: [setattr(i, "offset", i.offset + 1) for i in m.storage_data.values()], "cannot be read as weights"),
        (lambda m: [setattr(i, "transform_descriptors", ["zstd"]) for i in m.storage_data.values()], "compressed form"),
        (lambda m: m.storage_data.clear(), "cannot be read as weights"),
        (lambda m: setattr(m, "state_dict_metadata", None), "cannot be read as weights"),
    ],
)  # fmt: skip
def test_metadata_that_contradicts_the_files_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    model = llama()
    model.config.save_pretrained(tmp_path / "config")
    file = save_torchtitan(tmp_path / "series" / "step-3", model)
    rewritten(file, change)
    with pytest.raises(CheckpointError, match=message):
        read(opened(tmp_path / "series", config=tmp_path / "config"))


def test_a_distributed_checkpoint_without_metadata_was_not_written_to_its_end(tmp_path: Path) -> None:
    model = llama()
    model.config.save_pretrained(tmp_path / "config")
    for step in (1, 2):
        save_torchtitan(tmp_path / "series" / f"step-{step}", model)
    (tmp_path / "series" / "step-2" / ".metadata").unlink()
    series = opened(tmp_path / "series", config=tmp_path / "config")
    assert [bool(series.weight_files(c)) for c in series.checkpoints] == [True, False]
    for attempt in (lambda: series.header(series.checkpoints[1]), lambda: read(series, 1)):
        with pytest.raises(CheckpointError, match=r"no complete distributed checkpoint"):
            attempt()
