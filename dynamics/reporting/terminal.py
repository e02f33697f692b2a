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
    for line in (_definitions(content["definitions"]), _mirages(content["emergence"]), _order(content["order"])):
        if line:
            console.print(Text(f"  {line}"))
    for text in content["problem_texts"]:
        console.print(Text(f"  {text}", style="yellow"))


def _definitions(definitions: dict[str, Any]) -> str:
    """How many circuits are dated alike by all definitions, and which are dated most differently."""
    if not definitions["found"]:
        return ""
    text = f"definitions of emergence agree on {len(definitions['agree'])} of {definitions['found']} circuits"
    far = [f"{a['title']} ({10 ** a['spread_decades']:.1f} x)" for a in definitions["apart"] if a["spread_decades"]][:3]
    return text + (f"; their steps differ most for {', '.join(far)}" if far else "")


def _order(order: dict[str, Any]) -> str:
    """How many pairs of circuits can be put in order."""
    pairs = order["pairs"]
    if not pairs:
        return ""
    known = sum(pair["order"] != "cannot be ordered" for pair in pairs)
    rate = f"{order['false_discovery_rate']:.0%}"
    return f"order: {known} of {len(pairs)} pairs of circuits can be ordered, at a false discovery rate of {rate}"


def _mirages(rows: list[dict[str, Any]]) -> str:
    """How many sharp rises are as sharp in their continuous twins, and which are not."""
    checked = [row for row in rows if row["mirage"] and row["mirage"]["width"] is not None]
    if not checked:
        return ""
    kept = sum(row["mirage"]["verdict"] == "survives" for row in checked)
    text = f"sharpness survives in the continuous twin of {kept} of {len(checked)} thresholded curves"
    others: dict[str, list[str]] = {}
    for row in checked:
        said = row["mirage"]
        if said["verdict"] != "survives":
            widths = f"{said['width']:.2f} against {said['twin_width']:.2f} decades"
            others.setdefault(said["verdict"], []).append(f"{row['title']} ({widths})")
    return "; ".join([text, *(f"{verdict}: {', '.join(titles)}" for verdict, titles in others.items())])
