"""Parts exchanged between prompts: it works at the known part and position, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers as hf

from checkpoints.errors import UserError
from dynamics.circuits.wired import Wired
from dynamics.measurements import Interchange
from dynamics.models.architecture import architecture
from dynamics.probes import LAST, Probe, TokenizedProbe
from tests.models.families import CONFIGS, VOCAB

from .handmade import WORDS, described, induction_toy, lookup_toy


def probe_of(
    ids: list[list[int]], answers: list[int], labels: dict[str, list[int]], places: dict[str, list[int]] | None = None
) -> TokenizedProbe:
    text = tuple(" ".join(map(str, row)) for row in ids)
    last = np.array([len(row) - 1 for row in ids])
    marks = {name: np.array(at) for name, at in (places or {}).items()}
    probe = Probe("toy", text, answer=tuple(map(str, answers)), labels={k: tuple(v) for k, v in labels.items()})
    return TokenizedProbe(
        probe, tuple(np.array(row) for row in ids), np.array(answers), None, None, {LAST: last, **marks}, {}
    )


def lookup_probe() -> TokenizedProbe:
    """Prompts of three lengths whose answer is the word after the last; each takes from the next, the last from none."""
    rng = np.random.default_rng(0)
    ids = [rng.integers(0, WORDS, 2 + i % 3).tolist() for i in range(12)]
    for i, row in enumerate(ids):
        row[-1] = i % WORDS
    answers = [(row[-1] + 1) % WORDS for row in ids]
    donor = [*range(1, 12), -1]
    return probe_of(ids, answers, {"next_donor": donor, "next_target": donor})


def test_the_part_that_says_the_answer_brings_the_donors_answer_and_others_nothing() -> None:
    toy, probe = lookup_toy(), lookup_probe()
    found = Interchange(("next",)).run(toy, described(toy), probe, 8192)
    moved = found["interchange_source"][0, 0]  # (prompt, source): two heads and the MLP
    np.testing.assert_allclose(moved[:-1], [[0, 0, 10]] * 11)  # 5 for the answer becomes 5 for the target
    np.testing.assert_allclose(found["interchange_base"][0, :-1], -5)
    said = found["interchange_source_said"][0, 0]
    assert probe.answer_ids is not None
    np.testing.assert_array_equal(said[:-1, 2], probe.answer_ids[1:])
    np.testing.assert_array_equal(said[:-1, 0], probe.answer_ids[:-1])
    np.testing.assert_allclose(found["interchange_layer"][0, 0, :-1], 10)
    assert np.isnan(moved[-1]).all() and (said[-1] == -1).all()  # no donor


def test_what_is_read_elsewhere_moves_the_answer_only_where_it_is_read() -> None:
    """The induction head reads what L0H1 wrote at the successor: exchanged there it unbinds the answer, elsewhere not."""
    toy = induction_toy()
    one, other = [0, 1, 2, 3, 4, 5, 2], [1, 0, 5, 3, 4, 2, 5]  # the word after the third: before it 2, or 5
    probe = probe_of(
        [one, other], [3, 3], {"it_donor": [1, 0], "it_target": [1, 0]}, {"successor": [3, 3], "before": [1, 1]}
    )
    probe = replace(probe, answer_ids=np.array([3, 3]))
    found = Interchange(("it",), ("successor", "before", LAST)).run(toy, described(toy), probe, 8192)
    said = found["interchange_source_said"][0]  # (exchanged, prompt, source)
    assert (said[0, :, 1] != 3).all()  # L0H1 at the successor: says now that another word came before
    assert said[2, 0, 1] == 2  # at the last token, it says that 2 came before it: the head then finds 2 itself
    said[0, :, 1] = said[2, 0, 1] = 3
    assert (said == 3).all()  # nothing else is lost anywhere


@pytest.mark.parametrize("family", ["gpt_neox", "gpt2", "llama"])
def test_it_is_what_cutting_all_edges_of_the_source_at_that_token_gives(family: str) -> None:
    """Held against the wired model, which gets there by other means, on transformers with random weights."""
    torch.manual_seed(0)
    model = hf.AutoModelForCausalLM.from_config(CONFIGS[family](), attn_implementation="eager").eval()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    rng = np.random.default_rng(0)
    ids = rng.integers(2, VOCAB, (6, 5))
    donor = [1, 2, 3, 4, 5, 0]
    probe = probe_of(ids.tolist(), rng.permutation(VOCAB)[:6].tolist(), {"a_donor": donor, "a_target": donor}, {"x": [1, 2, 3, 1, 2, 3]})  # fmt: skip
    known = architecture(model.config)
    found = Interchange(("a",), ("x", LAST)).run(model, known, probe, 64)
    wired = Wired(model, known)
    tokens = torch.from_numpy(ids)
    written = wired.written(tokens)
    last = torch.full((6,), 4)
    assert probe.answer_ids is not None
    for index, name in enumerate(("x", LAST)):
        at = torch.from_numpy(probe.positions[name])
        given = written.clone()
        given[:, torch.arange(6), at] = written[:, torch.tensor(donor), at[donor]]
        where = torch.nn.functional.one_hot(at, 5).to(written.dtype)
        for source in range(1, len(wired.graph.sources)):
            cut = torch.zeros(len(wired.graph.sources), len(wired.graph.readers))
            cut[source] = 1
            logits = wired.patched(tokens, last, given, where[:, :, None, None] * cut).detach().numpy()
            expected = logits[range(6), probe.answer_ids[donor]] - logits[range(6), probe.answer_ids]
            got = found["interchange_source"][0, index, :, source - 1] + found["interchange_base"][0]
            np.testing.assert_allclose(got, expected, atol=2e-4)
    assert np.abs(found["interchange_source"][0, 0]).max() > 0.05
    np.testing.assert_allclose(
        found["interchange_layer"][0, 0, :, -1], 0, atol=1e-4
    )  # after the last layer nobody reads
    clean = model(tokens).logits[:, -1].detach().numpy()
    after = found["interchange_layer"][0, 1, :, -1] + found["interchange_base"][0]
    own = clean[donor]  # the donor's logits, all of them
    np.testing.assert_allclose(
        after, own[range(6), probe.answer_ids[donor]] - own[range(6), probe.answer_ids], atol=2e-4
    )


def test_the_model_is_left_as_it_was_and_batches_do_not_matter() -> None:
    toy, probe = lookup_toy(), lookup_probe()
    one = Interchange(("next",)).run(toy, described(toy), probe, 8192)
    other = Interchange(("next",)).run(toy, described(toy), probe, 4)
    for name, values in one.items():
        np.testing.assert_allclose(values, other[name], atol=1e-5)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in toy.modules())


def test_a_broken_model_says_nothing() -> None:
    toy, probe = lookup_toy(), lookup_probe()
    toy.unembed.weight.data[:] = float("nan")
    found = Interchange(("next",)).run(toy, described(toy), probe, 8192)
    assert (found["interchange_layer_said"] == -1).all() and np.isnan(found["interchange_layer"]).all()


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (Interchange(("nobody",)), "does not say which prompt is the donor 'nobody'"),
        (Interchange(("next",), ("word",)), "has no position 'word'"),
    ],
)
def test_what_the_probe_does_not_say_is_refused(asked: Interchange, says: str) -> None:
    shape = described(lookup_toy()).shape
    with pytest.raises(UserError, match=says):
        asked.declare(lookup_probe(), shape)


def test_a_probe_without_answers_is_refused() -> None:
    with pytest.raises(UserError, match="has no answers"):
        Interchange(("next",)).declare(replace(lookup_probe(), answer_ids=None), described(lookup_toy()).shape)


def test_what_is_declared_is_what_is_measured() -> None:
    toy, probe = lookup_toy(), lookup_probe()
    asked = Interchange(("next",))
    declared = asked.declare(probe, described(toy).shape)
    found = asked.run(toy, described(toy), probe, 8192)
    assert {v.name: v.shape for v in declared} == {k: v.shape for k, v in found.items()}
