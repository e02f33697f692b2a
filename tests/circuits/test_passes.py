"""What circuits cost, in passes of the model through the probe's prompts, and what is patched for that price."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
import transformers as hf

import dynamics.circuits.search as search
import dynamics.measurements.circuit as circuit
from dynamics.analysis.circuit import CircuitTask, _effects, _sampled
from dynamics.circuits.attribution import attribute
from dynamics.circuits.wired import Wired
from dynamics.measurements import Circuit, EdgeGroups, SourceEffects
from dynamics.measurements.forward import measure
from dynamics.measurements.pairs import discovery_half, pairs_of, prompt_groups
from dynamics.measurements.source_effects import AT_RANDOM, HIGHEST
from dynamics.models.architecture import Architecture, architecture
from dynamics.probes import LAST, Probe, TokenizedProbe
from dynamics.store import Trace

MOST = 100
"""Passes that a circuit with the effects of its sources may take, a backward pass counted as two."""


def probe_of(prompts: int = 8) -> TokenizedProbe:
    rng = np.random.default_rng(0)
    ids = rng.integers(2, 50, (prompts, 6))
    twins = ids.copy()
    twins[:, 2:5] = rng.integers(2, 50, (prompts, 3))
    answers = rng.integers(2, 50, prompts)
    text = tuple(str(i) for i in range(prompts))
    last = np.full(prompts, 5)
    return TokenizedProbe(Probe("p", text), tuple(ids), answers, (answers + 3) % 50, tuple(twins), {LAST: last}, {})


def model_of(layers: int, heads: int) -> tuple[Any, Architecture]:
    torch.manual_seed(0)
    config = hf.LlamaConfig(
        vocab_size=50,
        hidden_size=64,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        head_dim=4,
        intermediate_size=32,
        max_position_embeddings=16,
    )
    model = hf.AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model, architecture(config)


def passes_taken(layers: int, heads: int, monkeypatch: pytest.MonkeyPatch) -> float:
    """Passes through all layers and prompts; three for a pass with gradients."""
    monkeypatch.setattr(circuit, "NOISE", 0.0)  # there is always a circuit to be searched for
    model, described = model_of(layers, heads)
    probe, counted = probe_of(), 0.0

    def count(_module: Any, _args: Any, output: torch.Tensor) -> None:
        nonlocal counted
        counted += len(output) * (3 if torch.is_grad_enabled() else 1)

    for block in model.model.layers:
        block.self_attn.o_proj.register_forward_hook(count)
    found = measure(model, probe, (Circuit(), SourceEffects()), architecture=described)
    assert (found["edge_kept"] == 1).any() and np.isfinite(found["source_effect"]).any()
    return counted / (layers * len(probe.ids))


@pytest.mark.parametrize(("layers", "heads"), [(2, 4), (2, 32), (6, 8), (12, 4)])
def test_a_circuit_costs_at_most_100_passes(layers: int, heads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 15 < passes_taken(layers, heads, monkeypatch) <= MOST


@pytest.mark.slow
def test_circuits_cost_as_much_with_many_heads_and_layers_as_with_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """From where not all sources are patched, nothing grows but the search, and that to 1/500 of the edges only."""
    few, many = (passes_taken(*shape, monkeypatch) for shape in ((6, 16), (12, 32)))
    assert many <= MOST and many < 1.15 * few


def test_a_search_ends_at_a_part_of_the_edges(monkeypatch: pytest.MonkeyPatch) -> None:
    """To one edge in small graphs; in large ones the last halvings would say nothing."""
    monkeypatch.setattr(circuit, "NOISE", 0.0)
    model, described = model_of(2, 4)
    exact = measure(model, probe_of(), (Circuit(),), architecture=described)
    tried: list[int] = []
    sweep = search.sweep
    monkeypatch.setattr(search, "sweep", lambda *args, **more: tried.append(len(args[3])) or sweep(*args, **more))
    found: dict[int, dict[str, np.ndarray]] = {}
    for part in (500, 10):
        tried.clear()
        monkeypatch.setattr(circuit, "EXACT", part)
        found[part] = measure(model, probe_of(), (Circuit(),), architecture=described)
        found[part]["halvings"] = np.array(tried.count(1))
    np.testing.assert_array_equal(found[500]["edge_kept"], exact["edge_kept"])
    np.testing.assert_array_equal(found[10]["circuit_difference"], exact["circuit_difference"])
    assert found[10]["halvings"] < found[500]["halvings"]
    kept = [int((of["edge_kept"] == 1).sum()) for of in (exact, found[10])]
    assert kept[0] <= kept[1] <= 1.12 * kept[0] + 1


def test_both_measurements_share_their_attribution_and_alone_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model, described = model_of(2, 4)
    calls: list[int] = []
    gradients = Wired.gradients
    monkeypatch.setattr(Wired, "gradients", lambda *args, **more: calls.append(1) or gradients(*args, **more))
    together = measure(model, probe_of(), (Circuit(), SourceEffects()), architecture=described)
    assert len(calls) == 1  # five points of all prompts, made as one pass
    for one in (Circuit(), SourceEffects()):
        alone = measure(model, probe_of(), (one,), architecture=described)
        for name, values in alone.items():
            np.testing.assert_array_equal(values, together[name])
    assert len(calls) == 3
    # the scope ends with the measurement: other weights, other numbers
    model.model.layers[0].mlp.down_proj.weight.data *= 2
    later = measure(model, probe_of(), (Circuit(), SourceEffects()), architecture=described)
    assert np.abs(later["edge_score"] - together["edge_score"])[0, 0, 0] > 0


def test_groups_of_prompts_are_attributed_as_if_they_were_alone() -> None:
    model, described = model_of(2, 4)
    probe = probe_of(16)
    found = measure(model, probe, (EdgeGroups(), Circuit()), architecture=described)
    groups = found["edge_score_group"]
    assert groups.shape == (8, *found["edge_score"].shape[1:])
    halves = groups.reshape(2, 4, *groups.shape[1:]).mean(1)  # of two prompts each
    np.testing.assert_allclose(halves, found["edge_score"], atol=1e-5)
    group, wired = prompt_groups(16, 0), Wired(model, described)
    assert (discovery_half(16, 0) == (group < 4)).all()
    for number in (0, 5):
        (batch,) = pairs_of(wired, probe, 10_000, np.flatnonzero(group == number))
        alone = attribute(batch.wired, batch.ids, batch.corrupted, batch.positions, batch.metric).edges.numpy() / 2
        np.testing.assert_allclose(np.nan_to_num(groups[number]), alone, atol=1e-5)


def test_what_is_patched_is_patched_exactly_and_the_rest_is_missing() -> None:
    model, described = model_of(3, 8)
    some, every = SourceEffects(passes=6), SourceEffects(passes=None)
    probe = probe_of()
    sampled, exact = (measure(model, probe, (Circuit(), m), architecture=described) for m in (some, every))
    patched = sampled["source_patched"]
    chosen = patched > 0
    assert (patched == HIGHEST).sum() >= 3 and (patched == AT_RANDOM).sum() >= 3 and not chosen.all()
    np.testing.assert_array_equal(sampled["source_effect"][:, chosen], exact["source_effect"][:, chosen])
    assert np.isnan(sampled["source_effect"][:, ~chosen]).all() and np.isfinite(exact["source_effect"]).all()
    size = np.abs(sampled["source_attribution"].mean(0))
    assert size[patched == HIGHEST].min() >= size[patched != HIGHEST].max()
    # a source's attribution is that of its edges
    np.testing.assert_allclose(
        sampled["source_attribution"].mean(0), np.nansum(sampled["edge_score"], -1).mean(0), rtol=1e-5, atol=1e-6
    )
    declared = {v.name: v for v in some.declare(probe, described.shape)}
    assert set(declared) == {"source_effect", "direct_effect", "source_attribution", "source_patched"}
    assert declared["source_effect"].padded and "of those patched" in declared["source_effect"].long_name
    assert {v.name for v in every.declare(probe, described.shape)} == {"source_effect", "direct_effect"}


class Made:
    """Two checkpoints, the first of them not measured, with sources that are patched, and one that is not."""

    probes = ("p",)

    def probe(self, name: str) -> dict[str, None]:
        return {"source_patched": None}

    def values(self, probe: str, variable: str) -> np.ndarray:
        missing = np.full((5, 4), np.nan)
        effect, estimate = (np.tile(row, (5, 1)) for row in ([1.0, 2.0, 4.0, np.nan], [1.5, 2.5, 3.5, 9.0]))
        return {
            "source_effect": np.stack([missing, effect]),
            "source_attribution": np.stack([missing, estimate]),
            "source_patched": np.array([[-1] * 4, [HIGHEST, AT_RANDOM, AT_RANDOM, 0]]),
        }[variable]


def test_a_finding_says_that_effects_are_a_sample_and_how_good_their_estimate_is() -> None:
    trace = cast(Trace, Made())
    np.testing.assert_array_equal(_effects(trace, "p")[1], [[1.0, 2.0, 4.0, 9.0]] * 5)
    assert np.isnan(_effects(trace, "p")[0]).all()
    (said,) = _sampled(trace, CircuitTask("p", "task"))
    assert said.startswith("task: at a checkpoint 3 of 4 sources were patched, 1 with the largest attribution and 2 at")
    assert "differ by 0.5 logits in the median (effects: 3), rank correlation 1.00" in said
    assert _sampled(cast(Trace, SimpleNamespace(probe=lambda _: {})), CircuitTask("p", "task")) == []
