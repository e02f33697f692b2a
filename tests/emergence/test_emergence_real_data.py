"""Emergence in published evaluations: LAMBADA in the Pythia suite (EleutherAI/pythia, Apache-2.0)."""

from __future__ import annotations

import csv
import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from dynamics.emergence import Emergence, Interval, assess

QUESTIONS = 5153  # LAMBADA's test set

DATA = Path(os.environ.get("CIRCUIT_DYNAMICS_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
FILE = DATA / "pythia_evals.csv.gz"

pytestmark = pytest.mark.skipif(not FILE.exists(), reason=f"no published evaluations at {FILE} (CIRCUIT_DYNAMICS_DATA)")


@pytest.fixture(scope="module")
def findings() -> dict[str, Emergence]:
    """LAMBADA accuracy of every model, against the untrained model's rate.

    Only totals are published, so that draws are binomial. The untrained model is right in none of 5153; its rate is
    taken as Jeffreys' estimate, half an answer.
    """
    curves: dict[str, dict[int, float]] = {}
    with gzip.open(FILE, "rt") as lines:
        for row in csv.DictReader(lines):
            if row["task"] == "lambada_openai" and row["metric"] == "acc":
                curves.setdefault(row["model"], {})[int(row["step"])] = float(row["value"])
    rng = np.random.default_rng(0)
    found = {}
    for model, curve in curves.items():
        steps = sorted(curve)
        accuracy = np.array([curve[step] for step in steps])
        untrained = (accuracy[0] * QUESTIONS + 0.5) / (QUESTIONS + 1)
        found[model] = assess(
            steps,
            accuracy,
            draws=rng.binomial(QUESTIONS, accuracy[:, None], size=(len(steps), 200)) / QUESTIONS,
            null=rng.binomial(QUESTIONS, untrained, size=(len(steps), 1000)) / QUESTIONS,
            null_name="untrained model",
        )
    return found


def test_lambada_emerges_between_512_and_1000_at_every_size(findings: dict[str, Emergence]) -> None:
    assert len(findings) >= 10
    events = {model: (result.state, result.onset) for model, result in findings.items()}
    assert events == dict.fromkeys(findings, ("emerged", Interval(512, 1000)))


def test_lambada_onset_is_no_more_than_one_checkpoint_unsure(findings: dict[str, Emergence]) -> None:
    for model, result in findings.items():
        assert Interval(256, 1000).covers(result.onset_range), model
        assert result.confidence > 0.99, model
    # 1b-deduped is the one that answers two questions at step 512, where all others answer none.
    unsure = [model for model, result in findings.items() if result.onset_range != Interval(512, 1000)]
    assert unsure == ["pythia-1b-deduped"]


def test_the_smallest_models_fall_after_their_peak(findings: dict[str, Emergence]) -> None:
    for model in ("pythia-70m", "pythia-160m"):
        result = findings[model]
        assert result.peak - result.final > 0.05, model
        assert result.episodes == 1


def test_the_smallest_models_are_reported_as_falling(findings: dict[str, Emergence]) -> None:
    for model in ("pythia-70m", "pythia-160m"):
        result = findings[model]
        assert result.fall == pytest.approx(result.peak - result.final), model
    assert findings["pythia-12b"].fall is None
