"""The head taxonomy against truth: scores that were planted, organisms, and tokenizers of several kinds."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import dynamics
from analyses import head_kinds as heads
from analyses.head_kinds import pairs as pairing
from analyses.head_kinds.kinds import KINDS, Kind, Scores, curve_of, read_scores, since
from analyses.head_kinds.pairs import Pairs, unrelated
from analyses.head_kinds.prompts import (
    DOCUMENTS,
    LISTS,
    REPEATS,
    delimiter_ids,
    document_probe,
    list_probe,
    repeat_probes,
    word_probe,
)
from analyses.head_kinds.texts import TEXTS
from checkpoints import UserError
from checkpoints.organism import build_tokenizer
from checkpoints.tokenizing import word_tokenizer
from dynamics.analyser import analyse
from dynamics.analysis.base import Context
from dynamics.analysis.section import Summary
from dynamics.probes import Probe, tokenize
from dynamics.probes.sources import plain_words
from dynamics.runs.config import AnalysisEntry, Run
from tests.conftest import MadeOnce

STEPS = np.array([0, 1, 2, 4, 8, 16, 32, 64, 128, 256])
TIMES: Any = SimpleNamespace(steps=STEPS, tokens=None)
BY_NAME = {kind.name: kind for kind in KINDS}


class FakeTrace:
    """Variables of probes by name, without a store."""

    def __init__(
        self, variables: dict[tuple[str, str], np.ndarray], labels: dict[str, np.ndarray] | None = None
    ) -> None:
        self.variables, self.labels = variables, labels or {}
        self.probes = sorted({probe for probe, _ in variables})

    def values(self, probe: str, variable: str) -> np.ndarray:
        return self.variables[probe, variable].copy()

    def label(self, probe: str, name: str) -> np.ndarray:
        return self.labels[name]


def scores_of(kind: Kind, trace: Any) -> Scores:
    scores = read_scores(trace, kind)
    assert scores is not None
    return scores


def attention(seed: int, *, risen: int, prompts: int = 40) -> np.ndarray:
    """(checkpoint, prompt, 2, 8) noise about 0.2, and the first heads at 0.6 from checkpoint 5 on."""
    rng = np.random.default_rng(seed)
    values = 0.2 + 0.01 * rng.standard_normal((2, 8)) + 0.05 * rng.standard_normal((prompts, 2, 8))
    values = np.repeat(values[None], len(STEPS), axis=0) + 0.001 * rng.standard_normal((len(STEPS), prompts, 2, 8))
    values.reshape(len(STEPS), prompts, 16)[5:, :, :risen] += 0.4
    return values


def test_heads_that_rise_are_found_from_where_they_rise_and_no_others() -> None:
    scores = scores_of(BY_NAME["previous_token"], FakeTrace({(DOCUMENTS, "attention_previous"): attention(0, risen=3)}))
    assert since(scores, STEPS).tolist() == [5] * 3 + [10] * 13
    found = curve_of(scores, 0.3).assessed(TIMES)
    assert found.emergence.state == "emerged" and found.emergence.onset is not None
    assert (found.emergence.onset.after, found.emergence.onset.by) == (8, 16)


def test_untrained_heads_are_not_found() -> None:
    found = 0
    for seed in range(20):
        trace = FakeTrace({(DOCUMENTS, "attention_previous"): attention(seed, risen=0)})
        found += (since(scores_of(BY_NAME["previous_token"], trace), STEPS) < len(STEPS)).any()
    assert found <= 2


def test_looking_back_without_a_repeat_is_no_induction() -> None:
    values = attention(0, risen=4)
    control = values.copy()
    control.reshape(len(STEPS), 40, 16)[5:, :, 0] -= 0.4  # only the first of the four needs the repeat
    trace = FakeTrace({(REPEATS, "prefix_matching"): values, ("head_kinds_control", "prefix_matching"): control})
    assert np.flatnonzero(since(scores_of(BY_NAME["induction"], trace), STEPS) < 10).tolist() == [0]


def test_raising_every_word_is_no_copying() -> None:
    rng = np.random.default_rng(0)
    values = (rng.random((len(STEPS), 50, 1, 4)) < 0.05).astype(float)
    control = np.full_like(values, 0.05)
    values[6:, :, 0, 0] = rng.random((4, 50)) < 0.8
    values[6:, :, 0, 1], control[6:, :, 0, 1] = 0.4, 0.4  # for any word
    trace = FakeTrace({("head_kinds_words", "copying"): values, ("head_kinds_words", "copying_control"): control})
    scores = scores_of(BY_NAME["copying"], trace)
    assert since(scores, STEPS).tolist() == [6, 10, 10, 10]
    # every null draw is a share of 50 words at the control's rate
    drawn = scores.null(4000, slice(None))
    assert drawn[-1, :, 1].mean() == pytest.approx(0.4, abs=0.01)
    assert drawn[-1, :, 1].std() == pytest.approx(np.sqrt(0.4 * 0.6 / 50), rel=0.1)


def test_a_successor_head_is_one_and_a_head_that_says_one_member_is_not() -> None:
    series, place = np.array(["a"] * 10 + ["b"] * 8), np.array([*range(10), *range(8)])
    raised = np.tile(place[:, None, None], (len(STEPS), 1, 1, 3))  # all copy
    raised[4:, :, 0, 0] = place + 1
    raised[:, :, 0, 1] = 3
    raised[0] = -1  # nothing is known of the first checkpoint
    trace = FakeTrace({(LISTS, "raised"): raised}, {"series": series, "place": place})
    scores = scores_of(BY_NAME["successor"], trace)
    assert scores.values.shape == (10, 16, 3)  # last members have no successor
    assert scores.mean[5].tolist() == [1.0, 2 / 16, 0.0]
    assert np.isnan(scores.mean[0]).all() and not scores.measured[0]
    assert since(scores, STEPS).tolist() == [4, 10, 10]


def test_kinds_that_nobody_asked_for_or_that_no_prompt_has_are_left_out() -> None:
    assert read_scores(FakeTrace({(DOCUMENTS, "x"): np.zeros(1)}), BY_NAME["successor"]) is None  # type: ignore[arg-type]
    nothing = np.full((10, 4, 1, 2), np.nan)
    assert read_scores(FakeTrace({(DOCUMENTS, "attention_delimiter"): nothing}), BY_NAME["delimiter"]) is None  # type: ignore[arg-type]
    some = nothing.copy()
    some[:, 1] = 0.5
    assert scores_of(BY_NAME["delimiter"], FakeTrace({(DOCUMENTS, "attention_delimiter"): some})).left_out == 3


def test_unrelated_pairs_are_what_random_matrices_give() -> None:
    """Against random matrices with the same uneven singular values, rotated at random."""
    rng = np.random.default_rng(0)
    d, first, second = 96, 0.8 ** np.arange(12), 0.7 ** np.arange(12)
    exact = []
    for _ in range(1500):
        one, other = (np.linalg.qr(rng.standard_normal((d, 12)))[0] for _ in range(2))
        product = (first[:, None] * one.T) @ (other * second)
        exact.append(np.linalg.norm(product) / (np.linalg.norm(first) * np.linalg.norm(second)) - d**-0.5)
    freedom = np.prod([(s**2).sum() ** 2 / (s**4).sum() for s in (first, second)])
    drawn = unrelated(np.array([freedom]), d, 4000, 0)[:, 0]
    for q in (0.5, 0.9, 0.95, 0.99):  # the bound is taken from the upper tail
        assert np.quantile(drawn, q) == pytest.approx(np.quantile(exact, q), abs=0.005), q


def composed(strong: int | None) -> Pairs:
    """Two heads a layer, two layers, scores as of unrelated directions; L0H1 with L1H0.k is strong from a checkpoint on."""
    readers = tuple(f"L{layer}H{head}.{role}" for layer in (0, 1) for role in "qkv" for head in (0, 1))
    sources = ("L0H0", "L0H1", "L1H0", "L1H1")
    scores = np.full((len(STEPS), 4, 12), np.nan)
    scores[:, :2, 6:] = unrelated(np.full(12, 50.0), 64, 1, 7).reshape(2, 6)
    if strong is not None:
        scores[strong:, 1, readers.index("L1H0.k")] += 0.3
    return Pairs(scores, np.full(scores.shape, 50.0), 64, sources, readers)


def test_the_strongest_pair_emerges_where_it_composes_and_not_by_chance() -> None:
    assert composed(None).strongest("k").assessed(TIMES).emergence.state == "not emerged"
    found = composed(6).strongest("k").assessed(TIMES)
    assert found.emergence.onset is not None and found.emergence.onset.by == 32
    assert composed(6).strongest("q").assessed(TIMES).emergence.state == "not emerged"


def test_many_pairs_are_drawn_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = composed(6).strongest("k").assessed(TIMES)
    monkeypatch.setattr(pairing, "_VALUES", 200)
    pieces = composed(6).strongest("k").assessed(TIMES)
    assert pieces.emergence.onset == whole.emergence.onset
    np.testing.assert_allclose(pieces.null_mean, whole.null_mean, atol=0.01)


# prompts


def test_the_organism_is_asked_in_every_world_that_it_speaks() -> None:
    tokenizer = build_tokenizer()
    probe = document_probe(tokenizer, 48, 0)
    assert set(probe.labels["world"]) == {"addition", "english", "french", "german"}
    named = document_probe(build_tokenizer(["years", "gender"]), 12, 0)
    assert {"years", "gender"} <= set(named.labels["world"]) and "names" not in named.labels["world"]
    ids = tokenize(probe, tokenizer).ids
    marks = delimiter_ids(tokenizer, probe)
    texts = set(tokenizer.convert_ids_to_tokens(list(marks)))
    assert {"+", "="} <= texts <= {"+", "=", "<|endoftext|>"}
    assert min(map(len, ids)) >= 3


def test_repeats_repeat_and_controls_do_not() -> None:
    tokenizer = build_tokenizer()
    repeats, control = repeat_probes(plain_words(tokenizer), 8, 10, 0)
    for one, other in zip(repeats.text, control.text, strict=True):
        words, unrelated_words = one.split(), other.split()
        assert words[:10] == words[10:] == unrelated_words[:10]
        assert len(set(unrelated_words)) == 20
    with pytest.raises(UserError, match="plain words of one token"):
        repeat_probes(plain_words(tokenizer), 8, 1000, 0)


def test_lists_are_those_that_a_tokenizer_has_in_a_row() -> None:
    probe = list_probe(build_tokenizer())
    assert probe is not None and set(probe.labels["series"]) == {"digits"}
    assert [t.strip() for t in probe.text] == list("0123456789")
    some = word_tokenizer(["one", "two", "four", "five", "six", "seven", "eight", "Monday", "Tuesday"])
    found = list_probe(some)
    assert found is not None and [t.strip() for t in found.text] == ["four", "five", "six", "seven", "eight"]
    assert found.labels["place"] == (0, 1, 2, 3, 4)
    assert list_probe(word_tokenizer(["a", "b", "c"])) is None


def test_words_to_copy_end_in_tokens_of_their_own() -> None:
    tokenizer = build_tokenizer()
    probe = word_probe(tokenizer, plain_words(tokenizer), 40, 0)
    last = [int(row[-1]) for row in tokenize(probe, tokenizer).ids]
    assert len(set(last)) == len(last) == 50


def test_passages_differ_and_hold_delimiters_and_repeats() -> None:
    assert len(set(TEXTS)) == len(TEXTS) == 24
    for text in TEXTS:
        words = text.lower().replace(",", " ").replace(".", " ").split()
        assert len(set(words)) < len(words) and any(c in text for c in ".,:;\n")


def test_a_plan_without_lists_leaves_succession_out() -> None:
    words = [f"w{i}" for i in range(100)]
    texts = Probe("t", TEXTS)
    tokenizer = word_tokenizer(sorted({*words, *" ".join(texts.text).split()}))
    requests = heads.plan(Context(tokenizer), heads.Options(period=8))
    assert [r.probe.name for r in requests] == [f"head_kinds_{n}" for n in ("documents", "repeats", "control", "words")]


# whole runs


@pytest.fixture(scope="module")
def tiny(tiny_series: Path, made_once: MadeOnce) -> Summary:
    run = Run(series={"kind": "folder", "path": str(tiny_series)}, analyses=(AnalysisEntry(name="head_kinds"),))  # type: ignore[arg-type]
    folder = made_once("heads", lambda new: dynamics.collect("tiny", run=run, traces=new))
    return analyse("tiny", run=run, traces=folder)["head_kinds"]


def test_twelve_steps_of_training_make_no_heads(tiny: Summary) -> None:
    """Every kind is measured, none is of its kind, and the notes say so."""
    data = tiny.data
    assert (data["attention_kind"] == -1).all() and (data["token_kind"] == -1).all()
    for kind in KINDS:
        assert np.isfinite(data[kind.name]).all(), kind.name
        assert (data[f"{kind.name}_named"] == 0).all()
        assert any(note.lower().startswith(f"{kind.title}s: ") for note in tiny.notes)
    assert tiny.finding("successor").emergence.state == "not emerged"
    assert tiny.finding("composition_k").emergence.state == "not emerged"
    # an untrained model attends evenly
    assert float(data["attention_entropy"].values[0].min()) > 0.95


def test_figures_are_drawn_of_any_summary(tiny: Summary) -> None:
    assert set(heads.figures(tiny)) == {"map", "counts", "kinds", "behaviour", "composition"}


def test_kinds_are_told_apart_and_induction_goes_before_where_heads_rest() -> None:
    from analyses.head_kinds.summary import _History, _labels

    def entry(name: str, *means: float) -> _History:
        values = np.tile(np.array(means), (2, 3, 1))
        scores = Scores(BY_NAME[name], values, lambda *_: values, np.ones(2, dtype=bool))
        return _History(scores, np.zeros(len(means), dtype=int), values.mean(1) >= 0.3)

    found = {
        "first_token": entry("first_token", 0.9, 0.9, 0.4, 0.1),
        "previous_token": entry("previous_token", 0.1, 0.1, 0.5, 0.2),
        "induction": entry("induction", 0.8, 0.2, 0.0, 0.0),
    }
    names = [KINDS[i].name if i >= 0 else "" for i in _labels(found, "attention", 2, 4)[-1]]
    assert names == ["induction", "first_token", "previous_token", ""]
