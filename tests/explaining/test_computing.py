"""What ``explain`` computes: hand-made circuits are drawn exactly, shares hold by real ablation, nonsense is refused."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

import dynamics.explaining.flow as flow_module
from checkpoints import UserError
from checkpoints.organism import build_tokenizer
from checkpoints.series import Checkpoint
from checkpoints.tokenizing import word_tokenizer
from dynamics.architecture import ModelShape
from dynamics.circuits.wired import Wired
from dynamics.cli import main
from dynamics.config import Run
from dynamics.explaining import check_explanation, explain
from dynamics.explaining.checkpoint import explain_checkpoint, guess
from dynamics.explaining.flow import Flow, find_flow
from dynamics.explaining.lens import logit_lens
from dynamics.explaining.prompts import Question, ask, token_text
from tests.circuits.handmade import LENGTH, WORDS, Described, Toy, described, induction_toy
from tests.circuits.test_circuits_wired import WIRED
from tests.circuits.test_circuits_wired import wired as wired_family

WORD_LIST = tuple("abcdefgh")
PROMPT = "a b c d e f c"  # the third word again: what came after it is the answer, d
TWIN = "a b h d e f c"
SHAPE = ModelShape(2, 2, 36, 20, 8, WORDS, LENGTH)


def wired_toy(toy: Toy | None = None) -> Wired:
    toy = toy or induction_toy()
    return Wired(toy, described(toy))


def asked(**given: Any) -> Question:
    return ask(word_tokenizer(WORD_LIST), SHAPE, given.pop("prompt", PROMPT), **given)


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
    everything = flow_module._strongest(graph, by_token, reached, 10**6)
    assert len(everything) == flow_module._count(graph, tokens)
    sizes = [abs(e.score) for e in everything]
    assert sizes == sorted(sizes, reverse=True)
    assert flow_module._strongest(graph, by_token, reached, 40) == everything[:40]


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


# a run


class Named(Described):
    """The adapter of the hand-made models, with words."""

    def __init__(self) -> None:
        super().__init__(2)

    def tokenizer(self) -> Any:  # type: ignore[override]
        return word_tokenizer(WORD_LIST)


class Unwired(Named):
    """The same, of which nobody said how it is wired."""

    def __init__(self) -> None:
        super().__init__()
        self.sites = replace(self.sites, wiring=None)


ADAPTER, UNWIRED = Named(), Unwired()


def toy_run(folder: Path, models: Mapping[int, Toy], adapter: str = "ADAPTER") -> Run:
    """A run of hand-made checkpoints."""
    series = folder / "series"
    series.mkdir(exist_ok=True)
    for step, toy in models.items():
        torch.save(toy.state_dict(), series / f"step{step}.pth")
    return Run.model_validate(
        {
            "series": {"kind": "folder", "path": str(series)},
            "adapter": f"tests.explaining.test_computing:{adapter}",
            "analyses": ["induction"],
            "device": "cpu",
        }
    )


def test_a_run_of_hand_made_checkpoints_is_explained_as_the_circuit_forms(tmp_path: Path) -> None:
    half = induction_toy()
    half.unembed.weight.data *= 0.5
    broken = induction_toy()
    broken.unembed.weight.data[0, 0] = float("nan")
    run = toy_run(tmp_path, {0: Toy(2), 10: half, 20: broken, 30: induction_toy()})
    done = explain(
        "toys", PROMPT, run=run, corrupted=TWIN, answer="d", share=0.99, traces=tmp_path, reports=tmp_path / "out"
    )
    content = done.content
    check_explanation(json.loads((done.folder / "explanation.json").read_text()))
    assert content["guessed"] == ["foil"] and content["answer"]["text"] == "d" and content["foil"]["text"] != "d"
    assert [c["state"] for c in content["checkpoints"]] == ["not measurable", "explained", "failed", "explained"]
    named = [node["id"] for node in content["nodes"]]
    assert set(named) == {"embed@2", "L0H1@3", "L1H0@6", "logits@6"}
    for checkpoint in (content["checkpoints"][1], content["checkpoints"][3]):
        assert {(named[s], named[t], port) for s, t, port, _ in checkpoint["edges"]} == {
            ("embed@2", "L0H1@3", "v"),
            ("L0H1@3", "L1H0@6", "k"),
            ("L1H0@6", "logits@6", "in"),
        }
    weak, strong = (content["checkpoints"][i]["logit_difference"] for i in (1, 3))
    assert strong == pytest.approx(2 * weak, rel=1e-3)
    page = (done.folder / "index.html").read_text()
    assert "foil guessed from the final checkpoint" in page and "both guessed" not in page
    assert sorted(p.name for p in done.folder.iterdir()) == ["explanation.json", "explanation.svg", "index.html"]


def test_an_adapter_without_wiring_is_refused(tmp_path: Path) -> None:
    run = toy_run(tmp_path, {0: Toy(2), 30: induction_toy()}, "UNWIRED")
    with pytest.raises(UserError, match="nothing in it can be patched"):
        explain("toys", PROMPT, run=run, traces=tmp_path, reports=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_final_checkpoint_of_nan_cannot_be_asked_for_its_choice(tmp_path: Path) -> None:
    broken = induction_toy()
    broken.unembed.weight.data[0, 0] = float("nan")
    run = toy_run(tmp_path, {0: induction_toy(), 30: broken})
    with pytest.raises(UserError, match="not finite, so that nothing can be guessed"):
        explain("toys", PROMPT, run=run, traces=tmp_path, reports=tmp_path / "out")
    done = explain("toys", PROMPT, run=run, answer="d", foil="b", traces=tmp_path, reports=tmp_path / "out")
    assert [c["state"] for c in done.content["checkpoints"]] == ["explained", "failed"]


def test_one_checkpoint_is_enough(tmp_path: Path) -> None:
    run = toy_run(tmp_path, {30: induction_toy()})
    done = explain("toys", PROMPT, run=run, answer="d", foil="b", traces=tmp_path, reports=tmp_path / "out")
    assert [c["state"] for c in done.content["checkpoints"]] == ["explained"]


def test_other_questions_about_a_prompt_have_folders_of_their_own(tmp_path: Path) -> None:
    run = toy_run(tmp_path, {30: induction_toy()})

    def folder(**given: Any) -> str:
        return explain("toys", PROMPT, run=run, traces=tmp_path, reports=tmp_path / "out", **given).folder.name

    asked_of = [{}, {"answer": "d"}, {"foil": "d"}, {"answer": "d", "foil": "b"}, {"share": 0.5}, {"corrupted": TWIN}]
    folders = [folder(**given) for given in asked_of]
    assert len(set(folders)) == len(folders)
    assert folder(answer="d") == folders[1]


def test_a_rerun_replaces_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = toy_run(tmp_path, {30: induction_toy()})

    def again() -> Path:
        return explain("toys", PROMPT, run=run, answer="d", foil="b", traces=tmp_path, reports=tmp_path / "out").folder

    folder = again()
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    toy_run(tmp_path, {30: Toy(2)})
    written = Path.write_text

    def full(self: Path, text: str, **how: Any) -> int:
        if self.name.startswith("index.html"):
            raise OSError(28, "No space left on device")
        return written(self, text, **how)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full)
        with pytest.raises(UserError, match="No space left on device"):
            again()
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    again()
    assert {p.name for p in folder.iterdir()} == set(before)
    assert (folder / "explanation.json").read_bytes() != before["explanation.json"]


def test_interrupting_writes_nothing_and_closes_the_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    run = toy_run(tmp_path, {step: induction_toy() for step in (0, 10, 20, 30)})
    seen = []

    def stop(wired: Wired, *rest: Any) -> Any:
        seen.append(1)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return explain_checkpoint(wired, *rest)

    monkeypatch.setattr("dynamics.explaining.computing.explain_checkpoint", stop)
    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        explain("toys", PROMPT, run=run, answer="d", foil="b", traces=tmp_path, reports=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    for thread in set(threading.enumerate()) - before:  # those that read ahead end with what they are doing
        thread.join(10)
        assert not thread.is_alive()


def test_memory_that_runs_out_stops_without_a_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from checkpoints.errors import StoppedError

    def exhausted(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("dynamics.explaining.computing.explain_checkpoint", exhausted)
    run = toy_run(tmp_path, {30: induction_toy()})
    with pytest.raises(StoppedError, match="out of memory"):
        explain("toys", PROMPT, run=run, answer="d", foil="b", traces=tmp_path, reports=tmp_path / "out")


# the command line


class Said(NamedTuple):
    """What one command did."""

    code: int
    out: str
    err: str


Dynamics = Callable[..., Said]
SUM = "46+39=08"


@pytest.fixture
def project(
    tmp_path: Path, tiny_series: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Dynamics:
    """``project(*arguments)``: the command line in a folder with a run of six checkpoints."""
    shutil.copytree(tiny_series, tmp_path / "series")
    (tmp_path / "runs.yaml").write_text(
        "mine:\n  series: {kind: folder, path: series}\n  analyses: [induction]\n  device: cpu\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def call(*arguments: str) -> Said:
        capsys.readouterr()
        try:
            main(list(arguments))
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Said(code, *capsys.readouterr())

    return call


def refused(said: Said, *parts: str) -> None:
    """Exit code 2, one message, no traceback, nothing written."""
    assert said.code == 2, said
    assert said.err.startswith("error: ") and "Traceback" not in said.err and said.out == ""
    for part in parts:
        assert part in said.err, said.err
    assert not Path("reports").exists()


def written() -> tuple[Path, dict[str, Any]]:
    (folder,) = Path("reports/mine").iterdir()
    content = json.loads((folder / "explanation.json").read_text())
    check_explanation(content)
    return folder, content


def test_nonsense_is_refused_without_a_traceback(project: Dynamics) -> None:
    refused(project("explain", "mien", SUM), "there is no run 'mien'", "did you mean 'mine'")
    refused(project("explain", "mine", ""), "the prompt is empty")
    refused(project("explain", "mine", SUM, "--answer", "zebra"), "zebra")
    refused(project("explain", "mine", SUM, "--answer", "5", "--foil", "5"), "answer and foil are the same token")
    refused(project("explain", "mine", SUM, "--corrupted", "46+3=08"), "tokens long, its corrupted twin")
    for share in ("0", "1.5", "nan"):
        refused(project("explain", "mine", SUM, "--share", share), f"the share is {float(share)}")
    refused(project("explain", "mine", SUM, "--checkpoints", "0"), "0 checkpoints were asked for")
    refused(project("explain", "mine", SUM, "--figure-step", "5"), "step 5 is not among those explained")
    refused(project("explain", "mine", "1" * 100), "tokens long, but the model reads")
    refused(project("explain", "mine", "a \udcff b"), "half characters")
    refused(project("explain", "mine", "<script>alert(1)</script>"), "unknown to the tokenizer")
    refused(project("explain", "mine", "\u202e\U0001f600"), "unknown to the tokenizer")


def test_the_page_the_numbers_and_the_figure_are_written(project: Dynamics) -> None:
    said = project("explain", "mine", SUM, "--checkpoints", "3")
    assert said.code == 0 and "both guessed from the final checkpoint" in said.out
    folder, content = written()
    assert {p.name for p in folder.iterdir()} == {"index.html", "explanation.json", "explanation.svg"}
    assert f"{folder / 'index.html'}" in said.out.replace("\n", "")
    assert len(content["checkpoints"]) == 3 and content["prompt"] == SUM
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert project("explain", "mine", SUM, "--checkpoints", "3").code == 0
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before  # the same question, the same answer
    assert project("explain", "mine", SUM, "--checkpoints", "1", "--figure-step", "12").code == 0
    assert len(written()[1]["checkpoints"]) == 1


def test_a_checkpoint_that_cannot_be_loaded_is_in_the_page(project: Dynamics) -> None:
    steps = sorted(int(p.name.removeprefix("step")) for p in Path("series").glob("step*"))
    file = Path("series") / f"step{steps[2]}" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-64])
    said = project("explain", "mine", SUM)
    assert said.code == 0, said
    folder, content = written()
    assert [c["state"] == "failed" for c in content["checkpoints"]] == [i == 2 for i in range(len(steps))]
    assert (
        content["checkpoints"][2]["reason"]
        and content["checkpoints"][2]["reason"] in (folder / "explanation.json").read_text()
    )
    assert content["checkpoints"][3]["lens"] is not None


def test_a_final_checkpoint_that_cannot_be_loaded_cannot_guess(project: Dynamics) -> None:
    steps = sorted(int(p.name.removeprefix("step")) for p in Path("series").glob("step*"))
    (Path("series") / f"step{steps[-1]}" / "model.safetensors").write_bytes(b"no weights")
    refused(project("explain", "mine", SUM), f"step {steps[-1]}, by which answer and foil are guessed", "give --answer")
    assert project("explain", "mine", SUM, "--answer", "5", "--foil", "4").code == 0
    assert written()[1]["checkpoints"][-1]["state"] == "failed"


def test_a_checkpoint_of_another_architecture_failed(project: Dynamics) -> None:
    steps = sorted(int(p.name.removeprefix("step")) for p in Path("series").glob("step*"))
    place = Path("series") / f"step{steps[2]}"
    config = json.loads((place / "config.json").read_text())
    config["num_attention_heads"] = 2 * config["num_attention_heads"]  # the same tensors, read otherwise
    (place / "config.json").write_text(json.dumps(config))
    assert project("explain", "mine", SUM, "--answer", "5", "--foil", "4").code == 0
    found = written()[1]["checkpoints"]
    assert [c["state"] == "failed" for c in found] == [i == 2 for i in range(len(steps))]
    assert "its config is that of another model: heads 4, not 2" in found[2]["reason"]


def test_only_what_the_trace_holds_is_explained(project: Dynamics) -> None:
    steps = sorted(int(p.name.removeprefix("step")) for p in Path("series").glob("step*"))
    with Path("runs.yaml").open("a") as stream:
        stream.write(f"  exclude: [{steps[1]}]\n")
    assert project("explain", "mine", SUM, "--answer", "5", "--foil", "4").code == 0
    assert steps[1] not in [c["step"] for c in written()[1]["checkpoints"]]
    file = Path("series") / f"step{steps[2]}" / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-64])
    assert project("collect", "mine", "--keep-going").code == 1
    file.write_bytes(whole)
    assert project("explain", "mine", SUM, "--answer", "5", "--foil", "4").code == 0
    held = [c["step"] for c in written()[1]["checkpoints"]]
    assert held == [s for i, s in enumerate(steps) if i not in (1, 2)]


def test_weights_of_nan_failed_and_the_others_are_there(project: Dynamics) -> None:
    steps = sorted(int(p.name.removeprefix("step")) for p in Path("series").glob("step*"))
    file = Path("series") / f"step{steps[1]}" / "model.safetensors"
    tensors = load_file(file)
    save_file({name: tensor * float("nan") for name, tensor in tensors.items()}, file, metadata={"format": "pt"})
    assert project("explain", "mine", SUM).code == 0
    found = written()[1]["checkpoints"]
    assert found[1]["state"] == "failed" and "not finite" in found[1]["reason"]
    assert "failed" not in {c["state"] for i, c in enumerate(found) if i != 1}


def test_where_nothing_can_be_written_is_said_before_anything_is_computed(
    project: Dynamics, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("taken").write_text("a file")
    loaded: list[Any] = []
    monkeypatch.setattr("dynamics.explaining.computing._explanation", lambda *given: loaded.append(given))
    refused(project("explain", "mine", SUM, "--reports", "taken"), "taken is a file", "--reports")
    monkeypatch.setattr("os.access", lambda *_: False)
    refused(project("explain", "mine", SUM), "is read-only", "--reports")
    assert not loaded


def test_a_model_that_fills_in_masks_is_refused(project: Dynamics) -> None:
    tokenizer = build_tokenizer()
    config = hf.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
    )
    shutil.rmtree("series")
    for step in (0, 1):
        hf.BertForMaskedLM(config).save_pretrained(f"series/step{step}")
        tokenizer.save_pretrained(f"series/step{step}")
    refused(project("explain", "mine", SUM), "what reads and writes where is not known of this architecture")


def test_text_of_any_kind_is_shown_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tokenizer that knows markup, emoji and text that runs the other way."""
    words = ["<script>alert(1)</script>", "\U0001f600", "שלום", "\u202e", "</script>", "e", "f", "&amp;"]
    monkeypatch.setattr(ADAPTER, "tokenizer", lambda: word_tokenizer(words))
    run = toy_run(tmp_path, {0: Toy(2), 30: induction_toy()})
    prompt = f"{words[0]} {words[1]}\n{words[2]} {words[3]} {words[4]} {words[5]} {words[2]}"
    done = explain("toys", prompt, run=run, traces=tmp_path, reports=tmp_path / "out")
    page = (done.folder / "index.html").read_text()
    assert "<script>alert" not in page and "\u202e" not in page and page.count("</script>") == 2
    assert done.content["answer"]["text"] == "\u202e"
    check_explanation(json.loads((done.folder / "explanation.json").read_text()))


def test_the_model_is_the_runs(project: Dynamics) -> None:
    """What the page calls most probable is what plain transformers says."""
    assert project("explain", "mine", SUM, "--checkpoints", "2").code == 0
    tokenizer = build_tokenizer()
    for found in written()[1]["checkpoints"]:
        model: Any = hf.AutoModelForCausalLM.from_pretrained(f"series/step{found['step']}").eval()
        with torch.no_grad():
            own = model(torch.tensor([tokenizer(SUM)["input_ids"]])).logits[0, -1].softmax(-1)
        assert found["top"][0]["probability"] == pytest.approx(float(own.max()), rel=1e-4)
        assert found["lens"]["top"][-1][-1][1] == pytest.approx(float(own.max()), rel=1e-4)


def test_the_counterpart_is_found_by_changing_one_token(tmp_path: Path) -> None:
    """Of an induction prompt: the word that is to be said, where it first stood; the foil is what then is said."""
    run = toy_run(tmp_path, {0: induction_toy(), 30: induction_toy()})
    done = explain("toys", PROMPT, run=run, traces=tmp_path, reports=tmp_path / "out")
    content = done.content
    assert content["corrupted"]["how"] == "one token" and content["guessed"] == ["answer", "foil"]
    (twin,) = content["corrupted"]["texts"]
    changed = [i for i, (a, b) in enumerate(zip(PROMPT.split(), twin.split(), strict=True)) if a != b]
    answer, foil = content["answer"]["text"].strip(), content["foil"]["text"].strip()
    assert len(changed) == 1 and PROMPT.split()[changed[0]] == answer and twin.split()[changed[0]] == foil
    other = explain("toys", PROMPT, run=run, random_tokens=True, traces=tmp_path, reports=tmp_path / "out")
    assert other.content["corrupted"]["how"] == "random tokens" and other.folder != done.folder
