"""What is known of an architecture, or proposed, as text: which sites it has, how it is wired, and how that was checked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from checkpoints.configs import auto_class, quiet
from checkpoints.errors import UserError
from checkpoints.paths import StrPath

from ..circuits.checking import check_wiring
from ..models.architecture import Architecture, model_shape
from ..models.sites import FAMILIES, SiteTable, Where, family_of, observe
from ..models.wiring import WIRINGS, Wiring
from ..names import SITES
from .proposing import propose
from .small import config_of, small_model

__all__ = ["Described", "describe_sites"]

_CLOSE = 1e-4


@dataclass(frozen=True)
class Described:
    """What is known of one architecture.

    Attributes:
        family: its name in :data:`dynamics.models.sites.FAMILIES`, or that of its type.
        known: whether the table is one of the project's own, not a proposal.
        table: its sites and, where there is one, its wiring.
        missing: what it does not have, or what was not found, and why.
        checked: what was compared on random weights, and found to be so.
    """

    family: str
    known: bool
    table: SiteTable
    missing: tuple[str, ...]
    checked: tuple[str, ...]

    def python(self) -> str:
        """The table as a module that a run can name."""
        lines = [
            "from dynamics.models.sites import SiteTable, Where",
            *(["from dynamics.models.wiring import Wiring"] if self.table.wiring else []),
            "",
            "TABLE = SiteTable(",
            f"    block={self.table.block!r},",
            "    in_block={",
            *(f"        {site!r}: {_where(place)}," for site, place in self.table.in_block.items()),
            "    },",
            f"    outside={{{', '.join(f'{site!r}: {_where(place)}' for site, place in self.table.outside.items())}}},",
        ]
        if self.table.wiring is not None:
            lines += ["    wiring=Wiring(", *(f"        {line}," for line in _arguments(self.table.wiring)), "    ),"]
        return "\n".join([*lines, ")"]) + "\n"

    def text(self) -> str:
        """All of it, for a terminal."""
        table = self.table
        places = {**table.outside, **table.in_block}
        ordered = [site for site in SITES if site in places]
        rows = [f"  {site:<10} {_said(table, site, places[site])}" for site in ordered]
        state = "known" if self.known else "not known: this is a proposal"
        lines = [f"{self.family}: {state}", "", "sites", *rows, "  logits     what the model returns", ""]
        if table.wiring is not None:
            lines += ["wiring (paths in a block)", *(f"  {line}" for line in _arguments(table.wiring)), ""]
        if self.missing:
            lines += ["not there", *(f"  {line}" for line in self.missing), ""]
        lines += ["checked on a small model with random weights", *(f"  {line}" for line in self.checked)]
        if not self.known:
            lines += [
                "",
                "save this beside the runs file as my_sites.py, and name it there: sites: my_sites:TABLE",
                "",
                self.python(),
            ]
        return "\n".join(lines).rstrip()


def describe_sites(model: StrPath) -> Described:
    """The sites and the wiring of an architecture: the project's own table, or a proposal from its module tree.

    Either is checked on a small model of that architecture with random weights.

    Args:
        model: the folder of a checkpoint or of a series, a config.json, or a model type of ``transformers``.

    Raises:
        UserError: for what is no such thing, an architecture of which no language model can be built, or one whose blocks
            cannot be told.
    """
    config = config_of(model)
    small = small_model(config)
    family = family_of(config)
    if family in FAMILIES:
        found = replace(FAMILIES[family], wiring=WIRINGS.get(family))
        lacking = [site for site in SITES if site not in found.sites]
        missing = [f"{', '.join(lacking)}: an architecture of this type has none"] if lacking else []
        if found.wiring is None:
            heads = model_shape(small.config).heads
            why = "its stream is normalised after every addition, and no sum" if heads else "it has no attention heads"
            missing.append(f"wiring: {why}, so that it has no circuits; other analyses leave out what needs them")
    else:
        proposal = propose(small, small.config)
        found, missing = _everywhere(config, proposal.table, list(proposal.missing))
    return Described(family, family in FAMILIES, found, tuple(missing), tuple(_checked(small, found)))


def _everywhere(config: Any, table: SiteTable, missing: list[str]) -> tuple[SiteTable, list[str]]:
    """What of a proposal holds for every block of the whole model, where blocks are of several kinds (hybrids)."""
    with quiet(), torch.device("meta"):
        names = {name for name, _ in auto_class(config).from_config(config).named_modules()}
    layers = range(model_shape(config).layers)

    def absent(path: str) -> list[int]:
        return [n for n in layers if ".".join(part for part in (table.block.format(n), path) if part) not in names]

    lost = {site: absent(place.module) for site, place in table.in_block.items() if absent(place.module)}
    for site, where in lost.items():
        missing.append(
            f"{site}: its module is not there in {len(where)} of {len(layers)} blocks (the first is block {where[0]})"
        )
    wiring = table.wiring
    if wiring is not None and any(map(absent, (wiring.out, wiring.mlp, *wiring.projections))):
        missing.append("wiring: blocks are of several kinds")
        wiring = None
    kept = {site: place for site, place in table.in_block.items() if site not in lost}
    return replace(table, in_block=kept, wiring=wiring), missing


def _checked(model: Any, table: SiteTable) -> list[str]:
    """What holds on random weights.

    Raises:
        UserError: when something does not that has to.
    """
    shape = replace(model_shape(model.config), parallel=table.wiring.parallel if table.wiring else None)
    ids = torch.arange(8).view(1, 8) + 2
    kept: dict[tuple[str, int], torch.Tensor] = {}

    def keep(site: str, layer: int, value: torch.Tensor) -> None:
        kept[site, layer] = value.detach().clone()

    with torch.no_grad():
        with observe(model, table, frozenset(table.sites), shape.layers, keep):
            plain = model(input_ids=ids, use_cache=False).logits
        output = model(input_ids=ids, use_cache=False, output_hidden_states=True)
    lines = []
    _require(torch.equal(plain, output.logits), "reading the sites changes the logits")
    lines.append(f"reading {len(table.sites)} sites at {shape.layers} layers changes nothing")
    masked = not shape.causal
    states = [s for s in output.hidden_states if s.shape == (*plain.shape[:2], shape.d_model)]
    for layer in range(shape.layers - 1):
        if "resid_post" in table.in_block:
            post = kept["resid_post", layer]
            _require(any(_close(post, s) for s in states), f"resid_post of layer {layer} is none of the hidden states")
            _require(
                _close(post, kept["resid_pre", layer + 1]),
                f"resid_post of layer {layer} is not what the next one reads",
            )
    lines.append("resid_pre and resid_post are the hidden states of transformers")
    if {"attn_out", "mlp_out"} <= table.in_block.keys() and not masked:
        for layer in range(shape.layers):
            total = kept["resid_pre", layer] + kept["attn_out", layer] + kept["mlp_out", layer]
            _require(_close(total, kept["resid_post", layer]), f"layer {layer} does not add attn_out and mlp_out")
        lines.append("a block adds attn_out and mlp_out to the stream")
    if "pattern" in table.in_block:
        _require(_close(kept["pattern", 0].sum(-1), torch.ones(())), "patterns do not add up to 1")
        lines.append("patterns add up to 1")
    if table.wiring is not None:
        check_wiring(model, Architecture(shape, table), random=True)
        lines.append("a pass of zero cuts gives the model's logits, one of all cuts those of the other run")
        lines.append("queries, keys and values of a head act where only they can")
    return lines


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool(((one - other).abs() <= _CLOSE * other.abs().max()).all())


def _require(right: bool, wrong: str) -> None:
    if not right:
        raise UserError(
            f"on random weights {wrong}",
            expected="a table whose sites are where it says",
            remedy="correct the table by hand (docs/howto/own-architecture.md), and tell us of the architecture",
        )


def _where(place: Where) -> str:
    more = [repr(place.module)]
    more += [f"{name}={value!r}" for name, value, usual in (("side", place.side, "output"), ("index", place.index, 0), ("flat", place.flat, False)) if value != usual]  # fmt: skip
    return f"Where({', '.join(more)})"


def _arguments(wiring: Wiring) -> list[str]:
    usual = {"after": None, "parallel": False, "shared": False}
    return [f"{name}={value!r}" for name, value in vars(wiring).items() if name not in usual or value != usual[name]]


def _said(table: SiteTable, site: str, place: Where) -> str:
    prefix = "" if site in table.outside else table.block
    path = ".".join(part for part in (prefix, place.module) if part)
    return f"{'what enters' if place.side == 'input' else 'what leaves'} {path}" + (
        f", part {place.index}" if place.index else ""
    )
