"""What README and the documentation show: fenced blocks with their markers, and commands in running text."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from dynamics.cli import cli

__all__ = ["NEEDS", "PAGES", "ROOT", "Block", "blocks", "check_command", "commands", "inline_commands"]

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(p for p in (ROOT / "docs").rglob("*.md") if "_build" not in p.parts)])
NEEDS = {"hub", "hours", "gpu", "setup", "data", "elsewhere"}
"""Why a block is not run (docs/howto/developing.md)."""
LANGUAGES = {"sh", "python", "yaml", "json", "text"}

_MARKER = re.compile(r"<!-- (needs|file): (\S+) -->")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        where: page and line, for messages.
        needs: why it is not run; None where it is.
        file: the file that it is written to; None for none.
    """

    where: str
    language: str
    text: str
    needs: str | None
    file: str | None


def blocks(page: Path) -> list[Block]:
    """The blocks of a page in their order; directives of the generator are none."""
    found, marks, inside = [], {}, None
    lines = page.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        if inside is None and line.lstrip().startswith("```"):
            inside = (number, line.strip("` "), [])
        elif inside is not None and line.strip() == "```":
            start, language, text = inside
            if not language.startswith("{"):
                where = f"{page.relative_to(ROOT)}:{start}"
                found.append(Block(where, language, "\n".join(text) + "\n", marks.get("needs"), marks.get("file")))
            inside, marks = None, {}
        elif inside is not None:
            inside[2].append(line)
        elif mark := _MARKER.fullmatch(line.strip()):
            marks[mark[1]] = mark[2]
        elif line.strip():
            assert not marks, f"{page.relative_to(ROOT)}:{number}: a marker without a block"
    return found


def commands(block: Block) -> list[list[str]]:
    """The commands of a block, one a line, as words."""
    return [words for line in block.text.splitlines() if (words := shlex.split(line, comments=True))]


def inline_commands(page: Path) -> list[list[str]]:
    """Commands in running text: `dynamics ...`, `make ...`, `python ...` in single backticks."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    found = re.findall(r"(?<!`)`((?:[A-Z_]+=\S+ )?(?:dynamics|make|python) [^`]+)`(?!`)", text.replace("\n", " "))
    return [shlex.split(command, comments=True) for command in found]


def check_command(words: list[str], *, whole: bool = True) -> None:
    """Refuse a command that does not exist, or an option that it does not have.

    Args:
        words: the command.
        whole: whether its arguments have to be complete, too.

    Raises:
        AssertionError: what is wrong with it.
    """
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    program, *rest = words
    if program == "dynamics":
        _check_dynamics(rest, whole)
    elif program == "make":
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
        asked = {word for word in rest if "=" not in word}
        assert asked <= targets, f"make has no {', '.join(sorted(asked - targets))}"
    elif program == "python" and rest[0] != "-m":
        script = ROOT / rest[0]
        assert script.is_file(), f"there is no {rest[0]}"
        source = script.read_text(encoding="utf-8")
        for option in (word.partition("=")[0] for word in rest[1:] if word.startswith("--")):
            assert f'"{option}"' in source, f"{rest[0]} has no option {option}"
    elif program == "python" and rest[1].startswith(("benchmarks.", "tests.")):
        assert (ROOT / f"{rest[1].replace('.', '/')}.py").is_file(), f"there is no module {rest[1]}"
    else:
        assert words[:3] == ["python", "-m", "pip"] or words[:2] == ["git", "clone"], f"what is {' '.join(words)!r}?"


def _check_dynamics(words: list[str], whole: bool) -> None:
    if words in (["--help"], ["--version"]):
        return
    assert words[0] in cli.commands, f"dynamics has no command {words[0]!r}"
    command = cli.commands[words[0]]
    if whole:
        command.make_context(words[0], words[1:])
    known = {name for parameter in command.params for name in parameter.opts} | {"--help"}
    for option in (word.partition("=")[0] for word in words[1:] if word.startswith("--")):
        assert option in known, f"dynamics {words[0]} has no option {option}"
