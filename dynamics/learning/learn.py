"""``learn``: which sparse features does a series have, when are they born, and which of them answer the run's prompts?"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from checkpoints.errors import CheckpointError, StoppedError, UserError, nearest, stopped_by_disk
from checkpoints.organism import OrganismConfig
from checkpoints.paths import StrPath, as_flag, as_texts

from ..analysis.base import Context, Reading
from ..collecting.revisiting import chosen_checkpoints, open_weights
from ..models.devices import usable_device
from ..probes import TokenizedProbe, tokenize
from ..progress import Reporter
from ..runs.config import Run
from ..runs.dictionaries import DatasetCorpus, DictionaryConfig, TextCorpus, WorldsCorpus
from ..runs.lookup import requested
from ..runs.plan import find_analysis
from ..runs.resolve import Model
from ..store import FeatureTable, Trace, write_features, writer_lock
from ..store.lock import alone
from ..store.mirror import require_folder
from ..store.paths import open_run_trace, trace_path
from .coder import Coder
from .corpora import dataset_rows, organism_rows, prompt_rows, separator, text_rows
from .published import load_published
from .site import SiteAt
from .tables import about_dictionary, about_probe, say_what
from .training import Material, about, make, stored

__all__ = ["Learned", "learn"]

HELD_TOKENS = 8192
"""Tokens on which a dictionary is measured, none of which it was trained on."""
VERSION = 3
"""Of what is measured of a dictionary. Raised when there is more or other to measure: what a trace holds of an older version
is measured again with the next ``learn``, by the dictionaries as they are."""


@dataclass(frozen=True)
class Learned:
    """One dictionary.

    Attributes:
        name: of the dictionary.
        folder: where its weights are; for a published one, where it came from.
        anew: whether it was made by this call.
        measured: whether it was measured, and prompts read through it, by this call.
        remarks: what has to be known to read its results.
    """

    name: str
    folder: str
    anew: bool
    measured: bool
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Opened:
    """A run, open for learning."""

    name: str
    run: Run
    trace: Trace
    model: Model
    material: Material
    readings: tuple[tuple[TokenizedProbe, tuple[str, ...]], ...]
    held: npt.NDArray[np.integer]
    corpus: str


def learn(
    name: str,
    dictionaries: Sequence[str] = (),
    *,
    runs: StrPath | None = None,
    traces: StrPath = "traces",
    run: Run | None = None,
    fresh: bool = False,
    reporter: Reporter | None = None,
) -> list[Learned]:
    """Make the dictionaries of a run, measure them, and store what their features answer to beside its trace's probes.

    An interrupted training goes on where its last saved state was; what is there and up to date is not made again.

    Args:
        name: the run's name.
        dictionaries: which of the run's; all of them if empty. A run that declares none gets one called ``main`` if it is
            an organism's.
        runs: the runs file.
        traces: folder of traces.
        run: the run itself, instead of reading the runs file.
        fresh: read the prompts again even if that was done.
        reporter: progress and messages.

    Raises:
        UserError: for a run without trace or dictionaries, or settings that do not fit its model.
        StoppedError: when a checkpoint cannot be had, or activations are not finite.
    """
    reporter = reporter or Reporter(quiet=True)
    dictionaries, fresh = as_texts(dictionaries, "dictionaries"), as_flag(fresh, "fresh")
    name, run, traces = requested(name, run, runs=runs, traces=traces)
    require_folder(traces, "learning dictionaries, which are kept beside the traces,")
    declared = dict(run.dictionaries)
    if not declared and isinstance(run.series, OrganismConfig):
        reporter.say(f"run {name!r} declares no dictionaries: an organism gets one, called main")
        declared = {"main": DictionaryConfig()}
    if not declared:
        raise UserError(
            f"run {name!r} declares no dictionaries",
            expected="what to learn and from which text",
            remedy="add to the run: `dictionaries: {main: {corpus: {kind: text, file: corpus.txt}}}`",
        )
    for wanted in dictionaries:
        if wanted not in declared:
            raise UserError(
                f"run {name!r} has no dictionary {wanted!r}",
                remedy=nearest(wanted, declared),
                expected="a dictionary that the run declares",
            )
    usable_device(run.device)
    trace = open_run_trace(name, traces)
    with stopped_by_disk(f"what dictionaries of {name} are made of"):
        return [
            _learn(name, run, trace, traces, dictionary, declared[dictionary], fresh, reporter)
            for dictionary in (dictionaries or declared)
        ]


def _learn(
    name: str,
    run: Run,
    trace: Trace,
    traces: Path,
    dictionary: str,
    config: DictionaryConfig,
    fresh: bool,
    reporter: Reporter,
) -> Learned:
    opened = _open(name, run, trace, traces, config, reporter)
    site, coder, folder, anew, key, remarks = _made(opened, traces, dictionary, config, reporter)
    done = None
    with suppress(UserError):  # it is not there, or it is damaged and made again
        done = FeatureTable(trace, dictionary)
    wanted = _digest([key, VERSION, [_about_reading(p, at) for p, at in opened.readings]])
    if done is not None and done.settings.get("key") == wanted and not (anew or fresh):
        reporter.say(f"{dictionary}: up to date")
        return Learned(dictionary, folder, False, False, remarks)
    if done is not None and not anew and done.settings.get("version") != VERSION:
        reporter.say(f"{dictionary}: measured again, because more is measured now; the dictionary stays as it is")
    material = opened.material
    try:
        with reporter.bar(f"measuring {dictionary}", len(material.checkpoints), unit="checkpoints") as bar:
            about = about_dictionary(
                material,
                site,
                coder,
                opened.held,
                config,
                tokenizer=opened.model.tokenizer,
                progress=lambda done, _total: bar.update(done),
            )
        with reporter.bar(
            f"reading prompts through {dictionary}", len(material.checkpoints), unit="checkpoints"
        ) as bar:
            probes = about_probe(
                material, site, coder, opened.readings, config, progress=lambda done, _total: bar.update(done)
            )
    except CheckpointError as error:
        raise _stopped(error) from error
    settings = {
        "key": wanted,
        "version": VERSION,
        "method": config.method,
        "joint": coder.joint,
        "site": site.name,
        "layer": site.layer,
        "corpus": opened.corpus,
        "folder": folder,
        "remarks": list(remarks),
        "config": config.model_dump(mode="json"),
    }
    with writer_lock(trace.path):
        write_features(trace.path, dictionary, about, probes, settings)
    for line in say_what(dictionary, about):
        reporter.say(line)
    return Learned(dictionary, folder, anew, True, remarks)


def _open(name: str, run: Run, trace: Trace, traces: Path, config: DictionaryConfig, reporter: Reporter) -> _Opened:
    series, model = open_weights(name, run, trace_path(traces, name), reporter)
    checkpoints = chosen_checkpoints(name, run, series, traces, config.checkpoints)
    shape = model.architecture.shape
    if len(checkpoints) < 2 and config.method != "published":
        raise UserError(
            f"run {name!r} has {len(checkpoints)} checkpoint",
            expected="at least 2 to follow features over",
            remedy="let the run collect more, or use `method: published`, which needs one",
        )
    readings = _readings(run, model)
    layer = config.layer if config.layer is not None else min(shape.layers - 1, (2 * shape.layers) // 3)
    rows, held, corpus = _rows(run, model, config, readings)
    if held is rows:
        reporter.say(f"the corpus is short: the dictionary is measured on what it is trained on ({len(rows)} rows)")
    material = Material(
        series,
        checkpoints,
        model.architecture,
        rows,
        layer,
        usable_device(run.device),
        run.dtype,
        None if model.adapter is None else model.adapter.build,
        run.batch_tokens,
    )
    return _Opened(name, run, trace, model, material, readings, held, corpus)


def _made(
    opened: _Opened, traces: Path, dictionary: str, config: DictionaryConfig, reporter: Reporter
) -> tuple[SiteAt, Coder, str, bool, str, tuple[str, ...]]:
    """Where it looks, the dictionary, its folder, whether it is new, its key, and remarks."""
    material = opened.material
    weights = dict(zip(opened.trace.steps.tolist(), opened.trace.digests, strict=True))
    # without defaults: a setting that the program gains later changes no dictionary
    inputs = [
        config.model_dump(mode="json", exclude_defaults=True),
        [[c.step, weights.get(c.step, "")] for c in material.checkpoints],
    ]
    if config.method == "published":
        assert config.place is not None
        given = config.model_fields_set
        found = load_published(
            config.place,
            site=config.site if "site" in given else None,
            layer=config.layer,
            norm_factor=config.norm_factor,
            table=material.architecture.table,
            device=material.device,
        )
        site = found.check(material.architecture)
        coder = Coder((found.dictionary,) * len(material.checkpoints), False)
        weights_of = hashlib.sha256(found.dictionary.decoder.cpu().numpy().tobytes()).hexdigest()
        return site, coder, found.origin, False, _digest([inputs, found.origin, weights_of]), found.remarks
    site = SiteAt(material.architecture, config.site, material.layer)
    key = _digest([inputs, hashlib.sha256(material.rows.tobytes()).hexdigest(), material.layer])
    folder = traces / f"{opened.name}.dictionaries" / dictionary
    ready = stored(folder, key)
    if ready is not None:
        return site, ready, str(folder), False, key, ()
    batches = config.steps + (config.further * (len(material.checkpoints) - 1) if config.method == "chain" else 0)
    if known := about(folder).get("key"):
        same = (
            "an interrupted training goes on" if known == key else "settings, weights or corpus are others than before"
        )
        reporter.say(f"{dictionary}: {same}")
    with reporter.bar(f"learning {dictionary}", batches, unit="batches") as bar:
        reporter.say(
            f"{dictionary}: {config.features} features of {site.name}, layer {site.layer}, over "
            f"{len(material.checkpoints)} checkpoints; reading {opened.corpus}"
        )
        try:
            with alone(folder, f"dictionary {dictionary!r} in {folder.parent}", patience=1.0):
                coder = make(folder, key, config, material, lambda done, _total, note: bar.update(done, note))
        except CheckpointError as error:
            raise _stopped(error) from error
    return site, coder, str(folder), True, key, ()


def _stopped(error: CheckpointError) -> StoppedError:
    return StoppedError(
        f"{error.observed} ({', '.join(getattr(error, '__notes__', []))})",
        expected="every checkpoint of the trace, because one dictionary describes them all",
        remedy="fetch it again, or exclude it from the run and collect again",
    )


def _readings(run: Run, model: Model) -> tuple[tuple[TokenizedProbe, tuple[str, ...]], ...]:
    """What the run's analyses want to read; one entry for each probe, at all positions that any of them wants."""
    shape = model.architecture.shape
    context = Context(model.tokenizer, {}, shape.parallel is not None)
    found: dict[str, tuple[Reading, dict[str, None]]] = {}
    for entry in run.analyses:
        analysis, options = find_analysis(entry.name, entry.options)
        try:
            asked = analysis.readings(context, options)
        except UserError:
            if not entry.optional:
                raise
            continue
        for reading in asked:
            _, positions = found.setdefault(reading.probe.name, (reading, {}))
            positions.update(dict.fromkeys(reading.positions))
    return tuple(
        (tokenize(r.probe, model.tokenizer, vocab=shape.vocab, context=shape.context, causal=shape.causal), tuple(at))
        for r, at in found.values()
    )


def _rows(
    run: Run, model: Model, config: DictionaryConfig, readings: Sequence[tuple[TokenizedProbe, tuple[str, ...]]]
) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.integer], str]:
    """Rows to train on, rows to measure on, and what they are in words."""
    corpus = config.corpus
    organism = isinstance(run.series, OrganismConfig)
    if corpus is None:
        if not organism and config.method != "published":
            raise UserError(
                "the dictionary has no corpus", expected="text like what the model was trained on",
                remedy="add `corpus: {kind: text, file: ...}` or `{kind: dataset, name: ...}` to it",
            )  # fmt: skip
        corpus = WorldsCorpus() if organism else None
    wanted = config.rows * config.refills
    context = config.context
    if isinstance(corpus, WorldsCorpus):
        if not isinstance(run.series, OrganismConfig):
            raise UserError(
                "the corpus is `worlds`, and the series is no organism",
                expected="text, dataset or probes",
                remedy="say `corpus: {kind: text, file: ...}`, with text like what the model was trained on",
            )
        context = run.series.context
        held = max(8, HELD_TOKENS // context)
        rows = organism_rows(run.series, wanted + held)
        return rows[:wanted], rows[wanted:], "the organism's worlds"
    limit = model.architecture.shape.context
    if limit is not None and "context" not in config.model_fields_set:
        context = min(context, limit)
    if limit is not None and context > limit:
        raise UserError(
            f"rows are {context} tokens long",
            expected=f"at most {limit}, which the model reads",
            remedy="lower `context` of the dictionary, or leave it out",
        )
    most = wanted + max(8, HELD_TOKENS // context)
    if isinstance(corpus, TextCorpus):
        rows, words = text_rows(corpus.file, model.tokenizer, context=context, most=most), str(corpus.file)
    elif isinstance(corpus, DatasetCorpus):
        rows = dataset_rows(
            corpus.name,
            model.tokenizer,
            context=context,
            most=most,
            split=corpus.split,
            column=corpus.column,
            subset=corpus.subset,
        )
        words = f"{corpus.name}, {corpus.split}"
    else:
        prompts = [ids.tolist() for probe, _ in readings for ids in probe.ids]
        if not prompts:
            raise UserError(
                "no analysis of the run reads prompts through dictionaries",
                expected="another corpus",
                remedy="say `corpus: {kind: text, file: ...}`, or add an analysis that reads features",
            )
        context = max(context, 1 + max(map(len, prompts)))
        rng = np.random.default_rng(config.seed)
        prompts = [prompts[i] for i in rng.permutation(len(prompts))]
        rows = prompt_rows(prompts, context=context, begin=separator(model.tokenizer), most=most)
        words = "the analyses' prompts"
    held = max(1, len(rows) // 10) if len(rows) < most else most - wanted
    if len(rows) < 10:
        return rows, rows, words
    return rows[:-held], rows[-held:], words


def _about_reading(probe: TokenizedProbe, positions: tuple[str, ...]) -> list[Any]:
    text = "\n".join(probe.probe.text)
    return [probe.probe.name, hashlib.sha256(text.encode()).hexdigest(), list(positions)]


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]
