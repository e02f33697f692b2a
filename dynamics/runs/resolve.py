"""From a run's name to everything that collecting it needs: series, tokenizer, sizes, probes, declaration."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from checkpoints.audit import SAMPLE
from checkpoints.configs import architecture_of, read_config
from checkpoints.errors import CheckpointError, UserError, nearest, together
from checkpoints.organism import is_trained, model_config, schedule
from checkpoints.organism.curriculum import OrganismConfig
from checkpoints.organism.tokenizer import build_tokenizer
from checkpoints.series import OPTIMIZER_STEPS, Checkpoint, Series
from checkpoints.sources import open_series
from checkpoints.tokenizing import load_tokenizer

from ..analysis.base import Analysis, Context, Request
from ..measurements import Activations, Answers, Intervention, Measurement
from ..models.architecture import Adapter, Architecture, adapted, architecture, find_adapter, tokenizer_of
from ..names import SITES
from ..probes import Probe, TokenizedProbe, read_probe, tokenize
from ..probes.chat import Chat
from ..probes.types import LAST
from ..store import WEIGHTS, Group, TraceDeclaration
from ..store.provenance import provenance
from ..store.variable import Variable
from ..wording import listed
from .config import ProbeEntry, Run
from .plan import ProbePlan, find_analysis, merge
from .template import TemplateConfig

__all__ = ["Model", "Resolved", "chat_of", "describe_model", "open_model", "plan_run", "resolve", "run_probes"]

Say = Callable[[str], None]


@dataclass(frozen=True)
class Model:
    """What is known of a run's model before its weights are there.

    Attributes:
        tokenizer: that all checkpoints share.
        architecture: how it is measured.
        config: what the trace says about it, as JSON values.
        adapter: for modules of the user's own.
    """

    tokenizer: Any
    architecture: Architecture
    config: Mapping[str, Any]
    adapter: Adapter | None = None


@dataclass(frozen=True)
class Resolved:
    """A run, ready to be collected.

    Attributes:
        name: the run's name.
        run: its configuration, with the optional analyses that fit.
        series: its checkpoints; None for an organism that has not been trained (only with ``train=False``), and for a
            model that is being trained.
        model: what is known of its model.
        probes: each probe with its measurements, tokenized.
        declaration: the trace.
    """

    name: str
    run: Run
    series: Series | None
    model: Model
    probes: tuple[tuple[ProbePlan, TokenizedProbe], ...]
    declaration: TraceDeclaration


def resolve(
    name: str,
    run: Run,
    *,
    series: Series | None = None,
    train: bool = True,
    training: Callable[[int, int, float], None] | None = None,
    pins: Mapping[int, Checkpoint] | None = None,
    say: Say = lambda _text: None,
) -> Resolved:
    """Open the series (training the organism if needed), plan all analyses and check every probe.

    Args:
        name: the run's name.
        run: its configuration.
        series: its checkpoints, instead of opening what the run says.
        train: whether an untrained organism is trained; if not, everything but the weights is resolved.
        training: called after each training step with (steps done, steps in all, loss).
        pins: step to the checkpoint as it was collected before (hub series).
        say: called with each optional analysis that does not fit.

    Raises:
        UserError: for anything that can be known to be wrong before a checkpoint is loaded.
    """
    if not run.series.stored:
        raise UserError(
            f"run {name!r} is collected by the training itself (`kind: live`)",
            expected="a series of stored checkpoints",
            remedy="attach dynamics.collecting.live.DynamicsCallback or LiveCollector to the training job",
        )
    for entry in run.analyses:  # a misspelt one must not cost a training
        find_analysis(entry.name, entry.options)
    adapter = None if run.adapter is None else find_adapter(run.adapter)
    for probe, own in run.probes.items():
        read_probe(probe, own.file)
    if isinstance(run.series, OrganismConfig) and not train and not is_trained(name, run.series):
        per_step = run.series.tokens_per_step
        planned = tuple(Checkpoint(s, f"step{s}", per_step * s) for s in schedule(run.series))
        untrained = describe_model(model_config(run.series), build_tokenizer(run.series.curriculum), run.sites)
        return plan_run(name, run, None, planned, untrained, "not trained yet", say)
    series = series or open_series(name, run.series, pins=pins, training=training)
    return plan_run(name, run, series, series.checkpoints, _model(series, run, adapter), series.origin, say)


def open_model(
    name: str,
    run: Run,
    *,
    training: Callable[[int, int, float], None] | None = None,
    pins: Mapping[int, Checkpoint] | None = None,
) -> tuple[Series, Model]:
    """A run's series and what is known of its model, without planning anything; arguments as of :func:`resolve`.

    Raises:
        UserError: as :func:`resolve`.
    """
    if not run.series.stored:
        raise UserError(
            f"run {name!r} was collected while the model was trained (`kind: live`): there are no weights to go back to",
            expected="a series of stored checkpoints",
            remedy="have the job save checkpoints, and declare them as a run",
        )
    adapter = None if run.adapter is None else find_adapter(run.adapter)
    series = open_series(name, run.series, pins=pins, training=training)
    return series, _model(series, run, adapter)


def plan_run(
    name: str,
    run: Run,
    series: Series | None,
    checkpoints: tuple[Checkpoint, ...],
    model: Model,
    origin: str,
    say: Say = lambda _text: None,
) -> Resolved:
    """All analyses' and the user's probes, tokenized, and the trace that they need; see :func:`resolve`."""
    context_files = {probe: _own_probe(probe, entry, run, model) for probe, entry in run.probes.items()}
    wired = model.architecture.shape.parallel is not None
    context = Context(model.tokenizer, context_files, wired, chat_of(model, run.template))
    requests: list[Request] = []
    fitting, refused = [], []
    asked: dict[str, dict[str, None]] = {}
    for entry in run.analyses:
        analysis, options = find_analysis(entry.name, entry.options)
        try:
            wanted = analysis.plan(context, options)
            _require_sites(wanted, model)
            if entry.optional:
                _tokenized(merge(wanted), model)
        except UserError as error:
            if not entry.optional:
                error.add_note(f"in analysis {entry.name!r} of run {name!r}")
                refused.append(error)
                continue
            say(f"analysis {entry.name!r} is left out of {name!r}: {error.observed.splitlines()[0]}")
            continue
        if not wired and (lost := _lost(analysis, options, context, wanted)):
            say(
                f"analysis {entry.name!r} of {name!r} goes without {listed(lost)}: what reads and writes where is not known"
            )
        fitting.append(entry)
        requests += wanted
        for request in wanted:
            asked.setdefault(request.probe.name, {})[f"analysis {entry.name!r}"] = None
    if refused:
        raise together(refused)
    own = _own_probes(name, run, context_files)
    _require_sites(own, model)
    requests += own
    for request in own:
        asked.setdefault(request.probe.name, {})[f"`probes` of run {name!r}"] = None
    if not requests:
        raise UserError(
            f"none of the analyses of run {name!r} fits this series and asks it anything",
            expected="at least one, or `probes`",
            remedy="name others with `analyses` or --analyses, or write prompts of your own",
        )
    run = run.model_copy(update={"analyses": tuple(fitting)})
    plans = [replace(plan, asked=tuple(asked[plan.probe.name])) for plan in merge(requests)]
    probes = _tokenized(plans, model)
    shape = model.architecture.shape
    groups = (_weights_group(), *(_group(plan, p, [v for m in plan.measurements for v in m.declare(p, shape)]) for plan, p in probes))  # fmt: skip
    attributes = {
        "run": name,
        "run_config": run.model_dump(mode="json"),
        "origin": origin,
        "series": (series is not None and series.repository) or run.series.kind,
        "step_counts": OPTIMIZER_STEPS if series is None else series.step_counts,
        "model_config": dict(model.config),
        "tokenizer_digest": _tokenizer_digest(model.tokenizer),
        "dtype": run.dtype,
        **_templates(model, run, probes),
        **provenance(),
    }
    declaration = TraceDeclaration(
        checkpoints=checkpoints,
        groups=groups,
        trace_dtype=run.trace_dtype,
        attributes=attributes,
        bfloat16=run.dtype == "bfloat16",
        layout=run.layout,
    )
    return Resolved(name, run, series, model, probes, declaration)


def _lost(analysis: Analysis, options: Any, context: Context, wanted: Sequence[Request]) -> list[str]:
    """Names of measurements that an analysis leaves out of a model whose wiring is not known."""
    try:
        whole = analysis.plan(replace(context, wired=True), options)
    except UserError:
        return []
    left = {type(m).__name__ for request in wanted for m in request.measurements}
    return sorted({type(m).__name__ for request in whole for m in request.measurements} - left)


def run_probes(name: str, run: Run, series: Series, model: Model) -> tuple[TokenizedProbe, ...]:
    """The prompts of a run, its analyses' and the user's, under the model's tokenizer; none where they do not fit it."""
    try:
        resolved = plan_run(name, run, series, series.checkpoints, model, series.origin)
    except UserError:  # which collecting it says, and says why
        return ()
    return tuple(probe for _, probe in resolved.probes)


def _templates(
    model: Model, run: Run, probes: Sequence[tuple[ProbePlan, TokenizedProbe]]
) -> dict[str, dict[str, dict[str, str | None]]]:
    """What the trace says about chat templates: digest, as its groups name it, to the template and the system's text."""
    used = {probe.probe.template for _, probe in probes}
    said = (run.template, *(entry.template for entry in run.probes.values()))
    chats = [Chat(model.tokenizer, t.system) for t in said if t is not None and t.name == "chat"]
    found = {chat.digest: {"template": chat.source, "system": chat.system} for chat in chats if chat.digest in used}
    return {"chat_templates": found} if found else {}


def describe_model(config: Any, tokenizer: Any, sites: str | None = None) -> Model:
    """What a ``transformers`` config says of a model."""
    content = json.loads(json.dumps(architecture_of(config), default=str))
    return Model(tokenizer, architecture(config, sites), content)


def _model(series: Series, run: Run, adapter: Adapter | None) -> Model:
    if adapter is None:
        return describe_model(read_config(series.config_folder), load_tokenizer(series.tokenizer_folder), run.sites)
    for checkpoint in series.checkpoints:
        try:
            tensors = series.read(series.fetch(checkpoint)).tensors
        except CheckpointError:
            continue
        finally:
            series.release(checkpoint)
        found = adapted(adapter, tensors)
        return Model(
            tokenizer_of(adapter, tensors), found, {"adapter": run.adapter, "shape": asdict(found.shape)}, adapter
        )
    raise UserError(
        f"no checkpoint of {series.origin} can be read",
        expected="at least one whole state dict",
        remedy="save or copy them again",
    )


def chat_of(model: Model, template: TemplateConfig) -> Chat | None:
    """The chat template that prompts are to be rendered by, or None.

    Raises:
        UserError: when the tokenizer has none, or the model fills in masks.
    """
    if template.name == "plain":
        return None
    if not model.architecture.shape.causal:
        raise UserError(
            "prompts are to be rendered by a chat template, and the model fills in masks",
            expected="a model that continues a text",
            remedy="leave out `template: chat`",
        )
    return Chat(model.tokenizer, template.system)


def _own_probe(name: str, entry: ProbeEntry, run: Run, model: Model) -> Probe:
    """A probe of the user's own, as the run asks it."""
    probe = read_probe(name, entry.file)
    chat = chat_of(model, entry.template or run.template)
    if chat is not None:
        return chat.probe(probe)
    if probe.begun is not None and any(probe.begun):
        raise UserError(
            f"probe {name!r} says how answers begin (`begun`), and is not asked as a chat",
            expected="`template: chat` of the probe or the run",
            remedy="say so, or write the beginnings into the prompts",
        )
    return probe


def _own_probes(name: str, run: Run, files: Mapping[str, Any]) -> list[Request]:
    requests = []
    for probe, entry in run.probes.items():
        measurements: list[Measurement] = [Activations(site, entry.positions or (LAST,)) for site in entry.sites]
        if files[probe].answer is not None:
            measurements.append(Answers(candidates=True))
        if not measurements:
            raise UserError(
                f"nothing is measured on probe {probe!r}: it has no answers and no `sites`",
                remedy=f"give its prompts answers, or add `sites: [resid_post]` to it in run {name!r}",
                expected="answers, or sites whose activations are stored",
            )
        requests.append(Request(files[probe], tuple(measurements)))
    return requests


def _require_sites(requests: Sequence[Request], model: Model) -> None:
    """Refuse measurements at sites that the model's family does not have."""
    table = model.architecture.table
    for request in requests:
        for measurement in request.measurements:
            sites = set() if isinstance(measurement, Intervention) else measurement.sites()
            if absent := sorted((sites & set(SITES)) - {"logits", *table.sites}):
                raise UserError(
                    f"this architecture has no site {absent[0]!r}, which probe {request.probe.name!r} is to be measured at",
                    expected=f"one of {', '.join(table.sites)}",
                    remedy=nearest(absent[0], table.sites),
                )


def _tokenized(plans: Sequence[ProbePlan], model: Model) -> tuple[tuple[ProbePlan, TokenizedProbe], ...]:
    """Every probe under the model's tokenizer, with every measurement checked against it."""
    shape = model.architecture.shape
    result = []
    for plan in plans:
        probe = tokenize(plan.probe, model.tokenizer, vocab=shape.vocab, context=shape.context, causal=shape.causal)
        for measurement in plan.measurements:
            measurement.declare(probe, shape)
        result.append((plan, probe))
    return tuple(result)


def _group(plan: ProbePlan, probe: TokenizedProbe, variables: Sequence[Variable]) -> Group:
    prompts: dict[str, tuple[Any, ...]] = {"text": plan.probe.text}
    if plan.probe.answer is not None and probe.answer_ids is not None:
        prompts |= {"answer": plan.probe.answer, "answer_id": tuple(probe.answer_ids.tolist())}
    if plan.probe.foil is not None:
        prompts["foil"] = plan.probe.foil
    prompts |= plan.probe.labels
    positions = {name: index.tolist() for name, index in probe.positions.items()}
    settings: dict[str, Any] = {"measurements": sorted(map(repr, plan.measurements)), "positions": positions}
    if plan.probe.corrupted is not None:  # what is measured on pairs depends on them, and the trace does not hold them
        settings["twins"] = hashlib.sha256(json.dumps(plan.probe.corrupted).encode()).hexdigest()[:16]
    if plan.probe.template:
        settings["template"] = plan.probe.template
    return Group(plan.probe.name, plan.probe.description, prompts, tuple(variables), settings)


def _weights_group() -> Group:
    """What shows, without the weights, whether they lie on the path of their neighbours."""
    return Group(
        WEIGHTS,
        "the weights themselves: a sketch (see checkpoints.audit), by which checkpoints can be compared",
        {},
        (
            Variable("sketch", ("sample",), (SAMPLE,), "float", "weights at a fixed sample of coordinates"),
            Variable("norm", (), (), "float", "Frobenius norm of all weights"),
            Variable("nonfinite", (), (), "int", "weights that are NaN or infinite"),
        ),
    )


def _tokenizer_digest(tokenizer: Any) -> str:
    return hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()[:16]
