"""Rows of tokens: what a corpus says, in its order, read no further than needed; prompts whole."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpoints.errors import UserError
from checkpoints.organism import OrganismConfig, build_tokenizer
from dynamics.learning.corpora import dataset_rows, organism_rows, prompt_rows, separator, text_rows

TINY = OrganismConfig(steps=12, checkpoints=6, layers=2, d_model=32, heads=2, batch=8)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return build_tokenizer()


@pytest.fixture(scope="module")
def words(tokenizer: Any) -> list[str]:
    return [token for token in tokenizer.get_vocab() if token.isalpha()][:50]


def test_rows_of_a_text_are_its_tokens_in_order(tokenizer: Any, words: list[str], tmp_path: Path) -> None:
    text = " ".join(words[:7] * 10)
    (tmp_path / "corpus.txt").write_text(text, encoding="utf-8")
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    rows = text_rows(tmp_path / "corpus.txt", tokenizer, context=12)
    assert rows.ravel().tolist() == ids[: len(ids) // 12 * 12] and rows.shape[1] == 12 and rows.dtype == np.int64
    assert text_rows(tmp_path / "corpus.txt", tokenizer, context=12, most=2).tolist() == rows[:2].tolist()
    with pytest.raises(UserError, match="at least 1000, for one row"):
        text_rows(tmp_path / "corpus.txt", tokenizer, context=1000)
    with pytest.raises(UserError, match="cannot be read"):
        text_rows(tmp_path / "absent.txt", tokenizer, context=10)


def test_a_corpus_of_the_organism_is_not_what_it_was_trained_on() -> None:
    from checkpoints.organism.curriculum import batch

    rows = organism_rows(TINY, 20)
    assert rows.shape == (20, 24)
    assert rows[:8].tolist() == batch(TINY, TINY.steps).tolist()


def test_a_separator_is_what_ends_a_text_or_begins_it(tokenizer: Any) -> None:
    class Marks:
        eos_token_id: int | None = None
        bos_token_id: int | None = 5

    assert separator(tokenizer) == tokenizer.convert_tokens_to_ids("<|endoftext|>")
    assert separator(Marks()) == 5
    Marks.bos_token_id = None
    assert separator(Marks()) is None


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=7), min_size=1, max_size=12),
    st.integers(8, 13),
    st.sampled_from([None, 0]),
)
def test_every_prompt_stands_whole_in_some_row(prompts: list[list[int]], context: int, begin: int | None) -> None:
    rows = prompt_rows(prompts, context=context, begin=begin)
    assert rows.shape[1] == context and rows.dtype == np.int64
    whole = [([] if begin is None else [begin]) + p for p in prompts]
    texts = [bytes(row.tolist()) for row in rows]
    assert all(any(bytes(p) in text for text in texts) for p in whole)
    assert all(any(text.startswith(bytes(p)) for p in whole) for text in texts)
    # no row more than it takes to have them all: each but the last begins or ends something new
    assert len(rows) <= len(prompts) and prompt_rows(prompts, context=context, begin=begin, most=1).tolist() == [rows[0].tolist()]  # fmt: skip


def test_prompts_follow_one_another_behind_the_token_that_begins_them() -> None:
    assert prompt_rows([[0, 1, 2], [3]], context=3, begin=0).tolist() == [[0, 1, 2], [0, 3, 0]]
    assert prompt_rows([[4]], context=3).tolist() == [[4, 4, 4]]
    for prompts in ([], [[1], []], [[1, 2, 3, 4]]):
        with pytest.raises(UserError, match="each of 1 to 3 tokens"):
            prompt_rows(prompts, context=3)
    with pytest.raises(UserError, match="of 3 to 4 tokens"):
        prompt_rows([[1, 2, 3]], context=3, begin=0)


def test_a_dataset_without_its_package_says_what_to_install(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"pip install 'circuit-dynamics\[datasets\]'"):
        dataset_rows("somebody/text", tokenizer, context=8, most=2)


@pytest.fixture
def library() -> Any:
    return pytest.importorskip("datasets", reason="the package datasets is not installed")


@pytest.fixture
def documents(words: list[str], tmp_path: Path) -> list[str]:
    """Documents in a local folder, in two files."""
    made = [" ".join(words[i % 40 : i % 40 + 5]) for i in range(200)]
    folder = tmp_path / "corpus"
    folder.mkdir()
    for part, some in enumerate((made[:100], made[100:])):
        lines = [json.dumps({"text": text, "number": n, "nothing": None}) for n, text in enumerate(some)]
        (folder / f"train-{part}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return made


def test_rows_of_a_dataset_are_its_documents_in_order(
    library: Any, documents: list[str], tokenizer: Any, tmp_path: Path
) -> None:
    home = Path(library.config.HF_DATASETS_CACHE)
    before = set(home.rglob("*")) if home.exists() else set()
    ids: list[int] = []
    for text in documents:
        ids += [separator(tokenizer), *tokenizer(text, add_special_tokens=False)["input_ids"]]
    rows = dataset_rows(str(tmp_path / "corpus"), tokenizer, context=11, most=10_000)
    assert rows.ravel().tolist() == ids[: len(ids) // 11 * 11]
    some = dataset_rows(str(tmp_path / "corpus"), tokenizer, context=11, most=3)
    assert some.tolist() == rows[:3].tolist()
    first = dataset_rows(str(tmp_path / "corpus" / "train-0.jsonl"), tokenizer, context=11, most=3)
    assert first.tolist() == rows[:3].tolist()
    assert (set(home.rglob("*")) if home.exists() else set()) == before


def test_a_dataset_is_read_no_further_than_needed(
    library: Any, tokenizer: Any, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = 0

    def endless(*_: Any, **options: Any) -> Iterator[dict[str, str]]:
        nonlocal taken
        assert options["streaming"] is True
        while True:
            taken += 1
            yield {"text": " ".join(words[:10])}

    monkeypatch.setattr(library, "load_dataset", endless)
    assert dataset_rows("endless", tokenizer, context=11, most=100).shape == (100, 11)
    assert 100 <= taken <= 200


def test_a_dataset_that_is_not_there_or_holds_no_text_is_refused(
    library: Any, documents: list[str], tokenizer: Any, tmp_path: Path
) -> None:
    place = str(tmp_path / "corpus")
    (tmp_path / "notes.md").write_text("x", encoding="utf-8")
    wrong: dict[str, tuple[str, dict[str, Any]]] = {
        "has no column 'txt'\n  expected: one of nothing, number, text\n  remedy:   did you mean 'text'": (place, {"column": "txt"}),
        "column 'number' of the dataset .* holds int": (place, {"column": "number"}),
        "has 0 tokens": (place, {"column": "nothing"}),
        "with a split 'test'": (place, {"split": "test"}),
        "has 1200 tokens\n  expected: at least 5000": (place, {"context": 5000}),
        "cannot be read": (str(tmp_path / "absent"), {}),
        "no known kind": (str(tmp_path / "notes.md"), {}),
    }  # fmt: skip
    for match, (name, options) in wrong.items():
        with pytest.raises(UserError, match=match):
            dataset_rows(name, tokenizer, **({"context": 11, "most": 3} | options))
