"""An explanation on the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .computing import Explained
from .display import guessed_in_words, quoted, visible
from .drawing import ablated_in_words, splits
from .schema import check_explanation

__all__ = ["print_explained"]

_ROWS = 14
_EDGES = 8


def print_explained(explained: Explained) -> None:
    """The checkpoints in a table, the strongest edges of the last one, and where the page is."""
    content = explained.content
    console = Console(highlight=False, soft_wrap=False)
    console.print(
        f"{quoted(content['prompt'])}: {quoted(content['answer']['text'])} rather than {quoted(content['foil']['text'])}"
        + (f" ({guessed_in_words(content['guessed'])})" if content["guessed"] else ""),
        markup=False,
    )
    twins = content["corrupted"]["texts"]
    compared = f"compared with {quoted(twins[0])}. " if len(twins) == 1 else ""
    console.print(compared + visible(content["corrupted"]["note"]), markup=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("step", "p(answer)", "difference", "corrupted", "edges", "explained", ""):
        table.add_column(title, justify="left" if not title else "right", overflow="fold")
    checkpoints = content["checkpoints"]
    stride = max(1, -(-len(checkpoints) // _ROWS))
    shown = [c for i, c in enumerate(checkpoints) if i % stride == 0 or i == len(checkpoints) - 1]
    for c in shown:
        table.add_row(
            str(c["step"]),
            _number(c["answer_probability"]),
            _number(c["logit_difference"]),
            _number(c["corrupted_difference"]),
            "–" if c["edges_kept"] is None else f"{c['edges_kept']} of {c['edges_total']}",
            "–" if c["faithfulness"] is None else f"{c['faithfulness']:.0%}",
            "" if c["state"] == "explained" else c["state"],
        )
    console.print(table)
    last = checkpoints[-1]
    if last["edges"]:
        names = [node["id"] for node in content["nodes"]]
        console.print(f"\nstrongest edges at step {last['step']} (logits; @ is the token's position):", markup=False)
        for source, target, port, score in sorted(last["edges"], key=lambda e: -abs(e[3]))[:_EDGES]:
            into = names[target] + ("" if port == "in" else f" ({port})")
            console.print(f"  {score:+8.2f}  {names[source]} to {into}", markup=False)
    elif last["reason"]:
        console.print(f"\nstep {last['step']}: {last['state']}: {last['reason']}", markup=False)
    if "dictionary" in content:
        _print_features(console, content, last)
    if "ablation" in content:
        _print_ablations(console, content, last)
    if last.get("attention"):
        _print_attention(console, content, last)
    console.print(f"\n{explained.folder / 'index.html'}", markup=False, soft_wrap=True)


def _print_ablations(console: Console, content: dict[str, Any], last: dict[str, Any]) -> None:
    """What the answer becomes at the last checkpoint, the largest changes first."""
    rows, names = last["ablated"], content["ablation"]["names"]
    if not rows:
        return
    base = last["logit_difference"]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("", "difference", "p(answer)", "first choice"):
        table.add_column(title, justify="left" if title in ("", "first choice") else "right", overflow="fold")
    for number, difference, answer, _, first, likely in sorted(rows, key=lambda r: -abs((r[1] or 0) - base))[:_EDGES]:
        choice = "–" if first is None else f"{quoted(first)} {likely:.2f}"
        table.add_row(Text(names[number]), _number(difference), _number(answer), Text(choice))
    done = ablated_in_words(check_explanation(content))
    console.print(f"\nat step {last['step']}, {done} (the difference is {base:.2f} as the model is):", markup=False)
    console.print(table)


def _print_attention(console: Console, content: dict[str, Any], last: dict[str, Any]) -> None:
    """Where heads look at the last checkpoint, and why."""
    console.print(f"\nwhere the strongest attention comes from at step {last['step']}:", markup=False)
    for look in last["attention"]:
        token = quoted(content["tokens"][look["token"]])
        corrupted = "" if look["corrupted"] is None else f" ({look['corrupted']:.0%} corrupted)"
        console.print(f"  {look['head']} to {look['token']} {token}, {look['weight']:.0%}{corrupted}", markup=False)
        score = f"    score {look['score']:+.1f}"
        for word, found in (("keys of", look["keys"]), ("queries of", look["queries"])):
            score += f"; {word} " + ", ".join(f"{name} {value:+.1f}" for name, value in found[:3]) if found else ""
        console.print(score, markup=False)


def _print_features(console: Console, content: dict[str, Any], last: dict[str, Any]) -> None:
    """What a dictionary makes of the last checkpoint."""
    explanation = check_explanation(content)
    assert explanation.dictionary is not None
    console.print(f"\n{splits(explanation, explanation.checkpoints[-1])}", markup=False)
    names = [node["id"] for node in content["nodes"]]
    scores, after = dict(last["nodes"]), {index: lengths for index, *lengths in last["split"]["active"]}
    for index, (now, corrupted) in sorted(after.items(), key=lambda pair: -abs(scores[pair[0]]))[:_EDGES]:
        line = f"  {scores[index]:+8.2f}  {names[index]}, active {now:.2f} ({corrupted:.2f} corrupted)"
        console.print(line, markup=False)
    console.print(visible(explanation.dictionary.note), markup=False)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
