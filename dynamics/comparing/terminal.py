"""A comparison in the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .cells import effect_text, onset_text, shift_text, spread_text

__all__ = ["print_compared"]

_STYLES = {"later": "bold yellow", "earlier": "bold green", "cannot be told": "dim"}

_SIDE_BY_SIDE = 4
"""More runs than this are shown as groups of seeds."""


def print_compared(content: dict[str, Any], console: Console | None = None) -> None:
    """Print a comparison to standard output: what differs, onsets, effects, what to try next."""
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=132, file=console.file)
    _differences(content, console)
    if len(content["runs"]) <= _SIDE_BY_SIDE:
        _onsets(content, console)
    else:
        _groups(content, console)
    if content["effects"]:
        _effects(content, console)
    for text in _identity(content):
        console.print(Text(text))
    for sentence in content["story"]:
        console.print(Text(sentence))
    for remark in content["remarks"]:
        console.print(Text(remark, style="yellow"))
    console.print(Text("What to try next: " + " ".join(content["next"]["text"])))


def _table(title: str, caption: str = "") -> Table:
    return Table(
        title=title, title_justify="left", caption=caption, caption_justify="left", show_edge=False, pad_edge=False
    )


def _differences(content: dict[str, Any], console: Console) -> None:
    runs = [run["run"] for run in content["runs"]]
    if len(runs) > _SIDE_BY_SIDE:
        factors = [f"{f['label']} ({', '.join(f['levels'])})" for f in content["factors"]]
        seeds = [d for d in content["differences"] if d["kind"] == "seed"]
        said = f"{len(runs)} runs of {len(content['groups'])} configurations"
        said += f": {'; '.join(factors)}" if factors else ""
        said += f"; {len(set(seeds[0]['values']))} seeds" if seeds else ""
        console.print(Text(said))
        return
    table = _table("what differs")
    table.add_column("key")
    for run in runs:
        table.add_column(Text(run))
    for difference in content["differences"]:
        table.add_row(Text(difference["key"]), *map(Text, difference["values"]))
    console.print(table)


def _onsets(content: dict[str, Any], console: Console) -> None:
    runs = [run["run"] for run in content["runs"]]
    table = _table(
        "onsets (steps)",
        f"shift against {runs[0]} in log2 steps, 95%: +1 is twice as many steps; bold: called at a false discovery rate of 5%",
    )
    table.add_column("circuit")
    for run in runs:
        table.add_column(Text(run), justify="right")
        if run != runs[0]:
            table.add_column("shift", justify="right", no_wrap=True)
    for circuit in content["circuits"]:
        moved = {shift["run"]: shift for shift in circuit["shifts"]}
        cells: list[Text] = []
        for run in runs:
            cells.append(Text(onset_text(circuit["onsets"][run])))
            if run != runs[0]:
                shift = moved.get(run)
                cells.append(Text(shift_text(shift), style=_STYLES[shift["verdict"]] if shift else "dim"))
        table.add_row(Text(circuit["title"]), *cells)
    console.print(table)


def _groups(content: dict[str, Any], console: Console) -> None:
    table = _table(
        "onsets by configuration (mean over its seeds, in steps)",
        "spread: standard deviation between seeds, in log2 steps",
    )
    table.add_column("circuit")
    for group in content["groups"]:
        table.add_column(Text(group["label"]), justify="right")
    table.add_column("spread", justify="right")
    for circuit in content["circuits"]:
        cells = [Text(spread_text(content, circuit, n)) for n in range(len(content["groups"]))]
        spread = circuit["spread"]
        seeds = None if spread is None else spread["seeds"]
        table.add_row(Text(circuit["title"]), *cells, Text("–" if seeds is None else f"{seeds:.2f}"))
    console.print(table)


def _effects(content: dict[str, Any], console: Console) -> None:
    names = list(dict.fromkeys(e["contrast"] for e in content["effects"] if len(e["factors"]) == 1))
    table = _table(
        "effects on onsets, in log2 steps with 95% intervals",
        "+1 is twice as many steps; bold: called at a false discovery rate of 5% over all of these",
    )
    table.add_column("circuit")
    for name in names:
        table.add_column(Text(name), justify="right")
    for circuit in content["circuits"]:
        mine = {e["contrast"]: e for e in content["effects"] if e["key"] == circuit["key"]}
        if mine:
            cells = [
                Text(effect_text(mine[n]), style=_STYLES[mine[n]["verdict"]]) if n in mine else Text("–") for n in names
            ]
            table.add_row(Text(circuit["title"]), *cells)
    console.print(table)


def _identity(content: dict[str, Any]) -> list[str]:
    """How many circuits are the same beyond chance, and how many features have a partner, run by run."""
    said = []
    for run in dict.fromkeys(entry["run"] for entry in content["identity"]):
        mine = [e for e in content["identity"] if e["run"] == run and e["weighted"] is not None]
        beyond = [e for e in mine if e["weighted_null"] is not None and e["weighted"] > e["weighted_null"]]
        how = "head by head" if all(e["by_name"] for e in mine) else "layer by layer, as heads have no common names"
        said.append(
            f"{run}: {len(beyond)} of {len(mine)} circuits overlap more than chance ({how}; 1 in 20 would by chance)"
        )
    said += [
        f"{e['run']}: {e['matched']} features of dictionary {e['dictionary']} have a partner, of {e['alive'][0]} and {e['alive'][1]}"
        for e in content["features"]
    ]
    return said
