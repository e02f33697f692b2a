"""Reports over the Model Context Protocol, asked by the SDK's own client as an assistant would."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp.shared.exceptions import MCPError

from dynamics.serving import server
from dynamics.serving.library import Library

Ask = Callable[..., Any]


def answers(made: Any, questions: Callable[[Client], Awaitable[Any]]) -> Any:
    async def connected() -> Any:
        async with Client(made) as client:
            return await questions(client)

    with ThreadPoolExecutor(1) as aside:  # a browser that another test opened keeps an event loop in this thread
        return aside.submit(lambda: asyncio.run(connected())).result()


@pytest.fixture
def folder(reported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Reports of two runs, ``mine`` and ``late``, whose onsets lie at other steps, and a trace of the first."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(reported / "reports", tmp_path / "reports")
    shutil.copytree(reported / "traces", tmp_path / "traces")
    content = json.loads((tmp_path / "reports/mine/report.json").read_text())
    for name, by in (("mine", 2), ("late", 6)):
        content["run"] = name
        for finding in content["analyses"][0]["findings"]:
            finding["emergence"] |= {"state": "emerged", "onset": {"after": by // 2, "by": by}}
        (tmp_path / "reports" / name).mkdir(exist_ok=True)
        (tmp_path / "reports" / name / "report.json").write_text(json.dumps(content))
    return tmp_path


@pytest.fixture
def ask(folder: Path) -> Ask:
    """``ask(tool, **arguments)``: the answer of a tool, as a value, or its error as text."""

    def asked(tool: str, **arguments: Any) -> Any:
        async def question(client: Client) -> Any:
            result = await client.call_tool(tool, arguments)
            text = "".join(getattr(part, "text", "") for part in result.content)
            if result.is_error:
                return text
            value = result.structured_content
            return value.get("result", value) if isinstance(value, dict) else text

        return answers(server(), question)

    return asked


def test_every_tool_only_reads_unless_more_was_allowed(folder: Path) -> None:
    async def tools(client: Client) -> dict[str, Any]:
        return {tool.name: tool for tool in (await client.list_tools()).tools}

    reading = answers(server(), tools)
    assert "explain_prompt" not in reading and len(reading) == 8
    assert all(tool.annotations.read_only_hint and tool.description for tool in reading.values())
    more = answers(server(allow_explain=True), tools)
    assert more.keys() - reading.keys() == {"explain_prompt"} and not more["explain_prompt"].annotations.read_only_hint


def test_typical_questions_are_answered_with_the_numbers_of_the_report(ask: Ask, folder: Path) -> None:
    """Which runs, what was found, when did it form and how sure, the curve, what came first, between runs, what changed."""
    content = json.loads((folder / "reports/mine/report.json").read_text())
    finding = content["analyses"][0]["findings"][0]
    runs = {run["run"]: run for run in ask("list_runs")}
    assert (
        runs["mine"]["checkpoints"] == {"complete": 6} and runs["mine"]["collected"] and not runs["late"]["collected"]
    )
    assert content["story"]["lead"][0] in ask("read_report", run="mine")
    circuits = ask("list_circuits", run="mine")
    assert [c["key"] for c in circuits] == [f["key"] for f in content["analyses"][0]["findings"] if f["headline"]]
    assert circuits[0]["onset"] == {"after": 1, "by": 2} and circuits[0]["null"] == finding["emergence"]["null"]
    assert len(ask("list_circuits", run="mine", all_curves=True)) == len(content["analyses"][0]["findings"])
    circuit = ask("read_circuit", run="mine", key=finding["title"].upper())
    assert circuit["key"] == finding["key"] and circuit["curve"]["values"] == finding["values"]
    assert (
        circuit["curve"]["null_upper"] == finding["emergence"]["null_upper"] and circuit["onsets"] == finding["onsets"]
    )
    assert ask("read_order", run="mine")["by_onset"] == content["order"]["circuits"]
    compared = ask("compare_runs", runs=["mine", "late"], key=finding["key"])
    (row,) = compared["circuits"]
    assert row["shifts"][0]["log2_steps"] == pytest.approx({"least": 0.415037, "most": 1.807355})  # of steps plus one
    assert row["onsets"]["late"]["onset"] == {"after": 3, "by": 6} and compared["next"]["text"]


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        ("read_report", {"run": "mien"}, ("no report of 'mien'", "late, mine", "did you mean")),
        ("read_report", {"run": "../mine"}, ("no report of",)),
        ("read_circuit", {"run": "mine", "key": "inductoin"}, ("no circuit 'inductoin'", "list_circuits")),
        ("list_circuits", {"run": "mine", "analysis": "ioi"}, ("no analysis 'ioi'", "one of: induction")),
        ("compare_runs", {"runs": ["mine", "mine"]}, ("1 run to compare", "two or more")),
        ("read_explanation", {"run": "mine", "name": "x"}, ("no explanation 'x'", "dynamics explain mine")),
        ("read_circuit", {"run": "mine"}, ("key",)),
    ],
)
def test_a_wrong_question_is_answered_with_what_was_expected(
    ask: Ask, tool: str, arguments: dict[str, Any], said: tuple[str, ...]
) -> None:
    answer = ask(tool, **arguments)
    assert isinstance(answer, str) and all(part in answer for part in said), answer
    assert "Traceback" not in answer


def test_a_report_that_is_damaged_or_older_than_its_trace_is_said_to_be_that(ask: Ask, folder: Path) -> None:
    file = folder / "reports/mine/report.json"
    content = json.loads(file.read_text())
    assert "writes it anew" not in ask("read_report", run="mine")
    fewer = {**content["series"], "status": ["pending", "pending", *content["series"]["status"][2:]]}
    file.write_text(json.dumps(content | {"counts": {"complete": 4, "pending": 2}, "series": fewer}))
    assert "holds 6 checkpoints by now, this report 4" in ask("read_report", run="mine")
    other = {**content["provenance"], "fingerprint": "another"}
    file.write_text(json.dumps(content | {"provenance": other}))
    assert "The trace has changed since this report" in ask("read_report", run="mine")
    file.write_text(json.dumps(content | {"format": 2}))
    assert "format 2" in next(run for run in ask("list_runs") if run["run"] == "mine")["problem"]
    file.write_text("{")
    assert "cannot be read" in ask("read_report", run="mine")


def test_resources_are_the_files_of_the_report_and_their_schema(folder: Path) -> None:
    async def read(client: Client) -> list[str]:
        uris = ["runs", "report-schema", "reports/mine/report.json", "reports/mine/report.md"]
        return [(await client.read_resource(f"dynamics://{uri}")).contents[0].text for uri in uris]

    runs, schema, report, text = answers(server(), read)
    assert {run["run"] for run in json.loads(runs)} == {"mine", "late"} and json.loads(schema)["title"]
    assert json.loads(report) == json.loads((folder / "reports/mine/report.json").read_text())
    assert text.startswith("# mine: when circuits emerged")

    async def nothing(client: Client) -> None:
        with pytest.raises(MCPError, match="no report of 'none'"):
            await client.read_resource("dynamics://reports/none/report.json")

    answers(server(), nothing)


def test_nothing_is_written_by_reading(ask: Ask, folder: Path) -> None:
    def state() -> dict[str, int]:
        return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}

    before = state()
    for tool, arguments in (
        ("list_runs", {}),
        ("read_report", {"run": "mine"}),
        ("list_explanations", {"run": "mine"}),
    ):
        ask(tool, **arguments)
    assert state() == before


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from checkpoints import UserError

    monkeypatch.setitem(sys.modules, "mcp.server.mcpserver", None)
    with pytest.raises(UserError, match="not installed") as caught:
        server()
    assert "circuit-dynamics[mcp]" in caught.value.remedy


def test_importing_the_library_imports_neither_torch_nor_the_sdk() -> None:
    code = "import sys, dynamics.serving.library; sys.exit(any(m in sys.modules for m in ('torch', 'mcp')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_the_command_serves_over_standard_input_and_output(folder: Path) -> None:
    async def runs(client: Client) -> Any:
        return (await client.call_tool("list_runs", {})).structured_content

    command = StdioServerParameters(
        command=sys.executable, args=["-m", "dynamics", "mcp"], cwd=folder, env=dict(os.environ)
    )
    assert {run["run"] for run in answers(command, runs)["result"]} == {"mine", "late"}


@pytest.mark.slow
def test_a_prompt_is_explained_where_that_was_allowed_and_then_found(
    folder: Path, reported: Path, tiny_series: Path
) -> None:
    (folder / "runs.yaml").write_text(
        f"mine: {{series: {{kind: folder, path: {tiny_series}}}, analyses: [induction]}}\n"
    )

    async def explained(client: Client) -> Any:
        arguments = {"run": "mine", "prompt": "6 + 9 =", "checkpoints": 2}
        result = await client.call_tool("explain_prompt", arguments)
        assert not result.is_error, result.content
        return result.structured_content, (
            await client.call_tool("list_explanations", {"run": "mine"})
        ).structured_content

    found, listed = answers(server(allow_explain=True), explained)
    assert Path(found["page"]).is_file() and found["prompt"] == "6 + 9 ="
    (entry,) = listed["result"]
    library = Library(folder / "reports", folder / "traces")
    assert library.explanation("mine", entry["name"])["tokens"] == found["tokens"]
