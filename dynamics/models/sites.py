"""Where the sites of a model are: one small table per architecture family, and the hooks that read them.

A new family is one entry in :data:`FAMILIES` plus the parity test; an architecture of your own is a
:class:`SiteTable` named in the runs file (``sites: my_module:TABLE``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from checkpoints.errors import UserError, nearest

from .importing import import_named, own_code
from .wiring import WIRINGS, Wiring

if TYPE_CHECKING:
    import torch

__all__ = ["FAMILIES", "SiteTable", "Where", "family_of", "observe", "site_table"]


@dataclass(frozen=True)
class Where:
    """A tensor in a module tree: input or output of a module, or what a function makes of them.

    Attributes:
        module: its path; ``""`` is the whole: a block in a block, else the model.
        side: whether what it takes or what it returns is meant.
        index: which part of a tuple.
        flat: whether rows and tokens are one dimension there.
        function: called with (module, its arguments, its output) instead, and returns the site: for what no module takes or
            returns, such as products of bare parameters. The site is read, and nothing can be changed there. It may call the
            module, or others in it.
    """

    module: str
    side: Literal["input", "output"] = "output"
    index: int = 0
    flat: bool = False
    function: Callable[[Any, tuple[Any, ...], Any], torch.Tensor] | None = None


@dataclass(frozen=True)
class SiteTable:
    """The sites of one architecture family.

    Attributes:
        block: path of a transformer block, with ``{}`` for the layer.
        in_block: site name to its place, relative to the block (``""`` is the block itself).
        outside: site name to its place, relative to the model.
        wiring: how its parts read and write (for attribution and patching), where that is known.
    """

    block: str
    in_block: Mapping[str, Where]
    outside: Mapping[str, Where]
    wiring: Wiring | None = None

    @property
    def sites(self) -> list[str]:
        """Every site that this family has."""
        return [*self.outside, *self.in_block, "logits"]

    def place(self, site: str) -> Where:
        """Where a site is, to change what is there.

        Raises:
            UserError: when the family lacks it, or a function computes it.
        """
        where = self.outside.get(site) or self.in_block.get(site)
        if where is None or where.function is not None:
            raise UserError(
                f"{site!r} cannot be changed: "
                + ("the table has no such site" if where is None else "a function computes it"),
                expected="a site that a module takes or returns",
                remedy="leave out what changes it (circuits, edits, effects), or let the model have a module there: torch.nn.Identity()",
            )
        return where


def _decoder(attention: str, out: str, mlp: str, down: str, mid: str, **changed: Where) -> dict[str, Where]:
    """The usual pre-norm block; ``changed`` replaces or adds sites."""
    sites = {
        "resid_pre": Where("", "input"),
        "resid_mid": Where(mid, "input"),
        "resid_post": Where(""),
        "attn_out": Where(f"{attention}.{out}"),
        "mlp_out": Where(mlp),
        "z": Where(f"{attention}.{out}", "input"),
        "pattern": Where(attention, index=1),
        "mlp_post": Where(f"{mlp}.{down}", "input"),
    }
    return sites | changed


def _without(sites: dict[str, Where], *left_out: str) -> dict[str, Where]:
    return {name: where for name, where in sites.items() if name not in left_out}


_NEOX = _decoder("attention", "dense", "mlp", "dense_4h_to_h", "post_attention_layernorm")
_GPT2 = _decoder("attn", "c_proj", "mlp", "c_proj", "ln_2")
_LLAMA = _decoder("self_attn", "o_proj", "mlp", "down_proj", "post_attention_layernorm")
_POST_NORM = _LLAMA | {
    # the norms sit after attention and MLP: what is added to the stream is the norms' output
    "resid_mid": Where("mlp", "input"),
    "attn_out": Where("post_attention_layernorm"),
    "mlp_out": Where("post_feedforward_layernorm"),
}
_SANDWICH = _POST_NORM | {"resid_mid": Where("pre_feedforward_layernorm", "input")}
_FALCON = _decoder("self_attention", "dense", "mlp", "dense_4h_to_h", "post_attention_layernorm")
_FALCON_OUTSIDE = {"embed": Where("transformer.word_embeddings"), "ln_final": Where("transformer.ln_f")}
_FALCON_PARALLEL = SiteTable("transformer.h.{}", _without(_FALCON, "resid_mid"), _FALCON_OUTSIDE)
_LLAMA_OUTSIDE = {"embed": Where("model.embed_tokens"), "ln_final": Where("model.norm")}
_LLAMA_TABLE = SiteTable("model.layers.{}", _LLAMA, _LLAMA_OUTSIDE)
_SANDWICH_TABLE = SiteTable("model.layers.{}", _SANDWICH, _LLAMA_OUTSIDE)
# many small MLPs of which each token takes a few: there is no one vector of neurons
_EXPERTS_TABLE = SiteTable("model.layers.{}", _without(_LLAMA, "mlp_post"), _LLAMA_OUTSIDE)
_POST_NORM_TABLE = SiteTable("model.layers.{}", _POST_NORM, _LLAMA_OUTSIDE)

FAMILIES: dict[str, SiteTable] = {
    # attention and MLP read the same input, so that there is no point between them
    "gpt_neox": SiteTable(
        "gpt_neox.layers.{}",
        _without(_NEOX, "resid_mid"),
        {"embed": Where("gpt_neox.embed_in"), "ln_final": Where("gpt_neox.final_layer_norm")},
    ),
    "gpt_neox_sequential": SiteTable(
        "gpt_neox.layers.{}",
        _NEOX,
        {"embed": Where("gpt_neox.embed_in"), "ln_final": Where("gpt_neox.final_layer_norm")},
    ),
    "gpt2": SiteTable(
        "transformer.h.{}", _GPT2, {"embed": Where("transformer.wte"), "ln_final": Where("transformer.ln_f")}
    ),
    "gptj": SiteTable(
        "transformer.h.{}",
        _without(_decoder("attn", "out_proj", "mlp", "fc_out", ""), "resid_mid"),
        {"embed": Where("transformer.wte"), "ln_final": Where("transformer.ln_f")},
    ),
    **dict.fromkeys(
        ("llama", "mistral", "qwen2", "qwen3", "olmo", "smollm3", "gemma", "stablelm", "phi3"), _LLAMA_TABLE
    ),
    **dict.fromkeys(("olmo2", "olmo3"), _POST_NORM_TABLE),
    **dict.fromkeys(("gemma2", "gemma3_text"), _SANDWICH_TABLE),
    **dict.fromkeys(("olmoe", "qwen2_moe", "qwen3_moe"), _EXPERTS_TABLE),
    "stablelm_parallel": SiteTable("model.layers.{}", _without(_LLAMA, "resid_mid"), _LLAMA_OUTSIDE),
    "phi": SiteTable(
        "model.layers.{}",
        _without(_decoder("self_attn", "dense", "mlp", "fc2", ""), "resid_mid"),
        {"embed": Where("model.embed_tokens"), "ln_final": Where("model.final_layernorm")},
    ),
    "opt": SiteTable(
        "model.decoder.layers.{}",
        _decoder(
            "self_attn",
            "out_proj",
            "",
            "",
            "",
            resid_mid=Where("final_layer_norm", "input", flat=True),
            mlp_out=Where("fc2", flat=True),
            mlp_post=Where("fc2", "input", flat=True),
        ),
        {"embed": Where("model.decoder.embed_tokens"), "ln_final": Where("model.decoder.final_layer_norm")},
    ),
    **dict.fromkeys(("falcon", "falcon_grouped", "falcon_grouped_one_norm"), _FALCON_PARALLEL),
    "falcon_sequential": SiteTable("transformer.h.{}", _FALCON, _FALCON_OUTSIDE),
    # no attention, and no MLP beside what mixes the tokens
    "mamba": SiteTable(
        "backbone.layers.{}",
        {"resid_pre": Where("", "input"), "resid_post": Where("")},
        {"embed": Where("backbone.embeddings"), "ln_final": Where("backbone.norm_f")},
    ),
    "apertus": SiteTable(
        "model.layers.{}", _LLAMA | {"resid_mid": Where("feedforward_layernorm", "input")}, _LLAMA_OUTSIDE
    ),
    "bloom": SiteTable(
        "transformer.h.{}",
        # the modules of attention and MLP add the residual themselves: what is added is their last matrix's output
        _decoder("self_attention", "dense", "mlp", "dense_4h_to_h", "post_attention_layernorm")
        | {"mlp_out": Where("mlp.dense_4h_to_h")},
        {"embed": Where("transformer.word_embeddings"), "ln_final": Where("transformer.ln_f")},
    ),
    "bert": SiteTable(
        "bert.encoder.layer.{}",
        # norms follow the additions: the stream is what they return
        {
            "resid_pre": Where("", "input"),
            "resid_mid": Where("attention.output.LayerNorm"),
            "resid_post": Where("output.LayerNorm"),
            "attn_out": Where("attention.output.dense"),
            "mlp_out": Where("output.dense"),
            "z": Where("attention.output.dense", "input"),
            "pattern": Where("attention.self", index=1),
            "mlp_post": Where("output.dense", "input"),
        },
        {"embed": Where("bert.embeddings.word_embeddings"), "ln_final": Where("cls.predictions.transform.LayerNorm")},
    ),
}
"""``model_type`` of the config to its table; :func:`family_of` tells those of one type apart."""


def family_of(config: Any) -> str:
    """The name of a config's family in :data:`FAMILIES`, where it is known: its ``model_type``, or a variant of it."""
    family, said = str(config.model_type), vars(config).get
    if family == "gpt_neox":
        return family if said("use_parallel_residual", True) else "gpt_neox_sequential"
    if family == "stablelm":
        return "stablelm_parallel" if said("use_parallel_residual") else family
    if family == "opt":  # the 350M one of the series
        return family if said("do_layer_norm_before", True) else "opt with norms behind additions"
    if family == "falcon":
        if said("new_decoder_architecture"):
            return "falcon_grouped_one_norm" if said("num_ln_in_parallel_attn") == 1 else "falcon_grouped"
        if said("parallel_attn"):
            return family if said("multi_query") else "falcon with parallel attention of many heads"
        return "falcon_sequential" if not said("multi_query") else "falcon with sequential multi-query attention"
    return family


def site_table(config: Any, dotted: str | None = None) -> SiteTable:
    """The table of a model's family, or the user's own (``package.module:NAME``).

    Raises:
        UserError: for an unknown family, or a dotted name that is not a table.
    """
    if dotted is not None:
        table = import_named(dotted, "sites")
        if not isinstance(table, SiteTable):
            raise UserError(
                f"`sites: {dotted}` is a {type(table).__name__}",
                expected="a dynamics.models.sites.SiteTable",
                remedy="name the table itself, as module:NAME",
            )
        return table
    family = family_of(config)
    if family not in FAMILIES:
        raise UserError(
            f"the sites of {family!r} models are not known",
            expected=f"one of {', '.join(sorted(FAMILIES))}",
            remedy="dynamics sites FOLDER proposes a SiteTable; name it as `sites: package.module:NAME` in the runs file",
        )
    return replace(FAMILIES[family], wiring=WIRINGS.get(family))


Observer = Callable[[str, int, "torch.Tensor"], None]
"""Called with (site, layer, value); layer is -1 for sites outside the blocks."""


@contextmanager
def observe(model: Any, table: SiteTable, sites: frozenset[str], layers: int, callback: Observer) -> Iterator[None]:
    """While the context is open, every forward pass calls ``callback`` with each wanted site, in layer order.

    Values are (row, token, feature) as the module has them; z is not split by head, pattern is (row, head, query, key).

    Raises:
        UserError: when the family lacks a site.
    """
    handles = []
    computing: list[str] = []  # a function may call modules that are read as well

    def attach(site: str, layer: int, where: Where, prefix: str) -> None:
        path = ".".join(part for part in (prefix, where.module) if part)
        try:
            module = model.get_submodule(path)
        except AttributeError as error:
            raise UserError(
                f"the model has no module {path!r}, where the table looks for {site!r}: {error}",
                expected="a path as in model.named_modules(), with {} for the layer in `block`",
                remedy="correct the table",
            ) from error

        sizes: list[tuple[int, int]] = []
        if where.flat:

            def note(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                sizes[:] = [(args[0] if args else kwargs["hidden_states"]).shape[:2]]

            handles.append(model.get_submodule(prefix).register_forward_pre_hook(note, with_kwargs=True))

        def read(value: Any) -> None:
            if computing:
                return
            while isinstance(value, tuple):
                value = value[where.index] if len(value) > where.index else None
            if value is None:
                raise UserError(
                    f"{path} returned no {site!r}",
                    expected="attention that returns its pattern (eager)",
                    remedy="leave the site out, or have the module return it",
                )
            callback(site, layer, value.view(*sizes[0], -1) if where.flat else value)

        if where.function is not None:
            own = where.function

            def compute(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
                if computing:
                    return
                computing.append(site)
                try:
                    with own_code(f"the function (module, arguments, output) of site {site!r}", own.__module__):
                        value = own(module, args or (*kwargs.values(),), output)
                finally:
                    computing.clear()
                read(value)

            handles.append(module.register_forward_hook(compute, with_kwargs=True))
        elif where.side == "input":

            def before(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                read(args[0] if args else kwargs["hidden_states"])

            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
        else:

            def after(_module: Any, _args: tuple[Any, ...], output: Any) -> None:
                read(output)

            handles.append(module.register_forward_hook(after))

    try:
        for site in sorted(sites - {"logits"}):
            if site in table.outside:
                attach(site, -1, table.outside[site], "")
            elif site in table.in_block:
                for layer in range(layers):
                    attach(site, layer, table.in_block[site], table.block.format(layer))
            else:
                raise UserError(
                    f"this architecture has no site {site!r}",
                    remedy=nearest(site, table.sites),
                    expected=f"one of {', '.join(table.sites)}",
                )
        yield
    finally:
        for handle in handles:
            handle.remove()
