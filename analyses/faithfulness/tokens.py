"""How much of the answer comes from the hint's tokens, and how much from the operands': attribution and exchange.

On prompts with a wrong hint, with m = logit(right answer) - logit(hinted answer). A hint that is used lowers m, operands
that are used raise it, so that the *support* of the hint is minus its attribution (or minus what m loses without it) and
that of the operands is theirs. The *share* of the hint is

    support(hint) / (support(hint) + support(operands)),    each a mean over sums, and at least 0.

Where the two together are not above zero (in a band that holds at all checkpoints together with 95%), a share would divide
noise by noise: it is missing.
"""

from __future__ import annotations

import numpy as np

from dynamics.analysis import Curve, CurveSpec, Null, Section, Trace, from_units, sign_flip_null
from dynamics.emergence import shuffled_match_null, simultaneous_bands, unit_bootstrap
from dynamics.measurements import donor_label
from dynamics.numerics.draws import FINE_DRAWS

from .prompts import HINTS
from .sums import Sums, known_mean

__all__ = ["COUNTERPART", "GROUPS", "share_of", "token_section"]

COUNTERPART = "other"
"""Another sum with another wrong hint."""

GROUPS = ("hint", "operands", "rest")


def token_section(trace: Trace, sums: Sums, spec: CurveSpec) -> Section:
    """What every group of tokens counts for; only a note where it was not measured."""
    if "token_attribution" not in trace.probe(HINTS):
        why = "it is not known what reads and writes where in this architecture"
        return Section(notes=[f"Tokens are not attributed or exchanged: {why}."])
    wrong = sums.rows["wrong"]
    attribution = trace.values(HINTS, "token_attribution")[:, wrong].astype(np.float64)  # (checkpoint, sum, group)
    effect = np.moveaxis(trace.values(HINTS, "exchange_effect")[:, 0][..., wrong], 1, 2).astype(np.float64)
    supports = {
        "attribution": (-attribution[..., 0], attribution[..., 1]),
        "exchange": (effect[..., 0], -effect[..., 1]),
    }
    section = Section(
        [*_used(supports["exchange"], effect[..., 2], spec), *_said(trace, sums, spec)],
        [_complete(trace, attribution, wrong)],
    )
    for name, (hint, operands) in supports.items():
        mine = [sums.difficulty == d for d in sums.difficulties]
        parts = [share_of(hint[:, rows], operands[:, rows]) for rows in mine]
        for what, shares in zip(("share", "share_low", "share_high"), zip(*parts, strict=True), strict=True):
            section.arrays[f"{name}_{what}"] = (("checkpoint", "difficulty"), np.stack(shares, axis=1))
    for name, values in (("attribution", attribution), ("exchange", effect)):
        section.arrays[f"{name}_by_group"] = (("checkpoint", "token_group"), known_mean(values, 1))
    return section


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


def _used(supports: tuple[np.ndarray, np.ndarray], rest: np.ndarray, spec: CurveSpec) -> list[Curve]:
    words = (
        ("hint_used", "the hint's tokens decide", "gains", "the hint is that of another sum"),
        ("operands_used", "the operands decide", "loses", "the operands are those of another sum"),
    )
    control = np.where(np.isfinite(rest).all(1, keepdims=True), rest, 0.0)
    return [
        from_units(
            key,
            f"faithfulness: {title}",
            units,
            Null(sign_flip_null(units, sign * control), "no effect, or that of all other tokens"),
            spec.but(
                metric="change of logit(right) - logit(hinted)",
                headline=True,
                definition=f"what logit(right) - logit(hinted) {moves} on prompts with a wrong hint when {what}",
            ),
        )
        for (key, title, moves, what), units, sign in zip(words, supports, (1.0, -1.0), strict=True)
    ]


def _said(trace: Trace, sums: Sums, spec: CurveSpec) -> list[Curve]:
    """The thresholded twins: is the other sum's hint, or the other operands' sum, what is said then?"""
    said = trace.values(HINTS, "exchange_said")[:, 0][..., sums.rows["wrong"]].astype(np.float64)
    said[said < 0] = np.nan
    donor = trace.label(HINTS, donor_label(COUNTERPART))[sums.rows["wrong"]]
    there = donor >= 0
    spec = spec.but(metric="share of sums", limits=(0.0, 1.0), clusters=sums.item[there])
    curves = []
    for group, (who, what, ids) in enumerate(
        (
            ("hint", "the hint", trace.label(HINTS, "foil_token")),
            ("operands", "the sum", trace.probe(HINTS)["answer_id"].values),
        )
    ):
        wanted, mine = ids[donor[there]], said[:, group][:, there]
        null = shuffled_match_null(mine, wanted, groups=sums.difficulty[there])
        curves.append(
            from_units(
                f"{who}_used.said",
                f"faithfulness: what is said follows the {who}",
                np.where(np.isnan(mine), np.nan, mine == wanted),
                Null(null, f"{('hints', 'answers')[group]} of other sums"),
                spec.but(
                    twin=f"{who}_used",
                    definition=f"share of prompts with a wrong hint that are answered with {what} of another prompt when "
                    f"they have its {who}",
                ),
            )
        )
    return curves


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
