"""Many prompts of a file, explained one after the other, and a page that leads to each of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from rich.console import Console

from checkpoints.errors import UserError, unwritable
from checkpoints.paths import StrPath, as_path, as_text, replace_text

from ..charting import content_hash, source
from ..probes.files import read_probe
from ..progress import Reporter
from ..runs.lookup import requested
from ..store.paths import beside_traces
from .computing import Explained, explain
from .display import quoted, shorten, visible, visible_prose
from .drawing import step_axis
from .printing import print_explained

__all__ = ["ExplainedPrompts", "explain_and_print", "explain_prompts"]

_WIDTH, _HEIGHT = 160.0, 30.0
_OF_ONE = ("answer", "foil", "corrupted", "begun")
"""What belongs to one prompt: options where one is explained, columns of a file of them."""


@dataclass(frozen=True)
class ExplainedPrompts:
    """What was written.

    Attributes:
        page: leads to the page of every prompt.
        explained: of every prompt that could be explained, in the order of the file.
        refused: (number in the file from 1, prompt, why) of those that could not.
    """

    page: Path
    explained: tuple[Explained, ...]
    refused: tuple[tuple[int, str, str], ...]


def explain_prompts(
    name: str,
    *,
    file: StrPath,
    runs: StrPath | None = None,
    traces: StrPath = "traces",
    reports: StrPath | None = None,
    reporter: Reporter | None = None,
    **options: Any,
) -> ExplainedPrompts:
    """:func:`.explain` for every prompt of a file, and a page with all of them.

    A prompt that the model cannot be asked (a word that it does not know, an answer of two tokens) is listed with the reason,
    and the others are explained. Every prompt goes through all checkpoints anew.

    Args:
        file: prompts as of a probe (``.jsonl`` or ``.yaml``: ``text``, and where one is wanted ``answer``, ``foil``, ``corrupted``).
        options: as of :func:`.explain`, the same for all prompts; what belongs to one prompt stands beside it in the file.

    Raises:
        UserError: for a file that holds no prompts, when no prompt of it can be explained, or for options that are wrong or
            belong to one prompt.
    """
    name, file, traces = as_text(name, "name"), as_path(file, "file"), as_path(traces, "traces")
    runs, reports = (None if p is None else as_path(p, of) for p, of in ((runs, "runs"), (reports, "reports")))
    _require_of_all(options)
    probe = read_probe("prompts", file)
    reporter = reporter or Reporter(quiet=True)
    explained: list[Explained] = []
    refused: list[tuple[int, str, str]] = []
    for number, text in enumerate(probe.text):
        columns = {what: getattr(probe, what) for what in _OF_ONE}
        own = {what: values[number] for what, values in columns.items() if values is not None}
        reporter.say(f"prompt {number + 1} of {len(probe.text)}: {quoted(text)}")
        try:
            explained.append(
                explain(name, text, runs=runs, traces=traces, reports=reports, reporter=reporter, **{**options, **own})
            )
        except UserError as error:
            if not explained and len(probe.text) == len(refused) + 1:
                raise  # none could be: what is wrong is likely to be the run or the options
            refused.append((number + 1, text, error.observed))
    name, _, traces = requested(name, None, runs=runs, traces=traces)
    folder = (beside_traces(traces, "reports") if reports is None else reports) / name
    digest = hashlib.sha256("\n".join(probe.text).encode()).hexdigest()[:8]
    page = folder / f"explain-{file.stem}-{digest}.html"
    try:
        replace_text(page, prompts_page(name, file.name, explained, refused))
    except OSError as error:
        raise unwritable(f"the page of prompts {page}", error, option="--reports") from error
    return ExplainedPrompts(page, tuple(explained), tuple(refused))


def explain_and_print(name: str, prompt: str | None, file: StrPath | None, **options: Any) -> bool:
    """What the command does: a prompt, or a file of them, explained and said on the terminal; whether all could be.

    Args:
        options: as of :func:`.explain`.

    Raises:
        UserError: for both a prompt and a file, or neither.
    """
    _require_one(name, prompt, file)
    if prompt is not None:
        print_explained(explain(name, prompt, **options))
        return True
    assert file is not None
    return _print(explain_prompts(name, file=file, **options))


def _require_one(name: str, prompt: str | None, file: StrPath | None) -> None:
    """Either a prompt or a file of prompts is asked for.

    Raises:
        UserError: where it is neither, or both.
    """
    if (prompt is None) == (file is None):
        raise UserError(
            "neither a prompt nor a file of prompts" if prompt is None else "both a prompt and --prompts",
            expected="one of them",
            remedy=f'dynamics explain {name} "PROMPT", or dynamics explain {name} --prompts FILE',
        )


def _require_of_all(options: Mapping[str, Any]) -> None:
    """No text that belongs to one prompt is given to all of a file.

    Raises:
        UserError: where one is.
    """
    given = [what for what in _OF_ONE if options.get(what) is not None]
    if given:
        raise UserError(
            f"{' and '.join(f'--{what}' for what in given)} would be the same for every prompt of --prompts",
            expected="what belongs to one prompt beside it in the file",
            remedy=f'write "{given[0]}" beside the "text" of each prompt, and leave --{given[0]} out',
        )


def _print(written: ExplainedPrompts) -> bool:
    """Say what could not be explained, and where the page is; whether everything was."""
    console = Console(highlight=False, soft_wrap=True)
    for number, text, why in written.refused:
        console.print(f"prompt {number} ({shorten(visible(text), 60)}) was not explained: {visible(why)}", markup=False)
    console.print(f"{len(written.explained)} prompts explained\n\n{written.page}", markup=False)
    return not written.refused


def prompts_page(
    name: str, file: str, explained: Sequence[Explained], refused: Sequence[tuple[int, str, str]] = ()
) -> str:
    """A page with a row for every prompt: what it asks, the answer's probability through training, and its own page."""
    environment = Environment(loader=PackageLoader("dynamics.explaining"), autoescape=True, undefined=StrictUndefined)
    environment.filters |= {"quoted": quoted, "visible": visible, "prose": visible_prose}
    style = source("dynamics.explaining", "prompts.css")
    return environment.get_template("prompts.html.j2").render(
        name=name,
        file=file,
        rows=[_row(one) for one in explained],
        refused=refused,
        width=_WIDTH,
        height=_HEIGHT,
        style=Markup(style),
        style_hash=content_hash(style),
    )


def _row(one: Explained) -> dict[str, Any]:
    content = one.content
    checkpoints = content["checkpoints"]
    last = checkpoints[-1]
    return {
        "prompt": content["prompt"],
        "link": f"{one.folder.name}/index.html",
        "answer": content["answer"]["text"],
        "foil": content["foil"]["text"],
        "path": _sparkline([c["step"] for c in checkpoints], [c["answer_probability"] for c in checkpoints]),
        "final": "–" if last["answer_probability"] is None else f"{last['answer_probability']:.0%}",
        "first": _first_choice([(c["step"], c["answer_rank"]) for c in checkpoints]),
        "state": last["state"],
        "faithfulness": "–" if last["faithfulness"] is None else f"{last['faithfulness']:.0%}",
        "edges": "–" if last["edges_kept"] is None else f"{last['edges_kept']:,} of {last['edges_total']:,}",
    }


def _first_choice(ranks: Sequence[tuple[int, int | None]]) -> str:
    """When the answer was the first choice, by (step, rank from 0, or None where it has none) of every checkpoint.

    >>> _first_choice([(0, 7), (10, 0), (20, None), (30, 0)]), _first_choice([(0, 7), (10, 0), (20, 1)])
    ('from step 10 on', 'lost after step 10')
    >>> _first_choice([(0, 7), (10, 2)]), _first_choice([(0, 0), (10, None)])
    ('never', '–')
    """
    if ranks[-1][1] is None:
        return "–"
    known = [(step, rank) for step, rank in ranks if rank is not None]
    last_other = max((i for i, (_, rank) in enumerate(known) if rank), default=-1)
    if last_other < len(known) - 1:
        return f"from step {known[last_other + 1][0]:,} on"
    had = [step for step, rank in known if rank == 0]
    return f"lost after step {had[-1]:,}" if had else "never"


def _sparkline(steps: Sequence[int], values: Sequence[float | None]) -> str:
    """The probability of the answer through training, as a path; interrupted where there is no number."""
    path, drawing = "", False
    for at, value in zip(step_axis(steps).positions, values, strict=True):
        if value is not None:
            path += f"{'L' if drawing else 'M'}{2 + at * (_WIDTH - 4):.1f} {2 + (1 - value) * (_HEIGHT - 4):.1f}"
        drawing = value is not None
    return path
