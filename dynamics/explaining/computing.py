"""``explain``: what was the model computing on this prompt, and when did it learn to?"""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checkpoints.ahead import ReadAhead
from checkpoints.errors import CheckpointError, StoppedError, UserError, first_line, unwritable
from checkpoints.hub.cache import without_cache_path
from checkpoints.paths import StrPath, as_flag, as_number, as_path, as_text, as_texts
from checkpoints.series import Checkpoint, Series

from ..circuits.graph import graph_of
from ..collecting.opening import resident_for
from ..collecting.revisiting import chosen_checkpoints, open_weights
from ..progress import Reporter
from ..runs.config import Run
from ..runs.lookup import requested
from ..runs.resolve import Model, chat_of, run_probes
from ..store.lock import alone
from ..store.paths import beside_traces, trace_path
from .ablating import Ablating
from .attention import Attending
from .checkpoint import difference_of, explain_checkpoint, failed, guess, node
from .dictionary import OpenDictionary, open_dictionary, split_checkpoints
from .neuronpedia import neuronpedia_graphs
from .page import explanation_page, explanation_svg
from .prompts import Question, ask, token_text
from .schema import FORMATS, KIND, check_explanation
from .writing import require_writable, slug, write

if TYPE_CHECKING:
    from ..circuits.wired import Wired
    from .flow import Flow
    from .splitting import SiteActivations

__all__ = ["Explained", "explain"]


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
    begun: str | None = None,
    random_tokens: bool = False,
    share: float = 0.8,
    checkpoints: int | None = None,
    figure_step: int | None = None,
    seed: int = 0,
    features: str | None = None,
    neuronpedia: bool = False,
    ablate: Sequence[str] = (),
    scale: float | None = None,
    attention: bool = False,
    runs: StrPath | None = None,
    traces: StrPath = "traces",
    reports: StrPath | None = None,
    run: Run | None = None,
    reporter: Reporter | None = None,
) -> Explained:
    """The flowchart of a prompt at every checkpoint of a run, as a page, as JSON and as a figure.

    Args:
        name: the run.
        prompt: the text whose continuation is explained.
        answer, foil: one-token continuations; guessed where missing: the final checkpoint's first choice for the prompt, and
            for the twin (for the prompt, its second, where that is compared with random tokens).
        corrupted: a twin of the prompt, as many tokens long, in which what matters is different; by default one of the same
            kind is found (:mod:`.counterpart`).
        begun: how the answer begins, where the run asks prompts as a chat.
        random_tokens: compare with eight prompts of random tokens instead.
        share: of the difference between prompt and twins that the flowchart must explain, in (0, 1].
        checkpoints: at most this many, evenly on a log scale of steps; by default all that the run's trace holds, or its
            schedule visits.
        figure_step: the checkpoint of ``explanation.svg``; the last one by default.
        seed: of the random tokens.
        features: name of a dictionary of the run, whose features are shown too (:mod:`.splitting`). Only the checkpoints that
            it covers are explained then.
        neuronpedia: also write ``neuronpedia/stepN.json`` for every checkpoint that was explained (:mod:`.neuronpedia`). Those of
            an earlier explanation of the same question are removed.
        ablate: parts of the model that are ablated at every checkpoint, to see what the answer becomes: ``L1H2`` at all
            positions, ``L1H2@5`` at one, ``L1H2+L0M`` together, ``drawn`` for every part that is drawn (:mod:`.ablating`).
        scale: multiply what these parts write by this, instead of taking it from the corrupted prompts.
        attention: also say where the strongest attention comes from, by what wrote the query and what wrote the key
            (:mod:`.attention`).
        reports: folder of reports; without it, ``reports`` beside the folder of traces.

    Raises:
        UserError: for a prompt, answer or twin that does not fit the tokenizer, or a model whose wiring is not known; for a
            dictionary that was not learned, or is not of the residual stream between two layers.
    """
    import torch

    reporter = reporter or Reporter(quiet=True)
    as_text(prompt, "prompt")
    as_flag(random_tokens, "random_tokens")
    as_flag(neuronpedia, "neuronpedia")
    as_flag(attention, "attention")
    texts = {"answer": answer, "foil": foil, "corrupted": corrupted, "begun": begun, "features": features}
    for what in [what for what, text in texts.items() if text is not None]:
        as_text(texts[what], what)
    folder = None if reports is None else as_path(reports, "reports")
    if not 0 < as_number(share, "share", whole=False) <= 1:
        raise UserError(f"the share is {share}", expected="more than 0, at most 1", remedy="0.8 is usual")
    if checkpoints is not None and as_number(checkpoints, "checkpoints") < 1:
        raise UserError(
            f"{checkpoints} checkpoints were asked for",
            expected="at least 1",
            remedy="leave it out for all of the trace",
        )
    if figure_step is not None:
        as_number(figure_step, "figure_step")
    as_number(seed, "seed", least=0, most=2**63 - 1)
    ablate = as_texts(ablate, "ablate")
    if scale is not None:
        as_number(scale, "scale", whole=False)
        if not ablate:
            raise UserError(
                "a scale was given, and no part that is scaled",
                expected="--scale together with --ablate",
                remedy="name parts with --ablate, such as --ablate L1H2",
            )
    name, run, traces = requested(name, run, runs=runs, traces=traces)
    series, model = open_weights(name, run, trace_path(traces, name), reporter)
    graph = graph_of(model.architecture.shape)  # a model that cannot be explained is refused whatever it is asked
    chat = chat_of(model, run.template)
    question = ask(
        model.tokenizer,
        model.architecture.shape,
        prompt,
        answer=answer,
        foil=foil,
        corrupted=corrupted,
        random_tokens=random_tokens,
        seed=seed,
        chat=chat,
        begun=begun,
    )
    ablating = Ablating.asked_for(ablate, scale, graph, len(question.ids)) if ablate else None
    attending = Attending.asked_for(model.architecture.table.in_block) if attention else None
    opened = None if features is None else open_dictionary(name, features, traces, model)
    if opened is None:
        needed = chosen = available = chosen_checkpoints(name, run, series, traces, checkpoints)
    else:
        available = chosen_checkpoints(name, run, series, traces, None)
        chosen, needed = opened.checkpoints(available, checkpoints)
    if figure_step is not None and figure_step not in [c.step for c in chosen]:
        raise UserError(
            f"step {figure_step} is not among those explained",
            expected=f"one of {', '.join(str(c.step) for c in chosen)}",
            remedy="name one of these as --figure-step",
        )
    named = {
        "features": features,
        "begun": begun,
        "chat": chat and chat.digest,
        "ablate": ablating and [*ablate, scale],
        "attention": attention or None,
    }
    more = [{what: setting} for what, setting in named.items() if setting is not None]
    question_of = [answer, foil, corrupted, random_tokens, share, seed, *more]
    folder = (folder or beside_traces(traces, "reports")) / name / f"explain-{slug(prompt, *question_of)}"
    require_writable(folder)
    try:
        content = _explanation(
            name, run, series, model, question, chosen, needed, opened, ablating, attending, share, reporter
        )
    except torch.OutOfMemoryError as error:
        raise StoppedError(
            f"out of memory: {first_line(error)}",
            remedy="free memory on the device, choose another one, or ask a shorter prompt",
            expected="memory for the model, its gradients and the prompt",
        ) from error
    if opened is not None:
        numbers = sorted({node["feature"] for node in content["nodes"] if node["kind"] == "feature"})
        content["dictionary"] = opened.about(numbers, model.tokenizer, len(available))
    if chat is not None:
        content["chat"] = {"system": chat.system, "begun": begun or "", "digest": chat.digest}
    check_explanation(content)
    steps = [c["step"] for c in content["checkpoints"]]
    index = len(steps) - 1 if figure_step is None else steps.index(figure_step)
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    files = {
        "explanation.json": text + "\n",
        "index.html": explanation_page(content),
        "explanation.svg": explanation_svg(content, index),
    }
    if neuronpedia:
        for step, made in neuronpedia_graphs(content).items():
            files[f"neuronpedia/step{step}.json"] = (
                json.dumps(made, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
            )
    try:
        with alone(folder, f"the explanation in {folder}"):
            write(folder, files)
    except OSError as error:
        raise unwritable(f"the explanation in {folder}", error, option="--reports") from error
    return Explained(folder, content)


def _explanation(
    name: str,
    run: Run,
    series: Series,
    model: Model,
    question: Question,
    chosen: list[Checkpoint],
    needed: list[Checkpoint],
    opened: OpenDictionary | None,
    ablating: Ablating | None,
    attending: Attending | None,
    share: float,
    reporter: Reporter,
) -> dict[str, Any]:
    from .counterpart import find_twin

    graph = graph_of(model.architecture.shape)
    guessed = [name for name, given in (("answer", question.answer), ("foil", question.foil)) if given is None]
    answer, foil = question.answer, question.foil
    parts: list[dict[str, Any]] = []
    flows: list[Flow | None] = []
    crossings: dict[int, SiteActivations] = {}
    wanted = {c.step for c in chosen}
    # the last one first: it says what is to be explained
    order = [chosen[-1], *(c for c in needed if c is not chosen[-1])]
    with closing(_models(run, series, model, order, name, opened, reporter)) as models:
        for checkpoint, wired in models:
            if isinstance(wired, str):
                if checkpoint.step not in wanted:
                    continue
                if answer is None or foil is None:
                    raise UserError(
                        f"step {checkpoint.step}, by which answer and foil are guessed, cannot be loaded: {wired}",
                        remedy="give --answer and --foil",
                        expected="weights that fit the model of the trace",
                    )
                if not question.how:  # nothing says which twin: take random ones
                    question = replace(question, how="random tokens")
                parts.append(failed(checkpoint, wired) | ({} if attending is None else {"attention": []}))
                flows.append(None)
                continue
            if not question.how:
                probes = run_probes(name, run, series, model)
                question, answer, foil = find_twin(wired, model.tokenizer, question, answer, foil, probes)
            if answer is None or foil is None:
                answer, foil = guess(wired, question, answer, foil)
            flow = None
            if checkpoint.step in wanted:
                part, flow = explain_checkpoint(wired, model.tokenizer, question, answer, foil, checkpoint, share)
                parts.append(part)
                flows.append(flow)
                if ablating is not None:
                    part["ablated"] = ablating.rows(wired, model.tokenizer, question, answer, foil, part, flow)
                if attending is not None:
                    part["attention"] = attending.rows(wired, question, part, flow)
            if opened is not None:
                crossings[checkpoint.step] = _crossing(wired, opened, question, (answer, foil) if flow else None)
    assert answer is not None and foil is not None
    parts, flows = [*parts[1:], parts[0]], [*flows[1:], flows[0]]
    found = sorted({at for flow in flows if flow is not None for at in flow.shown[1]})
    index = {at: i for i, at in enumerate(found)}
    for part, flow in zip(parts, flows, strict=True):
        if flow is not None:
            edges, nodes_shown = flow.shown
            part["nodes"] = [[index[at], score] for at, score in nodes_shown.items()]
            part["edges"] = [[index[e.source], index[e.target], e.port, e.score] for e in edges]
    nodes = [node(graph.sources, at) for at in found]
    if opened is not None:
        nodes += split_checkpoints(opened, crossings, parts, share, len(nodes))
    found_ablations = {} if ablating is None else {"ablation": ablating.about(parts)}
    return {
        "format": FORMATS[3 if attending is not None else 2 if ablating is not None else 0 if opened is None else 1],
        "kind": KIND,
        "run": name,
        "prompt": question.prompt,
        "tokens": list(question.tokens),
        "answer": {"text": token_text(model.tokenizer, answer), "id": answer},
        "foil": {"text": token_text(model.tokenizer, foil), "id": foil},
        "guessed": guessed,
        "corrupted": {"how": question.how, "texts": list(question.texts), "note": question.note},
        "metric": "logit(answer) - logit(foil)",
        "share": share,
        "layers": graph.layers,
        "heads": graph.heads,
        "parallel": graph.parallel,
        "step_counts": series.step_counts,
        "nodes": nodes,
        "checkpoints": parts,
    } | found_ablations


def _crossing(
    wired: Wired, opened: OpenDictionary, question: Question, tokens: tuple[int, int] | None
) -> SiteActivations:
    """What a checkpoint has at the dictionary's site; with gradients if ``tokens``, answer and foil, are given."""
    import torch

    from .splitting import cross

    ids = torch.from_numpy(question.ids)[None].to(wired.device)
    twins = torch.from_numpy(question.twins).to(wired.device)

    metric = None if tokens is None else difference_of(*tokens)
    return cross(wired, opened.site, opened.after, ids, twins, metric)


def _models(
    run: Run,
    series: Series,
    model: Model,
    order: list[Checkpoint],
    name: str,
    opened: OpenDictionary | None,
    reporter: Reporter,
) -> Generator[tuple[Checkpoint, Wired | str], None, None]:
    """Each checkpoint with its model, or the reason why it cannot be had."""
    from ..circuits.wired import Wired

    resident = resident_for(run, model)
    with (
        ReadAhead(series, order, series.read) as ahead,
        reporter.bar(f"explaining {name}", len(order), unit="checkpoints") as bar,
    ):
        for done, checkpoint in enumerate(order):
            failure = ""
            try:
                prepared = ahead.take()
                if opened is not None:
                    opened.require_same(checkpoint.step, prepared.digest)
                resident.install(prepared)
            except CheckpointError as error:
                failure = without_cache_path(error.observed)
            ahead.release()
            yield checkpoint, failure or Wired(resident.model, model.architecture)
            bar.update(done + 1, f"step {checkpoint.step}")
