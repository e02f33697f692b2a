"""Text and tokens, on every kind of tokenizer: answers in place, ends of texts, characters of several tokens, spaces."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from checkpoints.errors import UserError
from dynamics.probes import LAST, Probe, single_token, tokenize
from dynamics.probes.sources import plain_words

WORDS = "the colour of slate is grey red café €5 日本 no".split()  # noqa: SIM905
KINDS = ("bytes", "bytes trimmed", "unigram", "unigram bytes", "pieces", "pieces bytes", "words")
MARKS = ("none", "prepended", "metaspace")
"""Where a SentencePiece tokenizer puts its mark of a space: only for spaces, before every text, before what has none."""
ENDS = ("", "begin", "end", "begin end")


@cache
def made(kind: str, mark: str, ends: str) -> Any:
    """A tokenizer of a kind, with every word one token behind a space where its letters are known."""
    known = [word for word in WORDS if word.isascii()]
    special = ["<unk>", "<s>", "</s>"]
    if kind.startswith("bytes"):
        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        core = Tokenizer(_merging([*special, *letters], [f"Ġ{w}" for w in known], {}))
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        core.decoder = decoders.ByteLevel()
        tail = [processors.ByteLevel(trim_offsets=kind.endswith("trimmed"))]
    elif kind == "words":
        pieces = [*special, "[MASK]", *WORDS, "cafe", "€", "日", "本", *"5abcdefghijklmnopqrstuvwxyz"]
        core = Tokenizer(models.WordPiece({p: i for i, p in enumerate(dict.fromkeys(pieces))}, unk_token="<unk>"))
        core.normalizer, core.pre_tokenizer, tail = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer(), []
    else:
        fallback, tail = kind.endswith("bytes"), []
        alphabet = ["▁", *sorted({letter for word in known for letter in word}), *(f"<0x{i:02X}>" for i in range(256))]
        if kind.startswith("unigram"):
            scored = [(p, 0.0) for p in special] + [(p, -20.0) for p in alphabet] + [(f"▁{w}", -3.0) for w in known]
            core = Tokenizer(models.Unigram(scored, unk_id=0, byte_fallback=fallback))
        else:
            about = {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": fallback}
            core = Tokenizer(_merging([*special, *alphabet], [f"▁{w}" for w in known], about))
        core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        if mark == "metaspace":
            core.pre_tokenizer = pre_tokenizers.Metaspace()
        else:
            before = [normalizers.Prepend("▁")] if mark == "prepended" else []
            core.normalizer = normalizers.Sequence([*before, normalizers.Replace(" ", "▁")])
    around = " ".join(["<s>"] * ("begin" in ends) + ["$A"] + ["</s>"] * ("end" in ends))
    template = processors.TemplateProcessing(single=around, special_tokens=[("<s>", 1), ("</s>", 2)])
    core.post_processor = processors.Sequence([*tail, template])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<unk>", eos_token="</s>", mask_token="[MASK]" if kind == "words" else None
    )


def _merging(pieces: list[str], words: list[str], about: dict[str, Any]) -> Any:
    merges: dict[tuple[str, str], None] = {}
    for word in words:
        for at in range(1, len(word)):
            merges[word[:at], word[at]] = None
            pieces.append(word[: at + 1])
    return models.BPE({p: i for i, p in enumerate(dict.fromkeys(pieces))}, list(merges), **about)


def every() -> Iterator[tuple[str, str, str]]:
    for kind in KINDS:
        for mark in MARKS if kind.startswith(("unigram", "pieces")) else MARKS[:1]:
            for ends in ENDS:
                yield kind, mark, ends


@pytest.mark.parametrize(("kind", "mark", "ends"), list(every()))
def test_an_answer_is_the_token_that_it_adds_in_place_and_last_is_where_it_is_read(
    kind: str, mark: str, ends: str
) -> None:
    tokenizer, text = made(kind, mark, ends), "the colour of slate is"
    found = tokenize(Probe("p", (text,), answer=(" grey",), foil=(" red",)), tokenizer)
    whole = [i for i in tokenizer(f"{text} grey")["input_ids"] if i != 2]  # all but the end token
    assert [*found.ids[0].tolist(), found.answer_ids[0]] == whole  # type: ignore[index]
    assert tokenizer.decode([int(found.ids[0][found.positions[LAST][0]])]).strip() == "is"
    assert single_token(tokenizer, " grey") == found.answer_ids[0]  # type: ignore[index]
    assert ("begin" in ends) == (found.ids[0][0] == 1)
    with pytest.raises(UserError, match="' grey red' is 2 tokens"):
        tokenize(Probe("p", (text,), answer=(" grey red",)), tokenizer)


@settings(max_examples=25, deadline=None)
@given(
    which=st.sampled_from(list(every())),
    words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=6),
    data=st.data(),
)
def test_a_position_is_the_token_with_which_its_last_character_is_complete(
    which: tuple[str, str, str], words: list[str], data: st.DataObject
) -> None:
    tokenizer = made(*which)
    spelt = which[0].startswith("bytes") or which[0].endswith("bytes")  # in bytes where nothing else is known
    text = " ".join(word for word in words if spelt or (word.isascii() and word.isalpha()))
    at = data.draw(st.sampled_from([i for i, c in enumerate(text) if c != " "] or [None]))
    if at is None:
        return
    found = tokenize(Probe("p", (text,), positions={"mark": ((at, at + 1),)}), tokenizer)
    here = int(found.positions["mark"][0])
    # the tokens up to it hold the text up to the character, and those before it do not
    if which[0] != "words":
        through, short = (tokenizer.decode(found.ids[0][: here + more]).removeprefix("<s>") for more in (1, 0))
        assert through.strip().startswith(text[: at + 1].strip()) and not short.strip().startswith(
            text[: at + 1].strip()
        )


def test_a_character_of_several_tokens_ends_on_the_last_of_them_also_where_two_share_a_range() -> None:
    for kind in ("bytes", "unigram bytes", "pieces bytes"):
        tokenizer = made(kind, "none", "")
        found = tokenize(Probe("p", ("日本",), positions={"one": ("日",), "two": ("本",)}), tokenizer)
        assert [int(found.positions[name][0]) for name in ("one", "two")] == [2, 5] and len(found.ids[0]) == 6, kind


def test_a_mark_that_ends_in_a_space_which_no_token_holds_ends_before_it() -> None:
    for kind in ("bytes trimmed", "words"):
        probe = Probe("p", ("the slate is",), positions={"with": ("slate ",), "without": ("slate",)})
        positions = tokenize(probe, made(kind, "none", "")).positions
        assert positions["with"] == positions["without"] < positions[LAST], kind


def test_a_model_that_fills_in_masks_keeps_the_end_of_the_text_and_gets_the_answer_in_its_place() -> None:
    tokenizer = made("words", "none", "begin end")
    found = tokenize(
        Probe("p", ("the slate [MASK] grey", "the slate is"), answer=(" is", " grey")), tokenizer, causal=False
    )
    assert [row[-1] for row in found.ids] == [2, 2] and found.positions[LAST].tolist() == [3, 4]
    assert tokenizer.convert_ids_to_tokens(found.answer_ids.tolist()) == ["is", "grey"]  # type: ignore[union-attr]
    with pytest.raises(UserError, match="' grey red' is 2 tokens"):
        tokenize(Probe("p", ("the slate is",), answer=(" grey red",)), tokenizer, causal=False)


@pytest.mark.parametrize("mark", MARKS)
def test_plain_words_are_one_token_each_also_where_a_space_is_put_before_every_text(mark: str) -> None:
    tokenizer = made("pieces", mark, "begin")
    words = plain_words(tokenizer)
    assert set(words.words) >= {f" {w}" for w in WORDS if w.isascii() and w.isalpha() and len(w) > 2}
    assert len(tokenizer(words.joined(words.words))["input_ids"]) == 1 + len(words.words)


def test_where_there_are_no_words_letters_stand_side_by_side() -> None:
    core = Tokenizer(models.BPE({c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words = plain_words(PreTrainedTokenizerFast(tokenizer_object=core))
    assert len(words.words) == 62 and words.period == 20 and words.joined(words.words[:3]) == "012"


def test_a_tokenizer_that_fails_on_a_word_is_refused_and_named() -> None:
    core = Tokenizer(models.WordLevel({"one": 0}, unk_token="missing"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, name_or_path="mine")
    assert np.array_equal(tokenize(Probe("p", ("one one",)), tokenizer).ids[0], [0, 0])
    with pytest.raises(UserError, match="the tokenizer mine fails on the prompts"):
        tokenize(Probe("p", ("two",)), tokenizer)
