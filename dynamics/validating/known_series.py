"""Is a circuit that is known found, and dated? Series in which one is faded in, and series without one.

Every series has a model of its own (:mod:`dynamics.validating.known`) at checkpoints evenly spaced in log step. Noise moves from
one draw to another all along. At the planted step the circuit fades in within a fiftieth of a decade, distractors being there
from the start; in a series without a circuit the distractors fade in then instead. The measurements are those of every analysis of a
circuit (``Circuit``, ``SourceEffects``), and so are the curves, their nulls and their onsets
(:func:`dynamics.analysis.circuit.circuit_section`).

- *AUROC*: that a true edge has a larger |EAP-IG score| than another one, at the last checkpoint.
- *F1 at the true size*: of the as many edges with the largest |score| as there are true ones.
- *F1 of the circuit*: of the smallest faithful circuit.
- *Onset*: whether the 95% interval of *done* and of *used* meets the fade, which a checkpoint may lie in. An interval that is
  open at an end dates nothing.
- *Width* of those intervals, in decades of log10(step), the untrained model being half of the first step away from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from scipy.stats import rankdata

from ..analysis.circuit import CircuitTask, circuit_section
from ..emergence import Interval
from ..measurements import Circuit, SourceEffects
from ..measurements.forward import measure

if TYPE_CHECKING:
    from ..store import Trace
    from .known import CircuitKind

__all__ = ["KnownSeries", "known_series"]

LAST_STEP, CHECKPOINTS, PROMPTS, FADE = 10_000, 12, 32, 0.02
PROBE = "known"


@dataclass(frozen=True)
class KnownSeries:
    """What was found in one series.

    Attributes:
        kind: of circuit.
        planted: step from which the circuit fades in; None without one.
        auroc, f1, found_f1: see the module; NaN without a circuit.
        done, used: state and 95% interval of the onset.
        dated: whether the intervals of ``done`` and ``used`` are closed and meet the fade; None without a circuit.
        widths: of the intervals of ``done`` and ``used`` (decades), NaN where one is open or there is none.
    """

    kind: str
    planted: int | None
    auroc: float
    f1: float
    found_f1: float
    done: tuple[str, str]
    used: tuple[str, str]
    dated: tuple[bool, bool] | None
    widths: tuple[float, float] = (np.nan, np.nan)

    @property
    def called(self) -> bool:
        """Whether a circuit is said to be there, or to have been, at any checkpoint."""
        return any(state in ("emerged", "transient", "present from start") for state, _ in (self.done, self.used))


class _Measured:
    """What analyses read of a trace, in memory."""

    def __init__(self, steps: np.ndarray, found: list[dict[str, np.ndarray]], about: Any) -> None:
        self.steps, self.tokens, self.probes = steps, None, [PROBE]
        self._found, self._about = found, about

    def probe(self, name: str) -> Any:
        return self._about

    def each(self, probe: str, variable: str) -> Iterator[tuple[int, np.ndarray]]:
        for index, values in enumerate(self._found):
            yield index, values[variable]

    def values(self, probe: str, variable: str) -> np.ndarray:
        return np.stack([values[variable] for values in self._found])


def known_series(
    count: int, *, seed: int = 0, progress: Callable[[int], None] = lambda done: None
) -> tuple[KnownSeries, ...]:
    """So many series with a circuit, both kinds in turn, and as many without.

    Args:
        count: of series with a circuit.
        seed: of models, prompts and planted steps.
        progress: called with the number of series that are done.
    """
    made = []
    for number in range(2 * count):
        kind: CircuitKind = ("match and copy", "two steps")[number // 2 % 2]
        made.append(_series(kind, number % 2 == 0, 1000 * seed + number))
        progress(number + 1)
    return tuple(made)


def _series(kind: CircuitKind, there: bool, seed: int) -> KnownSeries:
    import xarray as xr

    from .known import known, prompts

    rng = np.random.default_rng(seed)
    model, probe = known(kind, seed), prompts(kind, PROMPTS, seed)
    steps = np.unique(np.concatenate([[0], np.geomspace(10, LAST_STEP, CHECKPOINTS - 1).round()]).astype(np.int64))
    at = float(np.exp(rng.uniform(np.log(30), np.log(2000))))
    found = []
    for step in steps:
        faded = float(np.clip(np.log10(max(step, 1) / at) / FADE, 0, 1))
        strengths = {"circuit": faded, "distractors": 1.0} if there else {"circuit": 0.0, "distractors": faded}
        module = model.at(step / LAST_STEP, **strengths)
        found.append(measure(module, probe, (Circuit(points=8), SourceEffects()), architecture=model.architecture))
    declared = {
        v.name: v for m in (Circuit(points=8), SourceEffects()) for v in m.declare(probe, model.architecture.shape)
    }
    coords = {name: list(values) for v in declared.values() for name, values in v.coords.items()}
    about = xr.Dataset(
        {name: (("checkpoint", *v.dims), np.stack([f[name] for f in found])) for name, v in declared.items()}, coords
    )
    trace = cast("Trace", _Measured(steps, found, about))
    findings = circuit_section(trace, CircuitTask(PROBE, "known")).assessed(trace)
    of = {name: findings[name].emergence for name in ("done", "used")}
    said = {n: (e.state, str(e.onset_range or e.onset) if e.state == "emerged" else "–") for n, e in of.items()}
    if not there:
        return KnownSeries(kind, None, np.nan, np.nan, np.nan, said["done"], said["used"], None)
    scores = np.abs(found[-1]["edge_score"].mean(0))
    possible = np.isfinite(scores)
    score, truth = scores[possible], model.edges[possible]
    top = np.zeros(len(score), dtype=bool)
    top[np.argsort(-score)[: truth.sum()]] = True
    spans = [e.onset_range or e.onset if e.state == "emerged" else None for e in of.values()]
    dated, widths = [meets(span, at, at * 10**FADE) for span in spans], [decades(span, steps) for span in spans]
    kept = found[-1]["edge_kept"][possible] == 1
    figures = _auroc(score, truth), _f1(top, truth), _f1(kept, truth)
    states = said["done"], said["used"]
    return KnownSeries(kind, round(at), *figures, *states, (dated[0], dated[1]), (widths[0], widths[1]))


def meets(span: Interval | None, start: float, end: float) -> bool:
    """Whether an onset is dated, between two measured steps, to where a fade from ``start`` to ``end`` (steps) lies or begins.

    >>> meets(Interval(79, 158), 100, 105), meets(Interval(None, None), 100, 105), meets(Interval(158, 316), 100, 105)
    (True, False, False)
    """
    if span is None or span.after is None or span.by is None:
        return False
    return span.after <= end and start <= span.by


def decades(span: Interval | None, steps: np.ndarray) -> float:
    """log10 of how many times as late the end of an interval of ``steps`` is as its beginning; NaN where one is open.

    Step 0, which has no logarithm, counts as half of the first step after it.
    """
    if span is None or span.after is None or span.by is None:
        return float("nan")
    return float(np.log10(span.by / max(span.after, float(steps[steps > 0].min()) / 2)))


def _auroc(score: np.ndarray, truth: np.ndarray) -> float:
    n = int(truth.sum())
    return float((rankdata(score)[truth].sum() - n * (n + 1) / 2) / (n * (len(score) - n)))


def _f1(chosen: np.ndarray, truth: np.ndarray) -> float:
    return float(2 * (chosen & truth).sum() / (chosen.sum() + truth.sum()))
