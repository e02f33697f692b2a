"""What a comparison says, as JSON values: the page, the table in the terminal and ``compare.json`` come from here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..emergence import FRAGILE
from ..wording import listed
from .configs import Design
from .effects import SEED_NOISE_UNKNOWN, Effect, Spread, effects, spreads
from .loading import ComparedRun
from .planning import plan
from .shifts import RATE, Shift, shifts

__all__ = ["FORMAT", "compare_content", "times"]

FORMAT = 1
"""Of ``compare.json`` (docs/howto/compare.md)."""

_SAME = 1e-3
"""Numbers of tokens that differ by less than this part are the same: logs round them."""


def compare_content(
    runs: Sequence[ComparedRun],
    design: Design,
    identity: Sequence[dict[str, Any]] = (),
    features: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """A whole comparison.

    Args:
        runs: the first of them is what others are held against.
        design: how they differ.
        identity, features: of :func:`.identity.identities`, which reads the traces.

    Keys: ``format``, ``false_discovery_rate``, ``runs``, ``differences``, ``factors``, ``groups``, ``story`` (sentences), ``remarks`` (what
    to know), ``circuits`` (each with its onset in every run, its shifts against the first run, and the spread of its seeds),
    ``effects`` (of factors, in log2 steps; ``effects_tokens`` where these say something else), ``identity`` and ``features`` (are circuits
    and features the same ones), ``next``.
    """
    keys = list(dict.fromkeys(key for run in runs for key in run.headlines))
    titles = {key: next(run.findings[key].title for run in runs if key in run.findings) for key in keys}
    found, additive = effects(runs, design, keys)
    apart = {spread.key: spread for spread in spreads(runs, design, keys)}
    moved = shifts(runs, keys)
    tokens = _tokens_differ(runs)
    in_tokens = {(s.key, s.run): s for s in shifts(runs, keys, unit="tokens")} if tokens else {}
    effects_tokens = effects(runs, design, keys, unit="tokens")[0] if tokens else []
    return {
        "format": FORMAT,
        "false_discovery_rate": RATE,
        "runs": [_run(run, design, index) for index, run in enumerate(runs)],
        "differences": [
            {"key": d.key, "label": d.label, "kind": d.kind, "values": list(d.values)} for d in design.differences
        ],
        "factors": [
            {"label": f.label, "keys": list(f.keys), "levels": list(f.levels), "level": list(f.level)}
            for f in design.factors
        ],
        "groups": [
            {"label": design.group_label(n), "runs": [runs[i].name for i in group]}
            for n, group in enumerate(design.groups)
        ],
        "story": _story(design, found, moved, titles, runs),
        "remarks": _remarks(runs, design, additive, tokens),
        "circuits": [
            {
                "key": key,
                "title": titles[key],
                "onsets": {run.name: _onset(run, key) for run in runs},
                "spread": _spread(apart.get(key)),
                "shifts": [_shift(s, in_tokens.get((s.key, s.run))) for s in moved if s.key == key],
            }
            for key in keys
        ],
        "effects": [_effect(e, titles) for e in found],
        "effects_tokens": [_effect(e, titles) for e in effects_tokens],
        "identity": list(identity),
        "features": list(features),
        "next": _next(design, found, list(apart.values()), titles),
    }


def _run(run: ComparedRun, design: Design, index: int) -> dict[str, Any]:
    return {
        "run": run.name,
        "description": run.config.get("description", ""),
        "counts": dict(run.counts),
        "steps": [int(run.steps[0]), int(run.steps[-1])] if len(run.steps) else [],
        "group": next(n for n, group in enumerate(design.groups) if index in group),
    }


def _onset(run: ComparedRun, key: str) -> dict[str, Any] | None:
    finding = run.findings.get(key)
    if finding is None:
        return None
    e, known = finding.emergence, run.known(key)
    return {
        "state": e.state,
        "onset": None if e.onset is None else e.onset.to_json(),
        "onset_range": None if e.onset_range is None else e.onset_range.to_json(),
        "onset_tokens": None if e.onset_tokens is None else list(e.onset_tokens),
        "log2_steps": None if known is None else [_finite(known.low), _finite(known.high)],
        "fragile": None if finding.holds is None else finding.holds < FRAGILE,
        "reason": e.reason,
    }


def _spread(spread: Spread | None) -> dict[str, Any] | None:
    if spread is None:
        return None
    return {
        "group_means": [_finite(m) for m in spread.mean],
        "seeds": _finite(spread.seeds),
        "measuring": _finite(spread.measuring),
        "freedom": spread.freedom,
    }


def _shift(shift: Shift, tokens: Shift | None) -> dict[str, Any]:
    return {
        "run": shift.run,
        "against": shift.against,
        "log2_steps": {"least": _finite(shift.between[0]), "most": _finite(shift.between[1])},
        "interval": [_finite(end) for end in shift.interval],
        "interval_tokens": None if tokens is None else [_finite(end) for end in tokens.interval],
        "paired": shift.paired,
        "earlier": round(shift.earlier, 6),
        "later": round(shift.later, 6),
        "verdict": shift.verdict,
    }


def _effect(effect: Effect, titles: Mapping[str, str]) -> dict[str, Any]:
    return {
        "key": effect.key,
        "title": titles[effect.key],
        "contrast": effect.contrast,
        "factors": list(effect.factors),
        "estimate": _finite(effect.estimate),
        "interval": None if math.isnan(effect.low) else [_finite(effect.low), _finite(effect.high)],
        "p_value": _finite(effect.p_value),
        "freedom": effect.freedom,
        "emerged": [list(pair) for pair in effect.emerged],
        "verdict": effect.verdict,
        "reason": effect.reason,
    }


def _next(
    design: Design, found: Sequence[Effect], apart: Sequence[Spread], titles: Mapping[str, str]
) -> dict[str, Any]:
    p = plan(design, found, apart, titles)
    return {
        "key": p.key,
        "contrast": p.contrast,
        "text": list(p.text),
        "seeds_now": p.seeds_now,
        "seeds_narrow": p.seeds_narrow,
        "seeds_power": p.seeds_power,
        "seeds_power_cautious": p.seeds_power_cautious,
    }


def _tokens_differ(runs: Sequence[ComparedRun]) -> bool:
    """Whether tokens are known and say something else than steps: at a step that two runs share they have not seen the same number.

    Where two runs share no step, tokens between checkpoints are interpolated. Counts within a thousandth are the same.
    """
    for run in runs:
        if not (len(run.tokens) and np.isfinite(run.tokens).all() and (run.steps > 0).any()):
            return False
    first, *others = runs
    return any(not _same_tokens(first, other) for other in others)


def _same_tokens(one: ComparedRun, other: ComparedRun) -> bool:
    steps = np.intersect1d(one.steps, other.steps)
    steps = steps[steps > 0]
    if not len(steps):
        steps = np.union1d(one.steps, other.steps)
        inside = (steps >= max(one.steps.min(), other.steps.min())) & (steps <= min(one.steps.max(), other.steps.max()))
        steps = steps[inside & (steps > 0)]
    if not len(steps):  # nothing in common: by tokens in a step
        x, y = (float(run.tokens[run.steps.argmax()] / run.steps.max()) for run in (one, other))
        return math.isclose(x, y, rel_tol=_SAME)
    orders = [np.argsort(run.steps) for run in (one, other)]
    a, b = (np.interp(steps, r.steps[o], r.tokens[o]) for r, o in zip((one, other), orders, strict=True))
    return bool(np.allclose(a, b, rtol=_SAME, atol=0.0))


def _remarks(runs: Sequence[ComparedRun], design: Design, additive: bool, tokens: bool) -> list[str]:
    said = []
    if design.factors and not design.repeated:
        said.append(SEED_NOISE_UNKNOWN[:1].upper() + SEED_NOISE_UNKNOWN[1:] + ".")
    if additive:
        said.append(
            "Not all combinations of levels are there: factors are taken to add up, and interactions cannot be told."
        )
    for factor in design.factors:
        if len(factor.keys) > 1:
            said.append(f"These always change together, so that they count as one choice: {listed(list(factor.keys))}.")
    if design.factors and not all(design.training[run] == run for run in range(len(runs))):
        copies = [
            f"{r.name} (as {runs[t].name})" for r, t in zip(runs, design.training, strict=True) if runs[t] is not r
        ]
        shown = copies if len(copies) < 4 else [*copies[:3], f"{len(copies) - 3} more"]
        said.append(
            f"Runs of the same choices that differ in no seed count as one training: {listed(shown)}. Where they are trainings of "
            "their own, name a key in which these differ (--repeats series.path)."
        )
    if reading := [d for d in design.differences if d.kind == "reading"]:
        said.append(
            f"The runs differ in where their series lies or how it is read: {listed([d.label for d in reading])}. Whether other choices "
            "about training lie behind that, their configurations do not say."
        )
    if measuring := [d for d in design.differences if d.kind == "measuring"]:
        parts = [f"{d.label} ({', '.join(dict.fromkeys(d.values))})" for d in measuring[:4]]
        more = f" and {len(measuring) - 4} more" if len(measuring) > 4 else ""
        said.append(f"The runs were not measured alike: {listed(parts)}{more}. An onset may lie apart for that reason.")
    asked = [run.prompts for run in runs]
    common = set(asked[0]).intersection(*asked[1:])
    if other := sorted(probe for probe in common if len({prompts[probe] for prompts in asked}) > 1):
        said.append(
            f"Prompts are not the same ones in all runs, of: {', '.join(other)}. Draws are taken as independent there."
        )
    if not all(asked):
        said.append(
            "Of some runs the prompts are not known, as they have no trace here: draws are taken as independent."
        )
    incomplete = [run.name for run in runs if run.counts.get("complete", 0) < sum(run.counts.values())]
    if incomplete:
        shown = incomplete if len(incomplete) < 5 else [*incomplete[:4], f"{len(incomplete) - 4} more"]
        said.append(f"Not every checkpoint is complete in: {listed(shown)}.")
    if tokens:
        said.append("Steps hold different numbers of tokens in these runs: shifts and effects are given in both.")
    return said


def _story(
    design: Design,
    found: Sequence[Effect],
    moved: Sequence[Shift],
    titles: Mapping[str, str],
    runs: Sequence[ComparedRun],
) -> list[str]:
    if not design.factors:
        return [f"{_alike(design)}: there is no choice about training whose effect could be asked for."]
    if found:
        return _story_of_effects(found, titles)
    said = []
    for run in runs[1:]:
        mine = [s for s in moved if s.run == run.name]
        called = [s for s in mine if s.verdict != "cannot be told"]
        parts = [f"{titles[s.key]} {s.verdict} ({_between(*s.interval)})" for s in called]
        if parts:
            said.append(
                f"{run.name} against {runs[0].name}: {listed(parts)}; of {len(mine) - len(called)} others the order is open."
            )
        elif mine:
            said.append(f"{run.name} against {runs[0].name}: none of {len(mine)} onsets can be told apart.")
    return said


def _alike(design: Design) -> str:
    """How runs of equal choices differ."""
    kinds = {d.kind for d in design.differences}
    if not kinds:
        return "The configurations of these runs do not differ"
    if "seed" not in kinds:
        return "These runs differ in no seed, and only in where their series lies and in how it was read and measured"
    repeats = listed([d.label for d in design.differences if d.kind == "seed"])
    more = ", and in where their series lie or how they were read and measured" if len(kinds) > 1 else " alone"
    return f"{len(design.runs)} runs that differ in their {repeats}{more}"


def _story_of_effects(found: Sequence[Effect], titles: Mapping[str, str]) -> list[str]:
    said = []
    for contrast in dict.fromkeys(e.contrast for e in found):
        mine = [e for e in found if e.contrast == contrast]
        called = sorted((e for e in mine if e.verdict != "cannot be told"), key=lambda e: -abs(e.estimate))
        within = [e for e in mine if e.verdict == "cannot be told" and max(abs(e.low), abs(e.high)) <= 0.5]
        open_ones = len(mine) - len(called) - len(within)
        main = len(mine[0].factors) == 1
        parts = [f"{titles[e.key]} {e.verdict} by {times(e.estimate)} ({_between(e.low, e.high)})" for e in called]
        if not main and not parts:
            continue
        text = listed(parts) if parts else "no onset was moved that these runs can tell"
        if not main:
            text = "it matters also what the other is: " + text
        rest = []
        if within:
            rest.append(f"{len(within)} moved by no more than a factor of 1.4, if at all")
        if open_ones:
            rest.append(f"{open_ones} cannot be told")
        said.append(f"{contrast}: {text}{'; ' + listed(rest) if rest else ''}.")
    return said


def times(shift: float) -> str:
    """A shift in log2 as a factor.

    >>> times(1.0), times(-1.0), times(float("inf"))
    ('a factor of 2.0', 'a factor of 2.0', 'an unknown factor')
    """
    return f"a factor of {2 ** abs(shift):.1f}" if math.isfinite(shift) else "an unknown factor"


def _between(low: float, high: float) -> str:
    """An interval in log2 as text.

    >>> _between(0.5, float("inf"))
    '+0.50 or more log2 steps'
    """
    if math.isfinite(low) and math.isfinite(high):
        return f"{low:+.2f} to {high:+.2f} log2 steps"
    if math.isfinite(low):
        return f"{low:+.2f} or more log2 steps"
    return f"{high:+.2f} or less log2 steps" if math.isfinite(high) else "open on both sides"


def _finite(value: float) -> float | None:
    return round(float(value), 6) if math.isfinite(value) else None
