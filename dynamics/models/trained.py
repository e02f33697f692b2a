"""A model that is being trained, made measurable for a moment; afterwards everything is as it was.

Evaluation mode, attention that returns its patterns, no autocast and no compiled code around what hooks must see, and
layers with adapters as plain layers of the same effect (:func:`checkpoints.wrappers.plain`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from checkpoints.configs import auto_class, quiet
from checkpoints.errors import UserError
from checkpoints.wrappers import has_adapters, plain

from .architecture import Architecture

if TYPE_CHECKING:
    import torch

__all__ = ["check_parameters", "measurable"]

_MADE_OF = re.compile(r"\.parametrizations\.(\w+)\..*$")
"""A weight that ``torch`` computes out of others whenever it is read."""


@contextmanager
def measurable(model: Any, architecture: Architecture, ids: torch.Tensor) -> Iterator[None]:
    """While the context is open, the model can be measured like one that was loaded.

    Args:
        model: without wrappers (:func:`checkpoints.wrappers.unwrapped`).
        architecture: how it is asked for logits.
        ids: (token,) a prompt, for which a model with adapters must give the same logits with and without merging them.

    Raises:
        UserError: when an adapter is no change of weights.
    """
    with _still(model):
        before = None
        if has_adapters(model):
            with plain(model, adapters=False):
                before = _logits(model, architecture, ids)
        with plain(model):
            if before is not None:
                _compare(before, _logits(model, architecture, ids))
            yield


def check_parameters(model: Any, config: Any) -> None:
    """That a model has the parameters of its config's architecture, as a checkpoint must that is loaded.

    What a module of another kind computes besides (a layer with an adapter that nothing here knows, a quantised one)
    no measurement would see. New modules at the top, such as a value head, are none of the language model's.

    Raises:
        UserError: when one is missing, of another shape, or too many.
    """
    import torch

    try:
        with quiet(), torch.random.fork_rng(devices=[]), torch.device("meta"):
            wanted = auto_class(config).from_config(config, trust_remote_code=False)
    except Exception:  # an architecture of the user's own, which no class of transformers' makes
        return
    expected = {name: p.shape for name, p in wanted.named_parameters(remove_duplicate=False)}
    found = {_MADE_OF.sub(r".\1", name): p.shape for name, p in model.named_parameters(remove_duplicate=False)}
    made = {_MADE_OF.sub(r".\1", name) for name, _ in model.named_parameters() if _MADE_OF.search(name)}
    tops = {name.partition(".")[0] for name in expected}
    wrong = [f"{name} is missing" for name in expected.keys() - found.keys()]
    wrong += [f"{name} is too many" for name in found.keys() - expected.keys() if name.partition(".")[0] in tops]
    shared = expected.keys() & found.keys() - made
    wrong += [f"{name} has another shape" for name in shared if expected[name] != found[name]]
    if wrong:
        raise UserError(
            f"{len(wrong)} parameters of the {type(model).__name__} are not those of a {type(wanted).__name__}: "
            f"{', '.join(sorted(wrong)[:3])}{', ...' if len(wrong) > 3 else ''}",
            expected="the language model as transformers makes it, adapters of `peft` in it if there are any",
            remedy="give the language model itself, or describe yours by a SiteTable: `sites` in `settings`",
        )


@contextmanager
def _still(model: Any) -> Iterator[None]:
    import torch

    modes = {module: module.training for module in model.modules()}
    compiled = {module: module._compiled_call_impl for module in modes if module._compiled_call_impl is not None}
    config: Any = getattr(model, "config", None)
    attention = getattr(config, "_attn_implementation", None)
    returned = getattr(config, "return_dict", True)
    device = next(model.parameters()).device.type
    # mixed precision of the Trainer wraps `forward`, with an autocast of its own inside ours
    wrapped = model.__dict__.pop("forward", None) if hasattr(model, "_original_forward") else None
    try:
        for module in modes:  # not `eval()`, on which some layers write adapters into the weights
            module.training = False
        for module in compiled:  # compiled code does not look for new hooks
            module._compiled_call_impl = None
        if attention not in (None, "eager"):
            model.set_attn_implementation("eager")
        if returned is not True:
            config.return_dict = True
        with torch.autocast(device, enabled=False):
            yield
    finally:
        if wrapped is not None:
            model.forward = wrapped
        if returned is not True:
            config.return_dict = returned
        if attention not in (None, "eager"):
            model.set_attn_implementation(attention)
        for module, call in compiled.items():
            module._compiled_call_impl = call
        for module, training in modes.items():
            module.training = training


def _logits(model: Any, architecture: Architecture, ids: torch.Tensor) -> torch.Tensor:
    """(vocab,) at the last token of the prompt."""
    import torch

    device = next(model.parameters()).device
    with torch.no_grad():
        return architecture.logits(model, ids[None].to(device), torch.tensor([len(ids) - 1], device=device))[0, 0]


def _compare(before: torch.Tensor, after: torch.Tensor) -> None:
    rounding = 1e-3 if before.itemsize > 2 else 0.1
    before, after = before.float(), after.float()
    same = (before == after) | (before.isnan() & after.isnan())  # -inf: a token that cannot come
    apart = float((before - after).masked_fill(same, 0.0).abs().max())
    largest = float(before.masked_fill(~before.isfinite(), 0.0).abs().max())
    if not apart <= rounding * max(1.0, largest):
        raise UserError(
            f"with its adapters merged into its weights the model gives other logits: {apart:.3g} apart",
            expected="adapters that are changes of weights, whatever the text, such as LoRA or DoRA",
            remedy="train with such ones, or give the model without them",
        )
