"""Tokenizers of twelve models, each in its scheme: how it writes spaces and numbers, what it puts around a text.

Vocabularies are trained on the words of the built-in prompts, so that these are one token where a real vocabulary has them, too. A real
vocabulary takes their place where there is one: :func:`read_vocabulary` reads those that ``llama-cpp-python`` ships as source
(``vendor/llama.cpp/models/ggml-vocab-*.gguf``).
"""

from __future__ import annotations

import ast
import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

__all__ = ["SCHEMES", "Vocabulary", "build", "read_vocabulary"]

ROOT = Path(__file__).parents[1]

_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|NUMBERS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class Vocabulary:
    """Pieces in the order of their ids, merges in their order, and scores of pieces where there are no merges."""

    pieces: list[str]
    merges: list[tuple[str, str]]
    scores: list[float] | None = None


@dataclass(frozen=True)
class Scheme:
    """How a tokenizer is made.

    Attributes:
        kind: ``bytes`` (byte-level BPE), ``pieces`` (SentencePiece BPE with byte fallback) or ``words`` (WordPiece).
        split: regular expression of what is tokenized by itself, for bytes; empty for that of GPT-2.
        digits: whether every digit is by itself, beside ``split``.
        prefix: whether a space is put in front of every text, for pieces.
        begin, end: special tokens around every text.
        merged: whether there are merges at all.
        file: name of the real vocabulary.
    """

    kind: str
    split: str = ""
    digits: bool = False
    prefix: bool = False
    begin: str = ""
    end: str = ""
    merged: bool = True
    file: str = ""


SCHEMES: dict[str, Scheme] = {
    "GPT-2": Scheme("bytes", file="gpt-2"),
    "Pythia": Scheme("bytes", file="gpt-neox"),
    "Llama 2": Scheme("pieces", digits=True, prefix=True, begin="<s>", file="llama-spm"),
    "Llama 3": Scheme("bytes", _WORDS.replace("NUMBERS", r"\p{N}{1,3}"), begin="<|begin_of_text|>", file="llama-bpe"),
    "Mistral": Scheme("pieces", digits=True, prefix=True, begin="<s>"),
    "Gemma": Scheme("pieces", digits=True, begin="<bos>", file="gemma-4"),
    "Qwen": Scheme("bytes", _WORDS.replace("NUMBERS", r"\p{N}"), file="qwen2"),
    "OLMo 2": Scheme("bytes", _WORDS.replace("NUMBERS", r"\p{N}{1,3}")),
    "SmolLM": Scheme("bytes", digits=True),
    "BLOOM": Scheme("bytes", r" ?[^(\s|[.,!?…。，、।۔،])]+"),
    "BERT": Scheme("words", begin="[CLS]", end="[SEP]", file="bert-bge"),
    "bytes": Scheme("bytes", merged=False),
}


def build(name: str, vocabulary: Vocabulary | None = None) -> PreTrainedTokenizerFast:
    """The tokenizer of a scheme, with a vocabulary of one's own or one that is trained on the words of the prompts."""
    scheme = SCHEMES[name]
    special = [t for t in dict.fromkeys((scheme.begin, scheme.end, _UNKNOWN[scheme.kind])) if t]
    core = _trained(scheme, special) if vocabulary is None else Tokenizer(_model(scheme, vocabulary))
    core.normalizer, core.pre_tokenizer = _around(scheme)
    if scheme.kind == "pieces":
        core.pre_tokenizer = None
        marks = [normalizers.Prepend("▁")] if scheme.prefix else []
        core.normalizer = normalizers.Sequence([*marks, normalizers.Replace(" ", "▁")])
        core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    core.add_special_tokens([t for t in special if core.token_to_id(t) is None])
    if scheme.begin:
        around = [(t, core.token_to_id(t)) for t in (scheme.begin, scheme.end) if t]
        core.post_processor = processors.TemplateProcessing(
            single=" ".join(filter(None, (scheme.begin, "$A", scheme.end))), special_tokens=around
        )
    own = {"unk_token": _UNKNOWN[scheme.kind]} if _UNKNOWN[scheme.kind] else {}
    if scheme.kind == "words":
        own |= {"mask_token": "[MASK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=core, clean_up_tokenization_spaces=False, **own)


_UNKNOWN = {"bytes": "", "pieces": "<unk>", "words": "[UNK]"}


def _trained(scheme: Scheme, special: list[str]) -> Tokenizer:
    core = Tokenizer(_empty(scheme))
    core.normalizer, core.pre_tokenizer = _around(scheme)
    alphabet = [f"<0x{i:02X}>" for i in range(256)] if scheme.kind == "pieces" else []
    settings: dict[str, Any] = {"special_tokens": [*special, *alphabet], "show_progress": False, "vocab_size": 30_000}
    if scheme.kind == "words":
        # a vocabulary of whole words, and letters for the rest
        words = {
            word
            for text in _texts()
            for word, _ in core.pre_tokenizer.pre_tokenize_str(core.normalizer.normalize_str(text))
        }
        letters = {letter for word in words for letter in word}
        pieces = [*special, "[MASK]", *sorted(words | letters), *(f"##{letter}" for letter in sorted(letters))]
        core.model = models.WordPiece(dict(zip(dict.fromkeys(pieces), range(len(pieces)), strict=False)), unk_token="[UNK]")  # fmt: skip
        return core
    if scheme.kind == "bytes":
        settings["initial_alphabet"] = pre_tokenizers.ByteLevel.alphabet()
    if not scheme.merged:
        settings["vocab_size"] = 256
    core.train_from_iterator(_texts(), trainers.BpeTrainer(**settings))
    return core


def _empty(scheme: Scheme) -> Any:
    if scheme.kind == "words":
        return models.WordPiece(unk_token="[UNK]")
    unknown = _UNKNOWN[scheme.kind]
    return models.BPE(unk_token=unknown, fuse_unk=True, byte_fallback=True) if unknown else models.BPE()


def _around(scheme: Scheme) -> tuple[Any, Any]:
    """Normalizer and pre-tokenizer."""
    if scheme.kind == "words":
        return normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    parts: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if scheme.digits else []
    if scheme.kind == "pieces":
        return None, pre_tokenizers.Sequence([pre_tokenizers.Metaspace(prepend_scheme="never"), *parts])
    if scheme.split:
        parts.append(pre_tokenizers.Split(Regex(scheme.split), "isolated"))
    parts.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not scheme.split))
    return None, pre_tokenizers.Sequence(parts)


def _model(scheme: Scheme, vocabulary: Vocabulary) -> Any:
    ids = {piece: i for i, piece in enumerate(vocabulary.pieces)}
    if scheme.kind == "words":
        return models.WordPiece(ids, unk_token="[UNK]")
    if scheme.kind == "pieces":
        merges = vocabulary.merges or _merges(ids, vocabulary.scores or [])
        return models.BPE(ids, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    return models.BPE(ids, vocabulary.merges, ignore_merges=bool(scheme.begin))


def _merges(ids: dict[str, int], scores: list[float]) -> list[tuple[str, str]]:
    """Merges in the order of the scores of what they make, as SentencePiece takes them."""
    found = [
        (-scores[i], ids[piece[:at]], ids[piece[at:]], piece[:at], piece[at:])
        for piece, i in ids.items()
        for at in range(1, len(piece))
        if piece[:at] in ids and piece[at:] in ids
    ]
    return [(left, right) for *_, left, right in sorted(found)]


@cache
def _texts() -> tuple[str, ...]:
    """Every text in the source of the prompts, and numbers as prompts have them."""
    files = [*sorted((ROOT / "analyses").rglob("*.py")), ROOT / "dynamics/probes/words.py", ROOT / "checkpoints/organism/worlds/concepts.py"]  # fmt: skip
    texts = [
        node.value
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "59" not in node.value
    ]
    words = dict.fromkeys(word for text in texts for word in text.replace(":", " ").replace("/", " ").split())
    numbers = [f"{n:02d} {n} 19{n:02d}" for n in range(100)]
    years = [f" {century}" for century in range(10, 21)]
    plurals = [f" {word}s" for word in words if word.isalpha() and word.islower()]
    return (*texts, *(f" {word}" for word in words), *plurals, *numbers * 20, *years * 200)


def read_vocabulary(file: Path) -> Vocabulary:
    """The vocabulary in a file in GGUF format (version 3)."""
    data = file.read_bytes()
    at = 8

    def number(kind: str) -> Any:
        nonlocal at
        at += struct.calcsize(f"<{kind}")
        return struct.unpack_from(f"<{kind}", data, at - struct.calcsize(f"<{kind}"))[0]

    def value(kind: int) -> Any:
        nonlocal at
        if kind == 8:
            length = number("Q")
            at += length
            return data[at - length : at].decode("utf-8", "replace")
        if kind == 9:
            inner, count = number("I"), number("Q")
            return [value(inner) for _ in range(count)]
        return number("BbHhIif?..Qqd"[kind])

    _, count = number("Q"), number("Q")
    found: dict[str, Any] = {}
    for _ in range(count):
        key = value(8)
        found[key.rpartition(".")[2]] = value(number("I"))
    pieces = found["tokens"]
    if found["model"] == "bert":  # which marks the beginnings of words, and not the rest
        pieces = [
            p[1:] if p.startswith("▁") else p if p.startswith("[") and p.endswith("]") else f"##{p}" for p in pieces
        ]
    merges = [tuple(merge.split(" ", 1)) for merge in found.get("merges", [])]
    return Vocabulary(pieces, merges, found.get("scores"))
