"""Cutting edges and taking gradients, on every family: exact where it is exact, right to first order elsewhere."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

from checkpoints import UserError
from dynamics.circuits.attribution import attribute, direct_logits
from dynamics.circuits.cuts import _weighted
from dynamics.circuits.graph import Graph, graph_of
from dynamics.circuits.hooks import Resuming
from dynamics.circuits.patching import source_effects
from dynamics.circuits.wired import Wired
from dynamics.models.architecture import Architecture, architecture
from tests.models.families import CONFIGS, OTHERS

WIRED = [name for name in CONFIGS if name not in OTHERS]
IDS = torch.tensor([[3, 9, 4, 7, 12, 30], [8, 8, 2, 41, 6, 17], [20, 3, 5, 5, 33, 2]])
TWINS = torch.tensor([[3, 10, 4, 7, 13, 30], [8, 11, 2, 40, 6, 18], [21, 3, 5, 6, 34, 2]])
LAST = torch.tensor([5, 4, 5])


@cache
def wired(family: str) -> Wired:
    torch.manual_seed(0)
    config: Any = CONFIGS[family]()
    model = hf.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for parameter in model.parameters():  # as initialised, most models hardly do anything
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
        else:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return Wired(model, architecture(config))


def metric(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, 3] - logits[:, 4]


@pytest.mark.parametrize("family", WIRED)
def test_cutting_nothing_is_the_model_and_cutting_everything_is_the_other_run(family: str) -> None:
    w = wired(family)
    base, other = w.logits(IDS, LAST), w.logits(TWINS, LAST)
    assert float((base - other).abs().max()) > 0.5
    written = w.written(TWINS)
    everything = torch.from_numpy(w.graph.edges).float()
    torch.testing.assert_close(w.patched(IDS, LAST, written, 0 * everything), base, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(w.patched(IDS, LAST, written, everything), other, atol=1e-5, rtol=1e-5)
    by_token = everything.expand(1, 6, -1, -1)
    torch.testing.assert_close(w.patched(IDS, LAST, written, by_token), other, atol=1e-5, rtol=1e-5)
    # the model is left as it was
    torch.testing.assert_close(w.logits(IDS, LAST), base)
    assert all(p.requires_grad for p in w.model.parameters())


@pytest.mark.parametrize("family", WIRED)
def test_rows_may_be_cut_differently(family: str) -> None:
    w = wired(family)
    written = w.written(TWINS)
    some = torch.from_numpy(w.graph.edges).float()
    some[:, ::2] = 0
    cut = torch.stack([some, 0 * some, torch.from_numpy(w.graph.edges).float()])[:, None]
    together = w.patched(IDS, LAST, written, cut)
    torch.testing.assert_close(together[:1], w.patched(IDS, LAST, written, some)[:1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together[1], w.logits(IDS, LAST)[1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together[2], w.logits(TWINS, LAST)[2], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", WIRED)
def test_a_cut_is_the_same_from_either_side(family: str) -> None:
    """With a run at hand inputs are made from what is shorter, without it always from this run."""
    w = wired(family)
    run, written = w.run(TWINS), w.written(TWINS)
    rng = np.random.default_rng(0)
    for share in (0.02, 0.5, 0.98):
        kept = w.graph.edges & (rng.random(w.graph.edges.shape) < share)
        kept[:, : len(w.graph.readers) // 2] &= share > 0.1  # layers in which nothing is kept are not computed
        kept[1, w.graph.logits_reader.start] = False  # few edges: in a small graph none may be drawn
        cut = torch.from_numpy(w.graph.edges & ~kept)
        slow, fast = w.patched(IDS, LAST, written, cut), w.patched(IDS, LAST, run, cut)
        assert float((slow - w.logits(IDS, LAST)).abs().max()) > 1e-3
        torch.testing.assert_close(fast, slow, atol=1e-4, rtol=1e-4)
        at = torch.from_numpy(w.graph.edges & (rng.random((1, 6, *w.graph.edges.shape)) >= share)).float()
        by_token = [w.patched(IDS, LAST, other, at) for other in (written, run)]
        torch.testing.assert_close(by_token[1], by_token[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", WIRED)
def test_a_source_patched_everywhere_is_all_its_edges_cut(family: str) -> None:
    w = wired(family)
    where = torch.tensor([[0.0, 1, 0, 0, 1, 0]]).expand(3, -1)
    for tokens in (None, where):
        found = source_effects(w, IDS, TWINS, LAST, metric, tokens=tokens)
        base, written = metric(w.logits(IDS, LAST)), w.written(TWINS)
        for source in range(len(w.graph.sources)):
            cut = torch.zeros(w.graph.edges.shape)
            cut[source] = 1
            if tokens is not None:
                cut = cut * tokens[:, :, None, None]
            expected = base - metric(w.patched(IDS, LAST, written, cut))
            torch.testing.assert_close(found[:, source], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", WIRED)
def test_behind_what_runs_have_in_common_all_is_as_it_is_of_whole_prompts(family: str) -> None:
    w, twins = wired(family), torch.cat([IDS[:, :2], TWINS[:, 2:]], dim=1)
    cut = torch.from_numpy(w.graph.edges & (np.random.default_rng(0).random(w.graph.edges.shape) < 0.5))
    behind, ids, last = w.behind(IDS[:, :2]), IDS[:, 2:], LAST - 2
    whole, rest = (w, IDS, twins, LAST, metric), (behind, ids, twins[:, 2:], last, metric)
    long, short = attribute(*whole, steps=1), attribute(*rest, steps=1)
    torch.testing.assert_close(short.edges, long.edges, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(short.sources, long.sources, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(source_effects(*rest), source_effects(*whole), atol=1e-3, rtol=1e-4)
    found = behind.patched(ids, last, behind.run(twins[:, 2:]), cut)
    torch.testing.assert_close(found, w.patched(IDS, LAST, w.run(twins), cut), atol=1e-3, rtol=1e-4)
    rows = torch.tensor([2, 0, 2])  # several runs behind one prefix
    entering = behind.entering(behind.run(ids), 1)[rows]
    found = behind.going_on(ids[rows], Resuming(behind, 1, entering), last[rows], rows)
    torch.testing.assert_close(found, w.logits(IDS, LAST)[rows], atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("family", WIRED)
def test_what_is_written_adds_up_to_the_stream(family: str) -> None:
    w = wired(family)
    seen: list[torch.Tensor] = []
    final = w.model.get_submodule(w.architecture.table.outside["ln_final"].module)
    handle = final.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    with torch.no_grad():
        w.model(input_ids=IDS)
    handle.remove()
    total = w.written(IDS).sum(0)
    for layer in range(w.graph.layers):
        block = w.model.get_submodule(w.architecture.table.block.format(layer))
        bias = getattr(block.get_submodule(w.wiring.out), "bias", None)
        total = total if bias is None else total + bias.detach()
    torch.testing.assert_close(total, seen[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", WIRED)
def test_gradients_are_those_of_the_patched_model(family: str) -> None:
    """Against finite differences of real patching, for all edges at once and for a few alone."""
    w = wired(family)
    graph = w.graph
    clean, twin = w.written(IDS), w.written(TWINS)
    gradient = w.gradients(IDS, LAST, metric, clean[0])
    small = 2e-2

    def effect(cut: torch.Tensor) -> torch.Tensor:
        up, down = (metric(w.patched(IDS, LAST, clean + s * (twin - clean), cut)) for s in (small, -small))
        return (up - down) / (2 * small)

    possible = torch.from_numpy(graph.edges)
    linear = torch.einsum("srtd,krtd->skr", twin - clean, gradient.readers) * possible[:, :, None]
    scale = float(linear.abs().max())
    rng = np.random.default_rng(0)
    alone = [tuple(edge) for edge in rng.permutation(np.argwhere(graph.edges))[:12]]
    for source, reader in [(0, 0), *alone]:
        cut = torch.zeros(graph.edges.shape)
        cut[source, reader] = 1
        torch.testing.assert_close(effect(cut), linear[source, reader], atol=0.02 * scale, rtol=0.05)


@pytest.mark.parametrize("family", WIRED)
def test_gradients_of_several_passes_add_up(family: str) -> None:
    """Kept at the projections, with the norm's part apart, they are what each pass gives by itself."""
    w = wired(family)
    clean, twin = w.written(IDS), w.written(TWINS)
    points = [twin[0], 0.5 * (clean[0] + twin[0]), clean[0]]
    each = torch.stack([w.gradients(IDS, LAST, metric, point).readers for point in points])
    together = w.no_gradients(IDS.shape)
    for point in points:
        w.gradients(IDS, LAST, metric, point, onto=together)
    together.scaled(1 / 3)
    mean = each.mean(0)
    assert float((each[0] - mean).abs().max()) > 1e-3
    torch.testing.assert_close(together.dense(), mean, atol=1e-4, rtol=1e-3)
    for readers in (w.graph.attention_readers(1), w.graph.mlp_reader(1), w.graph.logits_reader):
        torch.testing.assert_close(together.total(readers), mean[readers].sum(0), atol=1e-4, rtol=1e-3)
        products = torch.einsum("srtd,krtd->tsk", clean - twin, mean[readers])
        found = together.times(clean - twin, readers, by_token=True)
        torch.testing.assert_close(found, products, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(together.times(clean - twin, readers), products.sum(0), atol=1e-3, rtol=1e-3)
        apart = together.times(clean - twin, readers, rows=(slice(0, 1), slice(1, None)))
        torch.testing.assert_close(apart.sum(0), products.sum(0), atol=1e-3, rtol=1e-3)
        first = torch.einsum("srtd,krtd->sk", (clean - twin)[:, :1], mean[readers][:, :1])
        torch.testing.assert_close(apart[0], first, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("family", WIRED)
def test_keys_and_values_taken_apart_by_position_add_up(family: str) -> None:
    w = wired(family)
    difference = w.written(IDS) - w.written(TWINS)
    found = w.gradients(IDS, LAST, metric, w.written(IDS)[0], reach=difference)
    for layer, apart in enumerate(found.reached):
        readers = w.graph.attention_readers(layer)
        seen = w.graph.seen_by(readers)
        whole = torch.einsum("srtd,krtd->tsk", difference[:seen], found.readers[readers][w.graph.heads :])
        shared = apart.sum(0).unflatten(-1, (2, w.graph.kv_heads, -1)).sum(-1).flatten(-2)
        torch.testing.assert_close(shared, whole, atol=1e-4, rtol=1e-3)
        later = apart[2][3:]  # a head at token 2 reads nothing that comes later
        assert float(later.abs().max()) == 0.0


@pytest.mark.parametrize("family", [f for f in WIRED if f not in ("gpt2", "gpt2 upcast", "bloom")])
def test_direct_attribution_adds_up_to_the_logit_difference(family: str) -> None:
    """Families without biases: nothing is left over; the frozen norm is linear."""
    w = wired(family)
    answer, foil = torch.tensor([1, 2, 3]), torch.tensor([4, 5, 6])
    shares, rest = direct_logits(w, IDS, LAST, answer, foil)
    logits = w.logits(IDS, LAST)
    rows = torch.arange(3)
    difference = logits[rows, answer] - logits[rows, foil]
    torch.testing.assert_close(shares.sum(1) + rest, difference, atol=1e-4, rtol=1e-4)
    if not any(name.endswith("bias") for name, _ in w.model.named_parameters()):
        capped = torch.zeros(3)
        if cap := getattr(w.model.config, "final_logit_softcapping", None):  # parts write what the cap then bends
            before = cap * torch.atanh(logits / cap)
            capped = difference - (before[rows, answer] - before[rows, foil])
        torch.testing.assert_close(rest, capped, atol=1e-3, rtol=0)


def test_a_model_that_fills_in_masks_is_refused() -> None:
    config = CONFIGS["bert"]()
    with pytest.raises(UserError, match="not known"):
        graph_of(architecture(config).shape)


def test_the_graph_has_the_edges_of_the_architecture() -> None:
    parallel, sequential = Graph(2, 2, 2, True), Graph(2, 2, 2, False)
    assert [s.name for s in parallel.sources] == ["embed", "L0H0", "L0H1", "L0M", "L1H0", "L1H1", "L1M"]
    names = [r.name for r in parallel.readers]
    assert names[:7] == ["L0H0.q", "L0H1.q", "L0H0.k", "L0H1.k", "L0H0.v", "L0H1.v", "L0M"] and names[-1] == "logits"
    # 7 readers of layer 0 see the embedding, 7 of layer 1 four sources, the logits all seven
    assert parallel.edges.sum() == 7 * 1 + 7 * 4 + 7
    # where the MLP comes after attention, it sees its layer's heads too
    assert sequential.edges.sum() == parallel.edges.sum() + 2 * 2
    shared = Graph(1, 4, 2, False)
    assert [r.name for r in shared.readers if r.role == "k"] == ["L0KV0.k", "L0KV1.k"]
    index = [r.name for r in shared.readers].index("L0KV1.v")
    assert [shared.sources[s].name for s in shared.heads_of(index)] == ["L0H2", "L0H3"]


def test_edges_on_no_path_are_dropped() -> None:
    graph = Graph(2, 1, 1, True)
    sources, readers = [s.name for s in graph.sources], [r.name for r in graph.readers]

    def kept(*edges: tuple[str, str]) -> np.ndarray:
        result = np.zeros(graph.edges.shape, dtype=bool)
        for source, reader in edges:
            result[sources.index(source), readers.index(reader)] = True
        return result

    path = (("embed", "L0H0.v"), ("L0H0", "L1H0.k"), ("L1H0", "logits"))
    np.testing.assert_array_equal(graph.connected(kept(*path)), kept(*path))
    # an edge that nothing feeds, and one that leads nowhere
    np.testing.assert_array_equal(graph.connected(kept(*path, ("L0M", "L1M"), ("embed", "L1M"))), kept(*path))
    np.testing.assert_array_equal(graph.connected(kept(*path[:2])), kept())


def test_a_wiring_that_does_not_fit_is_refused() -> None:
    w = wired("gpt2")
    other = wired("llama").architecture
    with pytest.raises(UserError, match="not wired as its table says"):
        Wired(w.model, Architecture(other.shape, other.table))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5])
def test_few_terms_add_up_as_all_of_them_multiplied(share: float) -> None:
    torch.manual_seed(0)
    terms, weights = torch.randn(40, 6), torch.randn(30, 40) * (torch.rand(30, 40) < share)
    torch.testing.assert_close(_weighted(terms, weights), weights @ terms)
