"""Circuits whose truth is known: models with weights set by hand are recovered exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dynamics.circuits.attribution import attribute, direct_logits, logit_difference
from dynamics.circuits.patching import source_effects
from dynamics.circuits.wired import Wired
from dynamics.measurements import Circuit, SourceEffects
from dynamics.measurements.pairs import discovery_half
from dynamics.probes import LAST, Probe, TokenizedProbe

from .exact import edge_effects
from .handmade import LENGTH, WORDS, Toy, described, induction_toy, lookup_toy


def probe_of(ids: np.ndarray, twins: np.ndarray, answers: np.ndarray, foils: np.ndarray) -> TokenizedProbe:
    text = tuple(" ".join(map(str, row)) for row in ids)
    last = np.full(len(ids), ids.shape[1] - 1)
    return TokenizedProbe(Probe("toy", text), tuple(ids), answers, foils, tuple(twins), {LAST: last}, {})


def induction_probe(prompts: int = 24) -> TokenizedProbe:
    """Six different words, the third again; in the twin the third was another word."""
    rng = np.random.default_rng(0)
    ids, twins, answers, foils = [], [], [], []
    for _ in range(prompts):
        words = rng.permutation(WORDS)
        row = [*words[:6], words[2]]
        ids.append(row)
        twins.append([*words[:2], words[7], *words[3:6], words[2]])
        answers.append(words[3])
        foils.append(words[rng.choice([0, 1, 4, 5])])
    return probe_of(np.array(ids), np.array(twins), np.array(answers), np.array(foils))


def lookup_probe() -> TokenizedProbe:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, WORDS, (20, 4))
    twins = ids.copy()
    twins[:, -1] = (ids[:, -1] + 3) % WORDS
    return probe_of(ids, twins, (ids[:, -1] + 1) % WORDS, (twins[:, -1] + 1) % WORDS)


def edges_of(result: dict[str, np.ndarray], toy: Toy) -> set[tuple[str, str]]:
    graph = Wired(toy, described(toy)).graph
    return {(graph.sources[s].name, graph.readers[r].name) for s, r in np.argwhere(result["edge_kept"] == 1)}


def test_the_toys_do_what_they_are_for() -> None:
    probe = induction_probe()
    logits = induction_toy()(torch.from_numpy(np.stack(probe.ids)))[:, -1]
    assert probe.answer_ids is not None and logits.argmax(-1).tolist() == probe.answer_ids.tolist()
    probe = lookup_probe()
    assert probe.answer_ids is not None
    logits = lookup_toy()(torch.from_numpy(np.stack(probe.ids)))[:, -1]
    assert logits.argmax(-1).tolist() == probe.answer_ids.tolist()


def test_the_induction_pair_is_recovered_exactly() -> None:
    toy, probe = induction_toy(), induction_probe()
    measured = Circuit(threshold=0.99, points=30).run(toy, described(toy), probe, 8192)
    assert edges_of(measured, toy) == {("embed", "L0H1.v"), ("L0H1", "L1H0.k"), ("L1H0", "logits")}
    half = discovery_half(len(probe.ids), 0)
    clean, found = measured["clean_difference"][~half], measured["found_difference"][~half]
    assert clean.mean() > 4
    np.testing.assert_allclose(found, clean, atol=1e-4)  # faithfulness 1
    np.testing.assert_allclose(
        measured["found_complement"][~half], measured["corrupted_difference"][~half], atol=1e-4
    )  # and complete: without it, nothing
    assert np.isnan(measured["found_difference"][half]).all()


def test_the_lookup_is_recovered_exactly() -> None:
    toy, probe = lookup_toy(), lookup_probe()
    measured = Circuit(points=30).run(toy, described(toy), probe, 8192)
    assert edges_of(measured, toy) == {("embed", "L0M"), ("L0M", "logits")}
    half = discovery_half(len(probe.ids), 0)
    np.testing.assert_allclose(measured["found_difference"][~half], 5.0, atol=1e-5)
    probe.positions["first"] = np.zeros(20, dtype=int)
    effects = SourceEffects((LAST, "first")).run(toy, described(toy), probe, 8192)
    # embed and MLP each carry all of it (5 for the answer, 5 against the foil); heads nothing
    np.testing.assert_allclose(effects["source_effect"], [[10.0, 0.0, 0.0, 10.0]] * 20, atol=1e-5)
    np.testing.assert_allclose(effects["source_effect_at"][:, 0], effects["source_effect"], atol=1e-5)
    np.testing.assert_allclose(effects["source_effect_at"][:, 1], 0.0, atol=1e-5)
    np.testing.assert_allclose(effects["direct_effect"], [[0.0, 0.0, 0.0, 5.0]] * 20, atol=1e-5)


def test_a_model_that_does_not_know_has_no_circuit() -> None:
    toy, probe = Toy(2), induction_probe()
    measured = Circuit().run(toy, described(toy), probe, 8192)
    assert set(np.unique(measured["edge_kept"])) == {-1}
    assert np.isnan(measured["circuit_difference"]).all() and np.isnan(measured["found_difference"]).all()


def test_a_broken_model_gives_nan_and_no_circuit() -> None:
    toy, probe = induction_toy(), induction_probe()
    toy.unembed.weight.data[0, 0] = float("nan")
    measured = Circuit().run(toy, described(toy), probe, 8192)
    assert (measured["edge_kept"] == -1).all() and np.isnan(measured["clean_difference"]).any()


def test_attribution_is_exact_where_the_model_is_linear() -> None:
    """The lookup's answer side is linear in what edges carry once the neurons' signs are fixed: ReLU at 0 and 1."""
    toy, probe = lookup_toy(), lookup_probe()
    wired = Wired(toy, described(toy))
    assert probe.corrupted_ids is not None and probe.answer_ids is not None and probe.foil_ids is not None
    ids, twins = torch.from_numpy(np.stack(probe.ids)), torch.from_numpy(np.stack(probe.corrupted_ids))
    metric = logit_difference(torch.from_numpy(probe.answer_ids), torch.from_numpy(probe.foil_ids))
    last = torch.full((len(ids),), 3)
    edges = [(int(s), int(r)) for s, r in np.argwhere(wired.graph.edges)]
    exact = edge_effects(wired, ids, twins, last, metric, edges).sum(0)
    scores = attribute(wired, ids, twins, last, metric, steps=10).edges
    index = {(s.name, r.name): (i, j) for i, s in enumerate(wired.graph.sources) for j, r in enumerate(wired.graph.readers)}  # fmt: skip
    into, out = index["embed", "L0M"], index["L0M", "logits"]
    assert float(exact[edges.index(into)]) == float(exact[edges.index(out)]) == 200.0
    assert float(scores[out]) == pytest.approx(200.0)
    assert sum(abs(float(scores[e])) for e in edges if e not in (into, out)) == 0.0


def test_denoising_restores_what_noising_takes() -> None:
    toy, probe = lookup_toy(), lookup_probe()
    wired = Wired(toy, described(toy))
    assert probe.corrupted_ids is not None and probe.answer_ids is not None and probe.foil_ids is not None
    ids, twins = torch.from_numpy(np.stack(probe.ids)), torch.from_numpy(np.stack(probe.corrupted_ids))
    metric = logit_difference(torch.from_numpy(probe.answer_ids), torch.from_numpy(probe.foil_ids))
    last = torch.full((len(ids),), 3)
    gained = -source_effects(wired, twins, ids, last, metric)
    np.testing.assert_allclose(gained[:, -1], 10.0, atol=1e-5)
    # at the last token alone it is the same, elsewhere nothing
    where = torch.zeros(len(ids), 4)
    where[:, 3] = 1
    np.testing.assert_allclose(source_effects(wired, ids, twins, last, metric, tokens=where)[:, -1], 10.0, atol=1e-5)
    np.testing.assert_allclose(source_effects(wired, ids, twins, last, metric, tokens=1 - where), 0.0, atol=1e-5)


def test_direct_attribution_adds_up() -> None:
    torch.manual_seed(0)
    toy = induction_toy()
    for parameter in toy.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    wired = Wired(toy, described(toy))
    ids = torch.randint(0, WORDS, (5, LENGTH))
    last = torch.tensor([11, 3, 7, 11, 0])
    answer, foil = torch.tensor([0, 1, 2, 3, 4]), torch.tensor([5, 6, 7, 0, 1])
    shares, rest = direct_logits(wired, ids, last, answer, foil)
    logits = toy(ids)[torch.arange(5), last]
    difference = logits[torch.arange(5), answer] - logits[torch.arange(5), foil]
    np.testing.assert_allclose((shares.sum(1) + rest).detach(), difference.detach(), atol=1e-4)
    np.testing.assert_allclose(rest.detach(), 0, atol=1e-4)  # no biases write to the stream here
