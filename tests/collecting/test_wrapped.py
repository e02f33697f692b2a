"""Models that training wraps: every measurement sees the weights that the model computes with, and changes none of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers as hf
from accelerate.state import AcceleratorState

from checkpoints.audit import sketch
from checkpoints.errors import UserError
from checkpoints.organism import build_tokenizer
from checkpoints.wrappers import unwrapped
from dynamics.collecting.live import LiveCollector
from dynamics.measurements import Activations
from dynamics.measurements.forward import measure
from dynamics.models.architecture import architecture
from dynamics.models.trained import check_parameters, measurable
from dynamics.store import Trace, open_trace
from tests.collecting.trainings import fresh, probes, train
from tests.models.families import CONFIGS, MORE, model_of, probe

pytestmark = pytest.mark.filterwarnings("ignore")  # peft and torch, of their own older names

IDS = torch.tensor([3, 7, 5, 11, 4])
KINDS: dict[str, dict[str, Any]] = {
    "LoRA": {},
    "DoRA": {"use_dora": True},
    "rsLoRA": {"use_rslora": True, "bias": "all"},
}
LIKE_OTHERS = (
    "gpt_neox sequential",
    "mistral",
    "qwen2",
    "qwen3",
    "olmo",
    "olmo2",
    "olmo3",
    "smollm3",
    "apertus",
    "gpt2 upcast",
)
"""Families whose layers are of the same kinds as those of another one."""
CASES = [
    pytest.param(family, kind, marks=[pytest.mark.slow] if kind == "DoRA" and family in LIKE_OTHERS else [])
    for family in CONFIGS
    if family not in MORE
    for kind in KINDS
    if kind != "rsLoRA" or family in ("gpt2", "llama")
]
NEOX: dict[str, Any] = {"target_modules": ["query_key_value", "dense"]}


def adapted(model: Any, **options: Any) -> Any:
    """The model with adapters on every linear map, all of them far from doing nothing; a ``PeftModel``."""
    masked = model.config.model_type == "bert"
    torch.manual_seed(0)
    settings = {"r": 2, "target_modules": "all-linear", "task_type": None if masked else "CAUSAL_LM"}
    return moved(peft.get_peft_model(model, peft.LoraConfig(**{**settings, **options})))


def moved(model: Any) -> Any:
    with torch.no_grad():
        for seed, (name, weight) in enumerate(model.named_parameters()):
            if "lora_" in name:
                noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
                weight.add_(0.2 * noise)
    return model


def state(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name, value in one.items() if not torch.equal(value, other[name])] == []


def sites(model: Any) -> dict[str, np.ndarray]:
    """Every site of a family's model, as the tracer measures it."""
    described = architecture(model.config)
    wanted = [Activations(site, ("last", "middle")) for site in described.table.sites]
    return measure(model, probe(), wanted, architecture=described)


def noticed(model: Any) -> Any:
    """Everything about a model that measuring might leave changed, except weights."""
    modules = dict(model.named_modules(remove_duplicate=False))
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), sorted(vars(m))) for m in modules.values()]
    learning = [p.requires_grad for p in model.parameters()]
    return [*map(id, modules.values())], [m.training for m in modules.values()], hooks, learning


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_a_model_with_adapters_is_measured_as_the_merged_one_and_stays_as_it_is(family: str, kind: str) -> None:
    # experts are no modules, of which DoRA could take the norm
    some = {"target_modules": ["q_proj", "o_proj"]} if (family, kind) == ("olmoe", "DoRA") else {}
    model = adapted(copy.deepcopy(model_of(family)), **KINDS[kind], **some).train()
    before, about, numbers = state(model), noticed(model), torch.get_rng_state()
    root = unwrapped(model)
    with measurable(root, architecture(root.config), IDS):
        check_parameters(root, root.config)
        weights, kinds = state(root), {n: type(m) for n, m in root.named_modules()}
        found, seen = sites(root) if kind == "DoRA" else {}, sketch(dict(root.named_parameters()))
    assert noticed(model) == about
    same(state(model), before)
    assert torch.equal(torch.get_rng_state(), numbers)
    merged = model.merge_and_unload().eval()
    same(weights, state(merged))
    assert kinds == {n: type(m) for n, m in merged.named_modules()}
    np.testing.assert_array_equal(seen.values, sketch(dict(merged.named_parameters())).values)
    if kind == "DoRA":  # the modules and weights are the merged model's: the numbers need no proof for each kind
        expected = sites(merged)
        for site in expected:
            np.testing.assert_array_equal(found[site], expected[site])


ELSEWHERE: dict[str, Callable[[Any], Any]] = {
    "whole modules that are trained": lambda m: adapted(m, modules_to_save=["lm_head"]),
    "the embedding of a tied model": lambda m: adapted(m, target_modules=["wte", "c_attn"]),
    "some tokens": lambda m: adapted(m, trainable_token_indices={"wte": [3, 5]}),
    "another adapter's kind": lambda m: peft.get_peft_model(
        m, peft.IA3Config(target_modules=["c_attn", "c_proj"], feedforward_modules=["c_proj"], fan_in_fan_out=True)
    ),
    "adapters that transformers added": lambda m: m.add_adapter(peft.LoraConfig(target_modules=["c_attn"])) or m,
    "two adapters at once": lambda m: _two(adapted(m)),
    "adapters that are switched off": lambda m: _off(adapted(m)),
    "adapters that are merged already": lambda m: _merged(adapted(m)),
}


def _two(model: Any) -> Any:
    model.add_adapter("other", peft.LoraConfig(r=3, target_modules="all-linear"))
    model.base_model.set_adapter(["default", "other"])
    return moved(model)


def _off(model: Any) -> Any:
    model.base_model.disable_adapter_layers()
    return model


def _merged(model: Any) -> Any:
    model.merge_adapter()
    return model


@pytest.mark.parametrize("where", ELSEWHERE)
def test_wherever_adapters_are_the_plain_model_gives_what_the_wrapped_one_does(where: str) -> None:
    """Against the wrapped model itself: where weights are tied, merging them as ``peft`` does changes what it computes."""
    model = ELSEWHERE[where](copy.deepcopy(model_of("gpt2"))).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "ia3_" in name or "trainable_tokens_delta" in name:
                weight.mul_(1.5)
    before, expected = state(model), model(input_ids=IDS[None]).logits
    root = unwrapped(model)
    with measurable(root, architecture(root.config), IDS):
        assert not any("peft" in type(module).__module__ for module in root.modules())
        check_parameters(root, root.config)
        torch.testing.assert_close(root(input_ids=IDS[None]).logits, expected, rtol=1e-4, atol=1e-4)
    same(state(model), before)


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    AcceleratorState._reset_state(reset_partial_state=True)  # one a process: a Trainer before has set its precision
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()
    AcceleratorState._reset_state(reset_partial_state=True)


def _blocks(model: Any, wrap: Callable[[Any], Any]) -> Any:
    for name, block in model.gpt_neox.layers.named_children():
        model.gpt_neox.layers._modules[name] = wrap(block)
    return model


def _in_place(model: Any) -> Any:
    for module in (model, *model.gpt_neox.layers):
        module.compile(backend=lambda *_: pytest.fail("compiled code does not see hooks"))
    return model


def _prepared(model: Any) -> Any:
    from accelerate import Accelerator

    return Accelerator(cpu=True, mixed_precision="bf16").prepare(model)


def _recomputed(block: Any) -> Any:
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    return checkpoint_wrapper(block)


class _Engine(torch.nn.Module):
    """As DeepSpeed's engine of stages 1 and 2 holds a model."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "data parallel": torch.nn.DataParallel,
    "distributed": torch.nn.parallel.DistributedDataParallel,
    "compiled": torch.compile,
    "compiled and distributed": lambda m: torch.compile(torch.nn.parallel.DistributedDataParallel(m)),
    "compiled in place": _in_place,
    "compiled blocks": lambda m: _blocks(m, torch.compile),
    "recomputed blocks": lambda m: _blocks(m, _recomputed),
    "averaged": torch.optim.swa_utils.AveragedModel,
    "an engine": type("DeepSpeedEngine", (_Engine,), {}),
    "prepared": _prepared,
    "adapters inside compiled blocks": lambda m: _blocks(adapted(m, **NEOX).get_base_model(), torch.compile),
    "adapters around a compiled model": lambda m: adapted(torch.compile(m), **NEOX),
    "a compiled model with adapters": lambda m: torch.compile(adapted(m, **NEOX)),
}


@pytest.mark.parametrize("name", WRAPPERS)
@pytest.mark.usefixtures("one_process")
def test_every_wrapper_of_training_is_looked_through(name: str) -> None:
    model, wrapped = model_of("gpt_neox"), WRAPPERS[name](copy.deepcopy(model_of("gpt_neox"))).train()
    if "adapters" in name:
        model = adapted(copy.deepcopy(model), **NEOX).merge_and_unload()
    about, root = noticed(wrapped), unwrapped(wrapped)
    with measurable(root, architecture(root.config), IDS):
        check_parameters(root, root.config)
        same(state(root), state(model))
        np.testing.assert_array_equal(sites(root)["resid_post"], sites(model)["resid_post"])
    assert noticed(wrapped) == about


class _OwnAdapter(torch.nn.Linear):
    """An adapter that no library made: other libraries', or one's own."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features)
        self.lora_a = torch.nn.Parameter(torch.zeros(2, linear.in_features))


def _own(model: Any) -> Any:
    model.gpt_neox.layers[0].attention.dense = _OwnAdapter(model.gpt_neox.layers[0].attention.dense)
    return model


def _packed(model: Any) -> Any:
    packed = torch.nn.Parameter(torch.zeros(8, dtype=torch.uint8), requires_grad=False)
    model.gpt_neox.layers[0].attention.dense.weight = packed
    return model


def _offloaded(model: Any) -> Any:
    model.gpt_neox.layers[0].to("meta")
    return model


def _quantised(model: Any) -> Any:
    model.config.quantization_config = {"quant_method": "gptq"}
    return model


def _prompts(model: Any) -> Any:
    return peft.get_peft_model(model, peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))


def _by_the_text(model: Any) -> Any:
    return adapted(model, alora_invocation_tokens=[3])


REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "sharded": (lambda m: type("FullyShardedDataParallel", (_Engine,), {})(m), "fully sharded"),
    "quantised": (_packed, "quantised"),
    "said to be quantised": (_quantised, "quantised"),
    "offloaded": (_offloaded, "not in memory"),
    "trained prompts": (_prompts, "prompts of its own"),
    "an adapter that depends on the text": (_by_the_text, "cannot be merged"),
    "an adapter of another library": (_own, r"lora_a is too many"),
    "without a head": (lambda m: m.gpt_neox, "not those of a GPTNeoXForCausalLM"),
    "with another head": (lambda m: hf.GPTNeoXForSequenceClassification(m.config), "lm_head.weight is missing"),
    "no module": (lambda m: "gpt2", "a str cannot be measured"),
    "no weights": (lambda m: torch.nn.ReLU(), "no parameters"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_measured_as_it_computes_is_refused_before_training(what: str, tmp_path: Path) -> None:
    make, message = REFUSED[what]
    with pytest.raises(UserError, match=message):
        LiveCollector("x", make(fresh()), build_tokenizer(), probes=probes(tmp_path), traces=tmp_path)
    assert not (tmp_path / "x.zarr").exists()


def no_last_token(_module: Any, _inputs: Any, logits: torch.Tensor) -> torch.Tensor:
    """As a vocabulary is padded."""
    return logits.index_fill(-1, torch.tensor([logits.shape[-1] - 1]), -torch.inf)


def test_an_adapter_that_does_more_than_change_weights_is_noticed() -> None:
    """As mixtures of adapters do, which weigh them by the text."""
    model = adapted(copy.deepcopy(model_of("llama")))
    layer = model.get_base_model().model.layers[0].mlp.up_proj
    real = layer.forward
    layer.forward = lambda x: real(x) * x.mean()
    root = unwrapped(model)
    for _ in range(2):
        with pytest.raises(UserError, match="gives other logits"), measurable(root, architecture(root.config), IDS):
            pass
        root.lm_head.register_forward_hook(no_last_token)
    layer.forward = real
    with measurable(root, architecture(root.config), IDS):  # tokens that cannot come are no difference
        pass
    assert root.model.layers[0].mlp.up_proj is layer


def test_weights_that_torch_makes_of_others_are_read_as_they_are_used() -> None:
    model = copy.deepcopy(model_of("llama"))
    torch.nn.utils.parametrizations.weight_norm(model.model.layers[0].mlp.up_proj)
    with measurable(model, architecture(model.config), IDS):
        check_parameters(model, model.config)


def test_training_adapters_does_not_notice_and_the_trace_is_the_merged_models(tmp_path: Path) -> None:
    def model() -> Any:
        return adapted(fresh(), **NEOX)

    options: dict[str, Any] = {"probes": probes(tmp_path), "traces": tmp_path}
    alone = train(model(), lambda step: None, steps=3)
    merged: dict[int, Any] = {}
    watched = model()
    with LiveCollector("adapted", watched, build_tokenizer(), steps=[0, 3], **options) as live:

        def both(step: int) -> None:
            merged[step] = copy.deepcopy(watched).merge_and_unload()
            live.step(step)

        train(watched, both, steps=3)
    same(state(alone), state(watched))
    assert live.failed == {}
    with LiveCollector("merged", merged[0], build_tokenizer(), steps=[0, 3], **options) as live:
        live.step(0)
        merged[0].load_state_dict(merged[3].state_dict())
        live.step(3)
    one, other = Trace(tmp_path / "adapted.zarr"), Trace(tmp_path / "merged.zarr")
    assert one.digests == other.digests and len(set(one.digests)) == 2
    for group in ("sums", "weights"):
        expected = open_trace(other.path)[group]
        for variable, values in open_trace(one.path)[group].data_vars.items():
            np.testing.assert_array_equal(values, expected[variable])
