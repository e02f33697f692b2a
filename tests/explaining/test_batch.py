"""``dynamics explain --prompts``: every prompt of a file, and a page that leads to each."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from dynamics.explaining import Explained
from dynamics.explaining.batch import prompts_page
from tests.cli.commands import Dynamics, command_line
from tests.explaining import made


@pytest.fixture
def project(
    tmp_path: Path, tiny_series: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Dynamics:
    shutil.copytree(tiny_series, tmp_path / "series")
    (tmp_path / "runs.yaml").write_text(
        "mine:\n  series: {kind: folder, path: series}\n  analyses: [induction]\n  device: cpu\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return command_line(capsys)


def write(*prompts: dict[str, str]) -> None:
    Path("prompts.jsonl").write_text("".join(json.dumps(p) + "\n" for p in prompts))


def test_prompts_that_can_be_asked_are_explained_and_the_others_listed(project: Dynamics) -> None:
    asked = {"answer": "5", "foil": "4", "corrupted": "46+38=08"}
    write({"text": "46+39=08", **asked}, {"text": "46+37=08", **asked | {"corrupted": "4"}})
    said = project("explain", "mine", "--prompts", "prompts.jsonl", "--checkpoints", "2", "--neuronpedia")
    assert said.code == 1 and "1 prompts explained" in said.out and "prompt 2 (46+37=08) was not explained" in said.out
    (page,) = Path("reports/mine").glob("explain-prompts-*.html")
    (folder,) = Path("reports/mine").glob("explain-46-39*")
    text = page.read_text()
    assert f'href="{folder.name}/index.html"' in text and "prompt 2" in text and "<script" not in text
    content = json.loads((folder / "explanation.json").read_text())
    drawn = {f"step{c['step']}.json" for c in content["checkpoints"] if c["edges"]}
    assert {p.name for p in folder.glob("neuronpedia/*")} == drawn


def test_what_is_no_request_is_refused(project: Dynamics) -> None:
    write({"text": "46+39=08"})
    for arguments, observed in (
        (("explain", "mine"), "neither a prompt nor a file of prompts"),
        (("explain", "mine", "46+39=08", "--prompts", "prompts.jsonl"), "both a prompt and --prompts"),
        (("explain", "mine", "--prompts", "none.jsonl"), "none.jsonl cannot be read"),
        (("explain", "mine", "--prompts", "prompts.jsonl", "--share", "2"), "the share is 2.0"),
        (
            ("explain", "mine", "--prompts", "prompts.jsonl", "--answer", "5", "--corrupted", "46+38=08"),
            "--answer and --corrupted would be the same for every prompt",
        ),
        (("explain", "mine", "--prompts", "prompts.jsonl", "--foil", "4"), 'write "foil" beside the "text"'),
        (("explain", "mine", "--prompts", "prompts.jsonl", "--begun", ""), "--begun would be the same"),
    ):
        said = project(*arguments)
        assert said.code == 2 and observed in said.err and "Traceback" not in said.err
        assert not Path("reports").exists()


def test_hostile_prompts_are_text(tmp_path: Path) -> None:
    page = prompts_page("<b>run</b>", "<b>file</b>", [Explained(tmp_path / "explain-x", made.hostile())],
                        [(2, "<script>alert(1)</script>", "<b>why</b>")])  # fmt: skip
    assert "<script" not in page and "<b>" not in page and "default-src 'none'" in page


@pytest.mark.parametrize(
    ("ranks", "said"),
    [((9, 0, None, 0), "from step 1 on"), ((0, 0, 0, 0), "from step 0 on"), ((3, 0, None, 2), "lost after step 1"),
     ((9, 0, 0, None), "–"), ((9, 8, None, 7), "never"), ((0, 4, 0, 0), "from step 2 on")],
)  # fmt: skip
def test_when_the_answer_was_first_choice_is_said_by_the_checkpoints_with_a_rank(
    tmp_path: Path, ranks: tuple[int | None, ...], said: str
) -> None:
    content = made.organism_sized(checkpoints=4)
    for step, (checkpoint, rank) in enumerate(zip(content["checkpoints"], ranks, strict=True)):
        checkpoint |= {"step": step, "answer_rank": rank}
    page = prompts_page("run", "file", [Explained(tmp_path / "explain-x", content)])
    assert f'<td class="n">{said}</td><td class="n">' in page
