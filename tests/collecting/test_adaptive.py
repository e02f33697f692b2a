"""Looking where it pays: the onsets of all checkpoints are found by visiting a few."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.special import expit

import dynamics
from checkpoints import FolderConfig, UserError
from dynamics.analysis import CurveSpec, Finding, Null, from_units
from dynamics.collecting.adaptive import next_checkpoints, onset_gaps
from dynamics.collecting.estimating import estimate
from dynamics.runs.config import AnalysisEntry, ProbeEntry, Run
from dynamics.runs.schedule import scheduled
from dynamics.store import Trace

STEPS = np.array([0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, *range(1000, 144000, 1000)])
UNITS = 300
TRACE: Any = SimpleNamespace(steps=STEPS, tokens=None)


@pytest.fixture
def _onsets_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search asks a curve for its onset, and not for what other definitions say of it."""
    monkeypatch.setattr("dynamics.analysis.curves.definitions", lambda *_, **__: {})


def curve(midpoint: float, seed: int, *, top: float = 0.9, width: float = 0.05) -> np.ndarray:
    """(checkpoint, unit) right or wrong: chance is 0.1, and the rise takes some ten times ``width`` decades."""
    x = np.log10(STEPS + 1)
    rate = 0.1 + (top - 0.1) * expit((x - np.log10(midpoint + 1)) / width)
    draws = np.random.default_rng(seed).random(UNITS)
    return (draws[None] < rate[:, None]).astype(float)


def finding(units: np.ndarray, visited: set[int], name: str) -> Finding:
    seen = np.array([i in visited for i in range(len(STEPS))])
    null = np.random.default_rng(1).binomial(UNITS, 0.1, size=(len(STEPS), 200)) / UNITS
    return from_units(
        name,
        name,
        np.where(seen[:, None], units, np.nan),
        Null(np.where(seen[:, None], null, np.nan), "chance"),
        CurveSpec("accuracy", "prompts"),
    ).assessed(TRACE)


def rounds(curves: dict[str, np.ndarray], coarse: int = 10) -> tuple[set[int], list[Finding]]:
    visited = set(scheduled(STEPS.tolist(), "log", coarse))
    for _ in range(40):
        found = [finding(units, visited, name) for name, units in curves.items()]
        wanted = next_checkpoints(found, visited, range(len(STEPS)))
        if not wanted:
            return visited, found
        assert not visited & {w.index for w in wanted}
        visited |= {w.index for w in wanted}
    raise AssertionError("it does not end")


def few_and_all(curves: dict[str, np.ndarray]) -> tuple[set[int], list[Finding], list[Finding]]:
    """What was visited, its findings, and those of all checkpoints."""
    visited, found = rounds(curves)
    everything = set(range(len(STEPS)))
    return visited, found, [finding(units, everything, name) for name, units in curves.items()]


@pytest.mark.slow
@pytest.mark.usefixtures("_onsets_alone")
@pytest.mark.parametrize("seed", range(4))
def test_a_quarter_of_the_checkpoints_gives_exactly_the_onsets_of_all_where_curves_jump(seed: int) -> None:
    """Slower rises hover at their bound for some checkpoints, and are exact less often (benchmarks/adaptive.py)."""
    places = 10 ** np.random.default_rng(seed).uniform(2.5, 5, size=4)
    curves = {f"jump {i}": curve(place, 4 * seed + i, width=0.004) for i, place in enumerate(places)}
    visited, found, dense = few_and_all(curves)
    assert [str(f.emergence.onset) for f in found] == [str(f.emergence.onset) for f in dense]
    assert all(f.emergence.state == "emerged" for f in dense)
    assert len(visited) <= 0.25 * len(STEPS)


@pytest.mark.slow
@pytest.mark.usefixtures("_onsets_alone")
def test_a_quarter_of_the_checkpoints_gives_the_onsets_of_all_up_to_one_checkpoint() -> None:
    curves = {"early": curve(900, 0), "late": curve(30_000, 1), "with late": curve(33_000, 2), "end": curve(90_000, 3)}
    visited, found, dense = few_and_all(curves)
    for few, every in zip(found, dense, strict=True):
        assert few.emergence.onset is not None and every.emergence.onset is not None
        places = [STEPS.tolist().index(f.emergence.onset.by) for f in (few, every)]  # type: ignore[union-attr,arg-type]
        assert abs(places[0] - places[1]) <= 1
    assert len(visited) <= 0.25 * len(STEPS)


def test_what_never_emerges_asks_for_nothing() -> None:
    flat = curve(900, 0, top=0.1)
    coarse = set(scheduled(STEPS.tolist(), "log", 10))
    assert next_checkpoints([finding(flat, coarse, "flat")], coarse, range(len(STEPS))) == []


def test_one_checkpoint_can_serve_two_curves_and_says_so() -> None:
    coarse = set(scheduled(STEPS.tolist(), "log", 6))
    both = [finding(curve(30_000, 0), coarse, "a"), finding(curve(31_000, 1), coarse, "b")]
    best = next_checkpoints(both, coarse, range(len(STEPS)))[0]
    assert set(best.reasons) == {"a", "b"}


def test_checkpoints_that_cannot_be_used_are_not_asked_for() -> None:
    coarse = set(scheduled(STEPS.tolist(), "log", 6))
    usable = [i for i in range(len(STEPS)) if i % 2]
    wanted = next_checkpoints([finding(curve(30_000, 0), coarse, "a")], coarse, usable)
    assert wanted
    assert all(w.index in usable for w in wanted)


def test_probabilities_of_the_gaps_add_up() -> None:
    everything = set(range(len(STEPS)))
    gaps = onset_gaps(finding(curve(30_000, 0), everything, "a"))
    total = sum(weight for *_, weight in gaps)
    assert total == pytest.approx(1, abs=0.05)
    before, at, _ = max(gaps, key=lambda gap: gap[2])
    assert STEPS[before] < 40_000 and STEPS[at] > 10_000


def run(series: Path, **changes: object) -> Run:
    return Run(
        series=FolderConfig(path=series),
        analyses=(AnalysisEntry(name="induction", options={"prompts": 8, "period": 4, "pairs": 20}),),
        schedule="adaptive",
        checkpoints=3,
    ).model_copy(update=changes)


def test_an_adaptive_collection_begins_coarse_and_says_what_it_left_out(tiny_series: Path, tmp_path: Path) -> None:
    done = dynamics.collect("few", run=run(tiny_series), traces=tmp_path)
    trace = Trace(done.trace)
    assert trace.complete.sum() >= 3
    for state, reason in zip(trace.status, trace.reasons, strict=True):
        assert state == "complete" or (state == "pending" and "not visited" in reason)
    again = dynamics.collect("few", run=run(tiny_series), traces=tmp_path)
    assert again.collected == []
    dense = dynamics.collect("few", run=run(tiny_series, schedule="dense"), traces=tmp_path)
    assert len(dense.collected) == len(trace.steps) - trace.complete.sum()
    assert Trace(done.trace).reasons == [""] * len(trace.steps)


def test_rounds_are_visited_until_the_budget_is_spent(
    tiny_series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tiny organism learns nothing, so that a planted curve says what to look for."""
    import dynamics.collecting.rounds as module
    from dynamics.collecting.adaptive import Wanted

    def planted(findings: list[Finding], visited: list[int], usable: list[int]) -> list[Wanted]:
        return [Wanted(i, ("induction.planted",)) for i in usable if i not in visited][:1]

    monkeypatch.setattr(module, "next_checkpoints", planted)
    done = dynamics.collect("spent", run=run(tiny_series, budget=5), traces=tmp_path)
    assert Trace(done.trace).complete.sum() == 5
    state = dynamics.status("spent", run=run(tiny_series, budget=5), traces=tmp_path)
    assert len(state.rounds) == 2
    assert all(keys == ["induction.planted"] for purposes in state.rounds for keys in purposes.values())


def test_without_analyses_there_is_nothing_to_narrow(tiny_series: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "p.jsonl"
    prompts.write_text('{"text": "1+1=", "answer": "0"}\n')
    aimless = run(tiny_series, analyses=(), probes={"p": ProbeEntry(file=prompts)})
    for verb in (dynamics.collect, estimate):
        with pytest.raises(UserError, match="cannot be collected adaptively"):
            verb("x", run=aimless, traces=tmp_path)


def test_the_first_checkpoints_are_no_more_than_the_budget(tiny_series: Path, tmp_path: Path) -> None:
    few = run(tiny_series, checkpoints=None, budget=4)
    guess = estimate("few", run=few, traces=tmp_path)
    assert (guess.checkpoints, guess.todo) == (4, 4) and guess.first is not None and guess.first <= 4
    done = dynamics.collect("few", run=few, traces=tmp_path)
    assert len(done.collected) <= 4
    assert estimate("few", run=few, traces=tmp_path).todo == 4 - len(done.collected)
    spent = dynamics.collect("few", run=run(tiny_series, schedule="dense"), traces=tmp_path)
    guess = estimate("few", run=few, traces=tmp_path)
    assert (guess.checkpoints, guess.todo) == (len(Trace(spent.trace).steps), 0)
