"""Checkpoints that are adapters of a model: measured as that model with each merged in, or refused by what they are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

import dynamics
from checkpoints.errors import CheckpointError, UserError
from checkpoints.files.weights import read_tensors
from checkpoints.layouts import Base
from checkpoints.loading import ResidentModel
from checkpoints.local import FolderConfig, FolderSeries
from checkpoints.organism import build_tokenizer
from dynamics.runs.config import Run
from dynamics.store import Trace
from tests.checkpoints.saved import MODELS, saved
from tests.collecting.trainings import fresh, probes

pytestmark = pytest.mark.filterwarnings("ignore")  # peft, of older names

STEPS = (10, 20)
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "LoRA": ("llama", {}),
    "LoRA of a tied model": ("gpt2", {}),
    "DoRA": ("gpt_neox", {"use_dora": True}),
    "rsLoRA with biases": ("gpt2", {"use_rslora": True, "bias": "all"}),
    "whole modules": ("llama", {"modules_to_save": ["lm_head"]}),
    "begun otherwise": ("olmo2", {"init_lora_weights": "gaussian"}),
}


def trained(model: Any, folder: Path, **options: Any) -> None:
    """Adapters as the Trainer saves them, one a step, none of which does nothing."""
    adapted = peft.get_peft_model(model, peft.LoraConfig(**{"r": 2, "target_modules": "all-linear", **options}))
    for step in STEPS:
        with torch.no_grad():
            for weight in adapted.parameters():
                if weight.requires_grad:
                    weight.add_(0.1 * torch.randn(weight.shape))
        adapted.save_pretrained(folder / f"checkpoint-{step}")


def made(folder: Path, family: str = "llama", **options: Any) -> FolderConfig:
    base = saved(folder / "base", family)
    trained(MODELS[family]().from_pretrained(base), folder / "job", **options)
    return FolderConfig(path=folder / "job", base=base)


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_is_read_as_its_model_with_it_merged_in(kind: str, tmp_path: Path) -> None:
    family, options = KINDS[kind]
    config = made(tmp_path, family, **options)
    series, resident = FolderSeries(config), ResidentModel()
    one, other = map(series.fetch, series.checkpoints)
    digests = [series.read(other).digest]
    for folder in (one, other):
        prepared = series.read(folder)
        base = MODELS[family]().from_pretrained(config.base)
        expected = peft.PeftModel.from_pretrained(base, folder).merge_and_unload().state_dict()
        found = resident.install(prepared).state_dict()
        assert found.keys() == expected.keys()
        assert [name for name in expected if not torch.equal(found[name], expected[name])] == []
        digests.append(prepared.digest)
    assert [c.step for c in series.checkpoints] == list(STEPS) and resident.in_place == 1
    assert digests[0] == digests[2] != digests[1]
    assert series.config_folder == config.base


def test_the_digest_is_of_all_that_makes_the_weights(tmp_path: Path) -> None:
    config = made(tmp_path)
    series = FolderSeries(config)
    folder = series.fetch(series.checkpoints[0])
    digests = [series.read(folder).digest]
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**settings, "lora_alpha": 99}))
    digests.append(series.read(folder).digest)
    assert config.base is not None
    saved(config.base, "llama", seed=1)
    digests.append(series.read(folder).digest)
    assert len(set(digests)) == 3


def test_adapters_are_collected_like_any_series(tmp_path: Path) -> None:
    fresh().save_pretrained(tmp_path / "base")
    trained(fresh(), tmp_path / "job")
    build_tokenizer().save_pretrained(tmp_path / "base")
    series = FolderConfig(path=tmp_path / "job", base=tmp_path / "base")
    dynamics.collect("adapters", run=Run(series=series, probes=probes(tmp_path)), traces=tmp_path)
    trace = Trace(tmp_path / "adapters.zarr")
    assert trace.steps.tolist() == list(STEPS) and trace.complete.all()
    assert not (trace.values("sums", "resid_post")[0] == trace.values("sums", "resid_post")[1]).all()


def _edited(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        settings = json.loads((folder / "adapter_config.json").read_text())
        change(settings)
        (folder / "adapter_config.json").write_text(json.dumps(settings))

    return edit


def _stored(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        tensors = load_file(folder / "adapter_model.safetensors")
        change(tensors)
        save_file(tensors, folder / "adapter_model.safetensors")

    return edit


FAULTY: dict[str, Callable[[Path], None]] = {
    "settings that are no JSON": lambda at: (at / "adapter_config.json").write_text("{") and None,
    "settings that are a list": lambda at: (at / "adapter_config.json").write_text("[]") and None,
    "no kind": _edited(lambda s: s.pop("peft_type")),
    "a kind that there is none of": _edited(lambda s: s.update(peft_type="LARO")),
    "a mixture of adapters that lie elsewhere": _edited(lambda s: s.update(peft_type="XLORA", adapters={"a": "x/y"})),
    "a rank that is a word": _edited(lambda s: s.update(r="two")),
    "layers that there are none of": _edited(lambda s: s.update(target_modules=["nowhere"])),
    "prompts": _edited(lambda s: [s.clear(), s.update(peft_type="PROMPT_TUNING", num_virtual_tokens=2)]),
    "a begin that changes the model": _edited(lambda s: s.update(init_lora_weights="pissa")),
    "code to import": _edited(lambda s: s.update(megatron_config={"a": 1}, megatron_core="antigravity")),
    "a missing tensor": _stored(lambda t: t.pop(min(t))),
    "a tensor too many": _stored(lambda t: t.update(extra=torch.ones(2))),
    "a tensor of another shape": _stored(lambda t: t.update({min(t): torch.ones(5, 5)})),
    "a file that is cut short": lambda at: (at / "adapter_model.safetensors").write_bytes(b"cut") and None,
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> FolderConfig:
    return made(tmp_path_factory.mktemp("adapters"))


@pytest.fixture(scope="module")
def base(good: FolderConfig) -> Base:
    assert good.base is not None
    return Base(good.base)


@pytest.mark.parametrize("fault", FAULTY)
def test_a_faulty_adapter_is_a_failed_checkpoint_and_the_next_one_is_read(
    fault: str, good: FolderConfig, base: Base, tmp_path: Path
) -> None:
    names = sorted(good.path.iterdir())
    before = base.merged(names[1]).digest
    bad = shutil.copytree(names[0], tmp_path / "bad")
    FAULTY[fault](bad)
    with pytest.raises(CheckpointError):
        base.merged(bad)
    assert base.merged(names[1]).digest == before


def test_an_adapter_that_has_a_name_lies_in_a_folder_of_that_name(good: FolderConfig, tmp_path: Path) -> None:
    shutil.copytree(good.path, tmp_path / "job")
    expected = [FolderSeries(good).read(good.path / f"checkpoint-{step}").digest for step in STEPS]
    for step in STEPS:
        folder = tmp_path / "job" / f"checkpoint-{step}"
        (folder / "policy").mkdir()
        for file in folder.glob("adapter_*"):
            file.rename(folder / "policy" / file.name)
    config = FolderConfig(path=tmp_path / "job", base=good.base)
    series = FolderSeries(config)
    assert [series.read(series.fetch(c)).digest for c in series.checkpoints] == expected
    assert series.weight_files(series.checkpoints[0])[0].name == "policy/adapter_model.safetensors"
    assert series.state(series.checkpoints[0]) is not None
    shutil.copytree(folder / "policy", folder / "value")
    with pytest.raises(UserError, match="holds 2 adapters without their model: policy, value"):
        FolderSeries(config)


def test_an_adapter_beside_whole_weights_is_said_to_be_left_out(good: FolderConfig, tmp_path: Path) -> None:
    shutil.copytree(good.path / f"checkpoint-{STEPS[0]}", tmp_path / "job" / "step1")
    assert good.base is not None
    for file in good.base.iterdir():
        shutil.copy(file, tmp_path / "job" / "step1" / file.name)
    assert FolderSeries(tmp_path / "job").left_out == {
        "step1/adapter_model.safetensors": "the weights are read from model.safetensors"
    }


def _whole(at: Path, good: FolderConfig) -> FolderConfig:
    saved(at / "job" / "checkpoint-30", "llama")
    return FolderConfig(path=at / "job", base=good.base)


def _only_whole(at: Path, good: FolderConfig) -> FolderConfig:
    saved(at / "whole" / "checkpoint-30", "llama")
    return FolderConfig(path=at / "whole", base=good.base)


REFUSED: dict[str, tuple[Callable[[Path, FolderConfig], FolderConfig], str]] = {
    "no base": (lambda at, good: FolderConfig(path=at / "job"), "holds adapters without their model"),
    "whole checkpoints among them": (_whole, "and whole checkpoints"),
    "whole checkpoints only": (_only_whole, "names a base for adapters"),
    "a base that is not there": (lambda at, good: FolderConfig(path=at / "job", base=at / "no"), "no model in"),
    "a base without weights": (lambda at, good: FolderConfig(path=at / "job", base=at / "job"), "no model in"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_series_of_adapters_that_cannot_be_merged_is_refused_when_it_is_opened(
    what: str, good: FolderConfig, tmp_path: Path
) -> None:
    make, message = REFUSED[what]
    shutil.copytree(good.path, tmp_path / "job")
    with pytest.raises(UserError, match=message) as caught:
        FolderSeries(make(tmp_path, good))
    assert caught.value.remedy


def test_without_peft_the_package_is_named(good: FolderConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("checkpoints.layouts.adapters.find_spec", lambda name: None)
    with pytest.raises(UserError, match="peft, which merges them, is not installed"):
        FolderSeries(good)


@pytest.mark.parametrize("stored", ["safetensors", "bin"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda name: f"module._orig_mod.{name}",
        lambda name: f"_orig_mod.module.{name}",
        lambda name: f"module.module.{name}",
        lambda name: f"_fsdp_wrapped_module.{name}",
        lambda name: name.replace(".layers.0.", ".layers.0._checkpoint_wrapped_module._orig_mod."),
    ],
)
def test_names_that_wrappers_changed_are_read_as_the_models(
    wrap: Callable[[str], str], stored: str, tmp_path: Path
) -> None:
    folder = saved(tmp_path / "job" / "step1", stored=stored)
    expected, _ = read_tensors(folder)
    wrapped = {wrap(name): tensor for name, tensor in expected.items()}
    if stored == "bin":
        torch.save(wrapped, folder / "pytorch_model.bin")
    else:
        save_file(wrapped, folder / "model.safetensors", metadata={"format": "pt"})
    series = FolderSeries(tmp_path / "job")
    header = series.header(series.checkpoints[0])
    assert header is not None and header.keys() == expected.keys()
    model = ResidentModel().install(series.read(folder)).state_dict()
    assert all(torch.equal(model[name.replace("embed_out", "lm_head")], tensor) for name, tensor in expected.items())
