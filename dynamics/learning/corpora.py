"""Rows of token ids that a dictionary is trained and measured on: from a text, a dataset, an organism's worlds, prompts.

All rows are equally long, because the models run them together without padding. A text and a dataset are cut wherever a
row ends; prompts are never cut but at the end of a row, and stand whole at the beginning of the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from checkpoints.errors import UserError, first_line, nearest
from checkpoints.foreign import read_text
from checkpoints.paths import cache_folder
from checkpoints.tokenizing import refused

__all__ = ["dataset_rows", "organism_rows", "prompt_rows", "separator", "text_rows"]

_PIECE = 100_000
"""Characters for one call: a tokenizer is slow on very long texts."""

_TOGETHER = 64
"""Documents for one call."""


def text_rows(file: Path, tokenizer: Any, *, context: int, most: int | None = None) -> npt.NDArray[np.int64]:
    """(row, token) a text file cut into rows of ``context`` tokens, without what is left at its end.

    Args:
        file: UTF-8 text.
        tokenizer: of the series.
        context: tokens in a row.
        most: rows at most.

    Raises:
        UserError: when the file cannot be read, or is too short for one row.
    """
    try:
        text = read_text(file)
    except (OSError, ValueError) as error:
        raise UserError(
            f"the corpus {file} cannot be read: {getattr(error, 'strerror', None) or error}",
            expected="a text file in UTF-8",
            remedy="correct `corpus.file`; relative paths are relative to the runs file",
        ) from error
    pieces = ([text[start : start + _PIECE]] for start in range(0, len(text), _PIECE))
    return _cut(_tokens(pieces, tokenizer, None), str(file), context, most)


def dataset_rows(
    name: str,
    tokenizer: Any,
    *,
    context: int,
    most: int,
    split: str = "train",
    column: str = "text",
    subset: str | None = None,
) -> npt.NDArray[np.int64]:
    """(row, token) a Hugging Face dataset, document after document with a :func:`separator` before each.

    It is read as a stream, from its beginning and no further than needed; its text is never stored.

    Args:
        name: of the dataset on the hub, or a local folder or file of jsonl, csv or parquet.
        tokenizer: of the series.
        context: tokens in a row.
        most: rows at most.
        split: which split.
        column: which column holds the text.
        subset: which configuration, where the dataset has several.

    Raises:
        UserError: when ``datasets`` is not installed, there is no such dataset, split or column, the column holds no
            text, or it is too short for one row.
    """
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise UserError(
            f"the dataset {name!r} cannot be read: {error}",
            expected="the package `datasets`",
            remedy="pip install 'circuit-dynamics[datasets]'",
        ) from None
    source, files = _local(name)
    try:
        rows = load_dataset(
            source,
            name=subset,
            split=split,
            streaming=True,
            data_files=files,
            cache_dir=str(cache_folder() / "datasets"),  # of what is listed; of the text nothing is kept
        )
        texts = _texts(rows, name, column)
        together = iter(lambda: list(islice(texts, _TOGETHER)), [])
        return _cut(_tokens(together, tokenizer, separator(tokenizer)), name, context, most)
    except UserError:
        raise
    # a library of many back ends raises whatever they raise: missing, private, no such split, no connection, not JSON
    except Exception as error:
        raise UserError(
            f"the dataset {name!r} cannot be read: {first_line(error)}",
            expected=f"a dataset on the hub, or a local folder, with a split {split!r}",
            remedy="correct `corpus`; a local path begins with ./, ../, ~ or /",
        ) from error


def prompt_rows(
    prompts: Sequence[Sequence[int]], *, context: int, begin: int | None = None, most: int | None = None
) -> npt.NDArray[np.int64]:
    """(row, token) prompts one after another, each whole at least once.

    Every row begins with a prompt. One that does not fit into what is left of a row fills it with its beginning and
    begins the next row; the last row is filled up from the first prompt on.

    Args:
        prompts: token ids of each.
        context: tokens in a row.
        begin: token that stands before each, where it does not begin with it by itself.
        most: rows at most.

    Raises:
        UserError: when there is no prompt, or one is empty or longer than a row.

    >>> prompt_rows([[1, 2, 3], [4, 5], [6, 7]], context=4)
    array([[1, 2, 3, 4],
           [4, 5, 6, 7]])
    """
    lengths = [len(prompt) for prompt in prompts]
    whole = [[*([] if begin is None or list(p[:1]) == [begin] else [begin]), *p] for p in prompts]
    longest = max(map(len, whole), default=0)
    if min(lengths, default=0) == 0 or longest > context:
        raise UserError(
            f"there are {len(prompts)} prompts, of {min(lengths, default=0)} to {longest} tokens",
            expected=f"at least one, and each of 1 to {context} tokens, as many as a row has",
            remedy="give the dictionary another `context`, or another corpus",
        )
    rows: list[list[int]] = [[]]
    number = 0
    while True:
        prompt = whole[number % len(whole)]
        left = context - len(rows[-1])
        rows[-1] += prompt[:left]
        number += len(prompt) <= left
        if len(rows[-1]) == context:
            if number >= len(whole) or len(rows) == most:
                return np.array(rows, dtype=np.int64)
            rows.append([])


def organism_rows(config: Any, count: int) -> npt.NDArray[np.int64]:
    """(row, token) rows of an organism's worlds as its training data has them, but of the steps after the last of training,
    when every world has entered.
    """
    from checkpoints.organism.curriculum import batch

    wanted = -(-count // config.batch)
    return np.concatenate([batch(config, config.steps + number) for number in range(wanted)])[:count]


def separator(tokenizer: Any) -> int | None:
    """The token between documents: the one that ends a text, else the one that begins it; None where there is neither."""
    for token in (tokenizer.eos_token_id, tokenizer.bos_token_id):
        if token is not None:
            return int(token)
    return None


def _local(name: str) -> tuple[str, str | None]:
    """What ``load_dataset`` is to be called with: a file goes by the reader of its kind."""
    path = Path(name)
    kinds = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet", ".txt": "text"}
    if not path.is_file():
        return name, None
    if path.suffix not in kinds:
        raise UserError(
            f"the dataset {name!r} is a file of no known kind",
            expected=", ".join(sorted(kinds)),
            remedy="rename the file after what it holds",
        )
    return kinds[path.suffix], str(path)


def _texts(rows: Iterable[dict[str, Any]], name: str, column: str) -> Iterator[str]:
    """The texts of one column; empty ones are left out."""
    for row in rows:
        if column not in row:
            raise UserError(
                f"the dataset {name!r} has no column {column!r}",
                expected=f"one of {', '.join(sorted(row))}",
                remedy=nearest(column, row),
            )
        text = row[column]
        if text is not None and not isinstance(text, str):
            raise UserError(
                f"column {column!r} of the dataset {name!r} holds {type(text).__name__}, not text",
                expected="a column of texts",
                remedy="name the column that holds the text as `column`",
            )
        if text:
            yield text


def _tokens(pieces: Iterable[Sequence[str]], tokenizer: Any, before: int | None) -> Iterator[list[int]]:
    """Token ids of one document after another; a tokenizer would warn of texts longer than its model's context."""
    for some in pieces:
        with refused(lambda: f"the tokenizer {tokenizer.name_or_path} fails on the corpus"):
            rows = tokenizer(list(some), add_special_tokens=False, verbose=False)["input_ids"]
        for ids in rows:
            yield ids if before is None else [before, *ids]


def _cut(documents: Iterable[list[int]], name: str, context: int, most: int | None) -> npt.NDArray[np.int64]:
    """(row, token) documents cut into rows; no more of them are read than are needed."""
    ids: list[int] = []
    for document in documents:
        ids += document
        if most is not None and len(ids) >= most * context:
            break
    rows = len(ids) // context
    if not rows:
        raise UserError(
            f"the corpus {name} has {len(ids)} tokens",
            expected=f"at least {context}, for one row",
            remedy="give it more text, or the dictionary a smaller `context`",
        )
    return np.array(ids[: rows * context], dtype=np.int64).reshape(rows, context)[:most]
