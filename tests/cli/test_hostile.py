"""Whatever is written on the command line, and whatever takes its output: an answer or a refusal, never a traceback."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import click
import pytest

import dynamics as program
import dynamics.cli as cli_module
from checkpoints.errors import UserError
from dynamics.cli import cli
from dynamics.store import writer_lock
from tests.cli.commands import Dynamics
from tests.cli.conftest import VERBS, refused

TEXTS = (
    *(
        "~no-such-user/x",
        "a" * 5000,
        "loop",
        "loop/below",
        "./loop",
        "..",
        "/dev/zero",
        "\udcff",
        "日本",
        "a\nb",
        "[red]x[/red]",
    ),
    *("", " ", "-", "{}", "%s"),
)
"""Names and paths that nobody can mean."""

NUMBERS = ("nan", "inf", "-inf", "-1", "0", "1e400", "9" * 30, "x", "")


def spoken(dynamics: Dynamics, *arguments: str) -> str:
    """What a command said, if it ended as a program should."""
    said = dynamics(*arguments)
    assert said.code in (0, 1, 2), (arguments, said)
    assert said.code != 2 or "error: " in said.err or "Error: " in said.err, (arguments, said)
    return said.out + said.err


@pytest.mark.parametrize("verb", sorted(cli.commands))
def test_no_name_or_number_on_the_command_line_ends_in_a_traceback(
    dynamics: Dynamics, collected: Path, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcp.server.mcpserver.MCPServer.run", lambda self: None)  # it would wait for an assistant
    (collected / "loop").symlink_to("loop")
    known = {
        "run": "nowhere",
        "name": "nowhere",
        "prompt": "2 + 3 =",
        "dictionaries": "none",
        "analyses": "induction",
    } | {
        "names": "nowhere",
        "model": "gpt2",
    }
    parameters = cli.commands[verb].params
    plain = [known[str(p.name)] for p in parameters if isinstance(p, click.Argument)]
    for place, parameter in enumerate(parameters):
        numeric = isinstance(parameter.type, click.types.IntParamType | click.types.FloatParamType)
        for value in NUMBERS if numeric else TEXTS:
            if isinstance(parameter, click.Argument):
                spoken(dynamics, verb, "--", *plain[:place], value, *plain[place + 1 :])
            elif not getattr(parameter, "is_flag", False) and verb != "validate":
                spoken(dynamics, verb, *plain, parameter.opts[0], value)


@pytest.mark.parametrize("verb", ["status", "verify", "audit"])
def test_no_place_on_the_command_line_ends_in_a_traceback(dynamics: Dynamics, collected: Path, verb: str) -> None:
    (collected / "loop").symlink_to("loop")
    for option in ("--traces", "--runs"):
        for value in TEXTS:
            spoken(dynamics, verb, "mine", option, value)


def test_numbers_that_cannot_be_meant_are_refused_before_any_work(dynamics: Dynamics, collected: Path) -> None:
    for option in ("--share", "--checkpoints", "--figure-step", "--seed"):
        for value in ("nan", "-1", "x", "9" * 30):
            if (option, value) not in (
                ("--checkpoints", "9" * 30),
                ("--figure-step", "-1"),
                ("--figure-step", "9" * 30),
            ):
                assert dynamics("explain", "mine", "2 + 3 =", option, value).code == 2
    for poll in ("nan", "inf", "1e300"):
        assert dynamics("collect", "mine", "--watch", "job", "--poll", poll, "--patience", "0").code == 2
    for patience in ("nan", "-1"):
        assert dynamics("collect", "mine", "--watch", "job", "--patience", patience).code == 2


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
@pytest.mark.parametrize("columns", ["20", "120"])
def test_output_survives_any_encoding_and_any_width(
    collected: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, columns: str
) -> None:
    monkeypatch.chdir(collected)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("COLUMNS", columns)
    text = (collected / "runs.yaml").read_text().replace("a <b>bold</b> run", "日本 – ≤ 3")
    (collected / "runs.yaml").write_text(text, encoding="utf-8")
    said = {}
    for arguments in (
        ("runs",),
        ("series",),
        ("series", "pythia-70m"),
        ("status", "mine"),
        ("audit", "mine"),
        ("--help",),
        ("status", "日"),
    ):
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        try:
            cli_module.main(list(arguments))
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        out.flush(), err.flush()
        said[arguments] = (out.buffer.getvalue() + err.buffer.getvalue()).decode(
            "utf-8" if encoding == "ascii" else encoding
        )  # type: ignore[attr-defined]
        assert code == (2 if arguments == ("status", "日") else 0), said[arguments]
    if encoding != "ascii":  # of which click thinks that nobody means it
        assert "\\u65e5\\u672c" in said["runs",] and "<= 3" in said["runs",]
    assert "there is no run '\\u65e5'" in said["status", "日"]
    assert "pythia-70m" in said["series",]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no full disk at hand")
@pytest.mark.parametrize("verb", [("status", "mine"), ("series",), ("--help",)])
def test_output_to_a_full_disk_is_said(
    collected: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: tuple[str, ...]
) -> None:
    monkeypatch.chdir(collected)
    with open("/dev/full", "w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit) as stop:
            cli_module.main(list(verb))
        assert stop.value.code == 1
        full.flush()  # what was left goes nowhere, or the end of the process would fail again
    err = capsys.readouterr().err
    assert "what this command says cannot be written: No space left on device" in err and "remedy:" in err


def test_what_others_left_beside_a_trace_is_passed_over(dynamics: Dynamics, collected: Path) -> None:
    journal = collected / "traces/mine.journal.jsonl"
    before = dynamics("status", "mine").out
    with journal.open("ab") as stream:
        stream.write(
            b'5\nnull\n[]\n\xff\n{"event": "complete"}\n{"event": "complete", "seconds": "x"}\n{"event": "round", "purposes": {"x": 5}}\n'
        )
    assert dynamics("status", "mine").out == before
    for owner in (b"5", b"null", b"\xff", b'{"pid": [1]}', b""):
        with writer_lock(collected / "traces/mine.zarr"):
            (collected / "traces/mine.zarr.owner").write_bytes(owner)
            refused(dynamics("collect", "mine"), "is being written by another process")


@pytest.mark.parametrize(
    ("function", "flag"),
    [
        *(
            ("collect", "keep_going"),
            ("audit", "weights"),
            ("learn", "fresh"),
            ("analyse", "fresh"),
            ("validate", "quick"),
        ),
        *(("verify", "repair"), ("explain", "random_tokens")),
    ],
)
@pytest.mark.parametrize("value", ["yes", "no", 1, None])
def test_a_flag_is_true_or_false_and_no_text_that_counts_as_true(function: str, flag: str, value: object) -> None:
    arguments = {"validate": (), "explain": ("mine", "2 + 3 =")}.get(function, ("mine",))
    with pytest.raises(UserError) as error:
        getattr(program, function)(*arguments, **{flag: value})
    assert f"`{flag}` is" in error.value.observed and error.value.remedy == f"give True or False as `{flag}`"


def test_a_device_without_numbers_is_none(dynamics: Dynamics, project: Path) -> None:
    refused(dynamics("collect", "mine", "--device", "meta"), "device 'meta' cannot be used", "cuda:N", "remedy:")


OWN = """
TITLE = "mine"
def plan(context, options):
    return deeper(context)
def deeper(context):
    return {}["tokens"]
def summarise(trace, options):
    return None
"""


def test_an_exception_in_a_users_analysis_names_it_and_shows_its_lines(dynamics: Dynamics, project: Path) -> None:
    (project / "my_own_analysis.py").write_text(OWN)
    text = (project / "runs.yaml").read_text()
    (project / "runs.yaml").write_text(
        text.replace("[{name: induction, options: {prompts: 8, period: 4, pairs: 20}}]", "[my_own_analysis]")
    )
    said = dynamics("collect", "mine")
    refused(
        said,
        "plan of analysis 'my_own_analysis' raised KeyError: 'tokens'",
        "my_own_analysis.py",
        "line 6, in deeper",
        "remedy:",
    )
    assert "dynamics/analysis/base.py" not in said.err


def test_an_exception_in_an_analysis_of_this_project_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from dynamics.runs.plan import find_analysis

    analysis, options = find_analysis("induction")
    monkeypatch.setattr(analysis.module, "plan", lambda *_: {}["bug"])
    with pytest.raises(KeyError, match="bug"):
        analysis.plan(None, options)  # type: ignore[arg-type]


@pytest.mark.parametrize("verb", VERBS)
def test_a_folder_that_is_gone_is_said(dynamics: Dynamics, tmp_path: Path, verb: str) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    assert dynamics(verb, "mine").code in (1, 2)
