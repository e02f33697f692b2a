"""Whatever README and the documentation show is true: commands run, or are marked and exist; links lead somewhere."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
import yaml

import dynamics
from dynamics.cli import main
from dynamics.probes.files import PromptRecord
from dynamics.runs.config import load_runs
from tests.conftest import MadeOnce
from tests.docs.shown import LANGUAGES, NEEDS, PAGES, ROOT, Block, blocks, check_command, commands, inline_commands

TINY = {"steps": 12, "checkpoints": 5, "layers": 2, "d_model": 32, "heads": 2, "batch": 8}
DICTIONARY = {"layer": 1, "features": 16, "k": 4, "steps": 5, "rows": 20}
FEWER = {"per_context": 20, "pairs_per_context": 8, "exchanged": 4}


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def runs(page: Path) -> bool:
    return any(b.needs is None and b.language in ("sh", "python") for b in blocks(page))


@pytest.fixture(scope="session")
def started(made_once: MadeOnce) -> Path:
    """A folder in which the run ``organism`` is tiny and collected already."""
    return made_once("shown", start)


def start(folder: Path) -> None:
    organism = {
        "series": {"kind": "organism", **TINY},
        "analyses": [{"name": "addition", "options": FEWER}],
        "dictionaries": {"main": DICTIONARY},
    }
    (folder / "runs.yaml").write_text(yaml.safe_dump({"organism": organism}), encoding="utf-8")
    dynamics.collect("organism", runs=folder / "runs.yaml", traces=folder / "traces")


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if runs(p)], ids=named)
def test_what_a_page_shows_runs(
    page: Path, started: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Commands and Python, in their order, in one folder."""
    shutil.copytree(started, tmp_path, dirs_exist_ok=True)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    names: dict[str, Any] = {"__name__": "shown"}
    try:
        for block in blocks(page):
            if block.file is not None:
                Path(block.file).write_text(block.text, encoding="utf-8")
            if block.needs is None:
                run(block, names, monkeypatch)
    except BaseException as error:
        error.add_note(f"shown in {block.where}; printed before: {capsys.readouterr()}")
        raise
    finally:
        plt.close("all")


def run(block: Block, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    if block.language == "python":
        exec(compile(block.text, block.where, "exec"), names)
    elif block.language == "sh":
        for words in commands(block):
            if words[0] == "dynamics":
                assert exit_code(words[1:]) == 0, words
            else:
                assert words[0] == "python", f"{block.where}: {words[0]} is neither run nor marked"
                monkeypatch.setattr(sys, "argv", words[1:])
                runpy.run_path(words[1], run_name="__main__")


def exit_code(words: list[str]) -> int:
    """Of the command ``dynamics``, run in this process."""
    try:
        main(words)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_block_is_of_a_known_kind_and_what_it_holds_is_right(page: Path, tmp_path: Path) -> None:
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{block.where}: {block.language!r} is none of {sorted(LANGUAGES)}"
        assert block.needs is None or block.needs in NEEDS, f"{block.where}: needs {block.needs}"
        if block.language == "sh":
            for words in commands(block):
                check_command(words)
        elif block.language == "python":
            compile(block.text, block.where, "exec")
        elif block.language == "yaml" and block.text.startswith("# runs.yaml"):
            (tmp_path / "runs.yaml").write_text(block.text, encoding="utf-8")
            assert load_runs(tmp_path / "runs.yaml"), block.where
        elif block.language == "json":
            for line in block.text.splitlines():
                record = json.loads(line)
                if "text" in record:
                    PromptRecord.model_validate(record)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_in_running_text_exist(page: Path) -> None:
    for words in inline_commands(page):
        check_command(words, whole=False)


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("dynamics colect organism", "dynamics has no command 'colect'"),
        ("dynamics collect organism --dryrun", "has no option --dryrun|No such option"),
        ("dynamics status", "Missing parameter: run"),
        ("make demos", "make has no demos"),
        ("python benchmarks/swop.py", "there is no benchmarks/swop.py"),
        ("python benchmarks/circuits.py --fast", "benchmarks/circuits.py has no option --fast"),
        ("rm -r traces", "what is 'rm -r traces'"),
    ],
)
def test_a_command_that_is_not_there_is_found(command: str, problem: str) -> None:
    with pytest.raises(Exception, match=problem):
        check_command(command.split())


def test_a_block_that_is_neither_run_nor_marked_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block = Block("page.md:1", "sh", "make demo\n", None, None)
    with pytest.raises(AssertionError, match="make is neither run nor marked"):
        run(block, {}, monkeypatch)


def test_readme_is_short_and_its_links_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    links = re.findall(r"\]\(([^)#]+)", text)
    assert len(links) > 20
    assert [link for link in links if "://" in link or not os.path.exists(ROOT / link)] == []
