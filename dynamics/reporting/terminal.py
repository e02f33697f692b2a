"""The emergence table in the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["print_report"]

_STYLES = {
    "emerged": "bold green",
    "present from start": "cyan",
    "transient": "yellow",
    "not emerged": "dim",
    "not measurable": "red",
}


def print_report(content: dict[str, Any], console: Console | None = None) -> None:
    """Print the headline findings of a report to standard output, one line each."""
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=132, file=console.file)
    counts = ", ".join(f"{n} {status}" for status, n in content["counts"].items())
    table = Table(
        title=f"{content['run']}: when circuits emerged ({counts} checkpoints)",
        title_justify="left",
        caption="onset: (last checkpoint not above the null, first above it]; 95%: bootstrap; final: value (null's upper bound)",
        caption_justify="left",
        show_edge=False,
        pad_edge=False,
    )
    columns = {
        "onset (steps)": "onset",
        "95%": "range",
        "midpoint": "midpoint",
        "complete": "completion",
        "final": "final",
    }
    if console.width < 118:  # the page has them all
        columns = {name: columns[name] for name in ("onset (steps)", "final")}
    table.add_column("circuit")
    table.add_column("state", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for row in content["emergence"]:
        state = Text(row["state"], style=_STYLES[row["state"]])
        table.add_row(Text(row["title"]), state, *(row[key] for key in columns.values()))
    console.print(table)
    notes: dict[str, list[str]] = {}
    for row in content["emergence"]:
        if row["note"]:
            notes.setdefault(row["note"], []).append(row["title"])
    for note, titles in notes.items():
        who = ", ".join(titles) if len(titles) < 4 else f"{len(titles)} circuits"
        console.print(Text(f"  {who}: {note}"))
    for text in content["problem_texts"]:
        console.print(Text(f"  {text}", style="yellow"))
