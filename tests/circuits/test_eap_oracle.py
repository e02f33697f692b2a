"""Edge scores, exact patching and direct logit attribution are those of an implementation that shares no code with ours.

The oracle is TransformerLens: its own forward passes, with an input of its own for every query, key, value and MLP
(``use_split_qkv_input``, ``use_hook_mlp_in``), and each head's result apart (``use_attn_result``). It is not among the
development dependencies: ``pip install transformer_lens`` to run this.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from checkpoints.organism import build_tokenizer
from dynamics.circuits.attribution import attribute, direct_logits, logit_difference
from dynamics.circuits.graph import Graph, Reader, Source
from dynamics.circuits.wired import Wired
from dynamics.models.architecture import architecture
from tests.circuits.exact import edge_effects
from tests.models.families import CONFIGS, model_of

bridge = pytest.importorskip("transformer_lens.model_bridge", reason="TransformerLens is not installed")

pytestmark = pytest.mark.filterwarnings("default")

FAMILIES = ("gpt_neox", "gpt2", "llama")
IDS = torch.tensor([[3, 9, 4, 7, 12, 30], [8, 8, 2, 41, 6, 17], [20, 3, 5, 5, 33, 2]])
TWINS = torch.tensor([[3, 10, 4, 7, 13, 30], [8, 11, 2, 40, 6, 18], [21, 3, 5, 6, 34, 2]])
LAST = torch.full((3,), IDS.shape[1] - 1)
ANSWER, FOIL = torch.tensor([1, 2, 3]), torch.tensor([4, 5, 6])
ROWS = torch.arange(3)

Hook = Callable[[torch.Tensor, Any], "torch.Tensor | None"]


def metric(logits: torch.Tensor) -> torch.Tensor:
    return logits[ROWS, ANSWER] - logits[ROWS, FOIL]


@cache
def pair(kind: str) -> tuple[Wired, Any]:
    """The same random weights in both; TransformerLens neither folds nor centres anything unless it is asked to."""
    assert kind in CONFIGS
    model = model_of(kind)
    with TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        build_tokenizer().save_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        copies = [
            type(model).from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
            for _ in range(2)
        ]
        lens = bridge.TransformerBridge.boot_transformers(
            str(Path(folder)), hf_model=copies[1], tokenizer=tokenizer, dtype=torch.float32
        )
    lens.set_use_split_qkv_input(True)
    lens.set_use_hook_mlp_in(True)
    lens.set_use_attn_result(True)
    return Wired(copies[0], architecture(model.config)), lens


def place_written(source: Source) -> tuple[str, int | None]:
    """Name of the hook, and index of the head."""
    if source.layer is None:
        return "blocks.0.hook_resid_pre", None
    if source.head is None:
        return f"blocks.{source.layer}.hook_mlp_out", None
    return f"blocks.{source.layer}.attn.hook_result", source.head


def place_read(reader: Reader, graph: Graph) -> tuple[str, int | None]:
    """The same of a reader."""
    if reader.layer is None:
        return f"blocks.{graph.layers - 1}.hook_resid_post", None
    if reader.role == "mlp":
        return f"blocks.{reader.layer}.hook_mlp_in", None
    return f"blocks.{reader.layer}.attn.hook_{reader.role}_input", reader.head


def of_head(value: torch.Tensor, head: int | None) -> torch.Tensor:
    return value if head is None else value[:, :, head]


def written_by_theirs(lens: Any, graph: Graph, ids: torch.Tensor) -> torch.Tensor:
    """(source, row, token, d_model) what is written, from their cache."""
    with torch.no_grad():
        _, cached = lens.run_with_cache(ids)
    return torch.stack([of_head(cached[name], head) for name, head in map(place_written, graph.sources)])


def logits_with(lens: Any, ids: torch.Tensor, hooks: dict[str, Hook]) -> torch.Tensor:
    found: torch.Tensor = lens.run_with_hooks(ids, fwd_hooks=list(hooks.items()), return_type="logits")
    return found[ROWS, LAST]


def scores_of_theirs(lens: Any, graph: Graph, steps: int) -> torch.Tensor:
    """(source, reader) EAP-IG summed over rows, as Hanna et al. define it, by their hooks and plain autograd."""
    clean, twin = (written_by_theirs(lens, graph, ids) for ids in (IDS, TWINS))
    scores = torch.zeros(len(graph.sources), len(graph.readers))
    places = [place_read(reader, graph) for reader in graph.readers]
    for k in range(1, steps + 1):
        leaves: dict[str, torch.Tensor] = {}

        def own(leaves: dict[str, torch.Tensor], name: str, value: torch.Tensor, hook: Any) -> torch.Tensor:
            leaves[name] = torch.zeros_like(value).requires_grad_()
            return value + leaves[name]

        def start(value: torch.Tensor, hook: Any, k: int = k) -> torch.Tensor:
            return twin[0] + (k / steps) * (clean[0] - twin[0])

        hooks: dict[str, Hook] = {"blocks.0.hook_resid_pre": start, **{n: partial(own, leaves, n) for n, _ in places}}
        with torch.enable_grad():
            total = metric(logits_with(lens, IDS, hooks)).sum()
            names = list(leaves)
            found = dict(zip(names, torch.autograd.grad(total, [leaves[n] for n in names]), strict=True))
        for source in range(len(graph.sources)):
            for reader, (name, head) in enumerate(places):
                if graph.edges[source, reader]:
                    gradient = of_head(found[name], head)
                    scores[source, reader] += ((clean[source] - twin[source]) * gradient).sum().item() / steps
    return scores


def compare(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Equal to 1e-4 of each value; where terms cancel, of the typical one."""
    typical = float(theirs[theirs != 0].abs().median())
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * typical)


@pytest.mark.parametrize("kind", FAMILIES)
def test_both_are_the_same_model(kind: str) -> None:
    wired, lens = pair(kind)
    torch.testing.assert_close(wired.logits(IDS, LAST), logits_with(lens, IDS, {}).detach(), atol=1e-5, rtol=1e-5)
    compare(wired.written(IDS), written_by_theirs(lens, wired.graph, IDS))


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("kind", FAMILIES)
def test_every_edge_has_the_oracles_score(kind: str, steps: int) -> None:
    wired, lens = pair(kind)
    ours = attribute(wired, IDS, TWINS, LAST, logit_difference(ANSWER, FOIL), steps=steps).edges
    theirs = scores_of_theirs(lens, wired.graph, steps)
    assert int((theirs != 0).sum()) > 0.9 * wired.graph.edges.sum()  # there is something to compare
    compare(ours, theirs)


@pytest.mark.parametrize("kind", FAMILIES)
def test_exact_patching_is_the_oracles(kind: str) -> None:
    wired, lens = pair(kind)
    graph = wired.graph
    twin = written_by_theirs(lens, graph, TWINS)
    chosen = np.random.default_rng(0).permutation(np.argwhere(graph.edges))[:16]
    edges = [(0, len(graph.readers) - 1), *((int(s), int(r)) for s, r in chosen)]
    ours = edge_effects(wired, IDS, TWINS, LAST, logit_difference(ANSWER, FOIL), edges)
    with torch.no_grad():
        base = metric(logits_with(lens, IDS, {}))
    for index, (source, reader) in enumerate(edges):
        written, head = place_written(graph.sources[source])
        read, at = place_read(graph.readers[reader], graph)
        now: list[torch.Tensor] = []

        def look(value: torch.Tensor, hook: Any, head: int | None = head, now: list[torch.Tensor] = now) -> None:
            now.append(of_head(value, head).clone())

        def change(
            value: torch.Tensor,
            hook: Any,
            at: int | None = at,
            now: list[torch.Tensor] = now,
            other: torch.Tensor = twin[source],
        ) -> torch.Tensor:
            value = value.clone()
            of_head(value, at).add_(other - now[0])
            return value

        with torch.no_grad():
            theirs = base - metric(logits_with(lens, IDS, {written: look, read: change}))
        torch.testing.assert_close(ours[:, index], theirs, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", FAMILIES)
def test_direct_attribution_is_the_oracles(kind: str) -> None:
    wired, lens = pair(kind)
    shares, rest = direct_logits(wired, IDS, LAST, ANSWER, FOIL)
    graph = wired.graph
    with torch.no_grad():
        logits, cached = lens.run_with_cache(IDS)
        stack = torch.stack([of_head(cached[name], head) for name, head in map(place_written, graph.sources)])
        normed = cached.apply_ln_to_stack(stack[:, ROWS, LAST], layer=-1, pos_slice=-1)
        # theirs leaves the gain to who folds it into the unembedding, which is not done here
        directions = lens.tokens_to_residual_directions(ANSWER) - lens.tokens_to_residual_directions(FOIL)
        theirs = torch.einsum("srd,rd->rs", normed * wired_gain(wired), directions.reshape(3, -1))
    compare(shares, theirs)
    difference = metric(logits[ROWS, LAST])
    torch.testing.assert_close(shares.sum(1) + rest, difference, atol=1e-4, rtol=1e-4)


def wired_gain(wired: Wired) -> torch.Tensor:
    final = wired.model.get_submodule(wired.architecture.table.outside["ln_final"].module)
    return final.get_parameter("weight").detach()
