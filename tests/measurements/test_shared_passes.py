"""What prompts have in common goes through the model once, and the numbers are those of prompts run whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dynamics.measurements import (
    Activations,
    Answers,
    HeadAttention,
    Measurement,
    Selectivity,
    TokenLoss,
    TokenSets,
    passes,
)
from dynamics.measurements.forward import Together, measure
from dynamics.models.architecture import Architecture, architecture
from dynamics.models.sites import site_table
from dynamics.probes import LAST, TokenizedProbe
from tests.measurements.measured import VOCAB, model, probe_of
from tests.models.families import CONFIGS, OTHERS, model_of

FREE = {"selectivity_top"}  # near ties may change places with the last bit


@pytest.fixture(autouse=True)
def few_are_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The prompts of these tests are few and short."""
    monkeypatch.setattr(passes, "OVERHEAD", 0)


def whole(described: Architecture) -> Architecture:
    """The same, never asked to continue from anything."""
    return replace(described, cached=False)


def beginning_alike(vocab: int = VOCAB, seed: int = 0) -> TokenizedProbe:
    """Prompts of two beginnings and several lengths, one of which is a beginning itself, and one that has neither."""
    rng = np.random.default_rng(seed)
    heads = rng.integers(2, vocab, (2, 6))
    ids = [np.concatenate([heads[i % 2], rng.integers(2, vocab, 1 + i % 3)]) for i in range(12)]
    ids += [heads[0], rng.integers(2, vocab, 9), ids[3]]
    n = len(ids)
    return probe_of(
        ids,
        answers=rng.integers(0, 8, n),
        foils=rng.integers(8, 16, n),
        positions={"middle": np.arange(n) % 6, "second": np.full(n, 1)},
        kind=[i % 2 for i in range(n)],
        context=["a", "b", "b"] * 5,
    )


PLACED: tuple[Measurement, ...] = (
    Answers(candidates=True),
    TokenSets((("some", (3, 4)),)),
    Activations("resid_post", (LAST, "middle", "second")),
    Activations("z", ("middle", LAST)),
    Activations("ln_final", ("middle",)),
    Activations("embed", ("second", LAST)),
    Selectivity("kind", by="context"),
)


class Counted:
    """Counts the tokens that a model's blocks are given, and how often the first of them is."""

    def __init__(self, of: Any, described: Architecture) -> None:
        self.passes, self.tokens = 0, 0
        self._block = of.get_submodule(described.table.block.format(0))

    def __enter__(self) -> Counted:
        def count(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            stream = args[0] if args else kwargs["hidden_states"]
            self.passes += 1
            self.tokens += stream.shape[0] * stream.shape[1]

        self._handle = self._block.register_forward_pre_hook(count, with_kwargs=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()


def same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], rounding: float = 2e-5) -> None:
    assert found.keys() == expected.keys()
    for name in expected.keys() - FREE:
        np.testing.assert_allclose(found[name], expected[name], atol=rounding, rtol=rounding, err_msg=name)


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_continued_prompts_give_the_numbers_of_whole_ones_in_every_family(kind: str) -> None:
    """Also at positions in the beginning, and where attention sees a window that is shorter than it."""
    of = model_of(kind)
    described = architecture(of.config)
    assert described.cached == (kind not in OTHERS)
    sites = [s for s in site_table(of.config).sites if s not in ("pattern", "logits")]
    wanted = [Activations(site, (LAST, "middle")) for site in sites] + [Answers()]
    probe = beginning_alike(of.config.vocab_size)
    with Counted(of, described) as short:
        found = measure(of, probe, wanted, architecture=described)
    with Counted(of, described) as long:
        expected = measure(of, probe, wanted, architecture=whole(described))
    # Gemma multiplies embeddings by the root of d_model, and gains are one more than the random weights
    same(found, expected, 1e-4 if kind.startswith("gemma") else 2e-5)
    distinct = sum(len(row) for row in probe.ids[:-1])
    assert long.tokens == distinct
    beginnings, ends, others = 2 * 6, 4 * (1 + 2 + 3), 6 + 9
    assert short.tokens == (distinct if kind in OTHERS else beginnings + ends + others)


@pytest.mark.parametrize("batch_tokens", [1, 7, 24, 10_000])
def test_prefixes_depend_neither_on_batches_nor_on_what_else_is_measured(
    batch_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    described, probe = architecture(model().config), beginning_alike()
    expected = measure(model(), probe, PLACED, architecture=whole(described))
    same(measure(model(), probe, PLACED, architecture=described, batch_tokens=batch_tokens), expected)
    monkeypatch.setattr(passes, "CACHED", 1)  # one prefix after the other
    same(measure(model(), probe, PLACED, architecture=described, batch_tokens=batch_tokens), expected)
    for one in PLACED:
        alone = measure(model(), probe, [one], architecture=described)
        same(alone, {name: expected[name] for name in alone})


@pytest.mark.parametrize(
    "more", [TokenLoss(), HeadAttention(), Activations("pattern"), Activations("logits", ("second",))]
)
def test_what_needs_whole_prompts_gets_them(more: Measurement) -> None:
    described, probe = architecture(model().config), beginning_alike()
    with Counted(model(), described) as counted:
        found = measure(model(), probe, [*PLACED, more], architecture=described)
    expected = measure(model(), probe, [*PLACED, more], architecture=whole(described))
    same(found, expected)
    prefix = 2 if isinstance(more, Activations) and more.site == "logits" else 0
    assert counted.tokens >= sum(len(row) - prefix for row in probe.ids[:-1])


def test_a_prefix_is_as_long_as_saves_most_tokens_and_none_where_that_is_little() -> None:
    described = architecture(model().config)
    rng = np.random.default_rng(1)

    def length_of(ids: Sequence[np.ndarray]) -> int:
        return passes.Passes([(probe_of(list(ids)), [Answers()])], described, 8192).prefix(0)

    common = rng.integers(0, VOCAB, 12)
    assert length_of([np.append(common, i) for i in range(20)]) == 12
    assert length_of([np.append(common[:9], rng.permutation(VOCAB)[:4]) for _ in range(8)]) >= 9
    assert length_of([np.concatenate([[i], common]) for i in range(20)]) == 0
    assert length_of([rng.integers(0, VOCAB, 1) for _ in range(9)]) == 0
    assert length_of([common]) == 0


def test_a_long_beginning_is_computed_once() -> None:
    rng = np.random.default_rng(0)
    common = rng.integers(0, VOCAB, 20)
    probe = probe_of(
        [np.concatenate([common, rng.integers(0, VOCAB, 6)]) for _ in range(40)], answers=np.arange(40) % 8
    )
    described = architecture(model().config)
    with Counted(model(), described) as counted:
        found = measure(model(), probe, [Answers(), Activations("resid_post")], architecture=described)
    assert counted.tokens <= 20 + 40 * 6
    same(found, measure(model(), probe, [Answers(), Activations("resid_post")], architecture=whole(described)))


def several() -> list[tuple[TokenizedProbe, tuple[Measurement, ...]]]:
    """Probes that have prompts in common: one has some of another's, one the same twice, one asks for whole prompts."""
    rng = np.random.default_rng(4)
    ids = [rng.integers(0, VOCAB, n) for n in (5, 5, 7, 5, 7, 6)]

    def of(rows: Sequence[int]) -> TokenizedProbe:
        n = len(rows)
        return probe_of([ids[r] for r in rows], answers=np.arange(n) % 8, positions={"middle": np.arange(n) % 5})

    return [
        (of([0, 1, 2]), (Answers(), Activations("resid_post", ("middle",)))),
        (of([3, 2, 1, 1]), (Answers(candidates=True), Activations("mlp_post", (LAST, "middle")))),
        (of([2, 0]), (TokenLoss(), HeadAttention(), Activations("pattern"))),
        (of([5, 4]), (TokenSets((("some", (1, 2)),)),)),
    ]


def test_prompts_of_several_probes_are_run_once() -> None:
    described = architecture(model().config)
    with Counted(model(), described) as counted:
        together = Together(model(), several(), architecture=described)
        found = [together.of(number) for number in range(4)]
    assert counted.tokens == 5 + 5 + 7 + 5 + 7 + 6
    for (probe, measurements), values in zip(several(), found, strict=True):
        same(values, measure(model(), probe, measurements, architecture=whole(described)))


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (1, 3), (0, 2)])
def test_what_a_probe_gets_is_the_same_whichever_are_wanted(wanted: tuple[int, ...]) -> None:
    described = architecture(model().config)
    everything = Together(model(), several(), architecture=described)
    expected = {number: everything.of(number) for number in range(4)}
    some = Together(model(), several(), architecture=described, wanted=wanted)
    for number in wanted:
        for name, values in some.of(number).items():
            np.testing.assert_array_equal(values, expected[number][name], err_msg=name)


def test_only_passes_of_what_is_wanted_are_run() -> None:
    described = architecture(model().config)
    with Counted(model(), described) as counted:
        Together(model(), several(), architecture=described, wanted=[3]).of(3)
    assert (counted.tokens, counted.passes) == (6 + 7, 2)
