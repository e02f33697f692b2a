"""Runs above a threshold: the vectorised pass against the rule written out for one curve."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamics.emergence.runs import CODES, NONE, scan

SYMBOLS = st.sampled_from("^-_ ")  # above, not above but not clearly below, clearly below, not valid
CURVES = st.integers(0, 12).flatmap(
    lambda n: st.lists(st.lists(SYMBOLS, min_size=n, max_size=n).map("".join), min_size=1, max_size=6)
)


def arrays(curves: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    table = np.array([list(curve) for curve in curves], dtype="<U1").reshape(len(curves), -1)
    return table == "^", table == "_", table != " "


def the_rule(curve: str) -> tuple[str, int, int, int, int, int]:
    """state, episodes, before, start, stop, after: cut out the invalid, cut into runs, choose one."""
    valid = [c for c, symbol in enumerate(curve) if symbol != " "]
    marks = [curve[c] for c in valid]
    runs: list[tuple[int, int, bool]] = []
    i = 0
    while i < len(marks):
        if marks[i] != "^":
            i += 1
            continue
        stop = j = i
        while True:
            if j + 1 == len(marks):
                lasts = True
                break
            if marks[j + 1] == "^":
                stop = j = j + 1
            elif marks[j + 1] == "_" or marks[j] != "^":
                lasts = False
                break
            else:
                j += 1
        runs.append((i, stop, lasts))
        i = j + 1
    if not runs:
        state = "not emerged" if len(valid) > 1 else "not measurable"
        return state, 0, valid[-1] if valid else NONE, len(curve), NONE, NONE
    if runs[-1][2]:
        start, stop, _ = runs[-1]
        state, after = "emerged" if start else "present from start", NONE
    else:
        start, stop, _ = max(runs, key=lambda run: (run[1] - run[0], -run[0]))
        state, after = "transient", valid[stop + 1]
    if len(valid) < 2:
        state = "not measurable"
    return state, len(runs), valid[start - 1] if start else NONE, valid[start], valid[stop], after


@given(CURVES)
@settings(database=None, deadline=None, max_examples=400)
def test_the_pass_over_all_curves_follows_the_rule_for_each(curves: list[str]) -> None:
    runs = scan(*arrays(curves))
    for row, curve in enumerate(curves):
        found = (
            CODES[runs.state[row]],
            *(int(a[row]) for a in (runs.episodes, runs.before, runs.start, runs.stop, runs.after)),
        )
        assert found == the_rule(curve), curve


@pytest.mark.parametrize(
    ("curve", "state", "start"),
    [
        ("__^^^^", "emerged", 2),
        ("__^-^^", "emerged", 2),  # a lone dip within the noise
        ("__^_^^", "emerged", 4),  # a lone dip beyond the noise
        ("__^--^", "emerged", 5),  # two dips in a row
        ("__^- -", "transient", 2),  # in a row = among valid checkpoints
        ("__^^^-", "emerged", 2),
        ("__^^^_", "transient", 2),
        ("^^^^^^", "present from start", 0),
        ("^_^^^^", "emerged", 2),
        ("_^_^^_", "transient", 3),  # the longest
        ("_^^_^^_", "transient", 1),  # the first of equals
        ("__--__", "not emerged", 6),
        (" ^    ", "not measurable", 1),
    ],
)
def test_states_and_starts_of_written_out_curves(curve: str, state: str, start: int) -> None:
    runs = scan(*arrays([curve]))
    assert (CODES[runs.state[0]], runs.start[0]) == (state, start)


def test_arrays_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected one \(curve, checkpoint\)"):
        scan(np.ones((2, 3)), np.ones((2, 3)), np.ones((2, 2)))
