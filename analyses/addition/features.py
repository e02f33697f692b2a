"""Which sparse features add? Lookup-table features of ones digits in all contexts, and magnitude features.

- *Ones-digit feature*: of every feature, the share of the variance of its answers that the ones digit of the sum explains
  (eta squared), in each context by itself; the least of the contexts counts. The best feature is chosen at the last
  checkpoint on half of the pairs of ones digits (6 + 9 and 9 + 6 in one half) and scored on the others, so that a feature
  for one pair of digits, or one that was chosen for its luck, gains nothing. Of a crosscoder the score is multiplied by
  the square of the decoder's length as a share of its largest (see :mod:`dynamics.analysis.features`); of a chain the best
  feature is chosen anew at every checkpoint. Null: ones digits dealt anew within each context; of a crosscoder also the
  score of a decoder of a quarter of its largest length, which counts as absent.
- *Lookup-table feature*: a ones digit stands out in every context by itself (largest p of the contexts, false discovery
  rate over features), the ones digit explains at least a quarter of the variance in each, and over the table of ones
  digits more than either operand by itself. A feature for one pair of digits: the same with the pair for the digit.
- *Magnitude feature*: on the grid of all operands a straight line on the sum explains at least a quarter of the variance
  (R squared), and more than one on either operand.

After Lindsey et al. 2025, "On the Biology of a Large Language Model" (addition).
"""

from __future__ import annotations

import numpy as np

from dynamics.analysis import LAST, Curve, CurveSpec, Definition, Finding, Null, Section, Trace
from dynamics.analysis.enrichment import (
    OperandShares,
    enrich,
    explained,
    explained_draws,
    magnitude,
    operand_shares,
    operand_table,
)
from dynamics.analysis.features import HINT, FeatureReader, feature_readers, leading
from dynamics.emergence import discover
from dynamics.emergence.lives import FLOOR
from dynamics.numerics.draws import DRAWS

from .prompts import GRID, ONES

__all__ = ["feature_section"]

_CHAIN_DRAWS = 40
"""Null draws of a chain: each looks for the best feature anew at every checkpoint."""
LEAST = 0.25
"""Share of the variance from which a feature counts as one for a digit, a pair of digits, or a magnitude."""
SHOWN, SNAPSHOTS, GRIDS = 3, 6, 4


def feature_section(trace: Trace) -> Section:
    """Of every dictionary through which the operands were read; a note where there is none."""
    readers = feature_readers(trace, ONES)
    if not readers:
        return Section(notes=[HINT])
    section = Section(definitions=_DEFINITIONS)
    for reader in readers:
        ones = _Ones(reader)
        finding = ones.finding(trace, headline=reader.name == leading(readers))
        section += Section([finding], [_note(reader, ones, finding)]) + _pictures(reader, ones)
    return section


class _Ones:
    """The probe of ones digits, through one dictionary."""

    def __init__(self, reader: FeatureReader) -> None:
        self.reader = reader
        self.ones = reader.label(ONES, "ones")
        self.first, self.second = (reader.label(ONES, f"operand_{o}") for o in "ab")
        context = reader.label(ONES, "context")
        self.contexts = list(dict.fromkeys(context.tolist()))
        self.rows = [np.flatnonzero(context == c) for c in self.contexts]
        i, j = self.first % 10, self.second % 10
        self.pair = 10 * np.minimum(i, j) + np.maximum(i, j)
        self.other = _halves(self.pair, self.ones)
        self.last = reader.last(ONES, LAST)
        self.best = int(np.nan_to_num(self.score(self.last, ~self.other)).argmax())
        self.curve = np.zeros(len(reader.steps))

    def score(self, x: np.ndarray, half: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
        """(feature,) least eta squared of the contexts on half of the pairs; NaN where one is not answered at all."""
        labels = self.ones if labels is None else labels
        return np.asarray(np.min([explained(x[r[half[r]]], labels[r[half[r]]]) for r in self.rows], axis=0))

    def shuffled(self, rng: np.random.Generator) -> np.ndarray:
        """(prompt,) ones digits dealt anew within contexts and halves."""
        labels = self.ones.copy()
        for rows in self.rows:
            for half in (True, False):
                mine = rows[self.other[rows] == half]
                labels[mine] = labels[rng.permutation(mine)]
        return labels

    def finding(self, trace: Trace, headline: bool) -> Finding:
        """The best feature's score through training."""
        reader, n = self.reader, len(self.reader.steps)
        count = DRAWS if reader.kept else _CHAIN_DRAWS
        values, draws, null = np.zeros(n), np.zeros((n, DRAWS)), np.zeros((n, count))
        rng = np.random.default_rng(0)
        dealt = [self.shuffled(rng) for _ in range(count)]
        mine = reader.of(ONES, LAST, [self.best]) if reader.kept else None
        for t in range(n):
            x = reader.at(ONES, LAST, t) if mine is None else mine[t]
            at = 0 if reader.kept else int(np.nan_to_num(self.score(x, ~self.other)).argmax())
            weight = reader.weight[self.best, t] ** 2 if reader.joint else 1.0
            one = x[:, [at]]
            values[t] = weight * np.nan_to_num(self.score(one, self.other))[0]
            resampled = [
                explained_draws(one[r, 0], self.ones[r], clusters=self.pair[r], draws=DRAWS)
                for r in (r[self.other[r]] for r in self.rows)
            ]
            drawn = weight * np.nan_to_num(np.min(resampled, axis=0))
            draws[t] = drawn - drawn.mean() + values[t]  # resampled pairs repeat: their spread counts, not their mean
            for d, labels in enumerate(dealt):
                if not reader.kept:
                    one = x[:, [int(np.nan_to_num(self.score(x, ~self.other, labels)).argmax())]]
                null[t, d] = np.nan_to_num(self.score(one, self.other, labels))[0]
        if reader.joint:
            null = np.maximum(null, FLOOR**2 * values.max())
        self.curve = values
        spread = reader.spread
        null_name = "ones digits dealt anew" + (", or a decoder of a quarter of its length" if reader.joint else "")
        squared = ", times the squared share of its decoder's largest length" if reader.joint else ""
        return Curve(
            f"features.{reader.name}.ones",
            "addition: a feature for a ones digit in all contexts",
            spread(values),
            spread(draws),
            Null(spread(null), null_name),
            CurveSpec(
                "variance explained by the digit, least of the contexts",
                "pairs of digits",
                limits=(0.0, 1.0),
                headline=headline,
                definition=f"dictionary {reader.name} ({reader.where}): eta squared of the ones digit of the sum, on pairs "
                f"of digits on which the feature was not chosen{squared}",
            ),
        ).assessed(trace)

    def lookups(self) -> tuple[np.ndarray, np.ndarray]:
        """Features for ones digits in all contexts, at the last snapshot.

        Returns:
            (feature,) whether a digit stands out in every context, at the false discovery rate; (context, feature) share of
            the variance that the ones digit explains.
        """
        p = np.max([enrich(self.last[r], self.ones[r]).p_value for r in self.rows], axis=0)
        share = np.nan_to_num([explained(self.last[r], self.ones[r]) for r in self.rows])
        return discover(p), share

    def digits(self, feature: int) -> str:
        """The ones digits of the sum for which it answers at least half as strongly as for the best, in words."""
        means = np.array([self.last[self.ones == d, feature].mean() for d in range(10)])
        strong = [d for d in range(10) if means[d] >= 0.5 * means.max()]
        if len(strong) > 6:
            return "most digits"
        gap = max(range(len(strong)), key=lambda k: (strong[k] - strong[k - 1]) % 10 if k or len(strong) > 1 else 0)
        return ", ".join(str(d) for d in strong[gap:] + strong[:gap])  # 9, 0, 1 are neighbours

    def times(self, count: int) -> list[int]:
        """Snapshots for pictures: the first, and those at which the score first reached a fifth, two fifths ... of its peak."""
        if not self.reader.kept:
            return [len(self.reader.steps) - 1]
        so_far = np.maximum.accumulate(self.curve)
        reached = [int((so_far >= k / (count - 1) * so_far[-1]).argmax()) for k in range(1, count)]
        return sorted({0, *reached, len(self.curve) - 1})

    def pairs(self) -> np.ndarray:
        """(feature, 2) the pair of ones digits that a feature is for in all contexts; -1 where there is none."""
        found = [enrich(self.last[r], self.pair[r], least=3) for r in self.rows]
        best = np.stack([f.best for f in found])
        share = np.min([np.nan_to_num(f.share) for f in found], axis=0)
        p = np.max([f.p_value for f in found], axis=0)
        same = (best == best[0]).all(axis=0) & (best[0] >= 0)
        there = same & discover(np.where(np.isfinite(p), np.where(same, p, 1.0), np.nan)) & (share >= LEAST)
        value = found[0].values[np.maximum(best[0], 0)].astype(int)
        return np.where(there[:, None], np.stack([value // 10, value % 10], axis=1), -1)

    def shares(self) -> OperandShares:
        """Of the table of ones digits, mean over contexts, at the last snapshot."""
        tables = [operand_table(self.last[r], self.first[r], self.second[r]) for r in self.rows]
        return operand_shares(np.mean(tables, axis=0))


def _halves(pair: np.ndarray, ones: np.ndarray) -> np.ndarray:
    """(prompt,) which half of the pairs of digits each prompt is in; of every sum's ones digit about as many in both."""
    rng = np.random.default_rng(0)
    half = np.zeros(len(pair), dtype=bool)
    for number, digit in enumerate(np.unique(ones)):
        pairs = rng.permutation(np.unique(pair[ones == digit]))
        half |= np.isin(pair, pairs[number % 2 :: 2])
    return half


def _note(reader: FeatureReader, ones: _Ones, finding: Finding) -> str:
    step, last = int(reader.steps[-1]), np.flatnonzero(np.isfinite(finding.values))[-1]
    value, e = finding.values[last], finding.emergence
    bound = f"its null reaches {e.null_upper[last]:.0%}" if e.null_upper else "there is no null to beat"
    if e.state == "emerged":
        bound += f"; it leaves its null in {e.onset}"
    text = (
        f"Features of addition, dictionary {reader.name} ({reader.where}, {reader.features} features), step {step}: the ones "
        f"digit of the sum explains {value:.0%} of the variance of "
        + (f"feature {ones.best}" if reader.kept else "the best feature")
        + f" in its weakest context, on pairs of digits on which it was not chosen ({bound}). "
    )
    there, share = ones.lookups()
    shares, least = ones.shares(), share.min(axis=0)
    alone = np.maximum(np.nan_to_num(shares.first), np.nan_to_num(shares.second))
    strong = np.flatnonzero(there & (least >= LEAST) & (np.nan_to_num(shares.ends) > alone))
    weaker = int(there.sum()) - len(strong)
    if len(strong):
        listed = "; ".join(
            f"{j} (sum ends in {ones.digits(j)}; "
            f"{', '.join(f'{c} {v:.0%}' for c, v in zip(ones.contexts, share[:, j], strict=True))}; of its table of ones "
            f"digits the sum's explains {shares.ends[j]:.0%}, the operands' by themselves "
            f"{shares.first[j]:.0%} and {shares.second[j]:.0%}; {_said(reader, j)}{reader.since(j) if reader.kept else 'no birth is known'})"
            for j in strong[np.argsort(-least[strong])][:12]
        )
        text += f"Lookup-table features for ones digits in all contexts: {len(strong)}: {listed}"
        text += "; ... " if len(strong) > 12 else ". "
    else:
        text += f"No feature is for ones digits with {LEAST:.0%} of its variance in all contexts. "
    text += (
        f"{weaker} more stand out for a digit in every context, but weakly or because of the operands. "
        if weaker
        else ""
    )
    pair = ones.pairs()
    for_pairs = np.flatnonzero(pair[:, 0] >= 0)
    listed = ", ".join(f"{j} ({pair[j, 0]} + {pair[j, 1]})" for j in for_pairs[:8])
    text += (
        f"For one pair of digits in all contexts: {listed or 'none'}" + (", ..." if len(for_pairs) > 8 else "") + ". "
    )
    return text + _magnitudes(reader)


def _said(reader: FeatureReader, feature: int) -> str:
    tokens = reader.promotes(feature)
    return f"by itself it makes {', '.join(f'«{t}»' for t in tokens)} likelier; " if tokens else ""


def _sizes(reader: FeatureReader, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(feature,) R^2 of a straight line on the sum, and on the better of the operands."""
    by = [np.nan_to_num(magnitude(x, reader.label(GRID, of), draws=0).r2) for of in ("total", "operand_a", "operand_b")]
    return by[0], np.maximum(by[1], by[2])


def _magnitudes(reader: FeatureReader) -> str:
    if not reader.read(GRID):
        return ""
    x = reader.last(GRID, LAST)
    line, operand = _sizes(reader, x)
    total = reader.label(GRID, "total")
    large = (line >= LEAST) & (line > operand)
    tens = np.nan_to_num(explained(x, total // 10))
    bands = int(((tens >= LEAST) & ~large).sum())
    text = f"No feature grows with the sum for {LEAST:.0%} of its variance. "
    if large.any():
        fit = magnitude(x[:, large], total, draws=199)
        some = np.flatnonzero(large)
        listed = "; ".join(
            f"{some[o]} (R² {fit.r2[o]:.2f}, rank correlation {fit.spearman[o]:.2f}; "
            f"{reader.since(int(some[o])) if reader.kept else 'no birth is known'})"
            for o in np.argsort(-fit.r2)[:6]
        )
        text = (
            f"{len(some)} magnitude {'features follow' if len(some) > 1 else 'feature follows'} the sum on the grid of "
            f"operands: {listed}{'; ...' if len(some) > 6 else ''}. "
        )
    if bands:
        text += (
            f"{bands} others follow the tens of the sum, not its size; where the sum is written digit by digit, its tens "
            "are given before its ones are asked for, and may be read off there."
        )
    return text.rstrip()


def _pictures(reader: FeatureReader, ones: _Ones) -> Section:
    """Tables of the best features through training, for the figures; of a chain at the last checkpoint only."""
    section, name = Section(), reader.name
    there, share = ones.lookups()
    least = share.min(axis=0)
    chosen = [j for j in dict.fromkeys([ones.best, *np.argsort(-least).tolist()]) if least[j] > 0][:SHOWN]
    if not chosen:
        return section
    times = ones.times(SNAPSHOTS)
    x = reader.of(ONES, LAST, chosen)[times] if reader.kept else ones.last[None][:, :, chosen]
    tables = np.array(
        [[operand_table(at[r], ones.first[r], ones.second[r]) for r in ones.rows] for at in x]
    )  # (time, context, 10, 10, feature)
    section.arrays[f"{name}_tables"] = (
        (f"{name}_shown", f"{name}_time", "sum_context", "digit_a", "digit_b"),
        np.moveaxis(tables, -1, 0).astype(np.float32),
    )
    section.coords |= {
        "sum_context": ones.contexts,
        f"{name}_shown": [_title(ones, j, least) for j in chosen],
        f"{name}_time": reader.steps[times],
    }
    shares = ones.shares()
    for part in ("first", "second", "ends", "cell", "rest"):
        section.arrays[f"{name}_share_{part}"] = (f"{name}_feature", getattr(shares, part).astype(np.float32))
    section.arrays[f"{name}_ones_found"] = (f"{name}_feature", there)
    section.arrays[f"{name}_ones_share"] = (("sum_context", f"{name}_feature"), share.astype(np.float32))
    if not reader.read(GRID):
        return section
    line, operand = _sizes(reader, reader.last(GRID, LAST))
    large = [int(j) for j in np.argsort(-(line * (line > operand)))[:2] if line[j] >= LEAST]
    wide = list(dict.fromkeys([*chosen[:2], *large]))
    a, b = (reader.label(GRID, f"operand_{o}") for o in "ab")
    few = ones.times(GRIDS)
    x = reader.of(GRID, LAST, wide)[few] if reader.kept else reader.last(GRID, LAST)[None][:, :, wide]
    grid = np.full((len(wide), len(few), 90, 90), np.nan, dtype=np.float32)
    grid[:, :, a - 10, b - 10] = np.moveaxis(x, -1, 0)
    section.arrays[f"{name}_grid"] = ((f"{name}_wide", f"{name}_when", "operand_a", "operand_b"), grid)
    section.coords |= {
        f"{name}_wide": [f"feature {j}: grows with the sum" if j in large else _title(ones, j, least) for j in wide],
        f"{name}_when": reader.steps[few],
        "operand_a": np.arange(10, 100),
        "operand_b": np.arange(10, 100),
    }
    return section


def _title(ones: _Ones, feature: int, least: np.ndarray) -> str:
    return f"feature {feature}: answers sums that end in {ones.digits(feature)} (ones digit: eta² {least[feature]:.2f})"


_DEFINITIONS = (
    Definition(
        "ones-digit feature",
        "eta² = SS_between / SS_total of a feature's answers for the ones digit of the sum, the least of three contexts, "
        "chosen on half of the pairs of ones digits and measured on the others. The code of a crosscoder knows all "
        "checkpoints, so that its answers at one checkpoint count with the length of the decoder there. Null: ones digits "
        "dealt anew within contexts.",
        "after Lindsey et al. 2025, 'On the Biology of a Large Language Model'",
    ),
    Definition(
        "lookup-table feature, magnitude feature",
        "A ones digit of the sum (or one pair of ones digits) stands out in every context by itself, at a false discovery "
        "rate of 5% over features; the ones digit explains a quarter of the variance in each, and more of the table of ones "
        "digits than either operand by itself. Magnitude: on the grid of "
        "operands a straight line on the sum explains a quarter, and more than one on either operand.",
        "after Lindsey et al. 2025",
    ),
)
