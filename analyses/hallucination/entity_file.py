"""Questions about entities from a user's own file, JSONL or CSV, with the columns entity, question, answer and known::

    {"entity": "Geneva", "question": "In which country is the city of Geneva?", "answer": "Switzerland", "known": true}
    {"entity": "Blivnak", "question": "In which country is the city of Blivnak?", "answer": "", "known": false}

Two optional columns, ``attribute`` and ``frequency``, become labels.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from checkpoints.errors import UserError, nearest
from checkpoints.foreign import json_lines, read_text
from dynamics.probes import Probe, single_token
from dynamics.probes.drawing import Prompt, to_probe

__all__ = ["COLUMNS", "PREFACE", "entity_file_probe"]

COLUMNS = ("entity", "question", "answer", "known")
_OPTIONAL = ("attribute", "frequency")

PREFACE = (
    "Question: In which country is the city of Geneva?\nAnswer: Switzerland\n"
    "Question: In which country is the city of Blivnak?\nAnswer: unknown\n"
    "Question: For what is Theodor Blankvist known?\nAnswer: unknown\n"
    "Question: For what is Garry Kasparov known?\nAnswer: chess\n"
)
"""Stands before every question, so that a base model can decline."""

_FRAME = "Question: {question}\nAnswer:"
_DECLINE = "unknown"
_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no")


def entity_file_probe(tokenizer: Any, file: Path) -> Probe:
    """The questions of a file, each after :data:`PREFACE`, in the order of the file.

    The answer of a known entity is that of the file, of an unknown one ``unknown``. The foil is the next different answer
    of the same attribute among the known. Questions whose answer is not one token are left out; the probe's description
    says how many. Every second known and every second unknown entity is for evaluation only, with all of its questions.

    Returns:
        The probe, named ``entities``, with the labels and the position of the built-in one.

    Raises:
        UserError: when the file cannot be read, has unknown, missing or wrong columns (with the record and the column), or
            fewer than two known and two unknown entities, or two different answers of an attribute, are left.
    """
    if single_token(tokenizer, f" {_DECLINE}") is None:
        raise UserError(
            f"` {_DECLINE}`, with which a question is declined, is not one token in this tokenizer",
            expected="a tokenizer of English",
            remedy="leave the entity file out of this run",
        )
    rows, dropped = [], 0
    for number, record in _records(file):
        row = _checked(file, number, record)
        if row["known"] and single_token(tokenizer, f" {row['answer']}") is None:
            dropped += 1
        else:
            rows.append(row)
    answers: dict[str, list[str]] = {}
    for row in rows:
        if row["known"]:
            answers.setdefault(row["attribute"], []).append(row["answer"])
    names = {known: list(dict.fromkeys(row["entity"] for row in rows if row["known"] == known)) for known in (1, 0)}
    few = [kind for kind in {row["attribute"] for row in rows} if len(set(answers.get(kind, ()))) < 2]
    if min(map(len, names.values())) < 2 or few:
        about = f" {sorted(few)[0]!r}" if few else ""
        raise UserError(
            f"{file} has {len(names[1])} known and {len(names[0])} unknown entities ({dropped} questions left out, whose "
            "answer is not one token)",
            expected=f"at least two of each, and two different answers for every attribute{about}",
            remedy="add questions, or leave the entity file out of this run",
        )
    numbers = {name: i for i, name in enumerate([*names[1], *names[0]])}
    kinds = sorted({row["attribute"] for row in rows})
    prompts = [_prompt(row, answers[row["attribute"]], names, numbers, kinds) for row in rows]
    left_out = f"; {dropped} with answers of several tokens left out" if dropped else ""
    return to_probe("entities", prompts, f"questions about entities from {file.name}{left_out}")


def _prompt(
    row: dict[str, Any],
    answers: list[str],
    names: dict[int, list[str]],
    numbers: dict[str, int],
    kinds: list[str],
) -> Prompt:
    text = PREFACE + _FRAME.format(question=row["question"])
    at = text.rindex(row["entity"])
    number = numbers[row["entity"]]
    # the answers in a ring, so that the foils of the known and of the unknown are the same words
    ring = answers[number % len(answers) :] + answers
    foil = next(answer for answer in ring if answer != row["answer"])
    return Prompt(
        text=text,
        answer=f" {row['answer'] if row['known'] else _DECLINE}",
        foil=f" {foil}",
        labels={
            "known": row["known"],
            "frequency": row["frequency"],
            "entity": number,
            "attribute": row["attribute"],
            "template": kinds.index(row["attribute"]),
            "held_out": names[row["known"]].index(row["entity"]) % 2,
        },
        positions={"entity": (at, at + len(row["entity"]))},
    )


def _records(file: Path) -> list[tuple[int, dict[str, Any]]]:
    """(number, record) of every line of JSONL, or row of CSV below the header."""
    try:
        content = read_text(file)
    except (OSError, ValueError) as error:
        raise UserError(
            f"the entity file {file} cannot be read: {getattr(error, 'strerror', None) or error}",
            expected="a file in UTF-8",
            remedy="a path that begins with ./ is relative to the runs file, others to where the command runs",
        ) from error
    if file.suffix == ".csv":
        reader = csv.DictReader(io.StringIO(content))
        try:
            if missing := [column for column in COLUMNS if column not in (reader.fieldnames or ())]:
                raise UserError(
                    f"{file}: the first line names no column {missing[0]!r}",
                    expected=f"a header line with {', '.join(COLUMNS)}",
                    remedy="write one",
                )
            return [(i, dict(row)) for i, row in enumerate(reader, 1)]
        except csv.Error as error:
            raise UserError(
                f"{file}: line {reader.line_num} is not CSV: {error}",
                expected="a row a line, values with commas in quotes",
                remedy="correct the line",
            ) from error
    if file.suffix != ".jsonl":
        raise UserError(
            f"the entity file {file.name} has an unknown ending",
            expected=".jsonl or .csv",
            remedy="rename the file after what it holds",
        )
    rows, problems = json_lines(content)
    problems += [f"line {number} holds a {type(row).__name__}" for number, row in rows if not isinstance(row, dict)]
    if problems:
        raise UserError(f"{file}: {problems[0]}", expected="one JSON object a line", remedy="correct the line")
    return rows


def _checked(file: Path, number: int, record: dict[str, Any]) -> dict[str, Any]:
    """The record with ``known`` as 1 or 0 and the optional columns filled in."""
    for column in record:
        if column not in (*COLUMNS, *_OPTIONAL):
            raise UserError(
                f"{file}: record {number} has an unknown column {column!r}",
                remedy=nearest(str(column), [*COLUMNS, *_OPTIONAL]),
                expected=", ".join([*COLUMNS, *_OPTIONAL]),
            )
    missing = [column for column in COLUMNS if record.get(column) is None]
    if missing:
        raise UserError(
            f"{file}: record {number} has no {missing[0]!r}",
            expected=", ".join(COLUMNS),
            remedy="fill it in, or leave the record out",
        )
    said = str(record["known"]).strip().lower()
    if said not in (*_TRUE, *_FALSE):
        raise UserError(
            f"{file}: record {number}: 'known' is {record['known']!r}",
            expected="true or false",
            remedy="write one of them",
        )
    known = int(said in _TRUE)
    row = {column: str(record.get(column) or "").strip() for column in (*COLUMNS, *_OPTIONAL)}
    for column in ("entity", "question", *(("answer",) if known else ())):
        if not row[column]:
            raise UserError(
                f"{file}: record {number}: {column!r} is empty",
                expected="a text",
                remedy="fill it in, or leave the record out",
            )
    if row["entity"] not in row["question"]:
        raise UserError(
            f"{file}: record {number}: the question does not hold the entity {row['entity']!r}",
            expected="a question in which the entity is written as in its own column",
            remedy="write it there as in the column, or leave the record out",
        )
    frequency = row["frequency"] or ("known" if known else "none")
    return {**row, "known": known, "attribute": row["attribute"] or "answer", "frequency": frequency}
