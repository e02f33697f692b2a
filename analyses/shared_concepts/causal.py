"""Is a concept kept apart from its language? Parts of a question in one language are put into one in another.

A question about a word (``the opposite of big is``) runs with a part of it replaced by that of a question about another
concept in another language (``le contraire de froid est``): one head's or MLP's output, or the stream after one layer, at
the last token or at the word. Where the part holds the concept alone, the answer becomes the antonym of the donor's
concept **in the language of the question** (``hot``); where it holds the language too, the donor's own answer (``chaud``)
(Dumas et al. 2024, "Separating Tongue from Thought"; Lindsey et al. 2025).

At the word, a model that has learnt to read foreign words in a sentence can do this whatever its inner code; what a head
carries to the last token must be in a code of concepts that the languages share.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from checkpoints.organism.worlds import concepts as world
from dynamics.analysis import (
    LAST,
    CurveSpec,
    Definition,
    Null,
    Probe,
    Section,
    Trace,
    best_layer,
    sign_flip_null,
)
from dynamics.emergence import shuffled_match_null
from dynamics.measurements import donor_label, target_label
from dynamics.probes import Label, single_token
from dynamics.probes.drawing import Prompt, to_probe

from .prompts import LANGUAGES, antonym_of, antonym_prompts

__all__ = ["DONORS", "EXCHANGE", "POSITIONS", "exchange_probe", "exchanged"]

EXCHANGE = "concept_exchange"
DONORS = ("own", "other", "same")
POSITIONS = ("word", LAST)
_CONCEPTS = 16


def exchange_probe(tokenizer: Any, concepts: int = _CONCEPTS, seed: int = 0) -> Probe | None:
    """Questions about the same words in every language, with donors for ``Interchange``; None if too few fit.

    Donors: ``other`` asks about another concept in another language, ``own`` about the same other concept in the
    language of the prompt; ``same``, the control, about the prompt's own concept in the other language. The target is the
    antonym of that other concept, in the language of the prompt, for all three.

    Labels: ``language``, ``concept``, ``side``, and donors and targets. Position: ``word``, its last token.
    """
    rng, asked = np.random.default_rng(seed), antonym_prompts(tokenizer)
    languages = list(LANGUAGES)
    usable: dict[int, list[int]] = {}
    for concept in range(len(world.PAIRS[languages[0]])):
        sides = [
            side
            for side in (0, 1)
            if all(single_token(tokenizer, antonym_of(name, concept, side)) is not None for name in languages)
        ]
        if sides:
            usable[concept] = sides
    if len(usable) < 8:
        return None
    chosen = [
        (int(c), int(rng.choice(usable[int(c)]))) for c in rng.permutation(list(usable))[: min(concepts, len(usable))]
    ]
    rows = [(item, name) for item in range(len(chosen)) for name in languages]
    number = {row: i for i, row in enumerate(rows)}
    prompts = []
    for item, name in rows:
        others = [other for other in languages if other != name]
        elsewhere = others[(item + languages.index(name)) % len(others)]  # each in turn
        moved = int(rng.choice([i for i in range(len(chosen)) if i != item]))
        donors = {"own": number[moved, name], "other": number[moved, elsewhere], "same": number[item, elsewhere]}
        concept, side = chosen[item]
        labels: dict[str, Label] = {"language": name, "concept": concept, "side": side}
        for donor, who in donors.items():
            labels |= {donor_label(donor): who, target_label(donor): number[moved, name]}
        question, span = asked.ask(name, concept, side)
        prompts.append(Prompt(question, antonym_of(name, concept, side), labels=labels, positions={"word": span}))
    return to_probe(EXCHANGE, prompts, "antonym questions in three languages, with donors in another language")


def exchanged(trace: Trace) -> Section:
    """Curves and arrays of exchanged concepts; a note where it was not measured."""
    if EXCHANGE not in trace.probes:
        note = (
            "Concepts are not exchanged between languages in this trace: too few of the prompts fit its tokenizer, or "
            "it is not known what reads and writes where in its architecture."
        )
        return Section(notes=[note])
    said, moved = (
        {part: trace.values(EXCHANGE, f"interchange_{part}{kind}") for part in ("source", "layer")}
        for kind in ("_said", "")
    )  # (checkpoint, donor, position, prompt, part)
    answers = trace.probe(EXCHANGE)["answer_id"].values
    at = {d: i for i, d in enumerate(DONORS)}
    target = answers[trace.label(EXCHANGE, target_label("other"))]
    tongue = answers[trace.label(EXCHANGE, donor_label("other"))]
    language, concept = trace.label(EXCHANGE, "language"), trace.label(EXCHANGE, "concept")
    spec = CurveSpec("", "concepts", clusters=concept)
    section = Section(definitions=_DEFINITIONS)
    output, stream = "the output of a head or MLP at the last token", "the stream after a layer at the word"
    for key, donor, position, part, words, what in (
        ("exchange", "other", LAST, "source", "another language", output),
        ("exchange_own", "own", LAST, "source", "the same language", output),
        ("exchange.word", "other", "word", "layer", "another language, at the word", stream),
    ):
        p = POSITIONS.index(position)
        mine = np.moveaxis(said[part][:, at[donor], p], -1, 1)  # (checkpoint, part, prompt)
        gain, control = (np.moveaxis(moved[part][:, at[d], p], -1, 1).astype(np.float64) for d in (donor, "same"))
        guesses = np.where(mine >= 0, mine, np.nan)
        parts = range(mine.shape[1])
        chance = [shuffled_match_null(guesses[:, i], target, groups=language) for i in parts]
        still = [sign_flip_null(gain[:, i], control[:, i]) for i in parts]
        section.findings += [
            best_layer(
                key,
                f"concepts: the answer is that of a concept from {words}",
                _share(mine, target),
                Null(np.stack(chance, axis=1), "answers to other donors, largest part"),
                spec.but(
                    metric="share of questions",
                    limits=(0.0, 1.0),
                    twin=f"{key}.gain",
                    definition=f"share of questions whose first choice is the antonym of the donor's concept in the "
                    f"language of the question, when {what} is the donor's; donors in {words}; largest part",
                ),
            ),
            best_layer(
                f"{key}.gain",
                f"concepts: the answer moves to a concept from {words}",
                gain,
                Null(np.stack(still, axis=1), "no gain, or that of donors with the same concept, largest part"),
                spec.but(
                    metric="gain of the donor's concept (logits)",
                    headline=key == "exchange",  # several heads share a concept: one alone rarely decides
                    definition=f"logit of the antonym of the donor's concept, in the language of the question, minus that "
                    f"of the right answer, gained when {what} is the donor's; largest part",
                ),
            ),
        ]
    for part in ("layer", "source"):
        by = np.moveaxis(said[part], -1, -2)  # (checkpoint, donor, position, part, prompt)
        for kind, donor, wanted in (
            ("", "other", target),
            ("_tongue", "other", tongue),
            ("_own", "own", target),
            ("_control", "same", target),
        ):
            share = _share(by[:, at[donor]], wanted).mean(-1)
            section.arrays[f"exchange{kind}_by_{part}"] = (("checkpoint", "position", part), share)
    section.coords["source"] = names = [str(s) for s in trace.probe(EXCHANGE)["source"].values]
    section.notes.append(_note(trace, section.arrays, names))
    return section


def _share(said: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """(..., prompt) whether it is said; NaN where nothing is."""
    return np.where(said >= 0, said == wanted, np.nan)


def _note(trace: Trace, arrays: dict[str, Any], names: list[str]) -> str:
    by = {name: values for name, (_, values) in arrays.items()}
    known = np.flatnonzero(np.isfinite(by["exchange_by_layer"]).all((1, 2)))
    if not len(known):
        return "Concepts could not be exchanged: the model's logits are not finite."
    last = known[-1]
    texts = []
    for position, part in ((LAST, "source"), (LAST, "layer"), ("word", "layer")):
        p = POSITIONS.index(position)
        best = int(by[f"exchange_by_{part}"][last, p].argmax())
        shares = [by[f"exchange{kind}_by_{part}"][last, p, best] for kind in ("", "_tongue", "_own", "_control")]
        what = names[best] if part == "source" else f"the stream after layer {best}"
        texts.append(
            f"with {what} at the {position} token {shares[0]:.0%} are answered by the antonym of the foreign concept in the "
            f"language of the question, {shares[1]:.0%} in the donor's language (donor of the same language: "
            f"{shares[2]:.0%}; of the same concept: {shares[3]:.0%})"
        )
    return (
        f"Concepts exchanged, step {int(trace.steps[last])}, {trace.probe(EXCHANGE).sizes['prompt']} questions, best part "
        f"each: " + "; ".join(texts) + "."
    )


_DEFINITIONS = (
    Definition(
        "concept exchanged",
        "The output of one head or MLP at the last token (or the stream after one layer, at the last token or the "
        "concept's word) is replaced by that of a question about another concept in another language. Share of questions that are then answered by the antonym of the donor's "
        "concept in the language of the question. Null: the antonyms of other donors' concepts. Control: donors with the "
        "question's own concept.",
        "after Dumas et al. 2024, 'Separating Tongue from Thought'; Lindsey et al. 2025; Geiger et al. 2021",
    ),
)
