"""Published sets of questions whose answers match what the user would like to hear, from JSONL files.

The format is that of Perez et al. 2022 (https://github.com/anthropics/evals, folder ``sycophancy``), one object a line::

    {"question": "Hello, my name is ... Do you agree? (A) Agree (B) Disagree\\n\\nAnswer:",
     "answer_matching_behavior": " (A)", "answer_not_matching_behavior": " (B)"}
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from checkpoints.errors import UserError, shown
from checkpoints.foreign import json_lines, read_text
from dynamics.probes import Probe
from dynamics.probes.drawing import Prompt, to_probe
from dynamics.probes.encoding import single_tokens

__all__ = ["PUBLISHED", "published_probe"]

PUBLISHED = "published"

_QUESTION = "question"
_ANSWERS = ("answer_matching_behavior", "answer_not_matching_behavior")
_LETTER = re.compile(r"\s*\(([A-Z])\)\s*")


def published_probe(tokenizer: Any, file: Path) -> Probe:
    """Questions of a published set; the answer is the letter that matches the behaviour, the foil the other one.

    ``" ("`` is put behind every question, and the letter follows. Where the tokenizer merges bracket and letter, the letter
    follows the question without a bracket. Questions with several letters on one side (lists in the file) are left out;
    the probe's description says how many.

    Returns:
        The probe. Labels: ``line`` (in the file), ``letter`` (the one that matches).

    Raises:
        UserError: when the file cannot be read, a line is no JSON object, a key is missing or has a wrong value (with the
            line and the key), or no question is left.
    """
    try:
        content = read_text(file)
    except (OSError, ValueError) as error:
        raise UserError(
            f"the published questions {file} cannot be read: {getattr(error, 'strerror', None) or error}",
            expected="a file in UTF-8",
            remedy="a path that begins with ./ is relative to the runs file, others to where the command runs",
        ) from error
    lines, problems = json_lines(content)
    if problems:
        raise UserError(f"{file}: {problems[0]}", expected="one JSON object a line", remedy="correct the line")
    opening = _opening(tokenizer)
    rows: list[Prompt] = []
    several = 0
    for number, line in lines:
        record = _record(file, number, line)
        if any(isinstance(record[key], list) for key in _ANSWERS):
            several += 1
            continue
        answer, foil = (_letter(file, number, key, record[key]) for key in _ANSWERS)
        if answer == foil:
            raise _wrong(file, number, _ANSWERS[1], record[_ANSWERS[1]], "another letter than the one that matches")
        rows.append(
            Prompt(
                text=record[_QUESTION].rstrip() + opening,
                answer=answer if opening else f" {answer}",
                foil=foil if opening else f" {foil}",
                labels={"line": number, "letter": answer},
            )
        )
    if not rows:
        raise UserError(
            f"{file} holds no question with one letter on each side ({several} have several)",
            expected=f"one JSON object a line, with {_QUESTION}, {' and '.join(_ANSWERS)}",
            remedy="name another file: those of the folder `sycophancy` have one letter",
        )
    left_out = f"; {several} with several answers left out" if several else ""
    return to_probe(PUBLISHED, rows, f"published questions from {file.name}{left_out}")


def _opening(tokenizer: Any) -> str:
    """What stands between a question and its letter, such that the letter is a token of its own."""

    return " (" if None not in single_tokens(tokenizer, "AB", "Answer: (") else ""


def _record(file: Path, number: int, record: Any) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise UserError(
            f"{file}: line {number} is no JSON object", expected="one JSON object a line", remedy="correct the line"
        )
    for key in (_QUESTION, *_ANSWERS):
        if key not in record:
            raise UserError(
                f"{file}: line {number} has no key {key!r} (it has {', '.join(map(repr, record)) or 'none'})",
                expected=f"{_QUESTION}, {' and '.join(_ANSWERS)} in every line",
                remedy="correct the line, or leave it out",
            )
    if not isinstance(record[_QUESTION], str) or not record[_QUESTION].strip():
        raise _wrong(file, number, _QUESTION, record[_QUESTION], "a text")
    return record


def _letter(file: Path, number: int, key: str, value: Any) -> str:
    found = _LETTER.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise _wrong(file, number, key, value, 'a letter in brackets, as in " (A)"')
    return found[1]


def _wrong(file: Path, number: int, key: str, value: Any, expected: str) -> UserError:
    return UserError(
        f"{file}: line {number}: {key!r} is {shown(value)}",
        expected=expected,
        remedy="correct the line, or leave it out",
    )
