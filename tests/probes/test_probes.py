"""Probes: files are read in full or refused with every mistake, and nothing is computed on what the tokenizer changes."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyses import addition, induction, shared_concepts
from checkpoints.errors import UserError
from checkpoints.organism import build_tokenizer, speaks
from dynamics.analysis.base import Context, Request
from dynamics.measurements import Answers, Intervention
from dynamics.probes import Probe, TokenizedProbe, read_probe, single_token, tokenize
from dynamics.runs.plan import find_analysis, merge

PLAN = {"addition": addition, "induction": induction, "shared_concepts": shared_concepts}


@pytest.fixture(scope="module")
def organism() -> Any:
    return build_tokenizer()


@pytest.fixture(scope="module")
def pythia(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The real tokenizer of the Pythia models."""
    from transformers import PreTrainedTokenizerFast

    file = tmp_path_factory.mktemp("pythia") / "tokenizer.json"
    file.write_bytes(gzip.decompress((shared_data / "pythia_tokenizer.json.gz").read_bytes()))
    return PreTrainedTokenizerFast(tokenizer_file=str(file))


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


RECORDS = [
    {"text": "23 + 45 =", "answer": " 0", "foil": " 1", "labels": {"context": "plain", "a": 23}, "positions": {"b": "45"}},
    {"text": "61 + 17 =", "answer": " 0", "foil": " 1", "labels": {"context": "ünï\u2028", "a": 61}, "positions": {"b": [5, 7]}},
]  # fmt: skip


def test_jsonl_and_yaml_files_of_the_same_records_give_the_same_probe(tmp_path: Path) -> None:
    import yaml

    lines = "\n\n".join(json.dumps(r, ensure_ascii=False) for r in RECORDS) + "\n"
    one = read_probe("p", write(tmp_path, "p.jsonl", lines))
    other = read_probe("p", write(tmp_path, "p.yaml", yaml.safe_dump(RECORDS, allow_unicode=True)))
    third = read_probe("p", write(tmp_path, "p.yml", yaml.safe_dump({"description": "d", "prompts": RECORDS})))
    assert one.text == other.text == third.text == ("23 + 45 =", "61 + 17 =")
    assert one.labels == other.labels == third.labels == {"context": ("plain", "ünï\u2028"), "a": (23, 61)}
    assert one.positions == other.positions == {"b": ("45", (5, 7))}
    assert (one.answer, one.foil, one.corrupted) == ((" 0", " 0"), (" 1", " 1"), None)
    assert third.description == "d" and one.description == "prompts from p.jsonl"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("p.jsonl", '{"text": "a"}\n{"text": \n\n{oops}\n', ["2 mistakes", "line 2 is not JSON", "line 4 is not JSON"]),
        (
            "p.jsonl",
            '{"text": "a", "anwser": " b"}\n{"txet": "a"}\n{"text": 3}\n[1]\n',
            ["1: anwser", "mean 'answer'", "2: txet", "mean 'text'", "record 2: text", "record 3: text", "record 4"],
        ),
        ("p.jsonl", '{"text": "a", "answer": " b"}\n{"text": "c"}\n', ["'answer' is missing in record 2"]),
        ("p.jsonl", '{"text": "a", "labels": {"x": 1}}\n{"text": "c"}\n', ["record 2 has no label 'x'"]),
        ("p.jsonl", '{"text": "a", "positions": {"x": "a"}}\n{"text": "c"}\n', ["record 2 has no position 'x'"]),
        ("p.jsonl", "", ["'p' has no prompts"]),
        ("p.yaml", "promts: []\n", ["unknown key 'promts'", "did you mean 'prompts'"]),
        ("p.yaml", "prompts: 3\n", ["no list of prompts"]),
        ("p.yaml", "prompts: [\n", ["is not YAML"]),
        ("p.csv", "a,b\n", ["p.csv has an unknown ending", ".jsonl, .yaml or .yml"]),
        ("p.jsonl", '{"text": "a", "labels": {"step": 1}}\n', ["label 'step' is a name that the trace uses"]),
        ("p.jsonl", '{"text": "a", "labels": {"my label": 1}}\n', ["'my label' cannot name a label"]),
        ("p.jsonl", '{"text": "a", "positions": {"last": "a"}}\n', ["'last' is always the final token"]),
    ],
)
def test_every_mistake_in_a_file_is_reported_at_once(tmp_path: Path, name: str, text: str, expected: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        read_probe("p", write(tmp_path, name, text))
    for part in expected:
        assert part in str(caught.value), str(caught.value)


def test_a_file_that_cannot_be_read_says_what_its_path_is_relative_to(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be read(.|\n)*relative to the runs file"):
        read_probe("p", tmp_path / "nothing.jsonl")
    (tmp_path / "bin.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="cannot be read"):
        read_probe("p", tmp_path / "bin.jsonl")


def test_a_probe_file_is_named_by_text_or_a_path_and_by_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"text": "a"}\n', encoding="utf-8")
    assert read_probe("p", str(tmp_path / "p.jsonl")) == read_probe("p", tmp_path / "p.jsonl")
    with pytest.raises(UserError, match="`file` is 3, of type int"):
        read_probe("p", 3)  # type: ignore[arg-type]


def test_columns_of_unequal_length_and_bad_names_are_refused() -> None:
    with pytest.raises(UserError, match="'answer' has 1 entries for 2 prompts"):
        Probe("p", ("a", "b"), answer=("x",))
    with pytest.raises(UserError, match="'my probe' cannot name a probe"):
        Probe("my probe", ("a",))


def problems(probe: Probe, tokenizer: Any, **limits: int) -> str:
    with pytest.raises(UserError) as caught:
        tokenize(probe, tokenizer, **limits)
    return str(caught.value)


def test_positions_and_ids_are_those_of_the_tokens_that_hold_the_text(organism: Any) -> None:
    probe = Probe(
        "p",
        ("23 + 45 =", "the opposite of big is"),
        positions={"mark": ("45", "big"), "span": ((0, 1), (4, 12))},
        answer=(" 0", " small"),
    )
    found = tokenize(probe, organism)
    for i, text in enumerate(probe.text):
        assert found.ids[i].tolist() == organism(text)["input_ids"]
        tokens = organism.convert_ids_to_tokens(found.ids[i].tolist())
        assert tokens[found.positions["last"][i]] == tokens[-1]
        assert tokens[found.positions["mark"][i]] == ("5", "big")[i]  # the token of the mark's last character
        assert tokens[found.positions["span"][i]] == ("2", "opposite")[i]
    assert found.answer_ids is not None
    assert organism.convert_ids_to_tokens(found.answer_ids.tolist()) == ["0", "small"]
    assert set(found.candidates.values()) == {" 0", " small"} and list(found.candidates) == sorted(found.candidates)


def test_everything_that_does_not_fit_the_tokenizer_is_reported_at_once_with_its_prompt(organism: Any) -> None:
    text = ("23 + 45 =", "11 + 12 =", "13 + 14 =", "qwertz + 1 =", "15 + 16 =", "17 + 17 =", "18 + 19 =")
    answer = (" 0", " 68", " zzzz", " 0", " 0", " 0", " 0")
    mark: tuple[Any, ...] = ("3", "9", "1", "qwertz", (5, 70), "17", (2, 2))
    corrupted = (*text[:4], "15 + 1 =", *text[5:])
    message = problems(Probe("p", text, answer=answer, corrupted=corrupted, positions={"m": mark}), organism)
    assert "probe 'p' does not fit the tokenizer in 9 places" in message and "... and 1 more" in message
    for part in (
        "prompt 3 ('qwertz + 1 ='): 'qwertz' is unknown to the tokenizer",
        "prompt 1 ('11 + 12 ='): position 'm': '9' occurs 0 times",
        "prompt 2 ('13 + 14 ='): position 'm': '1' occurs 2 times",
        "prompt 4 ('15 + 16 ='): position 'm': the span (5, 70) is outside the prompt's 9 characters",
        "prompt 5 ('17 + 17 ='): position 'm': '17' occurs 2 times",
        "prompt 6 ('18 + 19 ='): position 'm': the span (2, 2)",
        "prompt 1 ('11 + 12 ='): answer ' 68' is 2 tokens (6 8), expected one",
        "prompt 2 ('13 + 14 ='): answer ' zzzz' is unknown to the tokenizer",
    ):
        assert part in message, message
    message = problems(Probe("p", text[4:5], corrupted=("15 + 1 =",)), organism)
    assert "prompt 0 ('15 + 16 ='): is 7 tokens long, its corrupted twin '15 + 1 =' 6" in message


def test_an_answer_that_merges_with_the_text_before_it_is_refused(pythia: Any) -> None:
    assert tokenize(Probe("p", ("The capital of France is",), answer=(" Paris",)), pythia).answer_ids is not None
    message = problems(Probe("p", ("The capital of Fra",), answer=("nce",)), pythia)
    assert "'nce' merges with the text before it" in message
    message = problems(Probe("p", ("It is",), answer=(" antidisestablishmentarianism",)), pythia)
    assert "tokens (" in message and "expected one" in message
    message = problems(Probe("p", ("It is",), answer=(" a",), foil=(" xyzzyx",)), pythia)
    assert "foil ' xyzzyx' is" in message


def test_a_prompt_longer_than_the_model_reads_is_refused(organism: Any) -> None:
    probe = Probe("p", ("1 + 2 =", "1 2 3 4 5 6 7 8"))
    tokenize(probe, organism, context=9)
    assert "prompt 1 ('1 2 3 4 5 6 7 8'): is 9 tokens long, but the model reads 8" in problems(
        probe, organism, context=8
    )


def test_a_vocabulary_too_small_for_prompt_answer_or_twin_is_refused(organism: Any) -> None:
    big = single_token(organism, " small")
    assert big is not None
    assert "tokenizer does not fit" in problems(Probe("p", ("small 1",)), organism, vocab=big)
    low = [t for t in map(str, range(10)) if (single_token(organism, t) or big) < big]
    text = (" ".join(low[:1]),)
    message = problems(Probe("p", text, answer=(" small",)), organism, vocab=big)
    assert f"answer ' small' is token id {big}, but the model has {big} embeddings" in message
    assert "corrupted twin holds token id" in problems(Probe("p", text, corrupted=("small",)), organism, vocab=big)


def test_an_empty_prompt_is_refused_where_the_tokenizer_makes_nothing_of_it(pythia: Any) -> None:
    assert "prompt 1 (''): has no tokens" in problems(Probe("p", ("a", "")), pythia)


def contexts(organism: Any, pythia: Any) -> list[tuple[str, Context]]:
    return [
        ("organism", Context(organism)),
        ("pythia", Context(pythia)),
    ]


@pytest.mark.parametrize("name", PLAN)
def test_the_built_in_probes_fit_the_organism_and_the_real_pythia_tokenizer(
    organism: Any, pythia: Any, name: str
) -> None:
    assert speaks(organism) and not speaks(pythia)
    for who, context in contexts(organism, pythia):
        analysis, options = find_analysis(name)
        requests = analysis.plan(context, options)
        assert requests
        for request in requests:
            found = tokenize(request.probe, context.tokenizer, vocab=len(context.tokenizer))
            # interventions pass many times over their prompts, of which there are fewer
            dear = any(isinstance(m, Intervention) for m in request.measurements)
            assert len(found.ids) == len(request.probe) >= (30 if dear else 60), who
            assert request.probe.description
            if request.probe.answer is not None:
                for i in (0, len(request.probe) - 1):
                    whole = context.tokenizer(request.probe.text[i] + request.probe.answer[i])["input_ids"]
                    assert whole == [*found.ids[i].tolist(), found.answer_ids[i]]


def test_random_sequences_repeat_token_by_token_and_their_controls_do_not(organism: Any, pythia: Any) -> None:
    for who, context in contexts(organism, pythia):
        period = 10 if who == "organism" else 25
        repeats, control = (
            tokenize(r.probe, context.tokenizer) for r in induction.plan(context, induction.Options(prompts=16))[:2]
        )
        for row, other in zip(repeats.ids, control.ids, strict=True):
            assert np.array_equal(row[-period:], row[-2 * period : -period]) and len(row) == len(other)
            assert len(set(row[-period:].tolist())) == period
            assert not set(other[-period:].tolist()) & set(other[-2 * period : -period].tolist())


def test_sums_are_right_and_the_contexts_share_no_operands(organism: Any, pythia: Any) -> None:
    for who, context in contexts(organism, pythia):
        probe = addition.plan(context, addition.Options(per_context=40))[0].probe
        labels = probe.labels
        seen = set()
        digits: dict[Any, list[str]] = {}
        for i, answer in enumerate(probe.answer or ()):
            a, b, total = (int(labels[k][i]) for k in ("operand_a", "operand_b", "total"))
            assert total == a + b and labels["ones"][i] == total % 10
            seen.add((frozenset((a, b)), labels["context"][i]))
            digits.setdefault((labels["pair"][i], labels["context"][i], total), []).append(answer.strip())
        assert len({pair for pair, _ in seen}) == len(seen) == 120
        for (_, context_name, total), parts in digits.items():
            assert "".join(parts)[-2:] == f"{total % 100:02d}"
            assert who == "organism" or context_name != "citation" or parts == [str(1900 + total)]


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=40), tokens=st.integers(1, 30))
def test_batches_of_equal_length_cover_each_prompt_once(lengths: list[int], tokens: int) -> None:
    ids = tuple(np.zeros(n, dtype=np.int64) for n in lengths)
    probe = Probe("p", tuple("x" * n for n in lengths))
    batches = TokenizedProbe(probe, ids, None, None, None, {}, {}).batches(tokens)
    assert sorted(int(i) for rows in batches for i in rows) == list(range(len(lengths)))
    for rows in batches:
        assert len({lengths[i] for i in rows}) == 1
        assert len(rows) == 1 or len(rows) * lengths[rows[0]] <= tokens


def test_equal_requests_run_once_and_different_probes_of_one_name_are_refused() -> None:
    probe = Probe("p", ("a",), answer=("b",))
    plans = merge([Request(probe, (Answers(),)), Request(probe, (Answers(), Answers(candidates=True)))])
    assert [p.measurements for p in plans] == [(Answers(candidates=True),)]  # which writes all that the other does
    with pytest.raises(UserError, match="two different probes named 'p'"):
        merge([Request(probe, (Answers(),)), Request(Probe("p", ("b",), answer=("b",)), (Answers(),))])
