"""Do contexts use the same parts? On edge scores whose truth is known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pytest

from analyses.addition.causal import _exchanged, _same_parts
from analyses.addition.pairs import CONTEXTS, DONORS, EXCHANGE, exchange_probe, pair_probe_name
from analyses.addition.prompts import ORGANISM
from checkpoints.organism import build_tokenizer
from dynamics.analysis import Section, Summary
from dynamics.circuits.graph import Graph
from dynamics.probes import tokenize
from dynamics.store import Trace

GRAPH = Graph(3, 4, 4, True)
EDGES = GRAPH.edges
STEPS = np.array([0, 1, 2, 4, 8, 16])


class Made:
    """What the overlap reads of a trace."""

    def __init__(self, scores: dict[str, np.ndarray], steps: np.ndarray = STEPS) -> None:
        self.steps, self.tokens, self._scores = steps, None, scores

    def each(self, probe: str, variable: str) -> Iterator[tuple[int, np.ndarray]]:
        for index, score in enumerate(self._scores[probe]):
            kept = np.where(EDGES, np.abs(score[0]) > 3, -1)
            yield index, np.where(EDGES, score, np.nan) if variable == "edge_score" else kept


def made(shared: bool, rng: np.random.Generator, *, start: bool = False) -> dict[str, np.ndarray]:
    """Noise, in which from step 2 on eight edges stand out: the same in all contexts or others in each.

    With ``start`` edges differ from the start, in all contexts alike, and nothing is learnt.
    """
    where = np.argwhere(EDGES)
    scores = {}
    common = where[rng.permutation(len(where))[:8]]
    always = np.abs(rng.normal(size=EDGES.shape)) ** 3 if start else np.zeros(EDGES.shape)
    for context in CONTEXTS:
        mine = common if shared else where[rng.permutation(len(where))[:8]]
        values = rng.normal(scale=1.5 if start else 0.1, size=(len(STEPS), 2, *EDGES.shape)) + always
        for s, r in mine:
            values[2:, :, s, r] += 20 * (not start)
        scores[pair_probe_name(context)] = values
    return scores


def summary_of(section: Section, trace: Trace) -> Summary:
    return section.summary(trace, analysis="addition", title="", question="")


def found_in(scores: dict[str, np.ndarray], steps: np.ndarray = STEPS) -> Summary:
    trace = cast(Trace, Made(scores, steps))
    return summary_of(_same_parts(trace, list(CONTEXTS)), trace)


def test_shared_circuits_overlap_as_much_as_two_samples_of_one() -> None:
    result = found_in(made(True, np.random.default_rng(0)))
    finding = result.findings[0]
    assert finding.emergence.state == "emerged"
    assert finding.emergence.onset is not None and finding.emergence.onset.by == 2
    ceiling = result.data["same_parts_ceiling"].values
    assert finding.values[-1] == pytest.approx(ceiling[-1], abs=0.02) and ceiling[-1] > 0.7
    assert result.data["same_edges"].values[-1] == 1.0
    assert np.isnan(result.data["same_edges"].values[0])  # no circuit yet
    assert result.data["same_edges_null"].values[-1] < 0.5


def test_circuits_of_other_parts_do_not_overlap_beyond_chance() -> None:
    result = found_in(made(False, np.random.default_rng(0)))
    assert result.findings[0].emergence.state == "not emerged"
    assert result.findings[0].values[-1] < 0.3 < result.data["same_parts_ceiling"].values[-1]
    assert result.data["same_edges"].values[-1] <= 0.2


def test_what_the_untrained_model_shares_is_in_the_null() -> None:
    scores = made(True, np.random.default_rng(0), start=True)
    assert found_in(scores).findings[0].emergence.state == "not emerged"
    late = found_in(scores, STEPS + 100)
    assert late.findings[0].emergence.state == "present from start"  # nobody measured the untrained model
    assert "No untrained model" in late.notes[-1]


def test_a_broken_model_is_not_measurable() -> None:
    scores = {name: values * np.nan for name, values in made(True, np.random.default_rng(0)).items()}
    assert found_in(scores).findings[0].emergence.state == "not measurable"


@pytest.mark.parametrize("carries", [True, False])
def test_a_part_that_carries_the_ones_digit_is_found_and_one_that_only_disturbs_is_not(carries: bool) -> None:
    """From step 4 on the last part moves the answer by 20: to the donor's digit, or away from the own one whatever the
    donor is."""
    import xarray as xr

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
