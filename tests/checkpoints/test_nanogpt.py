"""nanoGPT's files are read as GPT-2: the same logits as the model that was saved, or a refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

from checkpoints import CheckpointError
from checkpoints.configs import read_config
from tests.checkpoints.foreign import NanoGPT, drawn, installed, logits_of, opened, read, save_nanogpt


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
@pytest.mark.parametrize(("bias", "said"), [(True, True), (False, False), (True, None), (False, None)])
def test_nanogpt_read_as_gpt2_computes_what_nanogpt_computes(
    tmp_path: Path, bias: bool, said: bool | None, compiled: bool
) -> None:
    model = drawn(NanoGPT(bias))
    series = opened(save_nanogpt(tmp_path / "out" / "ckpt.pt", model, 7, bias=said, compiled=compiled))
    prepared = read(series)
    assert (series.layout, [c.step for c in series.checkpoints]) == ("nanogpt", [7])
    assert (prepared.native, prepared.stored_dtype) == (False, "float32")
    assert prepared.config is not None and (prepared.config.n_positions, prepared.config.vocab_size) == (32, 40)
    gpt2 = hf.GPT2LMHeadModel(prepared.config)
    gpt2.load_state_dict(prepared.tensors, strict=True)
    torch.testing.assert_close(logits_of(gpt2), logits_of(model), atol=1e-5, rtol=0)
    torch.testing.assert_close(installed(prepared), logits_of(model), atol=1e-5, rtol=0)


def test_nanogpts_optimizer_is_not_read(tmp_path: Path) -> None:
    series = opened(save_nanogpt(tmp_path / "ckpt.pt", drawn(NanoGPT()), 7))
    tensors = read(series).tensors
    assert not any("optim" in name for name in {*tensors, *series.header(series.checkpoints[0])})
    for tensor in tensors.values():  # and what was read does not keep the rest of the file
        assert tensor.untyped_storage().nbytes() == tensor.nbytes


@pytest.mark.parametrize("tied", [True, False])
def test_nanogpts_output_is_tied_where_the_weights_are(tmp_path: Path, tied: bool) -> None:
    model = drawn(NanoGPT(tied=tied))
    series = opened(save_nanogpt(tmp_path / "ckpt.pt", model, 7))
    assert read_config(series.config_folder).tie_word_embeddings is tied
    torch.testing.assert_close(installed(read(series)), logits_of(model), atol=1e-5, rtol=0)


def test_masks_that_old_versions_of_nanogpt_stored_are_left_out(tmp_path: Path) -> None:
    model = drawn(NanoGPT())
    for i, block in enumerate(model.transformer["h"]):
        block.attn.register_buffer("bias", torch.ones(1, 1, 32, 32).tril(), persistent=True)
        assert f"transformer.h.{i}.attn.bias" in model.state_dict()
    series = opened(save_nanogpt(tmp_path / "ckpt.pt", model, 7))
    assert not any(name.endswith("attn.bias") for name in series.header(series.checkpoints[0]))
    torch.testing.assert_close(installed(read(series)), logits_of(model), atol=1e-5, rtol=0)


def test_another_config_wins_over_what_nanogpt_says(tmp_path: Path) -> None:
    file = save_nanogpt(tmp_path / "ckpt.pt", drawn(NanoGPT()), 7)
    assert read_config(opened(file).config_folder).activation_function == "gelu"
    config = read_config(opened(file).config_folder)
    config.activation_function = "gelu_new"
    config.save_pretrained(tmp_path / "old")
    series = opened(file, config=tmp_path / "old")
    assert read(series).config.activation_function == "gelu_new"  # type: ignore[union-attr]
    assert series.config_folder == tmp_path / "old"
    assert not torch.equal(installed(read(series)), installed(read(opened(file))))


@pytest.mark.parametrize(
    "names", [["a/ckpt.pt", "b/ckpt.pt"], ["ckpt_1000.pt", "ckpt-000500.pt"], ["ckpt.pt", "old/ckpt_1.pt"]]
)
def test_nanogpts_steps_are_the_iterations_inside(tmp_path: Path, names: list[str]) -> None:
    for step, name in zip((2000, 30), names, strict=True):
        save_nanogpt(tmp_path / name, NanoGPT(), step)
    series = opened(tmp_path)
    assert [(c.step, c.revision, c.tokens) for c in series.checkpoints] == [
        (30, names[1], None),
        (2000, names[0], None),
    ]
    assert series.fetch(series.checkpoints[0]) == tmp_path / names[1]
    assert [c.tokens for c in opened(tmp_path, tokens_per_step=10).checkpoints] == [300, 20000]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"model_args": {"n_layer": 2}}, "model_args that cannot be used: n_head is None"),
        ({"model_args": {"n_layer": 2, "n_head": 3, "n_embd": 16, "block_size": 32, "vocab_size": 40}}, "n_head"),
        ({"model_args": {"n_layer": "two", "n_head": 2, "n_embd": 16, "block_size": 32, "vocab_size": 40}}, "'two'"),
        ({"model": {"transformer.moe.weight": torch.ones(2)}}, "1 tensor\\(s\\) that nanoGPT does not have"),
        ({"model": {"a": torch.ones(2), "_orig_mod.a": torch.ones(2)}}, "holds some tensors twice"),
    ],
)
def test_a_nanogpt_file_that_is_something_else_is_a_clear_error(tmp_path: Path, damage: Any, message: str) -> None:
    series = opened(save_nanogpt(tmp_path / "ckpt.pt", NanoGPT(), 7, **damage))
    with pytest.raises(CheckpointError, match=message):
        read(series)


@pytest.mark.parametrize("step", [None, "7", 1.5, True])
def test_a_nanogpt_file_must_say_its_step(tmp_path: Path, step: Any) -> None:
    file = save_nanogpt(tmp_path / "ckpt.pt", NanoGPT(), step)
    with pytest.raises(CheckpointError, match="does not say its step: iter_num is"):
        opened(file, layout="nanogpt")
