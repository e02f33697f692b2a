"""How much of the answer comes from the hint's tokens, and how much from the operands': attribution and exchange.

On prompts with a wrong hint, with m = logit(right answer) - logit(hinted answer). A hint that is used lowers m, operands
that are used raise it, so that the *support* of the hint is minus its attribution (or minus what m loses without it) and
that of the operands is theirs. The *share* of the hint is

    support(hint) / (support(hint) + support(operands)),    each a mean over sums, and at least 0.

Where the two together are not above zero (in a band that holds at all checkpoints together with 95%), a share would divide
noise by noise: it is missing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dynamics.analysis.findings import Finding, from_units, sign_flip_null
from dynamics.emergence import shuffled_match_null, simultaneous_bands, unit_bootstrap
from dynamics.measurements import donor_label
from dynamics.numerics.draws import FINE_DRAWS
from dynamics.store import Trace

from .prompts import HINTS
from .sums import Sums

__all__ = ["COUNTERPART", "GROUPS", "Tokens", "share_of", "token_parts"]

COUNTERPART = "other"
"""Another sum with another wrong hint."""

GROUPS = ("hint", "operands", "rest")


@dataclass
class Tokens:
    """What becomes part of the summary."""

    findings: list[Finding] = field(default_factory=list)
    arrays: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def token_parts(trace: Trace, sums: Sums, common: dict[str, Any]) -> Tokens:
    """Findings, arrays and notes; only a note where it was not measured."""
    if "token_attribution" not in trace.probe(HINTS):
        return Tokens(
            notes=[
                "Tokens are not attributed or exchanged: it is not known what reads and writes where in this architecture."
            ]
        )
    found = Tokens()
    wrong = sums.rows["wrong"]
    attribution = trace.values(HINTS, "token_attribution")[:, wrong].astype(np.float64)  # (checkpoint, sum, group)
    effect = np.moveaxis(trace.values(HINTS, "exchange_effect")[:, 0][..., wrong], 1, 2).astype(np.float64)
    supports = {
        "attribution": (-attribution[..., 0], attribution[..., 1]),
        "exchange": (effect[..., 0], -effect[..., 1]),
    }
    over = ("checkpoint", "difficulty")
    for name, (hint, operands) in supports.items():
        parts = [share_of(hint[:, mine], operands[:, mine]) for mine in _masks(sums)]
        for index, what in enumerate(("share", "share_low", "share_high")):
            found.arrays[f"{name}_{what}"] = (over, np.stack([part[index] for part in parts], axis=1))
    found.arrays["attribution_by_group"] = (("checkpoint", "token_group"), _mean(attribution))
    found.arrays["exchange_by_group"] = (("checkpoint", "token_group"), _mean(effect))
    found.findings += _used(supports["exchange"], effect[..., 2], common)
    found.findings += _said(trace, sums, common)
    found.notes.append(_complete(trace, attribution, wrong))
    return found


def _masks(sums: Sums) -> list[np.ndarray]:
    return [sums.difficulty == name for name in sums.difficulties]


def _mean(values: np.ndarray) -> np.ndarray:
    """(checkpoint, group) means over sums; NaN where nothing was measured."""
    found = np.full((len(values), values.shape[2]), np.nan)
    count = np.isfinite(values).sum(1)
    return np.asarray(np.divide(np.nansum(values, axis=1), count, out=found, where=count > 0))


def share_of(hint: np.ndarray, operands: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(checkpoint,) share of the hint, and its 95% bootstrap interval over sums; NaN where both are noise.

    Args:
        hint, operands: (checkpoint, sum) what each supports; NaN where it was not measured.
    """
    share, low, high = (np.full(len(hint), np.nan) for _ in range(3))
    both = np.isfinite(hint) & np.isfinite(operands)
    measured = np.flatnonzero(both.sum(1) > 1)
    if not len(measured):
        return share, low, high
    units = [np.where(both, x, np.nan)[measured] for x in (hint, operands)]
    mean = [np.nanmean(x, axis=1) for x in units]
    drawn = [unit_bootstrap(x, draws=FINE_DRAWS) for x in units]  # the same resamples
    least, _ = simultaneous_bands((mean[0] + mean[1])[None], (drawn[0] + drawn[1])[None])
    for row in np.flatnonzero(least[0] > 0):
        c = measured[row]
        one, other = (np.maximum(np.append(d[row], m[row]), 0.0) for d, m in zip(drawn, mean, strict=True))
        shares = np.divide(one, one + other, out=np.full(len(one), np.nan), where=one + other > 0)
        share[c] = shares[-1]
        low[c], high[c] = np.nanquantile(shares[:-1], [0.025, 0.975])
    return share, low, high


def _used(supports: tuple[np.ndarray, np.ndarray], rest: np.ndarray, common: dict[str, Any]) -> list[Finding]:
    words = (
        ("hint_used", "the hint's tokens decide", "gains", "the hint is that of another sum"),
        ("operands_used", "the operands decide", "loses", "the operands are those of another sum"),
    )
    control = np.where(np.isfinite(rest).all(1, keepdims=True), rest, 0.0)
    result = []
    for (key, title, moves, what), units, sign in zip(words, supports, (1.0, -1.0), strict=True):
        result.append(
            from_units(
                f"faithfulness.{key}",
                f"faithfulness: {title}",
                units,
                null=sign_flip_null(units, sign * control),
                null_name="no effect, or that of all other tokens",
                metric="change of logit(right) - logit(hinted)",
                headline=True,
                definition=f"what logit(right) - logit(hinted) {moves} on prompts with a wrong hint when {what}",
                **common,
            )
        )
    return result


def _said(trace: Trace, sums: Sums, common: dict[str, Any]) -> list[Finding]:
    """The thresholded twins: is the other sum's hint, or the other operands' sum, what is said then?"""
    said = trace.values(HINTS, "exchange_said")[:, 0][..., sums.rows["wrong"]].astype(np.float64)
    said[said < 0] = np.nan
    donor = trace.label(HINTS, donor_label(COUNTERPART))[sums.rows["wrong"]]
    there = donor >= 0
    targets = {"hint_used": trace.label(HINTS, "foil_token"), "operands_used": trace.probe(HINTS)["answer_id"].values}
    result = []
    for group, (key, ids) in enumerate(targets.items()):
        wanted, mine = ids[donor[there]], said[:, group][:, there]
        part = {**common, "clusters": common["clusters"][there]}
        result.append(
            from_units(
                f"faithfulness.{key}.said",
                f"faithfulness: what is said follows the {('hint', 'operands')[group]}",
                np.where(np.isnan(mine), np.nan, mine == wanted),
                null=shuffled_match_null(mine, wanted, groups=sums.difficulty[there]),
                null_name=f"{('hints', 'answers')[group]} of other sums",
                metric="share of sums",
                limits=(0.0, 1.0),
                twin=f"faithfulness.{key}",
                definition=f"share of prompts with a wrong hint that are answered with "
                f"{('the hint', 'the sum')[group]} of another prompt when they have its "
                f"{('hint', 'operands')[group]}",
                **part,
            )
        )
    return result


def _complete(trace: Trace, attribution: np.ndarray, wrong: np.ndarray) -> str:
    whole = trace.values(HINTS, "attribution_whole")[:, wrong].astype(np.float64)
    gap = np.abs(attribution.sum(2) - whole)
    known = np.isfinite(gap) & np.isfinite(whole)
    if not known.any():
        return "Tokens could not be attributed: the model's logits are not finite, or too few prompts share a length."
    share = gap[known].sum() / max(np.abs(whole[known]).sum(), 1e-12)
    return (
        f"Integrated gradients add up to the difference from an average prompt but for {share:.1%} of it (all checkpoints "
        f"and sums together). Baseline: the mean over all prompts of one length at each place."
    )
