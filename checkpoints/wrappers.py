"""A model without what training puts around it: the modules, and the weights, with which it computes.

:func:`unwrapped` takes off what stands around a whole model: data parallelism, ``torch.compile``, an engine, a ``PeftModel``.
:func:`plain` does the same within a model while a context is open: compiled or recomputed blocks give way to what they
hold, and a layer with an adapter (LoRA, DoRA, ...) to a copy of it with the adapter merged in, so that whatever reads
``layer.weight`` reads what the model multiplies with. Trained weights are never written to: modules are exchanged, and put
back afterwards. It costs the memory of the adapted layers once more.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .configs import quiet
from .errors import UserError, first_line

if TYPE_CHECKING:
    import torch

__all__ = ["has_adapters", "plain", "unwrapped"]

_INSIDE = ("_orig_mod", "_checkpoint_wrapped_module")
"""Where ``torch.compile`` and recomputation of activations keep a module, around a whole model or a block of it."""
_AROUND = {
    "DistributedDataParallel": "module",
    "DataParallel": "module",
    "DeepSpeedEngine": "module",
    "AveragedModel": "module",
    "PreTrainedModelWrapper": "pretrained_model",
}
"""Classes around a whole model, and where they keep it."""
_PACKED = ("torch.int8", "torch.uint8")


def unwrapped(model: torch.nn.Module) -> torch.nn.Module:
    """The module itself.

    Raises:
        UserError: when this process does not hold its weights as numbers to read: sharded, offloaded or quantised ones;
            or when its prompts are trained beside it.
    """
    while True:
        _refuse(model)
        inner = _held(model)
        if inner is None:
            return model
        model = inner


def has_adapters(model: torch.nn.Module) -> bool:
    """Whether some layer computes with an adapter besides its own weights."""
    return any(_is_adapted(module) for module in model.modules())


@contextmanager
def plain(model: torch.nn.Module, *, adapters: bool = True) -> Iterator[None]:
    """While the context is open, the modules of ``model`` are plain ones with the weights that it computes with.

    Args:
        model: without wrappers around it as a whole.
        adapters: whether they are merged; else only compiled and recomputed blocks give way.

    Raises:
        UserError: when an adapter cannot be merged.
    """
    import torch

    exchanged: list[tuple[torch.nn.Module, str, torch.nn.Module]] = []
    known: dict[torch.nn.Module, torch.nn.Module] = {}  # a layer that stands in two places stays one

    def exchange(parent: torch.nn.Module) -> None:
        for name, child in parent._modules.items():
            if child is None:
                continue
            if child not in known:
                known[child] = _plain(child, name, adapters)
                exchange(known[child])
            if known[child] is not child:
                exchanged.append((parent, name, child))
                parent._modules[name] = known[child]

    try:
        with torch.no_grad(), torch.autocast(next(model.parameters()).device.type, enabled=False):
            exchange(model)
        yield
    finally:
        for parent, name, child in reversed(exchanged):
            parent._modules[name] = child


def _held(model: Any) -> Any:
    """What a wrapper of a whole model is around; None where it is the model."""
    for name in _INSIDE:
        if name in model._modules:
            return model._modules[name]
    kinds = [kind.__name__ for kind in type(model).__mro__]
    for kind, name in _AROUND.items():
        if kind in kinds:
            return getattr(model, name)
    return model.get_base_model() if "PeftModel" in kinds or "PeftMixedModel" in kinds else None


def _plain(module: Any, name: str, adapters: bool) -> Any:
    while (inner := next((module._modules[part] for part in _INSIDE if part in module._modules), None)) is not None:
        module = inner
    return _merged(module, name) if adapters and _is_adapted(module) else module


def _is_adapted(module: torch.nn.Module) -> bool:
    """Whether ``peft`` stands around this layer; where it was never imported, it stands nowhere."""
    if "peft.tuners.tuners_utils" not in sys.modules:
        return False
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    return isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper)


def _merged(layer: Any, name: str) -> Any:
    """The layer that an adapter stands around, its weights those that the two together compute with."""
    off = layer.disable_adapters if hasattr(layer, "disable_adapters") else layer._disable_adapters
    if off or getattr(layer, "merged", False):
        return layer.get_base_layer() if hasattr(layer, "get_base_layer") else layer.original_module
    try:
        with quiet():
            made = copy.deepcopy(layer)
            if hasattr(made, "unload_and_optionally_merge_module"):
                return made.unload_and_optionally_merge_module(merge=True, safe_merge=False, adapter_names=None)
            made.merge(safe_merge=False)
            return made.get_base_layer()
    except Exception as error:  # each of its two dozen kinds says in its own way that it cannot
        raise UserError(
            f"the adapter at {name!r}, a {type(layer).__module__}.{type(layer).__name__}, cannot be merged into its "
            f"layer: {first_line(error)}",
            expected="an adapter that is a change of weights, such as LoRA or DoRA",
            remedy="train with another kind, or give the model without it",
        ) from error


def _refuse(model: Any) -> None:
    import torch

    if not isinstance(model, torch.nn.Module) or next(model.parameters(), None) is None:
        raise UserError(
            f"a {type(model).__name__} cannot be measured: it has no parameters",
            expected="a torch.nn.Module with weights",
            remedy="give the model itself",
        )
    kinds = {type(module).__name__ for module in model.modules()}
    parts = {type(parameter).__name__ for parameter in model.parameters()}
    if (
        "FullyShardedDataParallel" in kinds
        or "DTensor" in parts
        or any(hasattr(parameter, "ds_id") for parameter in model.parameters())
    ):
        raise UserError(
            "the weights of a fully sharded model are spread over processes: it cannot be collected while it trains",
            expected="a model that each process holds whole",
            remedy="save checkpoints and follow them with `dynamics collect --watch FOLDER`",
        )
    config = getattr(model, "config", None)
    packed = any(str(parameter.dtype) in _PACKED for parameter in model.parameters())
    if packed or getattr(config, "quantization_config", None) is not None:
        raise UserError(
            "the model is quantised: its weights are not the numbers that it computes with",
            expected="weights in float32, float16 or bfloat16",
            remedy="load it without `quantization_config`",
        )
    if any(parameter.device.type == "meta" for parameter in model.parameters()):
        raise UserError(
            "some weights of the model are not in memory (offloaded, or on the device `meta`)",
            expected="a model that is in memory as a whole",
            remedy="load it without `device_map`, on a device that it fits",
        )
    settings = getattr(model, "peft_config", None)
    if isinstance(settings, dict) and any(getattr(each, "is_prompt_learning", False) for each in settings.values()):
        raise UserError(
            "the model is trained with prompts of its own (prompt or prefix tuning), which stand before every text",
            expected="an adapter that is a change of weights, such as LoRA",
            remedy="train with such a one",
        )
