"""The direction that tells known from unknown entities: read at the name and at the answer, and used to answer or decline.

The direction, its nulls and the steering are those of :mod:`dynamics.analysis.direction`: class 1 is known, and it is evaluated
on other entities, asked about in other words. It is fitted twice, with a probe each: at the last token of the name, where
nothing has been decided yet (Ferrando et al. 2025), and at the last token of the question, where the answer is.

logit(answer) - logit(foil) is an attribute against declining for known entities and the reverse for unknown ones, so
that steering towards *known* should raise the one and lower the other. Here also what is said then: the share of unknown
entities that are given an attribute when steered towards known, and the share of known ones that are declined when
steered towards unknown.

After the last layers at the last token, steering adds to the logits what the two classes differ by, whatever the model
does with it; that it is *used* is said by earlier layers and by the name, and by ablation.

Where names share their parts evenly, as in the organism's world, a part that occurs in more of the known names that train
the direction occurs in fewer of the others: as long as a model sees parts and no names, the AUROC is below 1/2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from dynamics.analysis import LAST, CurveSpec, Finding, Null, Probe, Request, Section, Trace, best_layer, sign_flip_null
from dynamics.analysis.direction import DirectionTask, direction_measured, direction_section, order_note
from dynamics.measurements import Direction, Measurement

from .prompts import ENTITIES
from .questions import SETS

__all__ = ["DIRECTIONS", "direction_requests", "knowing_section", "order_of"]


def _task(part: str, words: str, where: str) -> DirectionTask:
    return DirectionTask(
        probe=f"{ENTITIES}_{part}",
        name=f"knowing at the {words}",
        contrast="known",
        meaning="known from unknown entities",
        position=where,
        units="entity",
        towards=(-1, 1),
        part=f"{part}_",
    )


DIRECTIONS: dict[str, tuple[str, DirectionTask]] = {
    "name": ("entity", _task("name", "name", "at the last token of the name")),
    "end": (LAST, _task("end", "answer", "at the last token of the question")),
}
"""Part to the position of the probe and what is charted."""


def direction_requests(
    probe: Probe, also: Sequence[Measurement], strengths: tuple[float, ...], seed: int
) -> list[Request]:
    """The probe once for each direction, with what else is measured on it."""
    return [
        Request(
            replace(probe, name=task.probe),
            (*also, Direction("known", position=position, strengths=strengths, units="entity", seed=seed)),
        )
        for position, task in DIRECTIONS.values()
    ]


def knowing_section(trace: Trace, spec: CurveSpec) -> Section:
    """Both directions and what is said along them; only a note where none was measured."""
    section = Section()
    for _, task in DIRECTIONS.values():
        if direction_measured(trace, task.probe):
            section += direction_section(trace, task) + _said(trace, task, spec)
    if not section.findings:
        section.notes.append("The direction between known and unknown is not measured on this architecture.")
    return section


def _said(trace: Trace, task: DirectionTask, spec: CurveSpec) -> Section:
    """What is said when steered as strongly as was tried: unknown entities answered, known ones declined."""
    dataset = trace.probe(task.probe)
    names = [str(v) for v in dataset["steered"].values]
    strengths = np.array([float(v) for v in dataset["strength"].values])
    random = [i for i, name in enumerate(names) if name.startswith("random")]
    said = trace.values(task.probe, "steering_said")  # (checkpoint, layer, strength, steered, prompt)
    choice = trace.values(task.probe, "choice_set")
    steered = (said >= 0).any((0, 2, 3, 4))  # layers
    known, held = (trace.label(task.probe, k).astype(int) == 1 for k in ("known", "held_out"))
    answer, entity = dataset["answer_id"].values, trace.label(task.probe, "entity")
    declines = np.unique(answer[~known])
    attributes = np.setdiff1d(answer[known], declines)
    over = ("checkpoint", "layer", "strength")
    section = Section()
    for key, rows, tokens, sign, kind, other, what in (
        ("answered", ~known, attributes, 1.0, "unknown", "known", "given an attribute"),
        ("declined", known, declines, -1.0, "known", "unknown", "declined"),
    ):
        mine = np.flatnonzero(rows & held)
        some = said[..., mine]
        hits = np.where(some >= 0, np.isin(some, tokens), np.nan)
        shares = np.full(hits.shape[:4], np.nan)
        finite = np.asarray(np.isfinite(hits).all(-1))
        shares[finite] = hits[finite].mean(-1)
        name = f"{task.part}{key}"
        by_chance = shares[..., random].mean(-1) if random else np.full_like(shares[..., 0], np.nan)
        wanted = SETS.index("attributes" if key == "answered" else "decline")
        base = np.where(finite.any((1, 2, 3)), (choice[:, mine] == wanted).mean(1), np.nan)
        section.arrays |= {
            name: (over, shares[..., 0]),
            f"{name}_random": (over, by_chance),
            f"{name}_base": ("checkpoint", base),
        }
        strongest = int((sign * strengths).argmax())
        if sign * strengths[strongest] <= 0 or not random or not steered.any():
            continue
        more = hits[:, steered, strongest, 0] - hits[:, steered, strongest][:, :, random].mean(2)  # beyond random ones
        null = np.stack([sign_flip_null(more[:, layer]) for layer in range(more.shape[1])], axis=1)
        section.findings.append(
            best_layer(
                name,
                f"{task.name}: the {kind} {key} when steered towards {other}",
                more,
                Null(null, "no more than along random directions, best layer"),
                spec.but(
                    metric="share of questions, beyond random directions",
                    limits=(-1.0, 1.0),
                    clusters=entity[mine],
                    sample=f"{name}.asked",
                    twin=f"{task.part}used",
                    definition=f"share of questions about held-out {kind} entities that are {what} with "
                    f"{strengths[strongest]:+g} times the direction added {task.position} and after, minus the same along "
                    "random directions; best layer",
                ),
            )
        )
    section.notes.append(_note(trace, task, section, strengths))
    return section


def _note(trace: Trace, task: DirectionTask, section: Section, strengths: np.ndarray) -> str:
    tables = {key: section.arrays[f"{task.part}{key}"][1] for key in ("answered", "declined")}
    known = np.flatnonzero(np.isfinite(tables["answered"]).any((1, 2)))
    if not len(known):
        return f"{task.name}: nothing is said when steered, the logits are not finite."
    last = int(known[-1])
    texts = []
    for key, sign, words in (
        ("answered", 1.0, "unknown entities are answered"),
        ("declined", -1.0, "known ones are declined"),
    ):
        strongest = int((sign * strengths).argmax())
        by_layer = tables[key][last, :, strongest]
        layer = int(np.nanargmax(by_layer))
        base, random = (section.arrays[f"{task.part}{key}_{what}"][1][last] for what in ("base", "random"))
        texts.append(
            f"steered {strengths[strongest]:+g} after layer {layer}, {by_layer[layer]:.0%} of {words} (unsteered {base:.0%}, "
            f"along random directions {random[layer, strongest]:.0%})"
        )
    return f"{task.name}, step {int(trace.steps[last])}: " + "; ".join(texts) + "."


def order_of(findings: Mapping[str, Finding]) -> str:
    """In which order answering, declining, and the directions' reading and use came; findings by key."""
    keys = ("answers", "discerns", "name_represented", "name_used", "end_represented", "end_used")
    return order_note("Entities", [replace(findings[k], title=_ORDERED[k]) for k in keys if k in findings])


_ORDERED = {
    "answers": "answering the known",
    "discerns": "declining the unknown",
    "name_represented": "direction read at the name",
    "name_used": "direction used at the name",
    "end_represented": "direction read at the answer",
    "end_used": "direction used at the answer",
}
