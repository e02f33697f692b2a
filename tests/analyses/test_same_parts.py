"""Do contexts use the same parts? On edge scores whose truth is known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pytest
import xarray as xr

from analyses.addition.causal import _exchanged
from analyses.addition.pairs import CONTEXTS, DONORS, EXCHANGE, exchange_probe, pair_probe_name
from analyses.addition.prompts import ORGANISM
from checkpoints.organism import build_tokenizer
from dynamics.analysis import Section, Summary
from dynamics.analysis.shared_circuits import shared_circuits
from dynamics.circuits.graph import Graph
from dynamics.probes import tokenize
from dynamics.store import Trace

GRAPH = Graph(3, 4, 4, True)
EDGES = GRAPH.edges
STEPS = np.array([0, 1, 2, 4, 8, 16])


TASK = "induction_pairs"
SETS = {context: pair_probe_name(context) for context in CONTEXTS}
GROUPS = 8


class Made:
    """What the comparison of circuits reads of a trace."""

    def __init__(self, scores: dict[str, np.ndarray], steps: np.ndarray = STEPS, same: str = "") -> None:
        self.steps, self.tokens, self._scores, self._same = steps, None, scores, same

    @property
    def probes(self) -> tuple[str, ...]:
        return tuple(self._scores)

    def values(self, probe: str, variable: str) -> np.ndarray:
        """Differences of prompts, and of twins, which are another from step 2 on where the model can do the task."""
        can = (np.arange(len(self.steps)) >= 2) & (variable == "clean_difference") & (probe != self._same)
        rng = np.random.default_rng(variable == "clean_difference")
        return 5.0 * can[:, None] + rng.standard_normal((len(self.steps), 20))

    def probe(self, name: str) -> Any:
        parts = {"source": GRAPH.sources, "reader": GRAPH.readers}
        names = {of: (of, [part.name for part in every]) for of, every in parts.items()}
        of_groups = {} if name == TASK else {"edge_score_group": 0}
        return xr.Dataset({"edge_score": 0, "edge_kept": 0, **of_groups}, {"prompt": np.arange(20), **names})

    def each(self, probe: str, variable: str) -> Iterator[tuple[int, np.ndarray]]:
        for index, groups in enumerate(self._scores[probe]):
            if variable == "edge_kept":
                yield index, np.where(EDGES, np.abs(groups.mean(0)) > 3, -1)
            else:
                scores = groups if variable == "edge_score_group" else groups.reshape(2, -1, *EDGES.shape).mean(1)
                yield index, np.where(EDGES, scores, np.nan)


def made(
    common: float, rng: np.random.Generator, *, generic: float = 0.0, unsure: float = 0.0, start: float = 0.0
) -> dict[str, np.ndarray]:
    """Scores (checkpoint, group, source, reader) of three contexts and another task, noise but for what is planted.

    Args:
        common: from step 2 on, on eight edges that all contexts have in common; others have eight each of their own.
        generic: from step 2 on, on eight edges of every set of prompts, the other task's too.
        unsure: from step 2 on, on eight edges of every set of prompts, of random sign in every prompt.
        start: on eight edges of the contexts from step 0 on.
    """
    where = np.argwhere(EDGES)
    chosen = where[rng.permutation(len(where))].reshape(-1)[: 2 * 8 * 8].reshape(8, 8, 2)
    shape = (len(STEPS), GROUPS, *EDGES.shape)
    scores = {}
    for number, name in enumerate((*SETS.values(), TASK)):
        values = rng.normal(scale=0.1, size=shape)
        for (s, r), (x, y), (v, w), (k, m), (a, b) in zip(*chosen[[0, 1, 2, 3 + number, 7]], strict=True):
            values[2:, :, x, y] += generic
            values[2:, :, v, w] += unsure * rng.normal(size=GROUPS)
            values[2:, :, k, m] += 20 if common == 0 or name == TASK else 0
            if name != TASK:
                values[2:, :, s, r] += common
                values[:, :, a, b] += start
        scores[name] = values
    return scores


def summary_of(section: Section, trace: Trace) -> Summary:
    return section.summary(trace, analysis="addition", title="", question="")


def found_in(scores: dict[str, np.ndarray], steps: np.ndarray = STEPS, same: str = "") -> Summary:
    trace = cast(Trace, Made(scores, steps, same))
    section = shared_circuits(trace, SETS, key="same_parts", title="the same parts", what="contexts")
    return summary_of(section, trace)


def test_shared_circuits_share_as_much_as_two_samples_of_one() -> None:
    result = found_in(made(20.0, np.random.default_rng(0)))
    finding = result.findings[0]
    assert finding.emergence.state == "emerged"
    assert finding.emergence.onset is not None and finding.emergence.onset.by == 2
    ceiling = result.data["same_parts_ceiling"].values
    assert finding.values[-1] == pytest.approx(ceiling[-1], abs=0.02) and ceiling[-1] > 0.7
    assert result.data["same_parts_edges"].values[-1] == 1.0
    assert np.isnan(result.data["same_parts_edges"].values[0])  # no circuit yet
    assert result.data["same_parts_edges_null"].values[-1] < 0.5
    without = found_in(made(20.0, np.random.default_rng(0)), same=next(iter(SETS.values())))
    assert np.isnan(without.data["same_parts_edges"].values).all()  # prompts and twins of one set are alike
    assert finding.holds is not None and finding.holds >= 0.9


def test_circuits_of_other_parts_share_nothing() -> None:
    result = found_in(made(0.0, np.random.default_rng(0)))
    assert result.findings[0].emergence.state == "not emerged"
    assert abs(result.findings[0].values[-1]) < 0.1 < 0.7 < result.data["same_parts_ceiling"].values[-1]
    assert result.data["same_parts_edges"].values[-1] <= 0.2


@pytest.mark.parametrize("seed", range(4))
def test_what_any_two_sets_of_prompts_share_is_in_the_null(seed: int) -> None:
    """Edges that every task uses, and edges on which prompts differ as much as they like but in no direction of their own."""
    generic = found_in(made(0.0, np.random.default_rng(seed), generic=20.0))
    assert generic.findings[0].values[-1] > 0.3
    assert generic.findings[0].emergence.state == "not emerged"
    unsure = found_in(made(0.0, np.random.default_rng(seed), unsure=20.0))
    assert unsure.findings[0].emergence.state == "not emerged"


def test_what_is_shared_beyond_any_two_tasks_is_not_in_the_null() -> None:
    both = found_in(made(40.0, np.random.default_rng(1), generic=10.0))
    assert both.findings[0].emergence.state == "emerged"


def test_the_null_says_which_other_tasks_it_is_made_of_and_what_they_cannot_tell() -> None:
    scores = made(20.0, np.random.default_rng(0))
    one = found_in(scores)
    assert one.findings[0].emergence.null == (
        "nothing asked, the most shared with 1 other task (induction_pairs), and what the untrained model shares"
    )
    (definition,) = one.definitions
    assert "may answer with other tokens" in definition.text
    late = found_in(scores | {"agreement": scores[TASK]}, STEPS + 100)
    assert late.findings[0].emergence.null == (
        "nothing asked, and the most shared with 2 other tasks (induction_pairs, agreement)"
    )


def test_without_another_task_nothing_can_be_said() -> None:
    scores = made(20.0, np.random.default_rng(0))
    del scores[TASK]
    (finding,) = found_in(scores).findings
    said = finding.emergence
    assert (said.state, said.reason) == ("not measurable", "no other task in this trace has a circuit to compare with")
    assert list(found_in(scores).notes) == [
        "the same parts: not measurable: no other task in this trace has a circuit to compare with."
    ]


def test_what_the_untrained_model_shares_is_in_the_null() -> None:
    scores = made(0.0, np.random.default_rng(0), start=20.0)
    assert found_in(scores).findings[0].emergence.state == "not emerged"
    late = found_in(scores, STEPS + 100)
    assert late.findings[0].emergence.state == "present from start"  # nobody measured the untrained model
    assert "No untrained model" in late.notes[-1]


def test_a_broken_model_is_not_measurable() -> None:
    scores = {name: values * np.nan for name, values in made(20.0, np.random.default_rng(0)).items()}
    assert found_in(scores).findings[0].emergence.state == "not measurable"


@pytest.mark.parametrize("carries", [True, False])
def test_a_part_that_carries_the_ones_digit_is_found_and_one_that_only_disturbs_is_not(carries: bool) -> None:
    """From step 4 on the last part moves the answer by 20: to the donor's digit, or away from the own one whatever the
    donor is."""
    tokenizer = build_tokenizer()
    probe = tokenize(exchange_probe(ORGANISM, 20, 0), tokenizer)
    assert probe.answer_ids is not None
    n, sources = len(probe.ids), len(GRAPH.sources) - 1
    rng = np.random.default_rng(0)
    moved = rng.normal(size=(len(STEPS), len(DONORS), 1, n, sources))
    said = np.broadcast_to(probe.answer_ids[:, None], moved.shape).copy()
    moved[3:, :, :, :, -1] += 20
    if carries:
        moved[3:, DONORS.index("same"), :, :, -1] -= 20
        for donor in ("own", "other"):
            target = np.array(probe.probe.labels[f"{donor}_target"])
            said[3:, DONORS.index(donor), 0, :, -1] = probe.answer_ids[target]
    values = {"interchange_source": moved, "interchange_source_said": said, "interchange_layer": moved[..., :3], "interchange_layer_said": said[..., :3]}  # fmt: skip

    class Exchanged:
        steps, tokens = STEPS, None

        def values(self, _probe: str, name: str) -> np.ndarray:
            return values[name].copy()

        def label(self, _probe: str, name: str) -> np.ndarray:
            return np.array(probe.probe.labels[name])

        def probe(self, name: str) -> Any:
            assert name == EXCHANGE
            names = [s.name for s in GRAPH.sources[1:]]
            return xr.Dataset(coords={"answer_id": ("prompt", probe.answer_ids), "source": names})

    trace = cast(Trace, Exchanged())
    result = summary_of(_exchanged(trace), trace)
    states = {f.key: f.emergence for f in result.findings}
    for key in ("exchange", "exchange_said", "exchange_own"):
        state = states[f"addition.{key}"]
        assert state.state == ("emerged" if carries else "not emerged"), key
        if carries:
            assert state.onset is not None and state.onset.by == 4
    assert "L2M" in result.notes[0]
