"""What is measured depends neither on batches, nor on order, nor on what else is measured."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamics.measurements import Activations, Answers, Measurement, Selectivity, TokenLoss, passes
from dynamics.models.architecture import architecture
from dynamics.probes import LAST, Probe, TokenizedProbe
from tests.measurements.measured import VOCAB, model, output, probe_of, repeats, run

EVERYTHING: tuple[Measurement, ...] = (
    Answers(candidates=True),
    TokenLoss(),
    Activations("resid_post", (LAST, "middle")),
    Activations("pattern", (LAST, "middle")),
    Activations("z"),
    Activations("logits", ("middle", LAST)),
    Activations("ln_final", ("middle",)),
    Selectivity("kind", by="context"),
)
FREE = {"selectivity_top"}  # near ties may change places with the last bit


def everything_probe(order: np.ndarray | None = None) -> TokenizedProbe:
    rng = np.random.default_rng(3)
    ids = [rng.integers(VOCAB, size=n) for n in (4, 6, 6, 1, 9, 4, 4, 9, 6, 4, 2, 6)]
    middle = np.array([rng.integers(len(row)) for row in ids])
    answers, foils = rng.integers(0, 8, len(ids)), rng.integers(8, 16, len(ids))
    kind, context = [int(row[-1]) % 2 for row in ids], ["a", "b"] * 6
    order = np.arange(len(ids)) if order is None else order
    return probe_of(
        [ids[i] for i in order],
        answers=answers[order],
        foils=foils[order],
        positions={"middle": middle[order]},
        kind=[kind[i] for i in order],
        context=[context[i] for i in order],
    )


@pytest.mark.parametrize("batch_tokens", [1, 7, 9, 20, 10_000])
def test_what_is_measured_does_not_depend_on_batching(batch_tokens: int) -> None:
    expected = run(everything_probe(), *EVERYTHING)
    found = run(everything_probe(), *EVERYTHING, batch_tokens=batch_tokens)
    for name in expected.keys() - FREE:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-5, rtol=1e-5, err_msg=name)


@settings(max_examples=8, deadline=None)
@given(order=st.permutations(range(12)))
def test_what_is_measured_does_not_depend_on_the_order_of_prompts(order: list[int]) -> None:
    by_prompt = [m for m in EVERYTHING if not isinstance(m, Selectivity)]
    expected = run(everything_probe(), *by_prompt)
    found = run(everything_probe(np.array(order)), *by_prompt)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values[order], atol=1e-5, rtol=1e-5, err_msg=name)


def test_what_is_measured_does_not_depend_on_what_else_is_measured() -> None:
    together = run(everything_probe(), *EVERYTHING)
    for measurement in EVERYTHING:
        for name, values in run(everything_probe(), measurement).items():
            np.testing.assert_allclose(together[name], values, atol=1e-5, rtol=1e-5, err_msg=name)


def test_prompts_of_different_lengths_are_measured_as_each_alone() -> None:
    probe = everything_probe()
    found = run(probe, *EVERYTHING)
    for i, row in enumerate(probe.ids):
        alone = output(row)
        logits = alone.logits[0].numpy()
        middle = probe.positions["middle"][i]
        np.testing.assert_allclose(found["logits"][i], logits[[middle, -1]], atol=1e-5)
        for layer, attention in enumerate(alone.attentions):
            np.testing.assert_allclose(found["pattern"][i, 0, layer, :, : len(row)], attention[0, :, -1], atol=1e-5)


def test_batches_hold_prompts_of_one_length_and_every_prompt_once() -> None:
    probe = everything_probe()
    for tokens in (1, 8, 12, 1000):
        batches = probe.batches(tokens)
        assert sorted(int(i) for rows in batches for i in rows) == list(range(12))
        for rows in batches:
            lengths = set(probe.lengths[rows].tolist())
            assert len(lengths) == 1
            assert len(rows) == 1 or len(rows) * lengths.pop() <= tokens


def test_logits_are_kept_only_where_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    widths: list[int] = []
    forward = model().lm_head.forward
    monkeypatch.setattr(model().lm_head, "forward", lambda x: (widths.append(x.shape[1]), forward(x))[1])
    run(repeats(), Activations("resid_post"))
    run(repeats(), Activations("logits"))
    assert set(widths) == {1}
    widths.clear()
    run(repeats(), TokenLoss())
    assert set(widths) == {11}


def test_measurements_with_equal_settings_are_the_same_measurement() -> None:
    assert Activations("z", (LAST,)) == Activations("z")
    assert len({Selectivity("a", by="b"), Selectivity("a", by="b"), Selectivity("a", by="c")}) == 2


def test_logits_of_a_large_vocabulary_come_in_small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every position's logits are asked for: the batch shrinks until they fit, and the numbers stay the same."""
    ids = tuple(np.array([0, 5, 6, 7, 5, 6, 7]) + i for i in range(4))
    probe = TokenizedProbe(Probe("p", ("a",) * 4), ids, None, None, None, {"last": np.full(4, 6)}, {})
    described = architecture(model().config)
    for logits, sizes in ((2 * 7 * VOCAB, [2, 2]), (1, [1, 1, 1, 1])):  # one prompt is always allowed
        monkeypatch.setattr(passes, "LOGITS", logits)
        found = list(passes.Passes([(probe, [TokenLoss()])], described, 8192).of(0))
        assert [len(each.ids) for each in found] == sizes
        assert all(each.kept == tuple(range(7)) for each in found)
