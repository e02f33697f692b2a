"""What is said about a direction in words: its definitions, how it responds, and in which order its onsets came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from ..emergence import before
from .findings import Definition, Finding

__all__ = ["DEFINITIONS", "direction_notes", "dose_words", "order_note"]

_LEVEL = 0.95
_EVEN = 1.5
"""Up and down by less than this ratio count as even."""


def direction_notes(name: str, steps: np.ndarray, strengths: np.ndarray, by: Mapping[str, np.ndarray]) -> list[str]:
    """What the last measured checkpoint shows: how well it is read, the response to steering, what ablation takes.

    Args:
        name: of the direction; begins the sentences.
        steps: (checkpoint,) optimizer steps.
        strengths: (strength,) of steering.
        by: the arrays of :func:`dynamics.analysis.direction.direction_section`, without their prefix.
    """
    known = np.flatnonzero(np.isfinite(by["auroc"]).all(1) & np.isfinite(by["slope"]).any(1))
    if not len(known):
        return [f"{name}: not measurable, no checkpoint has finite streams and logits."]
    last = int(known[-1])
    read, steepest = int(by["auroc"][last].argmax()), int(np.nanargmax(by["slope"][last]))
    start = f"{name}, step {int(steps[last])}: "
    dose = by["dose"][last, steepest]
    listed = ", ".join(f"{s:+g}: {v:+.2f}" for s, v in sorted(zip(strengths.tolist(), dose.tolist(), strict=True)))
    controls = [
        f"{words} {by[key][last, steepest].max():.2f}"
        for key, words in (("dose_random", "random"), ("dose_shuffled", "shuffled labels"))
        if np.isfinite(by[key][last, steepest]).all()
    ]
    ablated = (
        f"{start}the classes differ by {by['difference'][last]:.2f} logits, of which ablation at all layers takes "
    )
    ablated += f"{by['ablation_everywhere'][last]:.2f}"
    if "ablation_random" in by:
        ablated += f" (random directions: {by['ablation_random'][last]:.2f})"
    return [
        f"{start}AUROC {by['auroc'][last, read]:.2f} after layer {read}; directions of shuffled labels reach "
        f"{by['auroc_shuffled'][last, read]:.2f} in one of twenty, random ones, turned the right way, "
        f"{by['auroc_random'][last, read]:.2f} on average.",
        f"{start}steered after layer {steepest}, logits change by {listed}"
        + (f" (at most, root mean square: {', '.join(controls)})" if controls else "")
        + f"; {dose_words(strengths, dose)}.",
        f"{ablated}.",
    ]


def dose_words(strengths: np.ndarray, dose: np.ndarray) -> str:
    """Whether more strength does more, and whether both directions do.

    >>> dose_words(np.array([-2.0, -1.0, 1.0, 2.0]), np.array([-4.0, -2.0, 2.0, 4.1]))
    'more strength does more, evenly in both directions'
    >>> dose_words(np.array([-1.0, 1.0]), np.array([-1.0, 3.0]))
    'more strength does more, 3.0 times as much upwards'
    >>> dose_words(np.array([-1.0, 1.0, 2.0]), np.array([0.5, 1.0, 0.2]))
    'the response is not monotone'
    """
    order = np.argsort(strengths)
    s, change = strengths[order], dose[order]
    if not np.isfinite(change).all():
        return "the response is not measurable"
    through = np.concatenate([change[s < 0], [0.0], change[s > 0]])
    if not (np.diff(through) > 0).all():
        return "the response is not monotone"
    words = "more strength does more"
    both = [x for x in s[s > 0] if -x in s]
    if both:
        up, down = (abs(float(change[s == x][0])) for x in (max(both), -max(both)))
        ratio = max(up, down) / min(up, down)
        where = "upwards" if up > down else "downwards"
        words += ", evenly in both directions" if ratio < _EVEN else f", {ratio:.1f} times as much {where}"
    return words


def order_note(name: str, findings: Sequence[Finding]) -> str:
    """In which order these findings came, every pair with its bootstrap probability.

    Args:
        name: what they are about; begins the sentence.
        findings: titled ``<name>: <what>``; those that did not emerge, or have no draws, are said to be left out.
    """
    kept: list[Finding] = []
    left: list[Finding] = []
    for finding in findings:
        ordered = finding.emergence.state in ("emerged", "transient", "present from start")
        (kept if ordered and np.isfinite(finding.onset_by).any() else left).append(finding)
    texts = []
    for one, other in combinations(kept, 2):
        paired = bool(one.sample) and one.sample == other.sample
        a, b = one.onset_intervals(), other.onset_intervals()
        n = min(len(a), len(b))
        found = before(a[:n], b[:n], shared=True) if paired else before(a, b, shared=False)
        first, second = (_short(f) for f in (one, other))
        share = max(found.before, found.after)
        if found.before < found.after:
            first, second = second, first
        texts.append(f"{first} before {second} {share:.2f}" + ("" if share >= _LEVEL else " (cannot be ordered)"))
    parts = ["; ".join(texts)] if texts else []
    if left:
        parts.append("left out: " + ", ".join(f"{_short(f)} ({f.emergence.state})" for f in left))
    return f"{name}, probability that one came first: " + ". ".join(parts or ["nothing to compare"]) + "."


def _short(finding: Finding) -> str:
    return finding.title.split(": ")[-1]


DEFINITIONS = (
    Definition(
        "direction",
        "Difference of the means of the residual stream over two classes of training prompts, at one position, by layer. "
        "Projections are those of held-out prompts on its unit vector.",
        "Marks and Tegmark 2023; Rimsky et al. 2024",
    ),
    Definition(
        "AUROC",
        "Probability that a held-out prompt of class 1 projects further along the direction than one of class 0, of the "
        "kind of class 0 that is told apart worst; 1/2 is chance. Nulls: directions of shuffled training labels against "
        "shuffled held-out labels, or the first checkpoint; beside it, random directions.",
        "Mann and Whitney 1947; Hanley and McNeil 1982",
    ),
    Definition(
        "steering",
        "s times the difference in means is added to the stream after one layer, at the position and all later tokens. The "
        "slope of logit(answer) - logit(foil) over s, through the origin. Null: random directions of the same length, and "
        "directions of shuffled labels, by what they begin to do (from the gradient).",
        "Turner et al. 2023; Rimsky et al. 2024",
    ),
    Definition(
        "ablation",
        "At the same tokens, what the stream says along the direction is set to its mean over training prompts. How much of "
        "the difference between the classes is lost. Null: random directions.",
        "Arditi et al. 2024",
    ),
)
