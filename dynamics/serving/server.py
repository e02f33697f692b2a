"""``dynamics mcp``: reports as tools and resources of the Model Context Protocol, for assistants.

Everything but ``explain_prompt``, which is there only where it was allowed, reads reports and changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from checkpoints.errors import UserError
from checkpoints.paths import StrPath, as_flag, as_path

from ..reporting.schema import report_schema
from ..store.paths import beside_traces
from .library import Library

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer

__all__ = ["mcp", "server"]

INSTRUCTIONS = """\
These tools read what a training-dynamics tracer found: when circuits formed in the training of a language model.
Begin with list_runs, then read_report for the findings in sentences, list_circuits for their dates, read_circuit for a curve.
An onset {after, by} lies between two measured checkpoints: after was not above the null's bound, by was. Say it as an interval,
never as one step. onset_range is its 95% bootstrap interval. Where fragile is true, or definitions disagree, say so. 'not
emerged' means not above the null; 'not measurable' means that nothing is known. Steps are optimizer steps.
"""

Run = Annotated[str, Field(description="name of a run, as list_runs gives it")]
Key = Annotated[str, Field(description="key or title of a circuit, as list_circuits gives it")]


def mcp(
    *,
    runs: StrPath | None = None,
    traces: StrPath = "traces",
    reports: StrPath | None = None,
    allow_explain: bool = False,
) -> None:
    """Serve reports to an assistant over standard input and output, until it closes them.

    Args:
        runs: the runs file; by default ``runs.yaml`` if there is one.
        traces: folder of traces.
        reports: folder of reports; without it, ``reports`` beside the folder of traces.
        allow_explain: offer the tool that explains a prompt, which loads weights and writes a page.

    Raises:
        UserError: when the extra ``mcp`` is not installed.
    """
    server(runs=runs, traces=traces, reports=reports, allow_explain=allow_explain).run()


def server(
    *,
    runs: StrPath | None = None,
    traces: StrPath = "traces",
    reports: StrPath | None = None,
    allow_explain: bool = False,
) -> MCPServer[Any]:
    """The server of :func:`mcp`, not yet running.

    Raises:
        UserError: when the extra ``mcp`` is not installed, or the runs file is wrong.
    """
    try:
        from mcp.server.mcpserver import MCPServer
    except ImportError as error:
        raise UserError(
            "the package `mcp` is not installed",
            expected="the SDK of the Model Context Protocol",
            remedy="pip install 'circuit-dynamics[mcp]'",
        ) from error
    traces, runs_file = as_path(traces, "traces"), None if runs is None else as_path(runs, "runs")
    folder = beside_traces(traces, "reports") if reports is None else as_path(reports, "reports")
    library = Library(folder, traces, runs_file)
    library.runs()  # what is wrong with the runs file is said to who starts the server
    made = MCPServer("circuit-dynamics", instructions=INSTRUCTIONS, log_level="ERROR")
    _add_tools(made, library)
    _add_resources(made, library)
    if as_flag(allow_explain, "allow_explain"):
        _add_explain(made, library)
    return made


@contextmanager
def _refused() -> Iterator[None]:
    """A wrong request is an answer that the assistant reads, with what was expected and the remedy."""
    from mcp.server.mcpserver.exceptions import ToolError

    try:
        yield
    except UserError as error:
        raise ToolError(str(error)) from error


def _add_tools(made: MCPServer[Any], library: Library) -> None:
    from mcp_types import ToolAnnotations

    def tool(function: Callable[..., Any]) -> None:
        made.tool(annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False))(function)

    def list_runs() -> list[dict[str, Any]]:
        """Every run that is declared, collected or reported: how far it is, and how many circuits its report has."""
        with _refused():
            return library.runs()

    def read_report(run: Run) -> str:
        """The findings of a run in plain sentences, hedged as they are, with what to know about each analysis."""
        with _refused():
            return library.text(run)

    def list_circuits(
        run: Run,
        analysis: Annotated[str, Field(description="only those of this analysis")] = "",
        all_curves: Annotated[bool, Field(description="also curves that are not headline findings")] = False,
    ) -> list[dict[str, Any]]:
        """When each circuit of a run emerged (state, onset interval, 95% range, midpoint, completion), and how sure it is."""
        with _refused():
            return library.circuits(run, analysis=analysis, all_curves=all_curves)

    def read_circuit(run: Run, key: Key) -> dict[str, Any]:
        """One circuit: its curve with interval and null, its onset by every definition, whether they agree, what it means."""
        with _refused():
            return library.circuit(run, key)

    def read_order(
        run: Run,
        first: Annotated[str, Field(description="key or title; empty for all")] = "",
        second: Annotated[str, Field(description="key or title; empty for all")] = "",
    ) -> dict[str, Any]:
        """Which circuits came first: pairs that can be put in order at a false discovery rate, or the pair that is named."""
        with _refused():
            return library.order(run, first, second)

    def compare_runs(
        runs: Annotated[list[str], Field(description="two or more runs, or a sweep; shifts are against the first")],
        key: Annotated[str, Field(description="only this circuit")] = "",
    ) -> dict[str, Any]:
        """What differs between runs, shifts of onsets in log2 steps, effects of choices about training from seeds, what to try next."""
        with _refused():
            return library.comparison(runs, key)

    def list_explanations(run: Run) -> list[dict[str, Any]]:
        """The prompts of a run whose computation was drawn as a flowchart."""
        with _refused():
            return library.explanations(run)

    def read_explanation(
        run: Run,
        name: Annotated[str, Field(description="as list_explanations gives it")],
        step: Annotated[int | None, Field(description="a checkpoint; by default the last")] = None,
    ) -> dict[str, Any]:
        """What the model computed on a prompt at a checkpoint: the strongest edges between parts of the model, in logits."""
        with _refused():
            return library.explanation(run, name, step=step)

    for function in (
        list_runs,
        read_report,
        list_circuits,
        read_circuit,
        read_order,
        compare_runs,
        list_explanations,
        read_explanation,
    ):
        tool(function)


def _add_resources(made: MCPServer[Any], library: Library) -> None:
    @contextmanager
    def found() -> Iterator[None]:
        from mcp.server.mcpserver.exceptions import ResourceNotFoundError

        try:
            yield
        except UserError as error:
            raise ResourceNotFoundError(str(error)) from error

    @made.resource("dynamics://runs", mime_type="application/json")
    def all_runs() -> str:
        """Every run that is declared, collected or reported."""
        with found():
            return json.dumps(library.runs(), ensure_ascii=False)

    @made.resource("dynamics://report-schema", mime_type="application/schema+json")
    def schema() -> str:
        """The JSON schema of report.json."""
        return json.dumps(report_schema())

    @made.resource("dynamics://reports/{run}/report.json", mime_type="application/json")
    def report_json(run: str) -> str:
        """The whole report of a run."""
        with found():
            return json.dumps(library.report(run), ensure_ascii=False)

    @made.resource("dynamics://reports/{run}/report.md", mime_type="text/markdown")
    def report_text(run: str) -> str:
        """The report of a run as prose."""
        with found():
            return library.text(run)


def _add_explain(made: MCPServer[Any], library: Library) -> None:
    from mcp_types import ToolAnnotations

    @made.tool(annotations=ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False))
    def explain_prompt(
        run: Run,
        prompt: Annotated[str, Field(description="text whose next token is explained")],
        corrupted: Annotated[str | None, Field(description="a twin, as many tokens long, with another answer")] = None,
        answer: Annotated[str | None, Field(description="one token")] = None,
        foil: Annotated[str | None, Field(description="one token")] = None,
        checkpoints: Annotated[int | None, Field(description="at most so many")] = None,
    ) -> dict[str, Any]:
        """Explain what the model computes on a prompt through training. Loads weights, takes seconds to minutes a checkpoint."""
        from ..explaining import explain

        with _refused():
            done = explain(
                run,
                prompt,
                corrupted=corrupted,
                answer=answer,
                foil=foil,
                checkpoints=checkpoints,
                runs=library.runs_file,
                traces=library.traces,
                reports=library.reports,
            )
            return {"page": str(done.folder / "index.html")} | library.explanation(run, done.folder.name)
