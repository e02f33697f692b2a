"""What an audit says about a checkpoint, and how it names others."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["AuditFinding", "Kind", "name_steps"]

Kind = Literal[
    "known fault",
    "stale",
    "shared weights",
    "shared file",
    "no weights",
    "says otherwise",
    "missing step",
    "unexpected step",
    "equal by design",
    "odd size",
    "not finite",
    "off the path",
    "nearer to another step",
    "odd norm",
]
"""What kind of finding it is.

From a listing: ``known fault`` (reported before), ``stale`` (serves the weights of the branch main or of the
last step), ``shared weights`` (the same weights as other steps: at most one of the labels can be right), ``shared file``
(one file of several is another step's), ``no weights``, ``says otherwise`` (what lies in it says
another step than its label, or it carries another tokenizer than the series), ``missing step`` (published, but not listed), ``unexpected
step`` (listed, but not in the published schedule), ``equal by design`` (the same weights, as they should be), ``odd size``
(the weights are larger or smaller than those of most others).

From the weights: ``stale`` and ``shared weights`` by digest, ``not finite`` (NaN or infinite weights), ``off the path``
(training went from the step before to the step after without passing here), ``nearer to another step`` (much nearer to a
step elsewhere in the series than to those beside it), ``odd norm`` (the norm jumps)."""


@dataclass(frozen=True)
class AuditFinding:
    """One thing that is to be known about one checkpoint; a step may have several.

    Attributes:
        step: optimizer steps that its label says; the first of them where a finding is about several in a row.
        label: what the source calls it; empty where there is no such checkpoint.
        kind: see :data:`Kind`.
        reason: why, as a clause that names the other steps concerned.
        mask: whether collection should leave the checkpoint out; it should if any finding of the step says so.
        source: who says so and when, for known faults.
    """

    step: int
    label: str
    kind: Kind
    reason: str
    mask: bool
    source: str = ""


def name_steps(named: Collection[int], series: Sequence[int], *, most: int = 5) -> str:
    """Steps as a reader would say them: those that follow one another in the series as a range, not too many.

    >>> name_steps([7], [0, 1, 7]), name_steps([0, 1], [0, 1, 7]), name_steps([0, 1, 2, 9], [0, 1, 2, 5, 9])
    ('step 7', 'steps 0 and 1', 'steps 0 to 2 and 9')
    >>> name_steps(range(0, 20, 2), range(20), most=3)
    'steps 0, 2, 4 and 7 more'
    """
    wanted = set(named)
    runs: list[list[int]] = []
    follows = False
    for step in sorted(set(series) | wanted):
        if step in wanted:
            if follows:
                runs[-1].append(step)
            else:
                runs.append([step])
        follows = step in wanted
    parts: list[tuple[str, int]] = []
    for run in runs:
        parts += [(f"{run[0]} to {run[-1]}", len(run))] if len(run) > 2 else [(str(step), 1) for step in run]
    texts = [text for text, _ in parts[:most]]
    if left := sum(count for _, count in parts[most:]):
        texts.append(f"{left} more")
    head = "step" if len(wanted) == 1 else "steps"
    return f"{head} {texts[0]}" if len(texts) == 1 else f"{head} {', '.join(texts[:-1])} and {texts[-1]}"
