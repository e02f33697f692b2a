"""Curves of induction: per-head attention scores and what the repetition does to the loss."""

from __future__ import annotations

import numpy as np

from dynamics.analysis import (
    AnalysisOptions,
    Curve,
    CurveSpec,
    Definition,
    Null,
    Section,
    Trace,
    from_units,
    sign_flip_null,
)
from dynamics.emergence import count_onset, found_since
from dynamics.numerics.draws import DRAWS

from .circuit import induction_circuit
from .prompts import CONTROL, REPEATS

__all__ = ["summarise"]

_HEAD_DRAWS = 1000
"""Null draws of one head: no p value is below 1/(1 + n), and one head must be found among all."""
_RATE = 0.05
_SAMPLE = "repeats"
"""Every curve here resamples the repeated sequences, with one seed: a draw of one is the same prompts as of another."""

_SCORES = {
    "prefix_matching": ("induction: prefix-matching head", True),
    "previous_token": ("induction: previous-token head", False),
    "duplicate_token": ("induction: duplicate-token head", False),
}


def summarise(trace: Trace, options: AnalysisOptions) -> Section:
    """See the package's docstring for definitions."""
    return _heads(trace) + induction_circuit(trace)


def _heads(trace: Trace) -> Section:
    """Scores of heads, how many are found, and what the repetition does to the loss."""
    section = Section(definitions=_DEFINITIONS)
    mean = {}
    for score, (title, headline) in _SCORES.items():
        values = trace.values(REPEATS, score)  # (checkpoint, prompt, layer, head)
        mean[score] = values.mean(1)
        # positional heads look one token back whether or not anything repeats: their null is the untrained model
        control = trace.values(CONTROL, score) if score != "previous_token" else _untrained(values)
        name = "largest head without a repeat" if score != "previous_token" else "largest head of the first checkpoint"
        spec = CurveSpec(
            "attention probability (largest head)",
            "prompts",
            headline=headline,
            sample=_SAMPLE,
            reach=0.4 if headline else None,
            definition=f"mean {score.replace('_', ' ')} score of the head in which it is largest",
        )
        null = Null(_largest(control, seed=1, share=0.5), name)
        section.findings.append(Curve(score, title, mean[score].max((1, 2)), _largest(values, seed=0), null, spec))
    section.findings += [_excess(trace.values(REPEATS, "prefix_matching")), *_losses(trace)]
    prefix, previous = mean["prefix_matching"], mean["previous_token"]
    number, found = _heads_found(trace)
    section.arrays = {score: (("checkpoint", "layer", "head"), values) for score, values in mean.items()}
    for threshold in (0.3, 0.4):
        above = np.where(np.isfinite(prefix).all((1, 2)), (prefix > threshold).sum((1, 2)), np.nan)
        section.arrays[f"heads_above_{threshold:.1f}".replace(".", "_")] = ("checkpoint", above)
    section.arrays["heads_found"] = ("checkpoint", number)
    _, layers, heads = prefix.shape
    section.coords = {"layer": np.arange(layers), "head": np.arange(heads)}
    periods = trace.label(REPEATS, "period")
    last = int(np.flatnonzero(trace.complete)[-1]) if trace.complete.any() else 0
    section.notes = [
        f"{len(periods)} sequences of {int(periods[0])} random tokens, written twice, and as many controls whose second "
        "half is unrelated.",
        found,
    ]
    if np.isfinite(prefix[last]).all():
        layer, head = np.unravel_index(prefix[last].argmax(), (layers, heads))
        before, other = np.unravel_index(previous[last].argmax(), (layers, heads))
        section.notes.append(
            f"At step {trace.steps[last]} the strongest prefix-matching head is L{layer}H{head} ({prefix[last].max():.2f}), "
            f"the strongest previous-token head L{before}H{other} ({previous[last].max():.2f})."
        )
    return section


def _largest(values: np.ndarray, *, seed: int, share: float = 1.0) -> np.ndarray:
    """(checkpoint, draw) largest head of resampled prompts; (checkpoint, prompt, layer, head) in.

    A control is a sample too: resampled at half its size, its draws carry the noise of curve and control together.
    """
    n, prompts = values.shape[:2]
    size = max(1, round(share * prompts))
    counts = np.random.default_rng(seed).multinomial(size, np.full(prompts, 1 / prompts), size=DRAWS) / size
    flat = values.reshape(n, prompts, -1)
    return np.stack([(counts @ flat[c]).max(-1) for c in range(n)]) if n else np.empty((0, DRAWS))


def _heads_found(trace: Trace) -> tuple[np.ndarray, str]:
    """(checkpoint,) how many heads match prefixes beyond their own control, for good, and a sentence about it.

    Each head is held against its own scores on sequences without a repeat, and the false discovery rate is controlled
    over all heads: the largest head says when the first one forms, this says when most of them have.
    """
    values, control = trace.values(REPEATS, "prefix_matching"), trace.values(CONTROL, "prefix_matching")
    n, prompts = control.shape[:2]
    measured = np.isfinite(values).all((1, 2, 3)) & np.isfinite(control).all((1, 2, 3))
    heads = values.mean(1).reshape(n, -1)[measured].T
    number = np.full(n, np.nan)
    if measured.sum() < 2:
        return number, "Heads cannot be counted: fewer than two checkpoints have finite scores."
    flat = control[measured].reshape(int(measured.sum()), prompts, -1)
    size = max(1, round(0.5 * prompts))  # half: the noise of curve and control together
    counts = np.random.default_rng(1).multinomial(size, np.full(prompts, 1 / prompts), size=_HEAD_DRAWS) / size

    def null(piece: slice) -> np.ndarray:
        """(head, checkpoint, draw)"""
        return np.moveaxis(np.stack([counts @ at[:, piece] for at in flat]), 2, 0)

    steps = trace.steps[measured]
    since = found_since(steps, heads, null=null, rate=_RATE, chunk=16)
    number[measured] = (since[:, None] <= np.arange(len(steps))).sum(0)
    total = int((since < len(steps)).sum())
    text = (
        f"{total} of {len(heads)} heads match prefixes beyond their own score without a repeat to the end (false discovery "
        f"rate {_RATE:.0%} over all heads)"
    )
    if total:
        onset = count_onset(steps, since)
        text += f"; half of them did by {onset.between}, 95% over resampled heads {onset.range}"
    return number, text + "."


def _excess(values: np.ndarray) -> Curve:
    """The largest head's prefix matching beyond the same head's at the first checkpoint: what training added."""
    first = _untrained(values)
    # two independent resamples of the untrained model differ by noise alone
    n, prompts = values.shape[:2]
    rng = np.random.default_rng(2)
    counts = rng.multinomial(prompts, np.full(prompts, 1 / prompts), size=(2, DRAWS)) / prompts
    flat = first.reshape(n, prompts, -1)
    null = np.stack([((counts[0] - counts[1]) @ flat[c]).max(-1) for c in range(n)])
    return Curve(
        "step0_excess",
        "induction: prefix matching beyond the untrained model",
        (values - first).mean(1).max((1, 2)),
        _largest(values - first, seed=0),
        Null(null, "resamples of the first checkpoint"),
        CurveSpec(
            "attention probability above the first checkpoint",
            "prompts",
            sample=_SAMPLE,
            definition="prefix-matching score minus the same head's at the first measured checkpoint, largest head",
        ),
    )


def _untrained(values: np.ndarray) -> np.ndarray:
    """The first measured checkpoint's scores at every checkpoint; NaN where a checkpoint was not measured."""
    measured = np.isfinite(values).all((1, 2, 3))
    if not measured.any():
        return values
    first = values[int(np.flatnonzero(measured)[0])]
    return np.where(measured[:, None, None, None], first, np.nan)


def _losses(trace: Trace) -> list[Curve]:
    period = int(trace.label(REPEATS, "period")[0])
    loss = {name: trace.values(name, "token_loss") for name in (REPEATS, CONTROL)}
    length = loss[REPEATS].shape[-1]
    early, late = max(1, round(0.1 * length)), min(length - 1, round(0.9 * length))

    def copying(values: np.ndarray) -> np.ndarray:
        # the first token of the second copy cannot be known to be a repeat yet
        first = values[..., length - 2 * period + 1 : length - period]
        second = values[..., length - period + 1 :]
        saved: np.ndarray = first.mean(-1) - second.mean(-1)
        return saved

    def in_context(values: np.ndarray) -> np.ndarray:
        difference: np.ndarray = values[..., late] - values[..., early]
        return difference

    saved, saved_control = copying(loss[REPEATS]), copying(loss[CONTROL])
    context, context_control = in_context(loss[REPEATS]), in_context(loss[CONTROL])
    null_name = "no difference, or that of unrelated halves"
    spec = CurveSpec(
        "loss saved on the second copy (nat)",
        "prompts",
        headline=True,
        sample=_SAMPLE,
        definition="mean loss on the first copy minus mean loss on the second, without each copy's first token",
    )
    down = spec.but(
        metric="loss late minus early (nat)",
        headline=False,
        direction="down",
        definition=f"loss at token {late} minus loss at token {early} of {length} (Olsson et al.: 500 and 50 of 512)",
    )
    copied = Null(sign_flip_null(saved, saved_control), null_name)
    helped = Null(sign_flip_null(context, context_control, direction="down"), null_name)
    return [
        from_units("copying", "induction: repetition predicted", saved, copied, spec),
        from_units("in_context", "induction: in-context score", context, helped, down),
    ]


_DEFINITIONS = (
    Definition(
        "prefix matching",
        "Mean attention from tokens of the second copy to the token after the previous occurrence of the current token "
        "(offset L - 1 for period L). The curve is the head in which it is largest; the null takes the largest head of "
        "sequences without a repeat.",
        "Olsson et al. 2022",
    ),
    Definition(
        "previous token, duplicate token",
        "Mean attention to the token before, and to the previous occurrence of the current token (offset L). The null "
        "of previous-token attention is the first measured checkpoint, because position alone explains it.",
        "Olsson et al. 2022",
    ),
    Definition(
        "copying",
        "Loss on the first copy minus loss on the second copy, in nats. Null: no difference, or the difference that "
        "unrelated halves show (position alone can change the loss), with the noise of both.",
        "Olsson et al. 2022",
    ),
    Definition(
        "heads found",
        "How many heads have risen for good above their own prefix-matching score on sequences without a repeat; which "
        "heads count is decided at a false discovery rate of 5% over all heads.",
        "Benjamini and Hochberg 1995",
    ),
    Definition(
        "in-context score",
        "Loss at 90% of the prompt minus loss at 10%; below zero when context helps.",
        "Olsson et al. 2022 (tokens 500 and 50 of 512)",
    ),
)
