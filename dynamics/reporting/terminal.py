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
    for column, justify in (("circuit", "left"), ("state", "left"), ("onset (steps)", "right"), ("95%", "right")):
        table.add_column(column, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for column in ("midpoint", "complete", "final"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in content["emergence"]:
        table.add_row(
            Text(row["title"]),
            Text(row["state"], style=_STYLES[row["state"]]),
            row["onset"],
            row["range"],
            row["midpoint"],
            row["completion"],
            row["final"],
        )
    console.print(table)
    for row in content["emergence"]:
        if row["note"]:
            console.print(Text(f"  {row['title']}: {row['note']}"))
    for problem in content["problems"]:
        console.print(Text(f"  step {problem['step']} {problem['status']}: {problem['reason']}", style="yellow"))
