"""Do a sum, a sum in words and a citation use the same parts? Overlap of circuits, and parts exchanged between contexts.

- *Same parts*: each context has a circuit of its own, found on sums of its own; what two contexts share of it, against what the same
  prompts share where nothing is asked, and what they share with other tasks (:mod:`dynamics.analysis.shared_circuits`).
- *Ones digit exchanged*: a head's or MLP's output at the last token is replaced by that of another sum in another
  context. Gain of the donor's digit on the prompt's own, in logits; largest head or MLP. Null: no gain, or that of
  donors with the prompt's own ones digit, where it is larger.
"""

from __future__ import annotations

import numpy as np

from dynamics.analysis import CurveSpec, Definition, Null, Section, Trace, best_layer, sign_flip_null
from dynamics.analysis.circuit import CircuitTask, circuit_section
from dynamics.analysis.shared_circuits import shared_circuits
from dynamics.emergence import shuffled_match_null

from .pairs import CONTEXTS, DONORS, EXCHANGE, pair_probe_name

__all__ = ["causal_section", "same_parts"]


def causal_section(trace: Trace) -> Section:
    """Everything that was measured of it; a note where it was not."""
    contexts = [c for c in CONTEXTS if pair_probe_name(c) in trace.probes]
    if not contexts or EXCHANGE not in trace.probes:
        note = (
            "Circuits and exchanges between contexts are not part of this trace: the prompts do not fit its tokenizer, or "
            "it is not known what reads and writes where in its architecture."
        )
        return Section(notes=[note])
    section = Section(definitions=_DEFINITIONS)
    for context in contexts:
        name = f"ones digit in context '{context}'"
        task = CircuitTask(pair_probe_name(context), name, part=f"{context}_", headline=False)
        section += circuit_section(trace, task)
    return section + same_parts(trace) + _exchanged(trace)


def same_parts(trace: Trace) -> Section:
    """What the circuits of the contexts share; every context must have been measured."""
    return shared_circuits(
        trace,
        {context: pair_probe_name(context) for context in CONTEXTS if pair_probe_name(context) in trace.probes},
        key="same_parts",
        title="addition: the same parts in all contexts",
        what="contexts",
    )


def _exchanged(trace: Trace) -> Section:
    # (checkpoint, donor, prompt, source or layer): one position is exchanged
    moved, layers_moved = (
        trace.values(EXCHANGE, f"interchange_{part}").astype(np.float64)[:, :, 0] for part in ("source", "layer")
    )
    said, layers_said = (trace.values(EXCHANGE, f"interchange_{part}_said")[:, :, 0] for part in ("source", "layer"))
    answers = trace.probe(EXCHANGE)["answer_id"].values
    target = {d: answers[trace.label(EXCHANGE, f"{d}_target")] for d in DONORS}
    pair, context = trace.label(EXCHANGE, "pair"), trace.label(EXCHANGE, "context")
    at = {d: i for i, d in enumerate(DONORS)}
    hits = {d: _share(said[:, at[d]], target[d]) for d in DONORS}
    spec = CurveSpec("", "sums", clusters=pair)
    section = Section(notes=[_exchange_note(trace, moved, layers_moved, hits, context, at)])
    control = moved[:, at["same"]]
    for donor, key, words in (("other", "exchange", "another context"), ("own", "exchange_own", "the same context")):
        gain, sources = moved[:, at[donor]], range(moved.shape[-1])
        null = np.stack([sign_flip_null(gain[..., s], control[..., s]) for s in sources], axis=1)
        chance = [
            shuffled_match_null(np.where(x >= 0, x, np.nan), target[donor], groups=context)
            for x in np.moveaxis(said[:, at[donor]], -1, 0)
        ]
        section.findings += [
            best_layer(
                key,
                f"addition: ones digit moves with a part of {words}",
                np.moveaxis(gain, -1, 1),
                Null(null, "no gain, or that of donors with the same ones digit, largest part"),
                spec.but(
                    metric="gain of the donor's digit (logits)",
                    headline=donor == "other",
                    definition=f"logit(donor's answer) - logit(own answer), gained when a head's or MLP's output at the "
                    f"last token is that of another sum in {words}; largest head or MLP",
                ),
            ),
            best_layer(
                f"{key}_said",
                f"addition: the donor's digit is said ({words})",
                np.moveaxis(hits[donor], -1, 1),
                Null(np.stack(chance, axis=1), "digits of other donors, largest part"),
                spec.but(
                    metric="share of prompts",
                    limits=(0.0, 1.0),
                    twin=key,
                    definition="share of prompts whose first choice is the donor's answer then; largest head or MLP",
                ),
            ),
        ]
    empty = np.full((len(trace.steps), 1), np.nan)  # the embedding is no part that is exchanged
    dims = ("checkpoint", "source")
    for donor in DONORS:
        section.arrays |= {
            f"exchange_{donor}": (dims, np.hstack([empty, moved[:, at[donor]].mean(1)])),
            f"exchange_{donor}_said": (dims, np.hstack([empty, hits[donor].mean(1)])),
            f"exchange_{donor}_layers": (
                ("checkpoint", "layer"),
                _share(layers_said[:, at[donor]], target[donor]).mean(1),
            ),
        }
    return section


def _share(said: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(checkpoint, prompt, part) whether the target is said; NaN where nothing is."""
    return np.where(said >= 0, said == target[:, None], np.nan)


def _exchange_note(
    trace: Trace,
    moved: np.ndarray,
    whole: np.ndarray,
    hits: dict[str, np.ndarray],
    context: np.ndarray,
    at: dict[str, int],
) -> str:
    known = np.flatnonzero(np.isfinite(moved).all((1, 2, 3)))
    if not len(known):
        return "Parts could not be exchanged: the model's logits are not finite."
    last = known[-1]
    names = [str(s) for s in trace.probe(EXCHANGE)["source"].values]
    gain = moved[last].mean(1)  # (donor, source)
    order = np.argsort(-gain[at["other"]])[:3]
    giver = context[trace.label(EXCHANGE, "other_donor")]
    best = int(order[0])
    by = {
        f"{to} from {of}": hits["other"][last, (context == to) & (giver == of), best].mean()
        for to in dict.fromkeys(context.tolist())
        for of in dict.fromkeys(giver[context == to].tolist())
    }
    worst = min(by, key=lambda k: float(by[k]))
    return (
        f"Exchanges at the last token, step {int(trace.steps[last])}, gain of the donor's digit in logits (own context, "
        f"another context, control with the same ones digit): "
        + "; ".join(
            f"{names[s]} {gain[at['own'], s]:.1f}, {gain[at['other'], s]:.1f}, {gain[at['same'], s]:.1f}" for s in order
        )
        + f". The whole stream after the last layer, which is the donor's answer, gains "
        f"{whole[last, at['other'], :, -1].mean():.1f}. With {names[best]} of another context the donor's digit is said in "
        f"{hits['other'][last, :, best].mean():.0%} of prompts, least in {worst} ({by[worst]:.0%})."
    )


_DEFINITIONS = (
    Definition(
        "ones digit exchanged",
        "The output of a head or MLP at the last token, where the ones digit is predicted, is replaced by that of another "
        "sum in another context, and everything after it computed anew. Gain of logit(donor's answer) - logit(own "
        "answer). Control: donors whose sum has the prompt's own ones digit.",
        "Geiger et al. 2021, interchange interventions",
    ),
)
