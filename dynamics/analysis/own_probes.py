"""When does the model answer your own prompts, and when can what they are labelled with be read off its activations?

A probe of the runs file is an analysis by itself, and nothing has to be written for it. With answers: accuracy against the
answers of the probe's other prompts, its continuous twin (the log-probability of the answer), and the answer against the foil
where there is one. With activations at ``resid_post``: every label, decoded layer by layer at every stored position, against
shuffled labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..emergence import shuffled_match_null, sign_flip_null
from ..names import PROMPT
from ..numerics.draws import DRAWS
from ..probes import LAST
from ..store import Trace
from .base import AnalysisOptions, Context, Request
from .curves import CurveSpec, Null, best_layer, from_units, shuffled_answers
from .decoding import decoded_by_layer
from .findings import Definition, Finding
from .section import Section, Summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["TITLE", "figures", "plan", "probes_of", "summarise"]

TITLE = "Own prompts"

CLASSES = 20
"""A label with more values than this is no class."""

LEAST = 5
"""Prompts of every class, so that each of five folds can hold one."""

OTHER_ANSWERS = "answers of the probe's other prompts"
SHUFFLED = "shuffled labels, best layer"
_TEXTS = ("text", "answer", "answer_id", "foil", "corrupted")


def plan(context: Context, options: AnalysisOptions) -> list[Request]:
    """Nothing more than the run's own probes ask for by themselves."""
    return []


def probes_of(trace: Trace) -> list[str]:
    """The probes of a trace that its runs file declares."""
    declared = (trace.attributes.get("run_config") or {}).get("probes") or {}
    return [name for name in declared if name in trace.probes]


def summarise(trace: Trace, options: AnalysisOptions) -> Section:
    """The curves of every probe of the run's own."""
    section = Section(definitions=_DEFINITIONS)
    for probe in probes_of(trace):
        section = section + _answered(trace, probe) + _decoded(trace, probe)
    return section


def figures(summary: Summary) -> Mapping[str, Figure]:
    """For each probe its answers and labels through training, and each decoded label layer by layer."""
    from .figures import curve_grid, heat_maps

    panels: dict[str, list[tuple[str, list[tuple[str, Finding]]]]] = {}
    for key, finding in summary.by_key.items():
        title = finding.title.partition(": ")[2]
        panels.setdefault(key.partition(".")[0], []).append((finding.title, [(title, finding)]))
    drawn = {probe: curve_grid(mine) for probe, mine in panels.items()}
    for probe in panels:
        maps = [
            (f"{probe}: {' at '.join(about)}", array.values.T)
            for name, array in summary.data.data_vars.items()
            if (of := str(name).split(".", 2))[0] == probe and (about := of[1:])
        ]
        if maps:
            drawn[f"{probe}_layers"] = heat_maps(
                maps,
                summary.data["step"].values,
                rows=range(len(maps[0][1])),
                row_title="layer",
                value_title="decoding accuracy",
            )
    return drawn


def _answered(trace: Trace, probe: str) -> Section:
    """Accuracy, log-probability and preference over the foil."""
    dataset = trace.probe(probe)
    if "answer_logprob" not in dataset:
        return Section()
    logprob, predicted = trace.values(probe, "answer_logprob"), trace.values(probe, "predicted").astype(float)
    answers, texts = dataset["answer_id"].values, trace.label(probe, "text")
    question = np.unique(texts, return_inverse=True)[1]
    guesses = np.where(predicted >= 0, predicted, np.nan)  # a model whose logits are not finite said nothing
    hits = np.where(predicted >= 0, predicted == answers, np.nan)
    spec = CurveSpec(
        "accuracy", "prompts", limits=(0.0, 1.0), clusters=question, headline=True, twin=f"{probe}.logprob"
    )
    notes = [f"{probe}: {len(texts)} prompts, {len(np.unique(answers))} different answers."]
    one = len(np.unique(answers)) == 1
    if one:
        notes.append(
            f"{probe}: all prompts have the same answer, so that nothing tells knowing it from always saying it."
        )
    alike = _one_answer_each(question, answers)
    null = None if one else shuffled_match_null(guesses, answers, questions=question if alike else None, draws=DRAWS)
    dealt = None
    if not one:
        dealt = shuffled_answers(
            trace, probe, np.arange(len(texts)), np.zeros(len(texts)), questions=question if alike else None
        )
    nat = CurveSpec("log-probability (nat)", "prompts", clusters=question, definition="mean log p(answer)")
    right = spec.but(definition="share of prompts after which the answer is the most probable token")
    curves = [
        from_units(f"{probe}.accuracy", f"{probe}: answered", hits, Null(null, OTHER_ANSWERS), right),
        from_units(f"{probe}.logprob", f"{probe}: log-probability", logprob, Null(dealt, OTHER_ANSWERS), nat),
    ]
    if "foil_logprob" in dataset:
        difference = logprob - trace.values(probe, "foil_logprob")
        against = nat.but(
            metric="log p(answer) - log p(foil) (nat)",
            definition="mean difference between answer and foil",
            headline=True,
        )
        flipped = Null(sign_flip_null(difference), "no difference, signs at random")
        curves.append(from_units(f"{probe}.foil", f"{probe}: preferred to the foil", difference, flipped, against))
    return Section([*curves], notes)


def _one_answer_each(question: np.ndarray, answers: np.ndarray) -> bool:
    """Whether prompts of the same text have the same answer."""
    first = np.unique(question, return_index=True)[1]
    return bool((answers[first][question] == answers).all())


def _decoded(trace: Trace, probe: str) -> Section:
    """Every label that is a class, at every stored position, in the best layer of the stored stream."""
    dataset = trace.probe(probe)
    section = Section()
    if "resid_post" not in dataset:
        if "position" in dataset.dims:
            section.notes.append(f"{probe}: its labels are not decoded, because no activations at resid_post are kept.")
        return section
    question = np.unique(trace.label(probe, "text"), return_inverse=True)[1]
    for label in _labels(trace, probe):
        counts = np.unique(trace.label(probe, label), return_counts=True)[1]
        if not 2 <= len(counts) <= CLASSES or counts.min() < LEAST:
            section.notes.append(
                f"{probe}: {label!r} is not decoded: it has {len(counts)} values, the rarest in {counts.min()} prompts; "
                f"2 to {CLASSES} values with {LEAST} prompts each are needed."
            )
            continue
        for position in map(str, dataset["position"].values):
            hits, null = decoded_by_layer(trace, probe, label, position=position, clusters=question)
            where = "" if position == LAST else f" at {position}"
            spec = CurveSpec(
                "decoding accuracy",
                "prompts",
                f"cross-validated linear classifier of {label!r} on resid_post{where or ' at the last token'}, best layer",
                headline=position == LAST,
                limits=(0.0, 1.0),
                clusters=question,
            )
            key, title = f"{probe}.{label}.{position}", f"{probe}: {label} represented{where}"
            section.findings.append(best_layer(key, title, hits, Null(null, SHUFFLED), spec))
            section.arrays[key] = (("checkpoint", "layer"), hits.mean(-1))
    return section


def _labels(trace: Trace, probe: str) -> Sequence[str]:
    """The labels of a probe's prompts."""
    coords = trace.probe(probe).coords
    return [str(name) for name, values in coords.items() if values.dims == (PROMPT,) and name not in _TEXTS]


_DEFINITIONS = (
    Definition(
        "answered",
        "Share of prompts after which the answer is the most probable of all tokens. Null: the same predictions against the "
        "answers of the probe's other prompts, so that always saying the most frequent answer is no knowledge.",
    ),
    Definition(
        "represented",
        "Accuracy of a ridge classifier of the label, trained on other prompts (five folds), in the layer where it is best at "
        "each checkpoint. Null: shuffled labels, the best layer taken anew of each.",
        "Alain and Bengio 2016",
    ),
)
