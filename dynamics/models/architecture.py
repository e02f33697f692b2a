"""What the engine must know of a model: its sizes, where its sites are, and how it is asked for logits.

``transformers`` models are described by their config (:func:`architecture`); a module of your own by an
:class:`Adapter`, which the runs file names (``adapter: package.module:NAME``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from inspect import signature
from typing import TYPE_CHECKING, Any, Protocol, cast

from checkpoints.errors import UserError, shown

from .importing import import_named, own_code
from .sites import SiteTable, site_table

if TYPE_CHECKING:
    import torch

__all__ = [
    "Adapter",
    "Architecture",
    "ModelShape",
    "adapted",
    "architecture",
    "find_adapter",
    "model_shape",
    "tokenizer_of",
]


@dataclass(frozen=True)
class ModelShape:
    """The sizes that a trace's dimensions come from.

    Attributes:
        context: the longest prompt, or None where there is no limit.
        causal: whether a token sees only what is before it; if not, the model fills in masks.
        kv_heads: heads of keys and values, where they are fewer than of queries.
        parallel: whether attention and MLP of a layer read the same stream; None where the wiring is not known.
    """

    layers: int
    heads: int
    d_model: int
    d_head: int
    d_mlp: int
    vocab: int
    context: int | None = None
    causal: bool = True
    kv_heads: int | None = None
    parallel: bool | None = None


def _keeping(model: Any, ids: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = model(input_ids=ids, use_cache=False, logits_to_keep=keep).logits
    return logits


def _picking(model: Any, ids: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    logits: torch.Tensor = model(input_ids=ids).logits
    return logits[:, keep]


@dataclass(frozen=True)
class Architecture:
    """How to measure one kind of model.

    Attributes:
        shape: its sizes.
        table: where its sites are.
        logits: called with (model, token ids (row, token), token positions (kept,)); runs the whole model and returns
            (row, kept, vocab).
        whole: whether that computes the logits of every token first, also of those that are not kept.
        cached: whether the model can continue from a cache of keys and values (``dynamics.models.prefixes``).
    """

    shape: ModelShape
    table: SiteTable
    logits: Callable[[Any, torch.Tensor, torch.Tensor], torch.Tensor] = _keeping
    whole: bool = False
    cached: bool = False


class Adapter(Protocol):
    """A module of your own, saved as state dicts, described once: an object named in the runs file.

    It is asked for each series, so that one serves a family: what differs between its networks is read off ``tensors``, the
    state dict of a checkpoint. Examples: ``examples/modular_addition.py``; ``examples/bare_parameters.py``.

    ``logits(model, ids)`` may be added where calling the module with (row, token) ids does not give (row, token, vocab) logits.
    """

    sites: SiteTable

    def shape(self, tensors: Mapping[str, torch.Tensor]) -> ModelShape:
        """The sizes, from the state dict of a checkpoint."""

    def build(self, tensors: Mapping[str, torch.Tensor]) -> torch.nn.Module:
        """A module for this state dict; its weights are loaded by the caller, strictly."""

    def tokenizer(self) -> Any:
        """A fast tokenizer (``checkpoints.word_tokenizer`` makes one of a list of words); ``tokenizer(self, tensors)`` where it
        depends on the weights."""


def model_shape(config: Any) -> ModelShape:
    """Sizes from a ``transformers`` config."""
    d_model = int(config.hidden_size)
    heads = int(getattr(config, "num_attention_heads", 0))  # Mamba has none
    widths = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size")
    d_mlp = next((width for name in widths if (width := getattr(config, name, None))), 4 * d_model)
    context = getattr(config, "max_position_embeddings", None)
    return ModelShape(
        layers=int(config.num_hidden_layers),
        heads=heads,
        d_model=d_model,
        d_head=int(getattr(config, "head_dim", None) or d_model // max(heads, 1)),
        d_mlp=int(d_mlp),
        vocab=int(config.vocab_size),
        context=None if context is None else int(context),
        causal=config.model_type != "bert" or bool(getattr(config, "is_decoder", False)),
        kv_heads=_kv_heads(config),
    )


def _kv_heads(config: Any) -> int | None:
    """Heads of keys and values, where they are fewer."""
    if config.model_type == "falcon":
        grouped = config.num_kv_heads if config.new_decoder_architecture else None
        return grouped or (1 if config.multi_query else None)
    heads = getattr(config, "num_key_value_heads", None)
    return None if heads is None else int(heads)


def architecture(config: Any, sites: str | None = None) -> Architecture:
    """The architecture of a ``transformers`` config; ``sites`` is the dotted name of a table of the user's own.

    Raises:
        UserError: for a family whose sites are not known.
    """
    table = site_table(config, sites)
    shape = replace(model_shape(config), parallel=table.wiring.parallel if table.wiring else None)
    if not shape.causal:
        return Architecture(shape, table, _picking, whole=True)
    return Architecture(shape, table, cached=sites is None and shape.heads > 0)  # every family of ours is tested for it


def find_adapter(dotted: str) -> Adapter:
    """The adapter that a dotted name means (``package.module:NAME``).

    Raises:
        UserError: when it cannot be imported or is no adapter.
    """
    adapter = import_named(dotted, "adapter")
    missing = [part for part in ("sites", "shape", "build", "tokenizer") if not hasattr(adapter, part)]
    if missing:
        raise UserError(
            f"`adapter: {dotted}` is no adapter: it has no {', '.join(missing)}",
            expected="sites, shape, build and tokenizer (see dynamics.models.architecture.Adapter)",
            remedy="write them, or name the object that has them",
        )
    return cast(Adapter, adapter)


def adapted(adapter: Adapter, tensors: Mapping[str, torch.Tensor]) -> Architecture:
    """The architecture that an adapter describes, for the state dict of one checkpoint."""

    module = type(adapter).__module__

    def plain(model: Any, ids: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        with own_code("`logits` of the adapter", module):
            logits = (own or _call)(model, ids)
        _refuse_other_logits(logits, ids, shape.vocab)
        kept: torch.Tensor = logits[:, keep]
        return kept

    own = getattr(adapter, "logits", None)
    with own_code("`sites` and `shape` of the adapter", module):
        table, said = adapter.sites, adapter.shape(tensors)
    for name, given, kind in (("sites", table, SiteTable), ("shape", said, ModelShape)):
        if not isinstance(given, kind):
            raise UserError(
                f"`{name}` of the adapter {'is' if name == 'sites' else 'returned'} {shown(given)}",
                expected=f"a {kind.__module__}.{kind.__name__}",
                remedy=f"make one: {kind.__name__}({', '.join(list(signature(kind).parameters)[:6])}, ...)",
            )
    shape = replace(said, parallel=table.wiring.parallel if table.wiring else None)
    return Architecture(shape, table, plain, whole=True)


def tokenizer_of(adapter: Adapter, tensors: Mapping[str, torch.Tensor]) -> Any:
    """The tokenizer of an adapter, for the state dict of one checkpoint.

    Raises:
        UserError: when it makes none.
    """
    own = cast(Any, adapter.tokenizer)
    with own_code("`tokenizer` of the adapter", type(adapter).__module__):
        made = own(tensors) if signature(own).parameters else own()
    if not getattr(made, "is_fast", False):
        raise UserError(
            f"`tokenizer` of the adapter returned a {type(made).__name__}",
            expected="a fast tokenizer of transformers",
            remedy='return checkpoints.word_tokenizer(["0", "1", ...]), or AutoTokenizer.from_pretrained(...)',
        )
    return made


def _call(model: Any, ids: torch.Tensor) -> Any:
    return model(ids)


def _refuse_other_logits(logits: Any, ids: torch.Tensor, vocab: int) -> None:
    """What an adapter's model returns must be logits of every token id at every token."""
    rows, tokens = ids.shape
    expected = f"a tensor (row, token, vocab) of shape ({rows}, {tokens}, {vocab}) for ids of shape ({rows}, {tokens})"
    own = "in `logits(model, ids)` of the adapter"
    if not hasattr(logits, "shape") or not hasattr(logits, "detach"):
        remedy = f"take the logits out of what the module returns, {own}"
        raise UserError(f"the adapter's model returned {type(logits).__name__}", expected=expected, remedy=remedy)
    given = tuple(logits.shape)
    if given == (rows, tokens, vocab):
        return
    if len(given) == 3 and given[:2] == (rows, tokens):
        missing = vocab - given[2]
        remedy = (
            f"pad what it cannot say, {own}: torch.nn.functional.pad(logits, (0, {missing}), value=-1e4)"
            if missing > 0
            else f"let `shape` of the adapter say vocab={given[2]}, and its tokenizer have no more tokens"
        )
    elif len(given) == 2 and given[0] == rows:
        remedy = f"it answers at the last token alone: put that into its place, {own}, with NaN at the other tokens"
    else:
        remedy = f"return logits of every token, rows first, {own}"
    raise UserError(f"the adapter's model returned logits of shape {given}", expected=expected, remedy=remedy)
