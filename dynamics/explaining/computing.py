"""``explain``: what was the model computing on this prompt, and when did it learn to?"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from checkpoints.ahead import ReadAhead
from checkpoints.errors import CheckpointError, UserError
from checkpoints.series import Checkpoint, Series

from ..config import Run
from ..lookup import find_run
from ..progress import Reporter
from ..resolve import Model, open_model, trace_path
from ..schedule import scheduled
from ..store import Trace
from .flow import Flow, Place, find_flow
from .page import explanation_page, explanation_svg
from .prompts import Question, ask, token_text
from .schema import FORMAT, KIND, check_explanation

if TYPE_CHECKING:
    from ..circuits.wired import Wired

__all__ = ["Explained", "explain"]

NOISE = 0.1
"""Logits: a difference between prompt and twin that is smaller is nothing to explain."""

ERRORS = 2.0
"""Standard errors of the twins' mean that the difference must exceed."""


@dataclass(frozen=True)
class Explained:
    """What was written.

    Attributes:
        folder: holds ``index.html``, ``explanation.json`` and ``explanation.svg``.
        content: what ``explanation.json`` says (docs/explain-format.md).
    """

    folder: Path
    content: dict[str, Any]


def explain(
    name: str,
    prompt: str,
    *,
    answer: str | None = None,
    foil: str | None = None,
    corrupted: str | None = None,
    share: float = 0.8,
    checkpoints: int | None = None,
    figure_step: int | None = None,
    seed: int = 0,
    runs: Path | None = None,
    traces: Path = Path("traces"),
    reports: Path = Path("reports"),
    run: Run | None = None,
    reporter: Reporter | None = None,
) -> Explained:
    """The flowchart of a prompt at every checkpoint of a run, as a page, as JSON and as a figure.

    Args:
        name: the run.
        prompt: the text whose continuation is explained.
        answer, foil: one-token continuations; guessed where missing: the final checkpoint's first and second choice.
        corrupted: a twin of the prompt, as many tokens long, in which what matters is different; by default eight
            prompts of random tokens.
        share: of the difference between prompt and twins that the flowchart must explain, in (0, 1].
        checkpoints: at most this many, evenly on a log scale of steps; by default all that the run's trace holds, or its
            schedule visits.
        figure_step: the checkpoint of ``explanation.svg``; the last one by default.
        seed: of the random tokens.

    Raises:
        UserError: for a prompt, answer or twin that does not fit the tokenizer, or a model whose wiring is not known.
    """
    reporter = reporter or Reporter(quiet=True)
    if not 0 < share <= 1:
        raise UserError(f"the share is {share}", expected="more than 0, at most 1")
    if checkpoints is not None and checkpoints < 1:
        raise UserError(f"{checkpoints} checkpoints were asked for", expected="at least 1")
    if run is None:
        name, run = find_run(name, runs=runs, traces=traces)
    series, model = open_model(name, run)
    question = ask(
        model.tokenizer, model.architecture.shape, prompt, answer=answer, foil=foil, corrupted=corrupted, seed=seed
    )
    chosen = _chosen(name, run, series, traces, checkpoints)
    if figure_step is not None and figure_step not in [c.step for c in chosen]:
        raise UserError(f"step {figure_step} is not among those explained", expected=f"{[c.step for c in chosen]}")
    content = _explanation(name, run, series, model, question, chosen, share, reporter)
    check_explanation(content)
    steps = [c["step"] for c in content["checkpoints"]]
    index = len(steps) - 1 if figure_step is None else steps.index(figure_step)
    folder = reports / name / f"explain-{_slug(prompt)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        for file, written in (
            ("explanation.json", text + "\n"),
            ("index.html", explanation_page(content)),
            ("explanation.svg", explanation_svg(content, index)),
        ):
            partial = folder / f"{file}.partial"
            partial.write_text(written, encoding="utf-8")
            partial.replace(folder / file)
    except OSError as error:
        raise UserError(
            f"the explanation cannot be written to {folder}: {error.strerror or error}",
            expected="a folder that you may write to",
            remedy="name another one with --reports",
        ) from error
    return Explained(folder, content)


def _slug(prompt: str) -> str:
    """A folder name that tells prompts apart."""
    import hashlib

    words = "-".join(re.findall(r"[A-Za-z0-9]+", prompt))[:40].strip("-").lower()
    return f"{words or 'prompt'}-{hashlib.sha256(prompt.encode()).hexdigest()[:6]}"


def _chosen(name: str, run: Run, series: Series, traces: Path, count: int | None) -> list[Checkpoint]:
    """The checkpoints to explain: those that the trace holds, else those that the schedule visits."""
    path = trace_path(traces, name)
    if path.exists():
        trace = Trace(path)
        held = {int(step) for step in trace.steps[trace.complete]}
        found = [c for c in series.checkpoints if c.step in held]
    else:
        schedule = "log" if run.schedule == "adaptive" else run.schedule
        visited = scheduled([c.step for c in series.checkpoints], schedule, run.checkpoints)
        found = [series.checkpoints[i] for i in visited if series.checkpoints[i].step not in run.exclude]
    if not found:
        raise UserError(f"run {name!r} has no checkpoint to explain", remedy=f"dynamics collect {name}")
    if count is None:
        return found
    if count == 1:
        return found[-1:]
    return [found[i] for i in scheduled([c.step for c in found], "log", count)]


def _explanation(
    name: str,
    run: Run,
    series: Series,
    model: Model,
    question: Question,
    chosen: list[Checkpoint],
    share: float,
    reporter: Reporter,
) -> dict[str, Any]:
    from ..circuits.graph import graph_of

    shape = model.architecture.shape
    graph = graph_of(shape)
    guessed = question.answer is None or question.foil is None
    answer, foil = question.answer, question.foil
    parts: list[dict[str, Any]] = []
    flows: list[Flow | None] = []
    # the last one first: it says what is to be explained
    order = [chosen[-1], *chosen[:-1]]
    for checkpoint, wired in _models(run, series, model, order, name, reporter):
        if isinstance(wired, str):
            if answer is None or foil is None:
                raise UserError(
                    f"step {checkpoint.step}, by which answer and foil are guessed, cannot be loaded: {wired}",
                    remedy="give --answer and --foil",
                )
            parts.append(_failed(checkpoint, wired))
            flows.append(None)
            continue
        if answer is None or foil is None:
            answer, foil = _guess(wired, question, answer, foil)
        part, flow = _one(wired, model.tokenizer, question, answer, foil, checkpoint, share)
        parts.append(part)
        flows.append(flow)
    assert answer is not None and foil is not None
    parts, flows = [*parts[1:], parts[0]], [*flows[1:], flows[0]]
    places = sorted({place for flow in flows if flow is not None for place in flow.nodes})
    index = {place: i for i, place in enumerate(places)}
    for part, flow in zip(parts, flows, strict=True):
        if flow is not None:
            part["nodes"] = [[index[place], score] for place, score in flow.nodes.items()]
            part["edges"] = [[index[e.source], index[e.target], e.port, e.score] for e in flow.edges]
    random = question.how == "random tokens"
    return {
        "format": FORMAT,
        "kind": KIND,
        "run": name,
        "prompt": question.prompt,
        "tokens": list(question.tokens),
        "answer": {"text": token_text(model.tokenizer, answer), "id": answer},
        "foil": {"text": token_text(model.tokenizer, foil), "id": foil},
        "guessed": guessed,
        "corrupted": {
            "how": question.how,
            "texts": list(question.texts),
            "note": f"The prompt was compared with {len(question.twins)} prompts of as many random tokens."
            if random
            else "The prompt was compared with one twin, given by the user.",
        },
        "metric": "logit(answer) - logit(foil)",
        "share": share,
        "layers": graph.layers,
        "heads": graph.heads,
        "parallel": graph.parallel,
        "step_counts": series.entry.counts if hasattr(series, "entry") else "optimizer steps",
        "nodes": [_node(graph.sources, place) for place in places],
        "checkpoints": parts,
    }


def _models(
    run: Run, series: Series, model: Model, order: list[Checkpoint], name: str, reporter: Reporter
) -> Iterator[tuple[Checkpoint, Wired | str]]:
    """Each checkpoint with its model, or the reason why it cannot be had."""
    from checkpoints.loading import ResidentModel

    from ..circuits.wired import Wired
    from ..measuring import usable_device

    build = None if model.adapter is None else model.adapter.build
    resident = ResidentModel(usable_device(run.device), run.dtype, build)
    with (
        ReadAhead(series, order, series.read) as ahead,
        reporter.bar(f"explaining {name}", len(order), unit="checkpoints") as bar,
    ):
        for place, checkpoint in enumerate(order):
            failure = ""
            try:
                resident.install(ahead.take())
            except CheckpointError as error:
                failure = error.observed
            ahead.let_go()
            yield checkpoint, failure or Wired(resident.model, model.architecture)
            bar.update(place + 1, f"step {checkpoint.step}")


def _guess(wired: Wired, question: Question, answer: int | None, foil: int | None) -> tuple[int, int]:
    """The model's first and second choice, for what was not given."""
    import torch

    ids = torch.from_numpy(question.ids)[None].to(wired.device)
    logits = wired.logits(ids, torch.tensor([ids.shape[1] - 1], device=wired.device))[0].float()
    if not bool(torch.isfinite(logits).all()):
        raise UserError(
            "the final checkpoint's logits are not finite, so that nothing can be guessed",
            remedy="give --answer and --foil",
        )
    order = [int(i) for i in logits.argsort(descending=True)[:3]]
    answer = next(i for i in order if i != foil) if answer is None else answer
    foil = next(i for i in order if i != answer) if foil is None else foil
    return answer, foil


def _one(
    wired: Wired, tokenizer: Any, question: Question, answer: int, foil: int, checkpoint: Checkpoint, share: float
) -> tuple[dict[str, Any], Flow | None]:
    """One checkpoint without its nodes and edges, and the flowchart that they come from."""
    import torch

    from ..circuits.attribution import logit_difference
    from .lens import logit_lens

    ids = torch.from_numpy(question.ids)[None].to(wired.device)
    twins = torch.from_numpy(question.twins).to(wired.device)
    last = torch.full((len(twins),), ids.shape[1] - 1, device=wired.device)
    pair = [torch.tensor([token], device=wired.device) for token in (answer, foil)]
    metric = logit_difference(*(token.expand(len(twins)) for token in pair))
    logits = wired.logits(ids, last[:1]).float()
    if not bool(torch.isfinite(logits).all()):
        return _failed(checkpoint, "the model's logits are not finite"), None
    probabilities = logits.softmax(-1)[0]
    base = float(logits[0, answer] - logits[0, foil])
    other = metric(wired.logits(twins, last).float()).double().cpu().numpy()
    low = float(other.mean())
    lens = logit_lens(wired, ids)
    best, place = lens.max(-1)
    part = {
        **_about(checkpoint),
        "state": "not measurable",
        "reason": _too_close(base, other),
        "answer_probability": float(probabilities[answer]),
        "foil_probability": float(probabilities[foil]),
        "answer_rank": int((logits[0] > logits[0, answer]).sum()),
        "top": [
            {"text": token_text(tokenizer, int(i)), "probability": float(probabilities[i])}
            for i in logits[0].argsort(descending=True)[:5]
        ],
        "logit_difference": base,
        "corrupted_difference": low,
        "faithfulness": None,
        "edges_kept": None,
        "edges_total": None,
        "nodes": [],
        "edges": [],
        "lens": {
            "top": [
                [[token_text(tokenizer, int(t)), float(p)] for t, p in zip(row_t, row_p, strict=True)]
                for row_t, row_p in zip(place.cpu(), best.cpu(), strict=True)
            ],
            "answer": [[float(p) for p in row] for row in lens[:, :, answer].cpu()],
        },
    }
    if part["reason"]:
        return part, None
    flow = find_flow(wired, ids, twins, metric, difference=base - low, low=low, share=share)
    reason = (
        ""
        if flow.reached
        else f"the {len(flow.edges)} strongest edges explain {flow.faithfulness:.0%} of the difference, not {share:.0%}"
    )
    return part | {
        "state": "explained" if flow.reached else "not reached",
        "reason": reason,
        "faithfulness": flow.faithfulness,
        "edges_kept": len(flow.edges),
        "edges_total": flow.total,
    }, flow


def _too_close(base: float, other: np.ndarray) -> str:
    """Why prompt and twins cannot be told apart; empty if they can."""
    difference = abs(base - float(other.mean()))
    error = float(other.std(ddof=1) / np.sqrt(len(other))) if len(other) > 1 else 0.0
    if difference > max(NOISE, ERRORS * error):
        return ""
    bound = (
        f"{NOISE} logits" if error * ERRORS <= NOISE else f"{ERRORS:g} standard errors ({ERRORS * error:.2f} logits)"
    )
    return f"prompt and corrupted prompts differ by {difference:.2f} logits, which is within {bound}"


def _about(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "step": checkpoint.step,
        "tokens": checkpoint.tokens,
        "stage": checkpoint.stage,
        "label": checkpoint.label or f"step {checkpoint.step}",
    }


def _failed(checkpoint: Checkpoint, reason: str) -> dict[str, Any]:
    nothing = ("answer_probability", "foil_probability", "answer_rank", "logit_difference", "corrupted_difference")
    empty = ("faithfulness", "edges_kept", "edges_total", "lens")
    return {
        **_about(checkpoint),
        "state": "failed",
        "reason": reason,
        **dict.fromkeys((*nothing, *empty)),
        "top": [],
        "nodes": [],
        "edges": [],
    }


def _node(sources: Sequence[Any], place: Place) -> dict[str, Any]:
    source, position = place
    if source == len(sources):
        return {"id": f"logits@{position}", "kind": "logits", "layer": None, "head": None, "position": position}
    about = sources[source]
    kind = "embed" if about.layer is None else "mlp" if about.head is None else "head"
    return {
        "id": f"{about.name}@{position}",
        "kind": kind,
        "layer": about.layer,
        "head": about.head,
        "position": position,
    }
