"""A user's own probes, from JSONL or YAML files.

JSONL has one prompt a line; YAML has a list of the same records, or a mapping with ``prompts`` and ``description``::

    {"text": "The capital of France is", "answer": " Paris", "foil": " Rome",
     "labels": {"language": "english"}, "positions": {"entity": "France"}}
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from checkpoints.errors import UserError, nearest, short
from checkpoints.foreign import json_lines, parse_yaml, read_text
from checkpoints.paths import StrPath, as_path

from .types import Label, Mark, Probe

__all__ = ["PromptRecord", "read_probe"]


class PromptRecord(BaseModel):
    """One prompt in a probe file; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(description="The prompt.")

    answer: str | None = Field(None, description="The right continuation, one token, as it follows the text.")
    foil: str | None = Field(None, description="A wrong continuation to compare with.")
    corrupted: str | None = Field(None, description="A twin of the prompt with as many tokens.")
    begun: str | None = Field(
        None, description="How the assistant's answer begins, where the prompt is asked as a chat (`template: chat`)."
    )
    labels: dict[str, str | bool | int | float] = Field(default_factory=dict, description="Label name to value.")
    positions: dict[str, str | tuple[int, int]] = Field(
        default_factory=dict, description="Position name to a piece of the text, or a character span."
    )


def read_probe(name: str, file: StrPath) -> Probe:
    """Read a probe file.

    Raises:
        UserError: when the file is missing, not readable, or any record is wrong (all wrong lines are listed).
    """
    file = as_path(file, "file")
    if file.suffix not in (".jsonl", ".yaml", ".yml"):
        raise UserError(
            f"probe {name!r}: {short(file.name)} has an unknown ending",
            expected=".jsonl, .yaml or .yml",
            remedy="rename the file after what it holds",
        )
    try:
        content = read_text(file)
    except (OSError, ValueError) as error:
        raise UserError(
            f"probe {name!r}: {file} cannot be read: {getattr(error, 'strerror', None) or error}",
            expected="a file of prompts in UTF-8",
            remedy="relative paths are relative to the runs file",
        ) from error
    description = ""
    if file.suffix == ".jsonl":
        rows, problems = json_lines(content)
        if problems:
            raise _mistakes(name, file, problems, "one JSON object a line")
    else:
        try:
            loaded = parse_yaml(content)
        except ValueError as error:
            raise UserError(
                f"probe {name!r}: {file} {str(error).removeprefix('it ')}",
                expected="a list of prompts, or `prompts:` with a list",
                remedy="correct the file there",
            ) from error
        if isinstance(loaded, dict):
            unknown = set(map(str, loaded)) - {"description", "prompts"}
            if unknown:
                key = sorted(unknown)[0]
                raise UserError(
                    f"probe {name!r}: {file} has an unknown key {key!r}",
                    expected="description and prompts",
                    remedy=nearest(key, ["description", "prompts"]),
                )
            description = loaded.get("description", "")
            loaded = loaded.get("prompts")
        if not isinstance(loaded, list):
            raise UserError(
                f"probe {name!r}: {file} holds no list of prompts",
                expected="a list, or `prompts:` with a list",
                remedy='begin each prompt with "- text: "',
            )
        rows = list(enumerate(loaded, 1))
    return _to_probe(name, file, rows, description)


def _mistakes(name: str, file: Path, problems: list[str], expected: str) -> UserError:
    count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
    return UserError(
        f"probe {name!r}: {file} has {count}:\n    " + "\n    ".join(problems[:8]),
        expected=expected,
        remedy="correct these lines" if file.suffix == ".jsonl" else "correct these records",
    )


def _to_probe(name: str, file: Path, rows: list[tuple[int, Any]], description: str) -> Probe:
    records: list[PromptRecord] = []
    problems: list[str] = []
    for number, row in rows:
        try:
            records.append(PromptRecord.model_validate(row))
        except ValidationError as error:
            for problem in error.errors():
                where = ".".join(map(str, problem["loc"]))
                hint = (
                    f" ({nearest(str(problem['loc'][0]), PromptRecord.model_fields)})"
                    if problem["type"] == "extra_forbidden"
                    else ""
                )
                problems.append(f"record {number}: {where}: {problem['msg']}{hint}")
    if problems:
        raise _mistakes(name, file, problems, f"records with {', '.join(PromptRecord.model_fields)}")

    def column(field: str) -> tuple[str, ...] | None:
        values = [getattr(record, field) for record in records]
        if all(value is None for value in values):
            return None
        if any(value is None for value in values):
            raise UserError(
                f"probe {name!r}: {file}: {field!r} is missing in record {values.index(None) + 1}",
                expected=f"{field!r} in every record or in none",
                remedy="fill it in, or move these records to a probe of their own",
            )
        return tuple(values)

    def table(field: str) -> dict[str, tuple[Any, ...]]:
        names = list(dict.fromkeys(key for record in records for key in getattr(record, field)))
        for key in names:
            lacking = [i for i, record in enumerate(records, 1) if key not in getattr(record, field)]
            if lacking:
                raise UserError(
                    f"probe {name!r}: {file}: record {lacking[0]} has no {field[:-1]} {key!r}",
                    expected=f"every record has the same {field}",
                    remedy=f"give it the {field[:-1]}, or take that out of the others",
                )
        return {key: tuple(getattr(record, field)[key] for record in records) for key in names}

    labels: dict[str, tuple[Label, ...]] = table("labels")
    positions: dict[str, tuple[Mark, ...]] = table("positions")
    return Probe(
        name=name,
        text=tuple(record.text for record in records),
        answer=column("answer"),
        foil=column("foil"),
        corrupted=column("corrupted"),
        labels=labels,
        positions=positions,
        description=description or f"prompts from {file.name}",
        begun=column("begun"),
    )
