"""Your own analysis on a trace: does the model become sure of its answers before they become right?

    python examples/custom_analysis_on_a_trace.py traces/organism.zarr

Needs no weights, no GPU and no torch: a trace is labelled data.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import dynamics
from dynamics.emergence import assess, shuffled_match_null, unit_bootstrap


def confidence_and_accuracy(path: Path) -> list[tuple[int, float, float]]:
    """(step, mean probability of the first choice's answer, accuracy) of the ones digit of sums."""
    sums = dynamics.open_trace(path)["addition_sums"].to_dataset()
    ones = sums.sel(prompt=(sums.digit == "ones").values)
    accuracy = (ones.predicted == ones.answer_id).mean("prompt")
    certainty = np.exp(-ones.entropy).mean("prompt")
    return [(int(s), float(c), float(a)) for s, c, a in zip(ones.step, certainty, accuracy, strict=True)]


def onset_of_certainty(path: Path) -> str:
    """When the ones digit is answered, by the project's own definition of emergence."""
    trace = dynamics.Trace(path)
    rows = trace.label("addition_sums", "digit") == "ones"
    predicted = trace.values("addition_sums", "predicted")[:, rows]
    answers = trace.probe("addition_sums")["answer_id"].values[rows]
    hits = np.where(predicted >= 0, predicted == answers, np.nan)
    found = assess(
        trace.steps,
        hits.mean(axis=1),
        draws=unit_bootstrap(hits),
        null=shuffled_match_null(np.where(predicted >= 0, predicted, np.nan), answers),
        null_name="answers of other sums",
        limits=(0.0, 1.0),
    )
    return f"{found.state}, onset {found.onset}, 95% {found.onset_range}"


if __name__ == "__main__":
    trace = Path(sys.argv[1] if len(sys.argv) > 1 else "traces/organism.zarr")
    print(f"{'step':>6}  {'exp(-entropy)':>13}  {'accuracy':>8}")
    for step, certainty, accuracy in confidence_and_accuracy(trace):
        print(f"{step:>6}  {certainty:>13.2f}  {accuracy:>8.2f}")
    print("ones digit:", onset_of_certainty(trace))
