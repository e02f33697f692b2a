"""What ``explain`` computes of one model: hand-made circuits are drawn exactly, shares hold by real ablation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

import dynamics.explaining.flow as flow_module
from checkpoints import UserError
from checkpoints.organism import build_tokenizer
from checkpoints.series import Checkpoint
from checkpoints.tokenizing import word_tokenizer
from dynamics.circuits.wired import Wired
from dynamics.explaining.checkpoint import explain_checkpoint, guess
from dynamics.explaining.flow import Flow, find_flow
from dynamics.explaining.lens import logit_lens
from dynamics.explaining.prompts import Question, ask, token_text
from dynamics.models.architecture import ModelShape
from tests.circuits.handmade import WORDS, Toy, induction_toy
from tests.circuits.test_circuits_wired import WIRED
from tests.circuits.test_circuits_wired import wired as wired_family
from tests.explaining.toys import PROMPT, TWIN, WORD_LIST, asked, wired_toy


def flow_of(wired: Wired, question: Question, *, share: float = 0.99) -> tuple[Flow, float, float]:
    """The flowchart, and the logit differences of prompt and twins."""
    assert question.answer is not None and question.foil is not None
    ids, twins = torch.from_numpy(question.ids)[None], torch.from_numpy(question.twins)

    def metric(logits: torch.Tensor) -> torch.Tensor:
        return logits[:, question.answer] - logits[:, question.foil]

    last = torch.full((len(twins),), ids.shape[1] - 1)
    base, low = float(metric(wired.logits(ids, last[:1]))), float(metric(wired.logits(twins, last)).mean())
    return find_flow(wired, ids, twins, metric, difference=base - low, low=low, share=share), base, low


def names(wired: Wired, flow: Flow) -> set[tuple[str, str, str]]:
    called = [*(s.name for s in wired.graph.sources), "logits"]
    return {
        (f"{called[e.source[0]]}@{e.source[1]}", f"{called[e.target[0]]}@{e.target[1]}", e.port) for e in flow.edges
    }


# the flowchart


def test_the_induction_pair_is_drawn_at_its_positions_and_ports() -> None:
    wired = wired_toy()
    flow, base, low = flow_of(wired, asked(answer="d", foil="b", corrupted=TWIN))
    match = {("embed@2", "L0H1@3", "v"), ("L0H1@3", "L1H0@6", "k"), ("L1H0@6", "logits@6", "in")}
    assert names(wired, flow) == match
    assert flow.reached and flow.faithfulness == pytest.approx(1, abs=1e-3)
    nodes = {(0, 2), (2, 3), (4, 6), (7, 6)}
    assert set(flow.nodes) == nodes
    assert flow.nodes[7, 6] == pytest.approx(base - low)


def test_against_random_tokens_the_copied_word_and_the_query_are_in_it_too() -> None:
    wired = wired_toy()
    flow, _, _ = flow_of(wired, asked(answer="d", foil="b"))
    assert names(wired, flow) >= {
        ("embed@2", "L0H1@3", "v"),  # which word came before
        ("L0H1@3", "L1H0@6", "k"),
        ("embed@6", "L1H0@6", "q"),  # which word is sought
        ("embed@3", "L1H0@6", "v"),  # which word is copied
        ("L1H0@6", "logits@6", "in"),
    }
    heads = {place[0] for place in flow.nodes}
    assert heads == {0, 2, 4, 7}  # no other head, no MLP
    assert flow.reached


def noisy() -> Wired:
    """The induction pair in a model whose every other weight does something."""
    torch.manual_seed(0)
    toy = induction_toy()
    for parameter in toy.parameters():
        parameter.data += 0.15 * torch.randn_like(parameter)
    return wired_toy(toy)


@pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
def test_the_share_holds_by_ablation(share: float) -> None:
    """All other edges cut by hand, from what the flowchart says, with nothing taken from how it was found."""
    wired, question = noisy(), asked(answer="d", foil="b")
    flow, base, low = flow_of(wired, question, share=share)
    assert flow.reached and flow.faithfulness >= share
    graph = wired.graph
    reader = {r.name: i for i, r in enumerate(graph.readers)}
    cut = np.repeat(graph.edges[None].astype(np.float32), len(question.ids), axis=0)
    for edge in flow.edges:
        target = "logits" if edge.target[0] == len(graph.sources) else graph.sources[edge.target[0]].name
        cut[edge.source[1], edge.source[0], reader[target if edge.port == "in" else f"{target}.{edge.port}"]] = 0
    ids, twins = torch.from_numpy(question.ids)[None].expand(8, -1), torch.from_numpy(question.twins)
    last = torch.full((8,), ids.shape[1] - 1)
    logits = wired.patched(ids, last, wired.written(twins), torch.from_numpy(cut)[None])
    left = float((logits[:, question.answer] - logits[:, question.foil]).mean())
    assert (left - low) / (base - low) == pytest.approx(flow.faithfulness, abs=1e-4)
    assert 0 < len(flow.edges) < flow.total


def test_twins_in_batches_give_the_same_flowchart(monkeypatch: pytest.MonkeyPatch) -> None:
    wired, question = noisy(), asked(answer="d", foil="b")
    whole, _, _ = flow_of(wired, question, share=0.8)
    monkeypatch.setattr(flow_module, "MEMORY", 1)  # one twin at a time
    alone, _, _ = flow_of(wired, question, share=0.8)
    assert names(wired, alone) == names(wired, whole)
    np.testing.assert_allclose([e.score for e in alone.edges], [e.score for e in whole.edges], rtol=1e-4, atol=1e-5)
    assert alone.faithfulness == pytest.approx(whole.faithfulness, abs=1e-4)


def test_the_largest_scores_are_those_of_a_plain_sort() -> None:
    wired, question = noisy(), asked(answer="d", foil="b")
    tokens, graph = len(question.ids), wired.graph
    rng = np.random.default_rng(0)
    by_token = rng.normal(size=(tokens, *graph.edges.shape))
    reached = []
    for layer in range(graph.layers):
        seen = graph.seen_by(graph.attention_readers(layer))
        scores = rng.normal(size=(tokens, tokens, seen, 2 * graph.heads))
        scores[np.triu_indices(tokens, 1)] = 0  # a head reads nothing that comes later
        reached.append(scores)
    here = flow_module._within(graph, by_token)
    everything = flow_module._strongest(graph, here, reached, 10**6)
    assert len(everything) == flow_module._count(graph, tokens)
    sizes = [abs(e.score) for e in everything]
    assert sizes == sorted(sizes, reverse=True)
    assert flow_module._strongest(graph, here, reached, 40) == everything[:40]
    whole = np.abs(here).sum() + sum(np.abs(scores).sum() for scores in reached)
    assert sum(sizes) == pytest.approx(whole), "every score is of one edge"


def test_a_share_that_is_not_reached_says_how_far_it_comes_and_where_the_rest_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wired, question = noisy(), asked(answer="d", foil="b")
    flow, _, _ = flow_of(wired, question, share=0.8)
    assert 0 < flow.held < 1
    monkeypatch.setattr(flow_module, "MOST", 3)
    fewer, _, _ = flow_of(wired, question, share=0.8)
    assert fewer.held < flow.held
    part = one(wired, question)
    assert part["state"] == "not reached"
    assert f"the {len(fewer.edges)} strongest edges explain" in part["reason"] and "not 80%" in part["reason"]
    assert (
        f"{fewer.held:.0%} of the sizes of all attributions, {fewer.total - len(fewer.edges):,} others"
        in part["reason"]
    )


# one checkpoint


def one(wired: Wired, question: Question, share: float = 0.8) -> dict[str, Any]:
    assert question.answer is not None and question.foil is not None
    at = Checkpoint(5, "step5")
    return explain_checkpoint(wired, word_tokenizer(WORD_LIST), question, question.answer, question.foil, at, share)[0]


def test_what_prompt_and_twin_share_is_not_measurable() -> None:
    part = one(wired_toy(), asked(answer="a", foil="b", corrupted=TWIN))  # neither is what induction says
    assert part["state"] == "not measurable" and "0.00 logits, which is within 0.1 logits" in part["reason"]
    assert part["edges"] == [] and part["faithfulness"] is None and part["answer_probability"] is not None
    part = one(wired_toy(Toy(2)), asked(answer="d", foil="b"))  # knows nothing
    assert part["state"] == "not measurable"


@pytest.mark.filterwarnings("error")
def test_a_model_of_nan_failed() -> None:
    toy = induction_toy()
    toy.unembed.weight.data[0, 0] = float("nan")
    part = one(wired_toy(toy), asked(answer="d", foil="b"))
    assert part["state"] == "failed" and part["reason"] == "the model's logits are not finite"
    assert part["lens"] is None and part["top"] == [] and part["answer_probability"] is None


def test_logits_that_are_not_finite_for_the_twins_alone_failed() -> None:
    toy = induction_toy()
    toy.blocks[0].attention.qkv.weight.data[2 * 40, 7] = float("inf")  # the word h is in the twin alone
    part = one(wired_toy(toy), asked(answer="d", foil="b", corrupted=TWIN))
    assert part["state"] == "failed" and "finite" in part["reason"]


def test_answer_and_foil_are_the_first_and_second_choice() -> None:
    wired = wired_toy()
    wired.model.unembed.weight.data[4, 2 * WORDS + 3] = 0.5  # type: ignore[union-attr,index]  # e is next best after d
    assert guess(wired, asked(), None, None) == (3, 4)
    assert guess(wired, asked(), 4, None) == (4, 3)
    assert guess(wired, asked(), None, 3) == (4, 3)
    assert guess(wired, asked(), None, 0) == (3, 0)
    wired.model.register_forward_hook(lambda _m, _i, logits: logits.index_fill(-1, torch.tensor([0]), -torch.inf))
    assert guess(wired, asked(), None, None) == (3, 4)


@pytest.mark.parametrize("family", WIRED)
def test_the_lens_of_the_last_layer_is_what_the_model_says(family: str) -> None:
    wired = wired_family(family)
    ids = torch.tensor([[3, 9, 4, 7, 12, 30]])
    lens = logit_lens(wired, ids, 7)
    assert lens.token.shape == lens.probability.shape == lens.answer.shape == (wired.graph.layers, 6)
    for place in range(6):
        own = wired.logits(ids, torch.tensor([place]))[0].float().softmax(-1)
        assert float(lens.answer[-1, place]) == pytest.approx(float(own[7]), rel=1e-3, abs=1e-7)
        assert int(lens.token[-1, place]) == int(own.argmax())
        assert float(lens.probability[-1, place]) == pytest.approx(float(own.max()), rel=1e-3)


# the question


def test_special_tokens_stay_in_random_twins() -> None:
    tokenizer = build_tokenizer()
    shape = ModelShape(4, 4, 128, 32, 512, len(tokenizer), 64)
    question = ask(tokenizer, shape, "46+39=08")
    assert question.ids[0] in tokenizer.all_special_ids
    assert (question.twins[:, 0] == question.ids[0]).all()
    assert not np.isin(question.twins[:, 1:], tokenizer.all_special_ids).any()
    assert len({tuple(row) for row in question.twins}) == len(question.twins) == len(question.texts)
    assert np.array_equal(question.twins, ask(tokenizer, shape, "46+39=08").twins)
    assert not np.array_equal(question.twins, ask(tokenizer, shape, "46+39=08", seed=1).twins)


def byte_tokenizer() -> Any:
    """As GPT-2's: the space before a word belongs to its token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    words = ["The", "Ġcity", "Ġof", "Ġlight", "Ġis", "ĠParis", "ĠRome", "P"]
    letters = sorted({c for word in words for c in word} - {"P"})
    vocabulary = {word: i for i, word in enumerate([*words, *letters])}
    merges, known = [], set(letters) | {"P"}
    for word in words:
        made = word[0]
        for letter in word[1:]:
            if (made, letter) not in merges and made + letter not in known:
                merges.append((made, letter))
                known.add(made + letter)
                vocabulary.setdefault(made + letter, len(vocabulary))
            made += letter
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def test_an_answer_without_its_space_gets_it_where_it_is_needed() -> None:
    tokenizer = byte_tokenizer()
    shape = ModelShape(1, 1, 8, 8, 8, len(tokenizer), 32)
    question = ask(tokenizer, shape, "The city of light is", answer="Paris", foil=" Rome")
    assert question.answer is not None and question.foil is not None
    assert [token_text(tokenizer, i) for i in (question.answer, question.foil)] == [" Paris", " Rome"]
    # digits of the organism are tokens of their own, and are left as they are
    own = build_tokenizer()
    digits = ask(own, ModelShape(1, 1, 8, 8, 8, len(own), 64), "46+39=08", answer="5", foil="4")
    assert digits.answer == own.convert_tokens_to_ids("5")


def test_an_embedding_beyond_the_tokenizer_has_a_name() -> None:
    assert token_text(word_tokenizer(WORD_LIST), 500) == "token 500"
    assert token_text(word_tokenizer(WORD_LIST), 2) == "c"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"prompt": ""}, "the prompt is empty"),
        ({"prompt": " \n "}, "the prompt is empty"),
        ({"prompt": "a"}, "one token long"),
        ({"prompt": "a b \udcff"}, "half characters"),
        ({"prompt": "a b zebra"}, "'zebra' is unknown to the tokenizer"),
        ({"prompt": " ".join("abcdefgh" * 2)}, "is 16 tokens long, but the model reads 12"),
        ({"answer": "zebra"}, "zebra"),
        ({"answer": "d e"}, "d e"),
        ({"answer": ""}, "the answer is empty"),
        ({"answer": "d", "foil": "d"}, "answer and foil are the same token"),
        ({"corrupted": PROMPT}, "the corrupted twin is the prompt itself"),
        ({"corrupted": "a b h d"}, "is 7 tokens long, its corrupted twin"),
        ({"corrupted": "a b zebra d e f c"}, "the corrupted twin holds 'zebra'"),
    ],
)
def test_a_question_that_does_not_fit_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as refused:
        asked(**given)
    assert says in str(refused.value)


def test_of_more_edges_than_can_be_drawn_the_strongest_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """And all are counted: it is them that reach the share."""
    wired, question = noisy(), asked(answer="d", foil="b")
    whole, *_ = flow_of(wired, question, share=0.95)
    assert whole.shown == (whole.edges, whole.nodes)
    monkeypatch.setattr(flow_module, "FEW", 4)
    flow, *_ = flow_of(wired, question, share=0.95)
    edges, nodes = flow.shown
    assert flow.reached and len(flow.edges) > 4 and edges == flow.edges[:4]
    assert min(abs(e.score) for e in edges) >= max(abs(e.score) for e in flow.edges[4:])
    assert set(nodes) == {end for edge in edges for end in (edge.source, edge.target)}
    assert question.answer is not None and question.foil is not None
    given = (question, question.answer, question.foil, Checkpoint(1, "x"), 0.95)
    part, found = explain_checkpoint(wired, word_tokenizer(WORD_LIST), *given)
    assert found is not None and part["edges_kept"] == len(found.edges) > len(found.shown[0])
