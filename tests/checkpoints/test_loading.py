"""A resident model holds exactly what transformers would load, or says which tensor is at fault."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from checkpoints import CheckpointError
from checkpoints.configs import read_config
from checkpoints.loading import (
    Prepared,
    ResidentModel,
    compare_headers,
    prepare,
)
from checkpoints.organism import build_tokenizer
from checkpoints.tokenizing import load_tokenizer
from checkpoints.weights import TensorInfo, header, read_tensors, weight_files, weights_digest

TOY = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}
LLAMA = {**TOY, "num_key_value_heads": 2, "max_position_embeddings": 32}

MODELS: dict[str, Callable[[], Any]] = {
    "gpt_neox": lambda: hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**TOY)),
    "gpt_neox tied": lambda: hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**TOY, tie_word_embeddings=True)),
    "gpt2": lambda: hf.GPT2LMHeadModel(
        hf.GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=4, n_positions=32, bos_token_id=0, eos_token_id=0)
    ),
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**LLAMA)),
    "llama tied": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**LLAMA, tie_word_embeddings=True)),
    "olmo": lambda: hf.OlmoForCausalLM(hf.OlmoConfig(**LLAMA, eos_token_id=0, pad_token_id=1)),
    "olmo2": lambda: hf.Olmo2ForCausalLM(hf.Olmo2Config(**LLAMA, eos_token_id=0, pad_token_id=1)),
}


def saved(folder: Path, kind: str = "gpt_neox", seed: int = 0, *, stored: str = "safetensors") -> Path:
    """A checkpoint with random weights, every tensor of it drawn (no zeros and ones)."""
    torch.manual_seed(seed)
    model = MODELS[kind]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    model.save_pretrained(folder)
    if stored == "bin":
        (folder / "model.safetensors").unlink()
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    return folder


def edit(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> Path:
    """Change the stored tensors of a checkpoint."""
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


def oracle(folder: Path) -> dict[str, torch.Tensor]:
    """What plain transformers loads, in float32."""
    model = hf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return dict(model.state_dict())


def assert_same(model: Any, folder: Path) -> None:
    expected = oracle(folder)
    state = model.state_dict()
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        assert state[name].dtype == torch.float32
        assert torch.equal(state[name], value), name


# --- the in-place swap


@pytest.mark.parametrize("stored", ["safetensors", "bin"])
@pytest.mark.parametrize("kind", MODELS)
def test_swapping_checkpoints_in_place_gives_what_from_pretrained_gives(tmp_path: Path, kind: str, stored: str) -> None:
    folders = [saved(tmp_path / f"step{i}", kind, i, stored=stored) for i in range(3)]
    resident = ResidentModel()
    for i, folder in enumerate([*folders, folders[0]]):
        model = resident.install(prepare(folder))
        assert model is resident.model
        assert not model.training
        assert_same(model, folder)
        assert (resident.rebuilt, resident.in_place) == (1, i)


@pytest.mark.parametrize("kind", MODELS)
def test_a_swapped_model_computes_what_a_fresh_one_computes(tmp_path: Path, kind: str) -> None:
    one, other = saved(tmp_path / "one", kind, 1), saved(tmp_path / "other", kind, 2)
    resident = ResidentModel()
    resident.install(prepare(one))
    ids = torch.randint(40, (2, 9), generator=torch.Generator().manual_seed(0))
    fresh = hf.AutoModelForCausalLM.from_pretrained(other, attn_implementation="eager")
    with torch.no_grad():
        assert torch.equal(resident.install(prepare(other))(input_ids=ids).logits, fresh(input_ids=ids).logits)


def test_checkpoints_in_several_files_are_swapped_like_those_in_one(tmp_path: Path) -> None:
    first, second = saved(tmp_path / "first", seed=1), saved(tmp_path / "second", seed=2)
    model = hf.AutoModelForCausalLM.from_pretrained(second)
    shutil.rmtree(second)
    model.save_pretrained(second, max_shard_size="10KB")
    assert len(weight_files(second)) > 1
    resident = ResidentModel()
    resident.install(prepare(first))
    assert_same(resident.install(prepare(second)), second)
    assert resident.in_place == 1


def test_tensors_that_old_versions_stored_are_tolerated(tmp_path: Path) -> None:
    def as_of_2022(tensors: dict[str, torch.Tensor]) -> None:
        for layer in range(2):
            prefix = f"gpt_neox.layers.{layer}.attention"
            tensors[f"{prefix}.bias"] = torch.ones(1, 1, 8, 8)
            tensors[f"{prefix}.masked_bias"] = torch.tensor(-1e9)
            tensors[f"{prefix}.rotary_emb.inv_freq"] = torch.ones(2)

    old = [edit(saved(tmp_path / f"old{i}", seed=i), as_of_2022) for i in range(2)]
    new = saved(tmp_path / "new", seed=3)
    resident = ResidentModel()
    for folder in (*old, new, old[0]):
        assert_same(resident.install(prepare(folder)), folder)
    assert (resident.rebuilt, resident.in_place) == (1, 3)


def test_gpt2_masks_and_names_without_the_models_prefix_are_tolerated(tmp_path: Path) -> None:
    def as_of_2019(tensors: dict[str, torch.Tensor]) -> None:
        for name in list(tensors):
            tensors[name.removeprefix("transformer.")] = tensors.pop(name)
        for layer in range(2):
            tensors[f"h.{layer}.attn.bias"] = torch.ones(1, 1, 32, 32)

    folders = [edit(saved(tmp_path / f"{i}", "gpt2", i), as_of_2019) for i in range(2)]
    resident = ResidentModel()
    for folder in folders:
        assert_same(resident.install(prepare(folder)), folder)
    assert (resident.rebuilt, resident.in_place) == (1, 1)


def test_another_config_rebuilds_the_model(tmp_path: Path) -> None:
    resident = ResidentModel()
    for i, kind in enumerate(["gpt_neox", "llama", "gpt_neox"]):
        folder = saved(tmp_path / f"{i}", kind, i)
        assert_same(resident.install(prepare(folder)), folder)
        assert type(resident.model) is type(MODELS[kind]())
    assert (resident.rebuilt, resident.in_place) == (3, 0)


def test_a_config_that_changes_only_what_is_computed_rebuilds_the_model(tmp_path: Path) -> None:
    one, other = saved(tmp_path / "one"), saved(tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    config["use_parallel_residual"] = False
    (other / "config.json").write_text(json.dumps(config))
    resident = ResidentModel()
    resident.install(prepare(one))
    assert resident.install(prepare(other)).config.use_parallel_residual is False
    assert resident.rebuilt == 2


def test_tied_weights_that_differ_in_the_file_are_loaded_as_transformers_loads_them(tmp_path: Path) -> None:
    def both(tensors: dict[str, torch.Tensor]) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

    def differ(tensors: dict[str, torch.Tensor]) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1

    equal = [edit(saved(tmp_path / f"equal{i}", "llama tied", i), both) for i in range(2)]
    odd = edit(saved(tmp_path / "odd", "llama tied", 2), differ)
    resident = ResidentModel()
    for folder in (*equal, odd, equal[0]):
        assert_same(resident.install(prepare(folder)), folder)
    assert resident.in_place >= 1


def test_a_tied_weight_may_be_stored_once_or_twice_within_one_series(tmp_path: Path) -> None:
    def both(tensors: dict[str, torch.Tensor]) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

    twice = [edit(saved(tmp_path / f"twice{i}", "llama tied", i), both) for i in range(2)]
    once = [saved(tmp_path / f"once{i}", "llama tied", i + 2) for i in range(2)]
    for order in ([*twice, *once], [*once, *twice]):
        resident = ResidentModel()
        for folder in order:
            assert_same(resident.install(prepare(folder)), folder)


# --- dtypes


def test_float16_weights_are_computed_in_float32(tmp_path: Path) -> None:
    folders = []
    for i in range(2):
        folder = saved(tmp_path / f"{i}", seed=i)
        hf.AutoModelForCausalLM.from_pretrained(folder).half().save_pretrained(folder)
        folders.append(folder)
    resident = ResidentModel()
    for folder in folders:
        prepared = prepare(folder)
        assert prepared.stored_dtype == "float16"
        assert {t.dtype for t in prepared.tensors.values()} == {torch.float16}
        assert_same(resident.install(prepared), folder)
    assert resident.in_place == 1


def test_a_series_may_change_its_stored_dtype(tmp_path: Path) -> None:
    one, other = saved(tmp_path / "one", seed=1), saved(tmp_path / "other", seed=2)
    hf.AutoModelForCausalLM.from_pretrained(other).to(torch.bfloat16).save_pretrained(other)
    resident = ResidentModel()
    resident.install(prepare(one))
    assert_same(resident.install(prepare(other)), other)
    assert resident.in_place == 1


def test_the_dtype_of_computation_can_be_chosen(tmp_path: Path) -> None:
    resident = ResidentModel(dtype="bfloat16")
    for i in range(2):
        model = resident.install(prepare(saved(tmp_path / f"{i}", seed=i)))
        assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert resident.in_place == 1


def test_mixed_stored_dtypes_are_all_named(tmp_path: Path) -> None:
    def mix(tensors: dict[str, torch.Tensor]) -> None:
        name = min(tensors)
        tensors[name] = tensors[name].half()

    assert prepare(edit(saved(tmp_path / "mixed"), mix)).stored_dtype == "float16+float32"


# --- what does not fit


def _drop(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["gpt_neox.layers.1.mlp.dense_h_to_4h.weight"]


def _add(tensors: dict[str, torch.Tensor]) -> None:
    tensors["gpt_neox.layers.2.mlp.dense_h_to_4h.weight"] = torch.ones(3)


def _reshape(tensors: dict[str, torch.Tensor]) -> None:
    tensors["gpt_neox.final_layer_norm.weight"] = torch.ones(17)


DAMAGE = [
    (_drop, "1 missing (gpt_neox.layers.1.mlp.dense_h_to_4h.weight)"),
    (_add, "1 unexpected (gpt_neox.layers.2.mlp.dense_h_to_4h.weight)"),
    (_reshape, "1 of another shape (gpt_neox.final_layer_norm.weight)"),
]


@pytest.mark.parametrize("first", [True, False], ids=["first load", "in place"])
@pytest.mark.parametrize(("damage", "message"), DAMAGE, ids=["missing", "unexpected", "mis-shaped"])
def test_a_tensor_that_does_not_fit_is_named(tmp_path: Path, damage: Any, message: str, first: bool) -> None:
    good, bad = saved(tmp_path / "good", seed=1), edit(saved(tmp_path / "bad", seed=2), damage)
    resident = ResidentModel()
    if not first:
        resident.install(prepare(good))
    with pytest.raises(CheckpointError) as refused:
        resident.install(prepare(bad))
    assert message in str(refused.value)
    assert str(bad) in str(refused.value)
    assert_same(resident.install(prepare(good)), good)  # the series goes on


def test_many_missing_tensors_are_counted_and_some_named(tmp_path: Path) -> None:
    def few(tensors: dict[str, torch.Tensor]) -> None:
        for name in sorted(tensors)[5:]:
            del tensors[name]

    with pytest.raises(CheckpointError, match=r"tensors \d\d missing \(.*, .*, .*, \.\.\.\)"):
        ResidentModel().install(prepare(edit(saved(tmp_path / "few"), few)))


def test_a_resident_model_without_a_checkpoint_says_so() -> None:
    with pytest.raises(RuntimeError, match="no checkpoint has been installed"):
        _ = ResidentModel().model


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


# --- tokenizers


def test_a_tokenizer_is_loaded_from_its_folder(tmp_path: Path) -> None:
    build_tokenizer().save_pretrained(tmp_path)
    assert load_tokenizer(tmp_path)("36+59=")["input_ids"] == build_tokenizer()("36+59=")["input_ids"]


@pytest.mark.parametrize("content", [None, "", "{", "{}", '{"model": {"type": "NoSuch"}}'])
def test_a_tokenizer_that_cannot_be_read_is_a_clear_error(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        build_tokenizer().save_pretrained(tmp_path)
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(CheckpointError, match="no usable tokenizer") as refused:
        load_tokenizer(tmp_path)
    assert "series.tokenizer" in str(refused.value)


# --- digests and headers


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


@pytest.mark.parametrize("stored", ["safetensors", "bin"])
def test_a_header_lists_every_stored_tensor_with_its_shape(tmp_path: Path, stored: str) -> None:
    folder = saved(tmp_path / "step1", stored=stored)
    tensors = read_tensors(folder)
    found = header(folder)
    assert {name: info.shape for name, info in found.items()} == {k: tuple(v.shape) for k, v in tensors.items()}
    assert {info.dtype for info in found.values()} == ({"F32"} if stored == "safetensors" else {"float32"})


def test_equal_headers_have_no_differences_and_legacy_tensors_do_not_count(tmp_path: Path) -> None:
    one, other = header(saved(tmp_path / "one", seed=1)), header(saved(tmp_path / "other", seed=2))
    assert compare_headers(one, other) == []
    legacy = {
        "gpt_neox.layers.0.attention.bias": TensorInfo((1, 1, 8, 8), "BOOL"),
        "gpt_neox.layers.0.attention.masked_bias": TensorInfo((), "F32"),
        "gpt_neox.layers.0.attention.rotary_emb.inv_freq": TensorInfo((2,), "F32"),
    }
    assert compare_headers(one, other | legacy) == []
    assert compare_headers(one | legacy, other) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_drop, "'gpt_neox.layers.1.mlp.dense_h_to_4h.weight' is missing"),
        (_add, "'gpt_neox.layers.2.mlp.dense_h_to_4h.weight' is unexpected"),
        (_reshape, "'gpt_neox.final_layer_norm.weight' has shape (17,), not (16,)"),
    ],
    ids=["missing", "unexpected", "mis-shaped"],
)
def test_headers_that_differ_say_how(tmp_path: Path, damage: Any, message: str) -> None:
    good = saved(tmp_path / "good")
    assert compare_headers(header(good), header(edit(saved(tmp_path / "bad"), damage))) == [message]


def test_a_bias_of_a_projection_is_not_taken_for_a_legacy_mask(tmp_path: Path) -> None:
    def drop(tensors: dict[str, torch.Tensor]) -> None:
        del tensors["gpt_neox.layers.0.attention.dense.bias"]

    bad = edit(saved(tmp_path / "bad"), drop)
    assert compare_headers(header(saved(tmp_path / "good")), header(bad)) == [
        "'gpt_neox.layers.0.attention.dense.bias' is missing"
    ]
    with pytest.raises(CheckpointError, match=r"attention\.dense\.bias"):
        ResidentModel().install(prepare(bad))


def test_prepared_weights_are_tensors_on_the_cpu_under_their_stored_names(tmp_path: Path) -> None:
    folder = saved(tmp_path / "step1")
    prepared = prepare(folder)
    assert isinstance(prepared, Prepared)
    stored = load_file(folder / "model.safetensors")
    assert prepared.tensors.keys() == stored.keys()
    assert all(torch.equal(prepared.tensors[k], v) and v.device.type == "cpu" for k, v in stored.items())
    assert prepared.folder == folder
