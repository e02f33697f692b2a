"""From a run's name to everything that collecting it needs: series, tokenizer, sizes, probes, declaration."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checkpoints.errors import UserError
from checkpoints.loading import compare_headers, load_tokenizer, read_config
from checkpoints.local import FolderConfig, FolderSeries
from checkpoints.organism import is_trained, model_config, open_organism, schedule
from checkpoints.organism.curriculum import OrganismConfig
from checkpoints.organism.tokenizer import build_tokenizer, speaks
from checkpoints.series import Checkpoint, Series
from checkpoints.weights import has_weights, header

from .config import Run
from .measurements import Activations, Answers, Measurement
from .plan import Context, ProbePlan, Request, find_analysis, merge
from .probes import TokenizedProbe, read_probe, tokenize
from .probes.types import LAST
from .provenance import provenance
from .sites import ModelShape, SiteTable, model_shape, site_table
from .store import Group, TraceDeclaration

__all__ = ["Resolved", "preflight", "resolve", "trace_path"]


@dataclass(frozen=True)
class Resolved:
    """A run, ready to be collected.

    Attributes:
        name: the run's name.
        run: its configuration.
        series: its checkpoints; None for an organism that has not been trained (only with ``train=False``).
        shape: the model's sizes.
        table: where its sites are.
        probes: each probe with its measurements, tokenized.
        declaration: the trace.
    """

    name: str
    run: Run
    series: Series | None
    shape: ModelShape
    table: SiteTable
    probes: tuple[tuple[ProbePlan, TokenizedProbe], ...]
    declaration: TraceDeclaration


def resolve(
    name: str,
    run: Run,
    *,
    train: bool = True,
    training: Callable[[int, int, float], None] | None = None,
) -> Resolved:
    """Open the series (training the organism if needed), plan all analyses and check every probe.

    Args:
        name: the run's name.
        run: its configuration.
        train: whether an untrained organism is trained; if not, everything but the weights is resolved.
        training: called after each training step with (steps done, steps in all, loss).

    Raises:
        UserError: for anything that can be known to be wrong before a checkpoint is loaded.
    """
    # analyses first: a misspelt one must not cost a training
    analyses = [find_analysis(entry.name, entry.options) for entry in run.analyses]
    files = {probe: read_probe(probe, entry.file) for probe, entry in run.probes.items()}
    series, checkpoints, tokenizer, config = _open(name, run, train, training)
    shape, table = model_shape(config), site_table(config, run.sites)
    context = Context(tokenizer, speaks(tokenizer), files)
    requests = [request for module, options in analyses for request in module.plan(context, options)]
    for probe, entry in run.probes.items():
        measurements: list[Measurement] = [Activations(site, entry.positions or (LAST,)) for site in entry.sites]
        if files[probe].answer is not None:
            measurements.append(Answers(candidates=True))
        if not measurements:
            raise UserError(
                f"nothing is measured on probe {probe!r}: it has no answers and no `sites`",
                remedy=f"give its prompts answers, or add `sites: [resid_post]` to it in run {name!r}",
            )
        requests.append(Request(files[probe], tuple(measurements)))
    probes = tuple(
        (plan, tokenize(plan.probe, tokenizer, vocab=shape.vocab, context=shape.context)) for plan in merge(requests)
    )
    groups = tuple(_group(plan, probe, shape) for plan, probe in probes)
    attributes = {
        "run": name,
        "run_config": run.model_dump(mode="json"),
        "origin": series.origin if series is not None else "not trained yet",
        "model_config": json.loads(config.to_json_string(use_diff=False)),
        "tokenizer_digest": _tokenizer_digest(tokenizer),
        "dtype": run.dtype,
        **provenance(),
    }
    for accidental in ("transformers_version", "_name_or_path"):  # say nothing about what is computed
        attributes["model_config"].pop(accidental, None)
    declaration = TraceDeclaration(
        checkpoints=checkpoints,
        groups=groups,
        trace_dtype=run.trace_dtype,
        attributes=attributes,
        bfloat16=run.dtype == "bfloat16",
        layout=run.layout,
    )
    return Resolved(name, run, series, shape, table, probes, declaration)


def _open(
    name: str, run: Run, train: bool, training: Callable[[int, int, float], None] | None
) -> tuple[Series | None, tuple[Checkpoint, ...], Any, Any]:
    series: Series
    if isinstance(run.series, OrganismConfig):
        if not train and not is_trained(name, run.series):
            per_step = run.series.tokens_per_step
            planned = tuple(Checkpoint(s, f"step{s}", per_step * s) for s in schedule(run.series))
            return None, planned, build_tokenizer(), model_config(run.series)
        series = open_organism(name, run.series, progress=training)
    else:
        assert isinstance(run.series, FolderConfig)
        series = FolderSeries(run.series, name=name)
    tokenizer = load_tokenizer(series.tokenizer_folder)
    usable = next(c for c in series.checkpoints if has_weights(series.fetch(c)))
    return series, series.checkpoints, tokenizer, read_config(series.fetch(usable))


def preflight(series: Series, checkpoints: Sequence[Checkpoint]) -> dict[Checkpoint, str]:
    """What is wrong with checkpoints' files, without loading their weights: checkpoint to reason, for the bad ones.

    Every checkpoint must have the same tensors as most of the series has.
    """
    from checkpoints.errors import CheckpointError

    headers, bad = {}, {}
    for checkpoint in checkpoints:
        try:
            headers[checkpoint] = header(series.fetch(checkpoint))
        except CheckpointError as error:
            bad[checkpoint] = error.observed
    shapes = {c: json.dumps(sorted((k, v.shape) for k, v in h.items())) for c, h in headers.items()}
    if not shapes:
        return bad
    most = Counter(shapes.values()).most_common(1)[0][0]
    reference = next(headers[c] for c, s in shapes.items() if s == most)
    for checkpoint, found in headers.items():
        problems = compare_headers(reference, found)
        if problems:
            more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
            bad[checkpoint] = f"{series.fetch(checkpoint)}: tensor {', '.join(problems[:3])}{more}"
    return bad


def _group(plan: ProbePlan, probe: TokenizedProbe, shape: ModelShape) -> Group:
    prompts: dict[str, tuple[Any, ...]] = {"text": plan.probe.text}
    if plan.probe.answer is not None and probe.answer_ids is not None:
        prompts |= {"answer": plan.probe.answer, "answer_id": tuple(probe.answer_ids.tolist())}
    if plan.probe.foil is not None:
        prompts["foil"] = plan.probe.foil
    prompts |= plan.probe.labels
    variables = tuple(v for m in plan.measurements for v in m.declare(probe, shape))
    positions = {name: index.tolist() for name, index in probe.positions.items()}
    settings = {"measurements": sorted(map(repr, plan.measurements)), "positions": positions}
    return Group(plan.probe.name, plan.probe.description, prompts, variables, settings)


def _tokenizer_digest(tokenizer: Any) -> str:
    return hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()[:16]


def trace_path(traces: Path, name: str) -> Path:
    """Where a run's trace is."""
    return traces / f"{name}.zarr"
