"""A resident model holds exactly what transformers would load, or says which tensor is at fault."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

from checkpoints import CheckpointError
from checkpoints.configs import read_config
from checkpoints.files.tensors import TensorInfo
from checkpoints.files.weights import header, read_tensors, weight_files
from checkpoints.loading import ResidentModel, compare_headers, prepare
from dynamics.models.architecture import architecture
from dynamics.models.sites import observe
from tests.checkpoints.saved import MODELS, assert_same, edit, saved

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


UNREAL = [torch.int8, torch.uint8, torch.int32, torch.int64, torch.bool, torch.complex64]


@pytest.mark.parametrize("first", [True, False], ids=["first load", "in place"])
@pytest.mark.parametrize("dtype", UNREAL, ids=str)
@pytest.mark.parametrize("name", ["gpt_neox.layers.1.mlp.dense_h_to_4h.weight", "gpt_neox.final_layer_norm.bias"])
def test_weights_that_are_no_real_numbers_are_refused_and_not_cast(
    tmp_path: Path, dtype: torch.dtype, name: str, first: bool
) -> None:
    def cast(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name] = tensors[name].to(dtype)

    good, bad = saved(tmp_path / "good", seed=1), edit(saved(tmp_path / "bad", seed=2), cast)
    resident = ResidentModel()
    if not first:
        resident.install(prepare(good))
    with pytest.raises(CheckpointError, match="holds weights that are no real numbers") as refused:
        resident.install(prepare(bad))
    assert f"{name} ({str(dtype).removeprefix('torch.')})" in str(refused.value)
    assert_same(resident.install(prepare(good)), good)
    assert any(name in problem for problem in compare_headers(header(good), header(bad)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn], ids=str)
def test_weights_of_any_precision_are_real_numbers(tmp_path: Path, dtype: torch.dtype) -> None:
    def cast(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name] = tensors[name].to(dtype)

    name = "gpt_neox.layers.1.mlp.dense_h_to_4h.weight"
    good, other = saved(tmp_path / "good", seed=1), edit(saved(tmp_path / "other", seed=2), cast)
    assert compare_headers(header(good), header(other)) == []
    model = ResidentModel().install(prepare(other))
    assert torch.equal(model.state_dict()[name], read_tensors(other)[0][name].float())


def test_many_missing_tensors_are_counted_and_some_named(tmp_path: Path) -> None:
    def few(tensors: dict[str, torch.Tensor]) -> None:
        for name in sorted(tensors)[5:]:
            del tensors[name]

    with pytest.raises(CheckpointError, match=r"tensors \d\d missing \(.*, .*, .*, \.\.\.\)"):
        ResidentModel().install(prepare(edit(saved(tmp_path / "few"), few)))


def test_a_resident_model_without_a_checkpoint_says_so() -> None:
    with pytest.raises(RuntimeError, match="no checkpoint has been installed"):
        _ = ResidentModel().model


@pytest.mark.parametrize("stored", ["safetensors", "bin"])
def test_a_header_lists_every_stored_tensor_with_its_shape(tmp_path: Path, stored: str) -> None:
    folder = saved(tmp_path / "step1", stored=stored)
    tensors, _ = read_tensors(folder)
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


@pytest.mark.parametrize(
    "said",
    [
        {"return_dict": False},
        {"return_dict": None},
        {"attn_implementation": "flash_attention_2"},
        {"output_attentions": True, "output_hidden_states": True, "use_cache": False},
        {"torchscript": True, "gradient_checkpointing": True, "attention_dropout": 0.5, "hidden_dropout": 0.5},
    ],
)
def test_what_a_config_says_of_how_it_was_run_changes_nothing(said: dict[str, Any], tmp_path: Path) -> None:
    """Settings that training scripts leave in ``config.json``: the model, and how it is asked, stay the same."""
    ids, keep = torch.tensor([[1, 5, 3]]), torch.tensor([2])
    answers: list[list[torch.Tensor]] = []
    for settings in ({}, said):
        folder = saved(tmp_path / str(len(answers)))
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps({**content, **settings}), encoding="utf-8")
        model = ResidentModel().install(prepare(folder))
        described = architecture(read_config(folder))
        found: list[torch.Tensor] = []
        keep_it: Any = lambda *seen, found=found: found.append(seen[2])  # noqa: E731
        with torch.no_grad(), observe(model, described.table, frozenset({"pattern"}), 2, keep_it):
            found.append(described.logits(model, ids, keep))
        answers.append(found)
    for one, other in zip(*answers, strict=True):
        assert torch.equal(one, other)


def test_a_quantised_model_is_refused_by_its_config(tmp_path: Path) -> None:
    folder = saved(tmp_path / "packed")
    content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**content, "quantization_config": {"quant_method": "gptq"}}))
    with pytest.raises(CheckpointError, match="the model is quantised"):
        read_config(folder)
